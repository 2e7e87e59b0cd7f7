/* _asyncore.h: what the files of the extension share. docs/python/extension.md has the model. */
#ifndef PY_ASYNCORE_H
#define PY_ASYNCORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "asyncore.h"
#include "asynchat.h"
#include <stdbool.h>
#include <stdint.h>

#if defined(Py_GIL_DISABLED)
#error "this extension relies on the GIL: where there is none the modules are Python"
#endif

/* -- What differs between versions of Python -- */

#if PY_VERSION_HEX < 0x03090000
#define PyObject_Vectorcall _PyObject_Vectorcall
#endif
#if PY_VERSION_HEX >= 0x030d0000
#define lookup_attr PyObject_GetOptionalAttr
#else
#define lookup_attr _PyObject_LookupAttr
#endif

/* They are exported by all of these versions, but in public headers of some only. */
PyAPI_FUNC(int) _PyObject_GetMethod(PyObject *obj, PyObject *name, PyObject **method);
PyAPI_FUNC(PyObject *) _PyType_Lookup(PyTypeObject *type, PyObject *name);
PyAPI_FUNC(void) _PyTraceback_Add(const char *function, const char *file, int line);

#define DICT_WATCHERS (PY_VERSION_HEX >= 0x030c0000)

/* 0: the class may change unnoticed. */
static inline unsigned type_version(PyTypeObject *type)
{
#if PY_VERSION_HEX < 0x030d0000
    if (!PyType_HasFeature(type, Py_TPFLAGS_VALID_VERSION_TAG))
        return 0;
#endif
    return type->tp_version_tag;
}

/* -- Names -- */

#define NAMES(X)                                                                                                       \
    X(__class__) X(__dict__) X(_asyncore_idle) X(_asyncore_in) X(_asyncore_marks) X(_asyncore_out)                     \
    X(_asyncore_resting) X(_asyncore_stopped) X(_asyncore_tls) X(_fileno) X(_map) X(_special) X(ac_in_buffer)          \
    X(ac_in_buffer_size) X(ac_out_buffer_size) X(accepting) X(calls) X(changed) X(collect_incoming_data) X(connected)  \
    X(debug) X(found_terminator) X(get_terminator) X(get) X(handle_accept) X(handle_close) X(handle_error)             \
    X(handle_expt_event) X(handle_read) X(handle_read_event) X(handle_write) X(handle_write_event) X(initiate_send)    \
    X(items) X(keeps) X(out_buffer) X(poll) X(producer_fifo) X(readable) X(recv) X(run) X(select) X(send) X(sleep)     \
    X(socket) X(socket_map) X(terminator) X(time) X(timers) X(touch) X(writable)

#define NAME_FIELD(name) PyObject *name;

/* The methods that are replaced; their order is that of the table in _asyncore.c. */
enum replaced {
    DISPATCHER_READABLE,
    DISPATCHER_WRITABLE,
    DISPATCHER_RECV,
    DISPATCHER_SEND,
    DISPATCHER_READ_EVENT,
    DISPATCHER_WRITE_EVENT,
    DISPATCHER_ADD,
    DISPATCHER_DEL,
    WITH_SEND_SEND,
    WITH_SEND_INITIATE,
    WITH_SEND_WRITABLE,
    CHAT_READABLE,
    CHAT_WRITABLE,
    CHAT_READ,
    CHAT_PUSH,
    CHAT_INITIATE,
    REPLACED
};

