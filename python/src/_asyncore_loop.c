/* _asyncore_loop.c: loop(), poll() and poll2() on the engine of a map.
 *
 * A turn asks whom it has to (dirty entries, called ones, a few of the others), waits without the GIL, and serves what
 * is ready in the order of the map: as poll() all reads, then all writes, then what is exceptional; as poll2() channel
 * by channel. The ready hold their objects for that long, and each step is made only while the map still has that
 * object under that descriptor. Anything may change in a step, the engine's entries and a loop within the loop
 * included.
 *
 * A wait is cut into slices. Between them, and when a wait was woken, everything is asked again, and descriptors that
 * were closed behind the loop are looked for: no change goes unnoticed for longer than a slice, however it was made.
 *
 * Timers and calls of other threads are asyncore._serving's, which is Python. Where select.select, select.poll or
 * time.sleep are not the builtins, or a map has keys that are no descriptors, the turns are Python's. Channels with TLS
 * are called every turn, and their transport (_tls.py) is asked as in Python: what to wait for, what it holds, whose an
 * event is. */
#include "_asyncore.h"
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>

#define BATCH       256       /* events of one turn; the rest comes in the next */
#define SLICE       1000      /* ms */
#define CHECKS      1024      /* descriptors that are looked at once in as long */
#define ASKS        64        /* channels that are asked in a turn though nothing is known to have changed, */
#define ASK_PERIOD  10000000  /* unless the last turn that did so is no longer ago, in ns; then the wait is cut */
#define ASK_TURNS   64        /* nor, in a loop that is busy, before so many turns */
#define ASK_LONGEST 100000000 /* or so many ns */

struct ready {
    PyObject *obj; /* owned */
    uint64_t order;
    int fd;
    uint32_t events;
};

/* A turn's. Not on the stack: a handler may loop in its turn, as deep as Python allows. */
struct room {
    struct asyncore_event events[BATCH];
    struct ready ready[BATCH];
};

struct loop {
    PyObject *map;
    PyObject *serving, *timers, *calls; /* of asyncore._serving: the last two are a list and a deque */
    struct engine *engine;
    struct room *room;
    bool by_select;
    double timeout; /* seconds, negative: no bound */
};

/* The truth of the map; -1 with an exception. */
static int has_channels(PyObject *map)
{
    return PyDict_CheckExact(map) ? PyDict_GET_SIZE(map) != 0 : PyObject_IsTrue(map);
}

/* -- Asking -- */

static int predicate(PyObject *obj, unsigned kind, PyObject *name)
{
    PyObject *answer;
    switch (kind) {
    case KIND_TRUE:
        return 1;
    case KIND_WITH_SEND:
        return with_send_wants(obj);
    case KIND_CHAT_READ:
        return chat_reads(obj);
    case KIND_CHAT_WRITE:
        return chat_writes(obj);
    }
    answer = call0(obj, name);
    int result = answer == NULL ? -1 : answer == Py_True ? 1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    return result;
}

/* A listener that ran out of descriptors. */
static int resting(PyObject *obj)
{
    if (PyDict_GetItem(S.module, S.name._special) != Py_True ||
        !PyType_IsSubtype(Py_TYPE(obj), (PyTypeObject *)S.channel))
        return 0;
    return attr_true(obj, S.name._asyncore_resting);
}

/* What to wait for where TLS has its own needs; it knows of the rest, too. */
static int transport_interest(PyObject *obj, int *is_r, int *is_w)
{
    PyObject *answer =
        PyObject_CallFunctionObjArgs(S.interest, obj, *is_r ? Py_True : Py_False, *is_w ? Py_True : Py_False, NULL);
    if (answer == NULL || !PyArg_ParseTuple(answer, "pp:_interest", is_r, is_w)) {
        Py_XDECREF(answer);
        return -1;
    }
    Py_DECREF(answer);
    return 0;
}

/* What the channel wants, as a mask; or -1. */
static int interest(PyObject *obj, unsigned read, unsigned write, bool tls, const struct engine *e)
{
    int is_r = predicate(obj, read, S.name.readable);
    int is_w = is_r < 0 ? -1 : predicate(obj, write, S.name.writable);
    int rests = is_w < 0 ? -1 : tls ? transport_interest(obj, &is_r, &is_w) : resting(obj);
    if (rests != 0)
        return rests < 0 ? -1 : 0;
    int accepting = is_w > 0 ? attr_true(obj, S.name.accepting) : 0;
    if (accepting < 0)
        return -1;
    int mask = is_r ? ASYNCORE_READ | ASYNCORE_EXPT : 0;
    if (e->by_select && is_w)
        mask |= ASYNCORE_EXPT;
    return mask | (is_w && !accepting ? ASYNCORE_WRITE : 0);
}

