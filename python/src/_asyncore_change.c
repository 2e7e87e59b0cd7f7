/* _asyncore_change.c: what a channel's attributes mean to the loop, and to a read, when they are set.
 *
 * tp_setattro of the base of all channels. Names are interned, so that their addresses tell them apart; one that is not
 * may be any of them. */
#include "_asyncore.h"

enum change {
    CHANGE_NONE,
    CHANGE_TERMINATOR,
    CHANGE_HANDLER, /* what async_chat calls with input */
    CHANGE_TRAIT,   /* what is known of it */
    CHANGE_STATE,   /* and what it wants may be another */
    CHANGE_CLASS,   /* so may how to ask it */
    CHANGE_PLACE    /* it may not be found by these attributes any more */
};

/* By the address of the name, which is interned. Every attribute that a handler sets is looked up here. */
#define CHANGES 128 /* a power of two */
static struct {
    PyObject *name;
    enum change change;
} changes[CHANGES];

static size_t change_at(const PyObject *name)
{
    size_t at = (uintptr_t)name >> 4 & (CHANGES - 1);
    while (changes[at].name != NULL && changes[at].name != name)
        at = (at + 1) & (CHANGES - 1);
    return at;
}

static void change_is(PyObject *name, enum change change)
{
    size_t at = change_at(name);
    changes[at].name = name;
    changes[at].change = change;
}

void changes_open(void)
{
    PyObject *const handlers[] = {S.name.collect_incoming_data, S.name.found_terminator, S.name.get_terminator};
    PyObject *const traits[] = {
        S.name._asyncore_idle, S.name._asyncore_marks,  S.name.send, S.name.debug, S.name.initiate_send,
        S.name.handle_read,    S.name.handle_read_event};
    PyObject *const states[] = {S.name.connected,     S.name.accepting,         S.name.out_buffer,
                                S.name.producer_fifo, S.name._asyncore_resting, S.name._asyncore_stopped};
    PyObject *const classes[] = {S.name.readable, S.name.writable, S.name._asyncore_tls};
    PyObject *const places[] = {S.name._map, S.name._fileno, S.name.__class__, S.name.__dict__};
    memset(changes, 0, sizeof changes);
    change_is(S.name.terminator, CHANGE_TERMINATOR);
#define CHANGES_ARE(names, change)                                                                                     \
    for (size_t i = 0; i < sizeof(names) / sizeof *(names); i++)                                                       \
    change_is((names)[i], change)
    CHANGES_ARE(handlers, CHANGE_HANDLER);
    CHANGES_ARE(traits, CHANGE_TRAIT);
    CHANGES_ARE(states, CHANGE_STATE);
    CHANGES_ARE(classes, CHANGE_CLASS);
    CHANGES_ARE(places, CHANGE_PLACE);
}

static enum change change_of(PyObject *name)
{
    if (!PyUnicode_Check(name) || !PyUnicode_CHECK_INTERNED(name)) { /* it may be any of them */
        S.terminators++;
        S.handlers++;
        return CHANGE_PLACE;
    }
    enum change change = changes[change_at(name)].change;
    if (change == CHANGE_TERMINATOR)
        S.terminators++;
    else if (change == CHANGE_HANDLER)
        S.handlers++;
    else if (name == S.name.__dict__)
        S.inputs++, S.handlers++, S.terminators++;
    return change > CHANGE_HANDLER ? change : CHANGE_NONE;
}

int channel_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    enum change change = change_of(name);
    if (change == CHANGE_NONE || engine_count == 0)
        return PyObject_GenericSetAttr(self, name, value);
    struct engine *e = NULL;
    struct entry *entry = entry_of(self, &e);
    if (entry == NULL && change != CHANGE_STATE)
        return PyObject_GenericSetAttr(self, name, value);
    if (entry != NULL)
        entry->traits = 0;
    if (change == CHANGE_TRAIT)
        return PyObject_GenericSetAttr(self, name, value);
    if (entry != NULL && change != CHANGE_STATE)
        entry->flags |= ENTRY_UNCLASSED;
    if (change == CHANGE_PLACE) {
        type_drop(e, entry); /* its class may be gone */
        entry_flag(e, entry, ENTRY_CALLED, true);
    }
    int result = PyObject_GenericSetAttr(self, name, value);
    channel_note(self); /* found anew: a property's setter may have run */
    return result;
}