/* One for the process: the extension serves the main interpreter, and one module asyncore in it; others are Python. */
struct state {
    bool opened;
    struct {
        NAMES(NAME_FIELD)
    } name;
    PyObject *channel;            /* the base of asyncore.dispatcher */
    PyObject *module;             /* the dict of the module asyncore; NULL before install() */
    PyObject *failed, *lost, *call, *reraised; /* of that module */
    PyObject *interest, *holds, *meant;        /* the same: for channels with TLS */
    PyObject *plain_select, *plain_poll, *plain_sleep;
    PyObject *loop, *poll, *poll2; /* the module's own, in Python */
    PyObject *c_poll, *c_poll2;    /* what is put in their place */
    PyObject *enter, *leave, *elsewhere, *maps, *engines, *wake, *left; /* of asyncore._serving */
    PyObject *original[REPLACED]; /* the methods in Python: where a C one has no short way, it calls them */
    PyObject *replacement[REPLACED];
    PyTypeObject *socket_type; /* socket.socket */
    unsigned socket_version;   /* when its methods were found to be its own */
    PyCFunction fileno, gettimeout;
    PyTypeObject *deque;
    PyObject *get_terminator, *in_buffer, *dispatch, *cut_at; /* of asynchat */
    PyTypeObject *input;
    uint64_t terminators, handlers, inputs; /* how often a terminator, a handler of input, `_asyncore_in` was set */
    PyObject *empty;  /* b"" */
    PyObject *gone;   /* mapping_gone */
    int watcher;      /* of dicts, from 3.12; or -1 */
    unsigned bulk;    /* recv: how many long reads to expect */
    long asked;       /* how often a channel was asked what it wants */
    PyObject *serving; /* borrowed: the channel whose handler a loop called last, in that engine; or NULL */
    struct engine *serving_engine;
    int serving_fd;
};

extern struct state S;

/* -- _asyncore.c -- */

PyObject *call_original(enum replaced which, PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);
/* The same where what is queued may change, also before it raises: the channel is asked again. */
PyObject *call_noted(enum replaced which, PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);
/* self.name(); a new reference. */
PyObject *call0(PyObject *self, PyObject *name);
PyObject *call1(PyObject *self, PyObject *name, PyObject *arg);
/* self.name() where only success matters: 0, or -1 with an exception. */
int call0_void(PyObject *self, PyObject *name);
/* Whether type(self)'s method, and the instance's, is the one that was put there: nothing overrides it. */
bool is_ours(PyObject *self, PyObject *name, enum replaced which);
/* The truth of an attribute: 0, 1, or -1 with an exception. */
int attr_true(PyObject *self, PyObject *name);
/* Whether the attribute is None, which it is unless a channel has TLS, marks, ... */
int attr_none(PyObject *self, PyObject *name);

/* Takes the current exception, makes it the handled one, with a traceback, and calls callable(arg) or arg.callable().
 * What was handled before is restored. 0, or -1 with the exception that came of it. */
int handle_with(PyObject *callable, PyObject *arg);
int handle_method(PyObject *self, PyObject *name);
bool is_disconnect(int error);
bool lost_connection(void);

/* -- _asyncore_map.c: engines of maps -- */

enum kind {
    KIND_CALL, /* overridden, foreign: asked every turn */
    KIND_TRUE,
    KIND_WITH_SEND,
    KIND_CHAT_READ,
    KIND_CHAT_WRITE
};

enum {
    ENTRY_DIRTY = 1,     /* is in the dirty list */
    ENTRY_ADDED = 2,     /* the library watches it */
    ENTRY_UNCLASSED = 4, /* which predicates it has is to be found out */
    ENTRY_BAD = 8,       /* its descriptor is closed */
    ENTRY_CALLED = 16,   /* a predicate is KIND_CALL */
    ENTRY_TLS = 32,      /* its transport is asked, too: what to wait for, what it holds, whose an event is */
    ENTRY_HELD = 64      /* that one holds bytes which the kernel does not know of */
};

struct entry {
    PyObject *obj;  /* borrowed: the map has it */
    uint64_t order;  /* in the map */
    uint64_t serial; /* of this registration: an event of another one is not for it */
    struct entry *dirty_next;
    int fd, index;
    uint16_t wanted;
    uint8_t read, write; /* enum kind */
    uint8_t flags;
    uint8_t traits;
    int type; /* in the engine's types, or -1 */
};

/* What is known of an entry whose class tells of its changes, so that its attributes need not be asked in each event.
 * */