static int watch(struct engine *e, struct entry *entry, unsigned mask)
{
    int result = asyncore_watch_add(e->map, entry->fd, mask, (void *)(uintptr_t)entry->serial);
    if (result == -EEXIST) { /* of an entry that went while its map was a parent's */
        asyncore_watch_del(e->map, entry->fd);
        result = asyncore_watch_add(e->map, entry->fd, mask, (void *)(uintptr_t)entry->serial);
    }
    if (result == -EBADF) {
        e->bad += !(entry->flags & ENTRY_BAD);
        entry->flags |= ENTRY_BAD;
        return 0;
    }
    if (result == 0) {
        e->bad -= (entry->flags & ENTRY_BAD) != 0;
        entry->flags = (uint8_t)((entry->flags & ~ENTRY_BAD) | ENTRY_ADDED);
        entry_wanted(e, entry, mask);
    }
    return result;
}

static int want(struct engine *e, struct entry *entry, unsigned mask)
{
    int result = 0;
    if (!(entry->flags & ENTRY_ADDED)) {
        if (mask != 0)
            result = watch(e, entry, mask);
    } else if (entry->wanted != mask) {
        result = asyncore_watch_want(e->map, entry->fd, mask);
        if (result == 0)
            entry_wanted(e, entry, mask);
    }
    if (result == -ECHILD)
        return engine_restart(e); /* all entries are dirty again */
    if (result == -EMFILE) {
        PyErr_SetString(PyExc_ValueError, "filedescriptor out of range in select()");
        return -1;
    }
    return result < 0 ? library_error(result) : 0;
}

/* Whether there is something to read which the kernel does not know of. -1 with an exception. */
static int transport_holds(PyObject *obj)
{
    PyObject *answer = PyObject_CallFunctionObjArgs(S.holds, obj, NULL);
    int result = answer != NULL ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    return result;
}

int ask(struct engine *e, struct entry *entry)
{
    PyObject *obj = entry->obj;
    int fd = entry->fd, held = 0;
    uint64_t serial = entry->serial;
    bool tls = entry->flags & ENTRY_TLS;
    S.asked++;
    Py_INCREF(obj);
    int mask = interest(obj, entry->read, entry->write, tls, e);
    if (tls && mask > 0 && mask & ASYNCORE_READ)
        held = transport_holds(obj);
    int result = mask < 0 || held < 0 ? -1 : 0;
    entry = entry_again(e, fd, serial);
    if (result == 0 && entry != NULL) {
        if (tls)
            entry_flag(e, entry, ENTRY_HELD, held);
        result = want(e, entry, (unsigned)mask);
    }
    Py_DECREF(obj);
    return result;
}

/* The next dirty entry leaves the list; NULL: there is none. */
static struct entry *dirty_pop(struct engine *e)
{
    while (e->dirty != NULL) {
        struct entry *entry = e->dirty;
        e->dirty = entry->dirty_next;
        entry->flags &= (uint8_t)~ENTRY_DIRTY;
        if (entry->obj != NULL)
            return entry;
        entry_free(entry);
    }
    return NULL;
}

/* Those that change whenever they are asked wait for the next turn. */
static int ask_dirty(struct engine *e)
{
    for (int left = 2 * e->count + ASKS; left > 0; left--) {
        if (engine_follow(e) < 0)
            return -1;
        struct entry *entry = dirty_pop(e);
        if (entry == NULL)
            break;
        int fd = entry->fd;
        uint64_t serial = entry->serial;
        if (entry->flags & ENTRY_UNCLASSED && (entry = entry_class(e, entry)) == NULL)
            continue;
        if (!(entry->flags & ENTRY_CALLED) && ask(e, entry) < 0) {
            if ((entry = entry_again(e, fd, serial)) != NULL)
                entry_dirty(e, entry);
            return -1;
        }
    }
    return 0;
}