enum {
    TRAIT_KNOWN = 1,      /* the others say something */
    TRAIT_STREAMS = 2,    /* connected, not accepting, no TLS */
    TRAIT_READ_EVENT = 4, /* handle_read_event is ours */
    TRAIT_NO_IDLE = 8,    /* no idle timeout */
    TRAIT_SHORT = 16,     /* dispatcher_with_send: no debug, initiate_send is ours, and nothing is queued */
    TRAIT_PUSH = 64,      /* async_chat: chat_is_short() */
    TRAIT_READ = 32       /* handle_read is its class's: see struct used_type */
};

struct used_type {
    PyTypeObject *type; /* owned */
    unsigned version;
    int count;
    PyObject *handle_read; /* borrowed: what the class of this version has, or NULL */
};

#define ENGINE_TYPES 16 /* classes whose predicates need not be called; those of any more are */

struct engine {
    struct engine *next; /* of the same bucket */
    PyObject *dict;      /* borrowed: see the model */
    PyObject *items;     /* of a map that is not exactly a dict: what it had before the wait; else NULL */
    PyObject *weak;      /* the same: a weak reference to it, or NULL if it takes none */
    struct asyncore_map *map;
    struct entry **by_fd, **all, **called, *dirty;
    int fd_room, count, room, robin, check;
    int called_count, wanting;    /* entries that are called; that want something */
    int bad, held;                /* those that are closed; ENTRY_HELD */
    int foreign;                  /* keys that are no descriptors: only Python can serve the map */
    struct used_type types[ENGINE_TYPES];
    int type_count; /* those beyond were never used */
    uint64_t order, serial, tag, used;
    int unasked; /* turns since the round robin */
    uint64_t now, asked_at, checked_at; /* ns: before this wait; when the round robin, the check last went on */
    unsigned long thread; /* of the innermost loop */
    int running;          /* how many loops */
    bool mapping; /* `dict` is not exactly a dict */
    bool waiting, woken;  /* a loop waits; somebody woke it since it last asked: see loop_wake() */
    bool by_select, called_stale, resync, told; /* told: serving.changed is to be called */
};

static inline struct entry *entry_at(const struct engine *e, int fd)
{
    return fd >= 0 && fd < e->fd_room ? e->by_fd[fd] : NULL;
}

#if !DICT_WATCHERS
static inline uint64_t dict_tag(PyObject *dict)
{
    return ((PyDictObject *)dict)->ma_version_tag;
}
#endif

/* Whether the entries are what the dict has. */
static inline bool engine_synced(const struct engine *e)
{
#if DICT_WATCHERS
    return !e->resync && !e->mapping;
#else
    return !e->resync && !e->mapping && e->tag == dict_tag(e->dict);
#endif
}

struct engine *engine_find(PyObject *dict);
/* Made if there is none. NULL with an exception, or without one where no descriptor is left: the map is Python's. */
struct engine *engine_get(PyObject *dict);
PyObject *engine_name(PyObject *module, PyObject *dict);
PyObject *engine_forget(PyObject *module, PyObject *dict);
PyObject *engine_counts(PyObject *module, PyObject *unused);
void engine_idle(struct engine *e);        /* a loop ended, or the map changed: goes if it is empty */
int engine_catch_up(struct engine *e);     /* follows what was done to the dict unnoticed */

static inline int engine_sync(struct engine *e)
{
    return engine_synced(e) ? 0 : engine_catch_up(e);
}

/* After calls of Python, within a turn: what went from the dict has no entry. */
static inline int engine_follow(struct engine *e)
{
    return e->mapping ? 0 : engine_sync(e);
}

int engine_restart(struct engine *e); /* a child of fork(): a new kernel set. 0, or -1 with an exception */
struct entry *entry_again(const struct engine *e, int fd, uint64_t serial); /* NULL: that registration ended */
struct entry *entry_of(PyObject *channel, struct engine **engine); /* by its _map and _fileno, or NULL */
void entry_dirty(struct engine *e, struct entry *entry);
struct entry *entry_class(struct engine *e, struct entry *entry); /* NULL: it is gone */
bool entry_settled(const struct engine *e, const struct entry *entry);
void entry_flag(struct engine *e, struct entry *entry, unsigned flag, bool on);
unsigned serving_entry_traits(PyObject *self);
void types_check(struct engine *e); /* changed classes: their channels are asked anew */
void entry_wanted(struct engine *e, struct entry *entry, unsigned wanted);
int called_order(struct engine *e); /* e->called is in the order of the map; -1: no memory */
void entries_check(struct engine *e, int count); /* whether so many of them are still what was added */
void entry_free(struct entry *entry);
void engine_all_dirty(struct engine *e);
/* channel's output grew or shrank: its predicates are asked before the next wait. Keeps the current exception. */
void channel_note(PyObject *self);
int channel_elsewhere(PyObject *map); /* whether another thread serves it; -1 with an exception */
int watcher_open(void);
int library_error(int error);
void engine_drop(struct engine *e);
struct engine *engine_next(struct engine *after); /* of all of them, in any order */
int sync_item(struct engine *e, PyObject *key, PyObject *obj);
void sync_rest(struct engine *e, uint64_t before);
void entry_unwatch(struct engine *e, struct entry *entry);
void entry_flag(struct engine *e, struct entry *entry, unsigned flag, bool on);
void type_drop(struct engine *e, struct entry *entry);
extern int engine_count;

PyObject *dispatcher_add_channel(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);
PyObject *dispatcher_del_channel(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);

/* Of the channel whose handler runs; 0 of any other, and where nothing is known. */
static inline unsigned serving_traits(PyObject *self)
{
    return self == S.serving ? serving_entry_traits(self) : 0;
}

/* -- _asyncore_loop.c -- */

PyObject *loop_loop(PyObject *module, PyObject *args, PyObject *keywords);
PyObject *loop_poll(PyObject *module, PyObject *args, PyObject *keywords);
PyObject *loop_poll2(PyObject *module, PyObject *args, PyObject *keywords);
PyObject *loop_wake(PyObject *module, PyObject *map);    /* any thread: a wait of C's loop ends */
PyObject *loop_waiting(PyObject *module, PyObject *map); /* whether it is in one */
int ask(struct engine *e, struct entry *entry);

/* -- _asyncore_change.c -- */

void changes_open(void);
int channel_setattro(PyObject *self, PyObject *name, PyObject *value);

/* -- _asyncore_mapping.c: maps that are not exactly a dict -- */

bool mapping_usable(PyObject *map);
void mapping_open(struct engine *e);
int mapping_sync(struct engine *e);
int mapping_has(struct engine *e, int fd, PyObject *obj);
PyObject *mapping_gone(PyObject *module, PyObject *weak);

/* -- _asyncore_channel.c -- */

int plain_socket(PyObject *sock);
int channel_socket(PyObject *self); /* descriptor of its plain socket, -1: it is none, -2: an exception */
/* Sends: > 0 bytes, 0, or a negated errno. */
ssize_t send_raw(int fd, const void *data, size_t size);
int read_event(PyObject *self);
int write_event(PyObject *self);
PyObject *dispatcher_readable(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);
PyObject *dispatcher_recv(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);
PyObject *dispatcher_send(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);
PyObject *dispatcher_read_event(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);
PyObject *dispatcher_write_event(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);
PyObject *recv_bytes(PyObject *self, Py_ssize_t size);
int touch(PyObject *self, unsigned traits); /* the idle timeout's clock is set back */
bool nothing_queued(PyObject *self); /* a dispatcher_with_send whose `_asyncore_out` is b"" */

/* -- _asyncore_send.c -- */

PyObject *with_send_send(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);
PyObject *with_send_initiate(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);
PyObject *with_send_writable(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);
int with_send_wants(PyObject *self);

/* -- _asyncore_chat.c -- */

PyObject *chat_readable(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);
PyObject *chat_writable(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);
PyObject *chat_push(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);
PyObject *chat_initiate_send(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);
bool chat_is_short(PyObject *self);
int chat_reads(PyObject *self);
int chat_writes(PyObject *self);

/* -- _asyncore_input.c -- */

PyObject *input_type(void);
PyObject *chat_handle_read(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);

#endif