/* A predicate may add and remove any of them: those are asked that were called when the turn began. */
static int ask_called(struct engine *e)
{
    if (engine_follow(e) < 0)
        return -1;
    if (e->called_count == 0)
        return 0;
    if (called_order(e) < 0)
        return -1;
    int count = e->called_count, result = 0;
    struct ready *list = PyMem_Malloc((size_t)count * sizeof *list);
    if (list == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (int i = 0; i < count; i++) {
        list[i] = (struct ready){.obj = e->called[i]->obj, .fd = e->called[i]->fd};
        Py_INCREF(list[i].obj);
    }
    for (int i = 0; i < count; i++) {
        struct entry *entry = result < 0 ? NULL : entry_at(e, list[i].fd);
        if (entry != NULL && entry->obj == list[i].obj)
            result = ask(e, entry);
        Py_DECREF(list[i].obj);
    }
    PyMem_Free(list);
    return result;
}

/* What changed past tp_setattro: __dict__, a queue that somebody appended to. One is looked at as if it were new, the
 * others for predicates of their own. */
static int ask_some(struct engine *e)
{
    e->now = asyncore_now(e->map);
    e->unasked++;
    uint64_t since = e->now - e->asked_at;
    if (since < ASK_PERIOD || (e->unasked < ASK_TURNS && since < ASK_LONGEST))
        return 0;
    e->asked_at = e->now;
    e->unasked = 0;
    if (e->now - e->checked_at >= (uint64_t)SLICE * 1000000) {
        e->checked_at = e->now;
        entries_check(e, CHECKS);
    }
    for (int i = 0; i < ASKS; i++) {
        if (engine_follow(e) < 0)
            return -1;
        if (i >= e->count)
            break;
        if (e->robin >= e->count)
            e->robin = 0;
        struct entry *entry = e->all[e->robin++];
        if (entry->flags & ENTRY_UNCLASSED)
            continue;
        if ((i == 0 || !entry_settled(e, entry)) && (entry = entry_class(e, entry)) == NULL)
            continue;
        if (!(entry->flags & (ENTRY_CALLED | ENTRY_UNCLASSED)) && ask(e, entry) < 0)
            return -1;
    }
    return 0;
}

static int ask_all(struct engine *e)
{
    if (engine_sync(e) < 0)
        return -1;
    types_check(e);
    if (ask_dirty(e) < 0 || ask_called(e) < 0 || ask_some(e) < 0)
        return -1;
    if (e->dirty != NULL && ask_dirty(e) < 0)
        return -1;
    return 0;
}

/* -- Waiting -- */

/* What a wait has to know of what other threads do. All of it is done with the GIL, which the wait alone is without:
 * who wakes either finds `waiting`, and the library ends that wait, or sets `woken` before the loop looks at it for the
 * last time. It falls before the channels are asked, since what was changed earlier is seen by that. A handler of a
 * signal runs in PyErr_CheckSignals, which comes before that look, too. */
PyObject *loop_wake(PyObject *module, PyObject *map)
{
    struct engine *e = engine_find(map);
    (void)module;
    if (e != NULL && e->running != 0) {
        e->woken = true;
        if (e->waiting)
            asyncore_wakeup(e->map);
    }
    Py_RETURN_NONE;
}

PyObject *loop_waiting(PyObject *module, PyObject *map)
{
    struct engine *e = engine_find(map);
    (void)module;
    return PyBool_FromLong(e != NULL && e->waiting);
}

static bool has_timers(const struct loop *loop)
{
    return PyList_GET_SIZE(loop->timers) != 0 || Py_SIZE(loop->calls) != 0;
}

static double now_seconds(const struct loop *loop)
{
    return (double)asyncore_now(loop->engine->map) * 1e-9;
}

/* When the next timer is due, in seconds of the monotonic clock. The heap is asyncore._serving's, of tuples (deadline,
 * order, timer); it is not looked at by Python in turns where none is due. */
static double next_deadline(const struct loop *loop)
{
    PyObject *first = PyList_GET_SIZE(loop->timers) != 0 ? PyList_GET_ITEM(loop->timers, 0) : NULL;
    if (first == NULL)
        return HUGE_VAL;
    bool known = PyTuple_CheckExact(first) && PyTuple_GET_SIZE(first) == 3 &&
                 PyFloat_CheckExact(PyTuple_GET_ITEM(first, 0));
    return known ? PyFloat_AS_DOUBLE(PyTuple_GET_ITEM(first, 0)) : 0; /* Python will say what is wrong */
}

/* The timeout of this turn in ns, -1: none. */
static int64_t bound(const struct loop *loop)
{
    double timeout = loop->timeout;
    if (Py_SIZE(loop->calls) != 0)
        return 0;
    if (PyList_GET_SIZE(loop->timers) != 0) {
        double left = next_deadline(loop) - now_seconds(loop);
        left = left < 0 ? 0 : left;
        timeout = timeout < 0 || left < timeout ? left : timeout;
    }
    return timeout < 0 ? -1 : timeout > 1e9 ? (int64_t)1e18 : (int64_t)ceil(timeout * 1e9);
}

static int wait_slice(struct engine *e, int ms, struct asyncore_event *events)
{
    int count;
    if (ms == 0)
        return asyncore_map_wait(e->map, 0, events, BATCH);
    e->waiting = true;
    Py_BEGIN_ALLOW_THREADS count = asyncore_map_wait(e->map, ms, events, BATCH);
    Py_END_ALLOW_THREADS e->waiting = false;
    return count;
}

/* A turn that asked nobody again waits for no longer than until the next one would. */
static int slice_ms(const struct engine *e, int64_t left)
{
    int64_t most = e->asked_at == e->now ? (int64_t)SLICE * 1000000 : ASK_PERIOD;
    if (left < 0 || left > most)
        return (int)(most / 1000000);
    return (int)((left + 999999) / 1000000);
}

static int64_t time_left(struct engine *e, int64_t timeout, uint64_t start)
{
    int64_t left = timeout <= 0 ? timeout : timeout - (int64_t)(asyncore_now(e->map) - start);
    return timeout > 0 && left < 0 ? 0 : left;
}

/* How many events came: 0 when the time is over or somebody woke the map; -1 with an exception. */
static int wait_ready(struct loop *loop, struct asyncore_event *events)
{
    struct engine *e = loop->engine;
    int64_t timeout = bound(loop);
    uint64_t start = e->now;
    for (int64_t left = timeout;;) {
        int ms = e->bad != 0 || e->held != 0 || e->woken ? 0 : slice_ms(e, left), count = wait_slice(e, ms, events);
        if (PyErr_CheckSignals() < 0)
            return -1;
        if (count == -ECHILD ? engine_restart(e) < 0 : count < 0 && library_error(count) < 0)
            return -1;
        if (count == -ECHILD)
            start = asyncore_now(e->map); /* the other had no time for a child */
        if (count > 0 || e->woken || e->bad != 0 || e->held != 0 ||
            (e->mapping ? e->count : PyDict_GET_SIZE(loop->map)) == 0)
            return count > 0 ? count : 0;
        left = time_left(e, timeout, start);
        if (left == 0)
            return 0;
        e->unasked = ASK_TURNS; /* it is not busy */
        if (count == 0 && ms == SLICE) {
            for (int i = 0; i < e->count; i++)
                e->all[i]->flags |= ENTRY_UNCLASSED;
            engine_all_dirty(e);
        }
        if (ask_all(e) < 0)
            return -1;
        if (e->foreign != 0)
            return 0;
    }
}

/* -- Serving -- */

/* Whether the map still has that object there; -1 with an exception of a map that is not exactly a dict. */
static int still(struct engine *e, const struct ready *r)
{
    if (e->mapping)
        return mapping_has(e, r->fd, r->obj);
    if (engine_synced(e)) {
        struct entry *entry = entry_at(e, r->fd);
        return entry != NULL && entry->obj == r->obj;
    }
    PyObject *key = PyLong_FromLong(r->fd);
    bool same = key != NULL && PyDict_GetItem(e->dict, key) == r->obj;
    Py_XDECREF(key);
    return same;
}

static int event_call(PyObject *obj, PyObject *name, enum replaced which, int (*ours)(PyObject *))
{
    PyObject *method = NULL, *result = NULL;
    int unbound = _PyObject_GetMethod(obj, name, &method);
    if (method == NULL)
        return -1;
    if (unbound && method == S.replacement[which]) {
        Py_DECREF(method);
        return ours(obj);
    }
    result = PyObject_Vectorcall(method, &obj, unbound ? 1 : 0, NULL);
    Py_DECREF(method);
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

static int on_read(PyObject *obj)
{
    unsigned plain = TRAIT_STREAMS | TRAIT_READ_EVENT | TRAIT_READ;
    if ((serving_traits(obj) & plain) == plain) {
        struct engine *e = S.serving_engine;
        PyObject *method = e->types[entry_at(e, S.serving_fd)->type].handle_read, *result;
        Py_INCREF(method);
        result = PyObject_Vectorcall(method, &obj, 1, NULL);
        Py_DECREF(method);
        Py_XDECREF(result);
        return result != NULL ? 0 : -1;
    }
    return event_call(obj, S.name.handle_read_event, DISPATCHER_READ_EVENT, read_event);
}

static int on_write(PyObject *obj)
{
    return event_call(obj, S.name.handle_write_event, DISPATCHER_WRITE_EVENT, write_event);
}

static int on_expt(PyObject *obj)
{
    return call0_void(obj, S.name.handle_expt_event);
}

/* The channel of a step, and whether the step is still to be made. */
static int begin(struct engine *e, const struct ready *r)
{
    int there = still(e, r);
    if (there <= 0)
        return there;
    S.serving = r->obj;
    S.serving_engine = e;
    S.serving_fd = r->fd;
    return 1;
}

/* Those of the events that are the channel's, and not its TLS layer's alone; -1 with an exception. */
static int meant(struct engine *e, const struct ready *r, unsigned events)
{
    struct entry *entry = entry_at(e, r->fd);
    if (entry == NULL || entry->obj != r->obj || !(entry->flags & (ENTRY_TLS | ENTRY_UNCLASSED)))
        return (int)events;
    int there = still(e, r);
    if (there <= 0)
        return there;
    PyObject *flags = PyLong_FromLong((long)events), *answer = NULL;
    if (flags != NULL)
        answer = PyObject_CallFunctionObjArgs(S.meant, r->obj, flags, NULL);
    int result = answer != NULL ? (int)PyLong_AsLong(answer) : -1;
    Py_XDECREF(flags);
    Py_XDECREF(answer);
    return result;
}

/* A handler raised. -1: the exception is to leave the loop. */
static int failed(PyObject *obj)
{
    return PyErr_ExceptionMatches(S.reraised) ? -1 : handle_with(S.failed, obj);
}

static int step_poll(struct engine *e, const struct ready *r)
{
    static int (*const steps[])(PyObject *) = {on_read, on_write, on_expt};
    static const unsigned flags[] = {ASYNCORE_READ, ASYNCORE_WRITE, ASYNCORE_EXPT};
    int result = 0, events = meant(e, r, r->events);
    if (events < 0)
        return -1;
    for (int i = 0; i < 3 && result == 0; i++) {
        if (!((unsigned)events & flags[i]))
            continue;
        int there = begin(e, r);
        if (there <= 0)
            return there;
        result = steps[i](r->obj);
    }
    if (result == 0 && events & (POLLHUP | POLLERR | POLLNVAL)) {
        int there = still(e, r);
        if (there <= 0)
            return there;
        result = call0_void(r->obj, S.name.handle_close);
    }
    if (result == 0)
        return 0;
    return lost_connection() ? handle_method(r->obj, S.name.handle_close) : failed(r->obj);
}

static int step_select(struct engine *e, const struct ready *r, int (*step)(PyObject *), unsigned flag)
{
    int there = begin(e, r);
    if (there <= 0)
        return there;
    int events = meant(e, r, flag);
    if (events <= 0)
        return events;
    return step(r->obj) == 0 ? 0 : failed(r->obj);
}

/* As select() has it: a hang-up is readable, an error both. A writer alone is told of the hang-up, too, which would be
 * ready for ever. */
static int serve_select(struct engine *e, struct ready *ready, int count)
{
    static int (*const steps[])(PyObject *) = {on_read, on_write, on_expt};
    for (int i = 0; i < count; i++) {
        struct entry *entry = entry_at(e, ready[i].fd);
        unsigned wanted = entry != NULL ? entry->wanted : 0, events = ready[i].events;
        bool r = wanted & ASYNCORE_READ && events & (POLLIN | POLLHUP | POLLERR | POLLNVAL);
        bool w = wanted & ASYNCORE_WRITE &&
                 (events & (POLLOUT | POLLERR) || (events & POLLHUP && !(wanted & ASYNCORE_READ)));
        ready[i].events = (r ? ASYNCORE_READ : 0u) | (w ? ASYNCORE_WRITE : 0u) | (events & POLLPRI & wanted);
    }
    static const unsigned flags[] = {ASYNCORE_READ, ASYNCORE_WRITE, ASYNCORE_EXPT};
    for (int pass = 0; pass < 3; pass++)
        for (int i = 0; i < count; i++)
            if (ready[i].events & flags[pass] && step_select(e, &ready[i], steps[pass], flags[pass]) < 0)
                return -1;
    return 0;
}

static int serve_poll(struct engine *e, const struct ready *ready, int count)
{
    for (int i = 0; i < count; i++)
        if (step_poll(e, &ready[i]) < 0)
            return -1;
    return 0;
}

static int by_order(const void *a, const void *b)
{
    const struct ready *x = a, *y = b;
    return x->order < y->order ? -1 : x->order > y->order;
}

static int collect_one(const struct entry *entry, unsigned events, struct ready *ready)
{
    *ready = (struct ready){.obj = entry->obj, .order = entry->order, .fd = entry->fd, .events = events};
    Py_INCREF(entry->obj);
    return 1;
}

/* Those that hold bytes, and for which no event came. */
static int collect_held(struct engine *e, int kept, struct ready *ready)
{
    struct entry **list = e->called_stale ? e->all : e->called;
    int count = e->called_stale ? e->count : e->called_count;
    for (int i = 0; i < count && e->held != 0 && kept < BATCH; i++)
        if (list[i]->flags & ENTRY_HELD) {
            entry_flag(e, list[i], ENTRY_HELD, false);
            kept += collect_one(list[i], ASYNCORE_READ, &ready[kept]);
        }
    return kept;
}

/* Other threads, and signal handlers, had their time in the wait. */
static int collect(struct engine *e, const struct asyncore_event *events, int count, struct ready *ready)
{
    int kept = 0;
    if (engine_follow(e) < 0)
        return -1;
    for (int i = 0; i < count; i++) {
        struct entry *entry = entry_at(e, events[i].fd);
        if (entry == NULL || (uintptr_t)events[i].owner != (uintptr_t)entry->serial)
            continue;
        unsigned seen = events[i].events & (entry->wanted | POLLERR | POLLHUP | POLLNVAL);
        if (entry->flags & ENTRY_HELD) {
            seen |= ASYNCORE_READ;
            entry_flag(e, entry, ENTRY_HELD, false);
        }
        if (seen != 0)
            kept += collect_one(entry, seen, &ready[kept]);
    }
    if (e->held != 0)
        kept = collect_held(e, kept, ready);
    if (kept > 1)
        qsort(ready, (size_t)kept, sizeof *ready, by_order);
    return kept;
}

/* Channels whose queue is a deque that anybody can append to are asked after their handlers. */
static void served(struct engine *e, struct ready *ready, int count)
{
    for (int i = 0; i < count; i++) {
        struct entry *entry = entry_at(e, ready[i].fd);
        if (entry != NULL && entry->write == KIND_CHAT_WRITE)
            entry_dirty(e, entry);
        Py_DECREF(ready[i].obj);
    }
}

/* Those that were closed behind the loop. */
static int serve_bad(struct engine *e)
{
    struct ready bad[64];
    int count = 0, result = 0;
    if (engine_follow(e) < 0)
        return -1;
    for (int i = 0; i < e->count && count < 64; i++)
        if (e->all[i]->flags & ENTRY_BAD) {
            bad[count++] = (struct ready){.obj = e->all[i]->obj, .order = e->all[i]->order, .fd = e->all[i]->fd};
            Py_INCREF(e->all[i]->obj);
            entry_dirty(e, e->all[i]); /* if it stays it is tried again */
        }
    qsort(bad, (size_t)count, sizeof *bad, by_order);
    for (int i = 0; i < count; i++) {
        int there = result == 0 ? still(e, &bad[i]) : 0;
        if (there > 0) {
            library_error(-EBADF);
            result = handle_with(S.lost, bad[i].obj);
        } else if (there < 0)
            result = -1;
        Py_DECREF(bad[i].obj);
    }
    return result;
}

/* -- Turns -- */

/* What is due, and the calls of other threads. */
static int run_timers(struct loop *loop)
{
    if (!has_timers(loop))
        return 0;
    double time = now_seconds(loop);
    if (Py_SIZE(loop->calls) == 0 && next_deadline(loop) > time)
        return 0;
    PyObject *now = PyFloat_FromDouble(time), *done = NULL;
    if (now != NULL)
        done = PyObject_CallMethodObjArgs(loop->serving, S.name.run, now, S.call, NULL);
    Py_XDECREF(now);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

static int turn_python(struct loop *loop)
{
    PyObject *timeout = loop->timeout < 0 ? Py_None : PyFloat_FromDouble(loop->timeout), *done = NULL;
    if (timeout == Py_None)
        Py_INCREF(timeout);
    if (timeout != NULL)
        done = PyObject_CallFunctionObjArgs(loop->by_select ? S.poll : S.poll2, timeout, loop->map, NULL);
    Py_XDECREF(timeout);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

static int turn_waits(struct loop *loop, struct asyncore_event *events)
{
    loop->engine->woken = false;
    if (ask_all(loop->engine) < 0)
        return -1;
    return loop->engine->foreign != 0 ? 0 : wait_ready(loop, events);
}

static int turn(struct loop *loop)
{
    struct asyncore_event *events = loop->room->events;
    struct ready *ready = loop->room->ready;
    struct engine *e = loop->engine;
    if (e->by_select != loop->by_select) {
        e->by_select = loop->by_select;
        engine_all_dirty(e);
    }
    int count = turn_waits(loop, events);
    if (count < 0)
        return -1;
    if (e->foreign != 0)
        return turn_python(loop);
    count = collect(e, events, count, ready);
    if (count < 0)
        return -1;
    int result = loop->by_select ? serve_select(e, ready, count) : serve_poll(e, ready, count);
    if (result == 0 && e->bad != 0)
        result = serve_bad(e);
    S.serving = NULL;
    served(e, ready, count);
    return result == 0 ? run_timers(loop) : result;
}

/* Whether there is a reason to go on: channels, timers, calls. -1 with an exception. */
static int goes_on(struct loop *loop)
{
    int filled = has_channels(loop->map);
    if (filled != 0)
        return filled;
    if (!has_timers(loop))
        return 0;
    PyObject *keeps = call0(loop->serving, S.name.keeps);
    int result = keeps != NULL ? PyObject_IsTrue(keeps) : -1;
    Py_XDECREF(keeps);
    return result;
}

/* `count` below 0: no bound. */
static int turns(struct loop *loop, double count, bool bounded)
{
    int on = goes_on(loop);
    while (on > 0 && (!bounded || count > 0)) {
        int filled = has_channels(loop->map);
        if (filled < 0 || (filled != 0 ? turn(loop) : turn_python(loop)) < 0)
            return -1;
        count -= 1;
        on = goes_on(loop);
    }
    return on < 0 ? -1 : 0;
}

static int serving_open(struct loop *loop)
{
    loop->serving = PyObject_CallFunctionObjArgs(S.enter, loop->map, NULL);
    if (loop->serving == NULL)
        return -1;
    loop->timers = PyObject_GetAttr(loop->serving, S.name.timers);
    loop->calls = PyObject_GetAttr(loop->serving, S.name.calls);
    PyObject *changed = PyObject_GetAttr(loop->serving, S.name.changed);
    loop->engine->told = changed != Py_None;
    Py_XDECREF(changed);
    return loop->timers != NULL && loop->calls != NULL && changed != NULL ? 0 : -1;
}

static void serving_close(struct loop *loop)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (loop->serving != NULL) {
        Py_XDECREF(PyObject_CallFunctionObjArgs(S.leave, loop->serving, NULL));
        PyErr_Clear();
    }
    Py_CLEAR(loop->serving);
    Py_CLEAR(loop->timers);
    Py_CLEAR(loop->calls);
    PyErr_Restore(type, value, traceback);
}

static void engine_leave(struct engine *e, unsigned long thread)
{
    e->running--;
    e->thread = thread;
    engine_idle(e);
}

static struct room *spare_room;

static int room_open(struct loop *loop)
{
    loop->room = spare_room != NULL ? spare_room : PyMem_Malloc(sizeof *loop->room);
    spare_room = NULL;
    if (loop->room == NULL)
        PyErr_NoMemory();
    return loop->room != NULL ? 0 : -1;
}

static void room_close(struct loop *loop)
{
    PyMem_Free(spare_room);
    spare_room = loop->room;
}

static int serve_in(struct loop *loop, double count, bool bounded)
{
    struct engine *e = loop->engine;
    unsigned long thread = e->thread;
    e->running++;
    e->thread = PyThread_get_thread_ident();
    int result = room_open(loop) < 0 || serving_open(loop) < 0 ? -1 : turns(loop, count, bounded);
    serving_close(loop);
    room_close(loop);
    engine_leave(e, thread);
    return result;
}

/* 1: it was done; 0: it is for Python; -1 with an exception. */
static int serve(struct loop *loop, double count, bool bounded)
{
    struct engine *e = loop->engine = engine_get(loop->map);
    if (e == NULL)
        return PyErr_Occurred() ? -1 : 0;
    if (e->running != 0 && e->thread != PyThread_get_thread_ident())
        return 0;
    if (Py_EnterRecursiveCall(" in a loop of asyncore"))
        return -1;
    int result = serve_in(loop, count, bounded);
    Py_LeaveRecursiveCall();
    return result < 0 ? -1 : 1;
}

/* -- The functions -- */

/* Whether module.name is still what it was when asyncore was imported. */
static bool is_plain(PyObject *module, PyObject *name, PyObject *was)
{
    PyObject *owner = PyDict_GetItem(S.module, module), *now = NULL;
    if (owner == NULL || (now = PyObject_GetAttr(owner, name)) == NULL) {
        PyErr_Clear();
        return false;
    }
    Py_DECREF(now);
    return now == was;
}

/* asyncio waits for the map: its turn is to ask the kernel of each channel, since it may be the last for long. An
 * engine made now could get the number of a descriptor that was closed behind the loop, which then would seem open. */
static bool is_bridged(PyObject *map)
{
    if (PyDict_GET_SIZE(S.maps) == 0)
        return false;
    PyObject *key = PyLong_FromVoidPtr(map), *serving = key != NULL ? PyDict_GetItem(S.maps, key) : NULL;
    PyObject *changed = serving != NULL ? PyObject_GetAttr(serving, S.name.changed) : NULL;
    bool bridged = changed != NULL && changed != Py_None;
    Py_XDECREF(changed);
    Py_XDECREF(key);
    PyErr_Clear();
    return bridged;
}

/* Whether this is for C. The map is held from then on. */
static bool loop_fill(struct loop *loop, PyObject *timeout, PyObject *map, bool by_select)
{
    if (map == NULL || map == Py_None)
        map = PyDict_GetItem(S.module, S.name.socket_map);
    loop->map = map;
    Py_XINCREF(map);
    if (map == NULL || !mapping_usable(map) || is_bridged(map) ||
        !is_plain(S.name.select, S.name.select, S.plain_select) ||
        !is_plain(S.name.select, S.name.poll, S.plain_poll) || !is_plain(S.name.time, S.name.sleep, S.plain_sleep))
        return false;
    if (timeout == Py_None)
        loop->timeout = -1;
    else if (PyFloat_CheckExact(timeout) || PyLong_CheckExact(timeout)) {
        loop->timeout = PyFloat_AsDouble(timeout);
        PyErr_Clear();
        if (!(loop->timeout >= 0))
            return false;
    } else
        return false;
    loop->by_select = by_select;
    return true;
}

/* What was `done` by serve(), or by the original. */
static PyObject *loop_end(struct loop *loop, int done, PyObject *original, PyObject *args, PyObject *keywords)
{
    Py_XDECREF(loop->map);
    if (done < 0)
        return NULL;
    if (done == 0)
        return PyObject_Call(original, args, keywords);
    Py_RETURN_NONE;
}

PyObject *loop_loop(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"timeout", "use_poll", "map", "count", NULL};
    PyObject *timeout = NULL, *use_poll = Py_False, *map = Py_None, *count = Py_None;
    struct loop loop = {0};
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|OOOO:loop", names, &timeout, &use_poll, &map, &count))
        return NULL;
    PyObject *half_minute = PyFloat_FromDouble(30.0);
    int polls = half_minute != NULL ? PyObject_IsTrue(use_poll) : -1;
    if (polls < 0) {
        Py_XDECREF(half_minute);
        return NULL;
    }
    bool bounded = count != Py_None, ours = loop_fill(&loop, timeout != NULL ? timeout : half_minute, map, !polls) &&
                                            PyDict_GetItem(S.module, S.name.poll) == S.c_poll &&
                                            PyDict_GetItemString(S.module, "poll2") == S.c_poll2;
    Py_DECREF(half_minute);
    double left = 0;
    if (bounded && ours) {
        ours = PyFloat_CheckExact(count) || PyLong_CheckExact(count);
        left = ours ? PyFloat_AsDouble(count) : 0;
        if (PyErr_Occurred()) /* an enormous one */
            ours = false;
        PyErr_Clear();
    }
    return loop_end(&loop, ours ? serve(&loop, left, bounded) : 0, S.loop, args, keywords);
}

static PyObject *poll_once(PyObject *args, PyObject *keywords, bool by_select)
{
    static char *names[] = {"timeout", "map", NULL};
    PyObject *timeout = NULL, *map = Py_None;
    struct loop loop = {0};
    if (!PyArg_ParseTupleAndKeywords(args, keywords, by_select ? "|OO:poll" : "|OO:poll2", names, &timeout, &map))
        return NULL;
    PyObject *zero = PyFloat_FromDouble(0.0);
    if (zero == NULL)
        return NULL;
    bool ours = loop_fill(&loop, timeout != NULL ? timeout : zero, map, by_select);
    Py_DECREF(zero);
    int filled = ours ? has_channels(loop.map) : 0;
    struct engine *e = filled == 0 && ours ? engine_find(loop.map) : NULL;
    if (e != NULL)
        engine_idle(e); /* it was emptied behind us */
    if (filled > 0)
        filled = serve(&loop, 1, true);
    return loop_end(&loop, filled, by_select ? S.poll : S.poll2, args, keywords);
}

PyObject *loop_poll(PyObject *module, PyObject *args, PyObject *keywords)
{
    (void)module;
    return poll_once(args, keywords, true);
}

PyObject *loop_poll2(PyObject *module, PyObject *args, PyObject *keywords)
{
    (void)module;
    return poll_once(args, keywords, false);
}
