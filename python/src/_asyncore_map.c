/* _asyncore_map.c: the engine of a map, and how it is kept in step with the dict.
 *
 * An engine belongs to one dict, is found by the dict's address, and holds no reference to it: a program that drops a
 * map with everything in it must not keep it alive through us. What proves that the dict is still the one, and
 * unchanged, is from 3.12 a dict watcher, which tells of every change and of the end, and up to 3.11 the dict's version
 * tag, which no two states of any two dicts share. add_channel and del_channel apply their own change; after a foreign
 * one up to 3.11 all entries are compared with the dict (engine_sync). An engine can be dropped at any time and made
 * again.
 *
 * An entry is a channel in the map. `wanted` is what the library was told. A dirty entry is asked again before the next
 * wait: one whose attributes changed (channel_setattro), that is new, or whose class changed (types_check). Entries
 * whose predicates are overridden, or of classes that are not asyncore's, stand in `called` and are asked every turn.
 *
 * The library's watch goes before the descriptor can be closed, that is in del_channel or with the dict's item. Its
 * owner is the entry's serial, so that an event of an earlier registration is nobody's. All of this runs with the GIL.
 * */
#include "_asyncore.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#define BUCKETS   256
#define MOST_IDLE 64 /* engines that wait for their map's next loop; any more are dropped, the longest unused first */

static struct engine *buckets[BUCKETS], *last_found;
int engine_count;
static long entry_count; /* of all engines */
static uint64_t uses;

static struct engine **bucket_of(PyObject *dict)
{
    return &buckets[((uintptr_t)dict >> 5) % BUCKETS];
}

struct engine *engine_find(PyObject *dict)
{
    if (last_found != NULL && last_found->dict == dict)
        return last_found;
    if (engine_count == 0)
        return NULL;
    for (struct engine *e = *bucket_of(dict); e != NULL; e = e->next)
        if (e->dict == dict)
            return last_found = e;
    return NULL;
}

/* -- Entries -- */

struct entry *entry_again(const struct engine *e, int fd, uint64_t serial)
{
    struct entry *entry = entry_at(e, fd);
    return entry != NULL && entry->serial == serial ? entry : NULL;
}

void entry_free(struct entry *entry)
{
    entry_count--;
    PyMem_Free(entry);
}

void entry_dirty(struct engine *e, struct entry *entry)
{
    if (entry->flags & ENTRY_DIRTY)
        return;
    entry->flags |= ENTRY_DIRTY;
    entry->dirty_next = e->dirty;
    e->dirty = entry;
    if (e->waiting)
        asyncore_wakeup(e->map);
}

void engine_all_dirty(struct engine *e)
{
    for (int i = 0; i < e->count; i++)
        entry_dirty(e, e->all[i]);
}

void type_drop(struct engine *e, struct entry *entry)
{
    if (entry->type < 0)
        return;
    struct used_type *used = &e->types[entry->type];
    entry->type = -1;
    if (--used->count == 0) {
        PyTypeObject *type = used->type;
        used->type = NULL;
        Py_DECREF(type);
    }
}

/* The engine remembers the class of that version; false: it cannot be told when the class changes. */
static bool type_use(struct engine *e, struct entry *entry, PyTypeObject *type, unsigned version)
{
    int at = -1;
    for (int i = 0; i < ENGINE_TYPES && version != 0; i++) {
        if (e->types[i].type == type && e->types[i].version == version) {
            at = i;
            break;
        }
        if (e->types[i].type == NULL && at < 0)
            at = i;
    }
    if (at < 0)
        return false;
    if (e->types[at].type == NULL) {
        Py_INCREF(type);
        e->types[at] = (struct used_type){.type = type, .version = version};
    }
    e->types[at].count++;
    e->type_count = at < e->type_count ? e->type_count : at + 1;
    entry->type = at;
    return true;
}

void types_check(struct engine *e)
{
    for (int i = 0; i < e->type_count; i++) {
        struct used_type *used = &e->types[i];
        if (used->type == NULL || type_version(used->type) == used->version)
            continue;
        for (int j = e->count - 1; j >= 0; j--)
            if (e->all[j]->type == i) {
                e->all[j]->flags |= ENTRY_UNCLASSED;
                e->all[j]->traits = 0;
                entry_dirty(e, e->all[j]);
            }
        used->version = 0; /* of no class: each of these entries leaves it when it is asked */
    }
}

void entry_wanted(struct engine *e, struct entry *entry, unsigned wanted)
{
    e->wanting += (wanted != 0) - (entry->wanted != 0);
    entry->wanted = (uint16_t)wanted;
}

void entry_flag(struct engine *e, struct entry *entry, unsigned flag, bool on)
{
    if (!(entry->flags & flag) == !on)
        return;
    entry->flags ^= (uint8_t)flag;
    int step = on ? 1 : -1;
    if (flag == ENTRY_CALLED) {
        e->called_count += step;
        e->called_stale = true;
    } else if (flag == ENTRY_HELD) {
        e->held += step;
    }
}

void entry_unwatch(struct engine *e, struct entry *entry)
{
    if (entry->flags & ENTRY_ADDED)
        asyncore_watch_del(e->map, entry->fd); /* fails in a child of fork() only, which makes its own set */
    e->bad -= (entry->flags & ENTRY_BAD) != 0;
    entry->flags &= (uint8_t) ~(ENTRY_ADDED | ENTRY_BAD);
    entry_wanted(e, entry, 0);
}

static void entry_remove(struct engine *e, struct entry *entry)
{
    entry_unwatch(e, entry);
    type_drop(e, entry);
    entry_flag(e, entry, ENTRY_CALLED, false);
    entry_flag(e, entry, ENTRY_HELD, false);
    e->by_fd[entry->fd] = NULL;
    e->all[entry->index] = e->all[--e->count];
    e->all[entry->index]->index = entry->index;
    entry->obj = NULL;
    if (!(entry->flags & ENTRY_DIRTY)) /* else it is freed where it leaves that list */
        entry_free(entry);
}

static int grow(struct engine *e, int fd)
{
    if (fd >= e->fd_room) {
        int room = fd < 64 ? 128 : fd + fd / 2;
        struct entry **larger = PyMem_Realloc(e->by_fd, (size_t)room * sizeof *larger);
        if (larger == NULL)
            return -1;
        memset(larger + e->fd_room, 0, (size_t)(room - e->fd_room) * sizeof *larger);
        e->by_fd = larger;
        e->fd_room = room;
    }
    if (e->count == e->room) {
        int room = e->room != 0 ? e->room * 2 : 16;
        struct entry **larger = PyMem_Realloc(e->all, (size_t)room * sizeof *larger);
        if (larger == NULL)
            return -1;
        e->all = larger;
        e->room = room;
    }
    return 0;
}

/* What is new of an object under a descriptor: its watch, its predicates. */
static void entry_renew(struct engine *e, struct entry *entry, PyObject *obj)
{
    entry_unwatch(e, entry);
    type_drop(e, entry);
    entry_flag(e, entry, ENTRY_HELD, false);
    entry->obj = obj;
    entry->serial = ++e->serial;
    entry->traits = 0;
    entry->flags |= ENTRY_UNCLASSED;
    entry_dirty(e, entry);
}

/* A key that only Python can make something of is -1. */
static int key_fd(PyObject *key)
{
    if (!PyLong_CheckExact(key))
        return -1;
    int overflow = 0;
    long fd = PyLong_AsLongAndOverflow(key, &overflow);
    return overflow == 0 && fd >= 0 && fd < INT_MAX / 2 ? (int)fd : -1;
}

/* The dict has obj under key from now on, in its old place if there was one. */
static void engine_put(struct engine *e, PyObject *key, PyObject *obj)
{
    int fd = key_fd(key);
    if (fd < 0) {
        e->resync = true; /* which counts them */
        return;
    }
    struct entry *entry = entry_at(e, fd);
    if (entry == NULL) {
        entry = grow(e, fd) == 0 ? PyMem_Calloc(1, sizeof *entry) : NULL;
        if (entry == NULL) {
            e->resync = true; /* tried again before the next wait, which fails then */
            return;
        }
        entry_count++;
        entry->fd = fd;
        entry->type = -1;
        entry->index = e->count;
        entry->order = ++e->order;
        e->by_fd[fd] = e->all[e->count++] = entry;
    }
    entry_renew(e, entry, obj);
}

static void engine_take(struct engine *e, PyObject *key)
{
    struct entry *entry = entry_at(e, key_fd(key));
    if (entry != NULL)
        entry_remove(e, entry);
    else if (key_fd(key) < 0)
        e->resync = true;
}

static void engine_clear(struct engine *e)
{
    while (e->count > 0)
        entry_remove(e, e->all[e->count - 1]);
    e->foreign = 0;
}

/* -- Engines -- */

void engine_drop(struct engine *e)
{
    struct engine **at = bucket_of(e->dict);
    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
    engine_count--;
    last_found = NULL;
    if (S.serving_engine == e)
        S.serving = NULL;
    if (asyncore_map_free(e->map) == -ECHILD) {
        asyncore_after_fork(e->map);
        asyncore_map_free(e->map);
    }
    for (int i = 0; i < e->count; i++)
        e->all[i]->flags &= (uint8_t)~ENTRY_ADDED;
    engine_clear(e);
    while (e->dirty != NULL) {
        struct entry *entry = e->dirty;
        e->dirty = entry->dirty_next;
        entry_free(entry);
    }
    PyMem_Free(e->by_fd);
    PyMem_Free(e->all);
    PyMem_Free(e->called);
    PyObject *items = e->items, *weak = e->weak;
    PyMem_Free(e);
    Py_XDECREF(items);
    Py_XDECREF(weak);
}

static void engine_unwatch(struct engine *e)
{
#if DICT_WATCHERS
    if (!e->mapping)
        PyDict_Unwatch(S.watcher, e->dict);
#else
    (void)e;
#endif
}

struct engine *engine_next(struct engine *after)
{
    if (after != NULL && after->next != NULL)
        return after->next;
    for (struct engine **at = after != NULL ? bucket_of(after->dict) + 1 : buckets; at < buckets + BUCKETS; at++)
        if (*at != NULL)
            return *at;
    return NULL;
}

static void engine_leave_dict(struct engine *e)
{
    engine_unwatch(e);
    engine_drop(e);
}

/* Of those that nobody runs there may be so many. */
static void engines_bound(void)
{
    struct engine *oldest = NULL;
    if (engine_count < MOST_IDLE)
        return;
    for (struct engine *e = engine_next(NULL); e != NULL; e = engine_next(e))
        if (e->running == 0 && (oldest == NULL || e->used < oldest->used))
            oldest = e;
    if (oldest != NULL)
        engine_leave_dict(oldest);
}

int library_error(int error)
{
    if (error == -ENOMEM)
        PyErr_NoMemory();
    else {
        errno = -error;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return -1;
}

/* A channel whose descriptor was closed behind the loop must go on looking closed. So these numbers are taken while the
 * library opens its own descriptors, by duplicates of one file: they never take the place of what another thread
 * opened. */
struct held {
    int *fds, count;
};

static void number_hold(struct held *held, int fd)
{
    int *larger = PyMem_Realloc(held->fds, ((size_t)held->count + 2) * sizeof *larger);
    if (larger == NULL)
        return;
    held->fds = larger;
    if (held->count == 0) {
        int file = open("/", O_PATH | O_CLOEXEC); /* which may get the number by itself */
        if (file < 0)
            return;
        held->fds[held->count++] = file;
    }
    int got = fcntl(held->fds[0], F_DUPFD_CLOEXEC, fd);
    if (got >= 0)
        held->fds[held->count++] = got;
}

/* What set_engine() chose, or NULL. */
static const char *engine_chosen(PyObject *dict)
{
    PyObject *key = PyLong_FromVoidPtr(dict), *chosen = key != NULL ? PyDict_GetItem(S.engines, key) : NULL;
    const char *name = chosen != NULL ? PyUnicode_AsUTF8(PyTuple_GET_ITEM(chosen, 1)) : NULL;
    Py_XDECREF(key);
    PyErr_Clear();
    return name;
}

static int library_map(struct asyncore_map **map, PyObject *dict)
{
    struct asyncore_map_options options = {.engine = engine_chosen(dict)};
    struct held held = {0};
    PyObject *key, *obj;
    Py_ssize_t at = 0;
    while (PyDict_Next(dict, &at, &key, &obj)) {
        int fd = key_fd(key);
        if (fd >= 0 && fcntl(fd, F_GETFD) < 0)
            number_hold(&held, fd);
    }
    int result = asyncore_map_new(map, &options);
    while (held.count > 0)
        close(held.fds[--held.count]);
    PyMem_Free(held.fds);
    return result;
}

static struct engine *engine_new(PyObject *dict)
{
    struct engine *e = PyMem_Calloc(1, sizeof *e);
    if (e == NULL)
        return (struct engine *)PyErr_NoMemory();
    int result = library_map(&e->map, dict);
    if (result < 0) {
        PyMem_Free(e);
        if (result == -EINVAL)
            PyErr_Format(PyExc_ValueError, "ASYNCORE_ENGINE: no such engine: %s", getenv("ASYNCORE_ENGINE"));
        else if (result != -EMFILE && result != -ENFILE) /* without an engine the map is Python's */
            library_error(result);
        return NULL;
    }
    e->dict = dict;
    e->resync = true;
    e->used = ++uses;
    e->next = *bucket_of(dict);
    *bucket_of(dict) = e;
    engine_count++;
    if (!PyDict_CheckExact(dict))
        mapping_open(e);
#if DICT_WATCHERS
    if (!e->mapping && PyDict_Watch(S.watcher, dict) < 0) {
        engine_drop(e);
        return NULL;
    }
#endif
    return e;
}

PyObject *engine_counts(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return Py_BuildValue("ill", engine_count, entry_count, S.asked);
}

/* To drop others may be to call Python: this map's is looked for afterwards. */
struct engine *engine_get(PyObject *dict)
{
    struct engine *e = engine_find(dict);
    if (e != NULL && e->running == 0 && e->mapping == !!PyDict_CheckExact(dict)) {
        engine_drop(e); /* up to 3.11: of a dict that is no more */
        e = engine_find(dict);
    }
    if (e == NULL) {
        engines_bound();
        e = engine_find(dict);
    }
    if (e == NULL)
        e = engine_new(dict);
    if (e != NULL)
        e->used = ++uses;
    return e;
}

void engine_idle(struct engine *e)
{
    if (e->running == 0 && (e->mapping ? e->weak == NULL || e->count == 0 : PyDict_GET_SIZE(e->dict) == 0))
        engine_leave_dict(e);
}

PyObject *engine_name(PyObject *module, PyObject *dict)
{
    (void)module;
    if (!mapping_usable(dict))
        return PyUnicode_FromString("python");
    struct engine *e = engine_get(dict);
    if (e == NULL)
        return PyErr_Occurred() ? NULL : PyUnicode_FromString("python");
    if (asyncore_map_engine(e->map) == NULL && engine_restart(e) < 0) /* a child of fork() */
        return NULL;
    PyObject *name = PyUnicode_FromString(asyncore_map_engine(e->map));
    engine_idle(e);
    return name;
}

PyObject *engine_forget(PyObject *module, PyObject *dict)
{
    (void)module;
    struct engine *e = engine_find(dict);
    if (e != NULL && e->running == 0)
        engine_leave_dict(e);
    Py_RETURN_NONE;
}

int engine_restart(struct engine *e)
{
    struct asyncore_map *map;
    int result = library_map(&map, e->dict);
    if (result < 0)
        return library_error(result); /* and is tried again */
    asyncore_after_fork(e->map);      /* a failure is that of descriptors which are closed: nothing is kept of it */
    asyncore_map_free(e->map);
    e->map = map;
    for (int i = 0; i < e->count; i++) {
        struct entry *entry = e->all[i];
        entry->flags &= (uint8_t)~ENTRY_ADDED;
        entry_unwatch(e, entry);
        entry_dirty(e, entry);
    }
    return 0;
}

/* An item of the map: an entry that it still has keeps its watch. 0, or -1 without memory. */
int sync_item(struct engine *e, PyObject *key, PyObject *obj)
{
    int fd = key_fd(key);
    struct entry *entry = entry_at(e, fd);
    if (fd >= 0 && (entry == NULL || entry->obj != obj))
        engine_put(e, key, obj);
    e->foreign += fd < 0;
    entry = entry_at(e, fd);
    if (entry != NULL) {
        entry->order = ++e->order;
    }
    return e->resync ? -1 : 0;
}

/* After all items: the entries that were none of them go. */
void sync_rest(struct engine *e, uint64_t before)
{
    for (int i = e->count - 1; i >= 0; i--)
        if (e->all[i]->order <= before)
            entry_remove(e, e->all[i]);
    e->called_stale = true;
}

int engine_catch_up(struct engine *e)
{
    PyObject *key, *obj;
    Py_ssize_t at = 0;
    if (e->mapping)
        return mapping_sync(e);
    e->resync = false;
    e->foreign = 0;
    uint64_t before = e->order;
    int result = 0;
    while (result == 0 && PyDict_Next(e->dict, &at, &key, &obj))
        result = sync_item(e, key, obj);
    if (result < 0) {
        PyErr_NoMemory();
        return -1;
    }
    sync_rest(e, before);
#if !DICT_WATCHERS
    e->tag = dict_tag(e->dict);
#endif
    return 0;
}

void entries_check(struct engine *e, int count)
{
    for (int i = 0; i < count && i < e->count; i++) {
        struct entry *entry = e->all[e->check++ % e->count];
        if (entry->flags & ENTRY_ADDED && asyncore_watch_check(e->map, entry->fd) == 0) {
            asyncore_watch_del(e->map, entry->fd);
            entry->flags &= (uint8_t)~ENTRY_ADDED;
            entry_wanted(e, entry, 0);
            entry_dirty(e, entry); /* if it is another file now it is waited for, as poll() would */
        }
    }
    if (e->count != 0)
        e->check %= e->count;
}

#if DICT_WATCHERS
static int dict_changed(PyDict_WatchEvent event, PyObject *dict, PyObject *key, PyObject *value)
{
    struct engine *e = engine_find(dict);
    if (e == NULL)
        return 0;
    switch (event) {
    case PyDict_EVENT_ADDED:
    case PyDict_EVENT_MODIFIED:
        engine_put(e, key, value);
        break;
    case PyDict_EVENT_DELETED:
        engine_take(e, key);
        break;
    case PyDict_EVENT_CLEARED:
        engine_clear(e);
        break;
    case PyDict_EVENT_CLONED:
        e->resync = true;
        break;
    case PyDict_EVENT_DEALLOCATED:
        engine_drop(e);
        break;
    }
    return 0;
}
#endif

int watcher_open(void)
{
    S.watcher = -1;
#if DICT_WATCHERS
    S.watcher = PyDict_AddWatcher(dict_changed);
    return S.watcher < 0 ? -1 : 0;
#else
    return 0;
#endif
}

/* -- What an entry's predicates are -- */

static bool is_data(PyTypeObject *type, PyObject *name)
{
    PyObject *value = _PyType_Lookup(type, name);
    return value != NULL && Py_TYPE(value)->tp_descr_get != NULL;
}

static enum kind kind_of(PyObject *obj, PyObject *name)
{
    static const struct {
        enum replaced method;
        enum kind kind;
    } known[] = {{DISPATCHER_READABLE, KIND_TRUE},
                 {DISPATCHER_WRITABLE, KIND_TRUE},
                 {WITH_SEND_WRITABLE, KIND_WITH_SEND},
                 {CHAT_READABLE, KIND_CHAT_READ},
                 {CHAT_WRITABLE, KIND_CHAT_WRITE}};
    PyObject *method = _PyType_Lookup(Py_TYPE(obj), name);
    for (size_t i = 0; i < sizeof known / sizeof *known && method != NULL; i++)
        if (method == S.replacement[known[i].method] && is_ours(obj, name, known[i].method))
            return known[i].kind;
    return KIND_CALL;
}

/* Only a channel that tells of its changes, and of this map, need not be asked. */
static bool tells(struct engine *e, PyObject *obj, uint64_t serial)
{
    PyTypeObject *type = Py_TYPE(obj);
    struct engine *of = NULL;
    struct entry *entry = NULL;
    return PyType_IsSubtype(type, (PyTypeObject *)S.channel) && type->tp_setattro == channel_setattro &&
           type->tp_getattro == PyObject_GenericGetAttr && !is_data(type, S.name.connected) &&
           !is_data(type, S.name.accepting) && !is_data(type, S.name.producer_fifo) && !is_data(type, S.name._map) &&
           !is_data(type, S.name._fileno) && (entry = entry_of(obj, &of)) != NULL && of == e && entry->serial == serial;
}

static bool has_tls(PyObject *obj)
{
    PyObject *tls = NULL;
    if (PyDict_GetItem(S.module, S.name._special) != Py_True ||
        !PyType_IsSubtype(Py_TYPE(obj), (PyTypeObject *)S.channel))
        return false;
    if (lookup_attr(obj, S.name._asyncore_tls, &tls) < 0)
        PyErr_Clear();
    Py_XDECREF(tls);
    return tls != NULL && tls != Py_None;
}

/* To look may be to call Python, which may do anything to the entry and the class. */
struct entry *entry_class(struct engine *e, struct entry *entry)
{
    PyObject *obj = entry->obj;
    PyTypeObject *type = Py_TYPE(obj);
    int fd = entry->fd;
    uint64_t serial = entry->serial;
    enum kind read = KIND_CALL, write = KIND_CALL;
    Py_INCREF(obj);
    Py_INCREF(type);
    entry->flags &= (uint8_t)~ENTRY_UNCLASSED;
    entry->traits = 0;
    _PyType_Lookup(type, S.name.readable); /* it has a version from now on, if it can have one */
    unsigned version = type_version(type);
    bool tls = has_tls(obj);
    if (tells(e, obj, serial)) {
        read = kind_of(obj, S.name.readable);
        write = kind_of(obj, S.name.writable);
    }
    bool synced = engine_follow(e) == 0;
    if (!synced)
        PyErr_Clear(); /* it will be tried again */
    entry = synced ? entry_again(e, fd, serial) : NULL;
    if (entry != NULL) {
        type_drop(e, entry);
        if (Py_TYPE(obj) != type || type_version(type) != version || !type_use(e, entry, type, version))
            read = write = KIND_CALL;
        entry->read = (uint8_t)read;
        entry->write = (uint8_t)write;
        entry_flag(e, entry, ENTRY_CALLED, read == KIND_CALL || write == KIND_CALL || tls);
        entry_flag(e, entry, ENTRY_TLS, tls);
        if (!tls)
            entry_flag(e, entry, ENTRY_HELD, false);
    }
    Py_DECREF(type);
    Py_DECREF(obj);
    return entry;
}

static unsigned trait_if(int result, unsigned trait)
{
    if (result < 0)
        PyErr_Clear(); /* the original meets it again */
    return result > 0 ? trait : 0;
}

/* obj.handle_read if it is its class's, which has it; or NULL. */
static PyObject *class_reads(PyObject *obj)
{
    PyObject *method = NULL;
    int unbound = _PyObject_GetMethod(obj, S.name.handle_read, &method);
    Py_XDECREF(method);
    return unbound ? method : NULL;
}

/* Whether what is known of the entry's class still holds. */
static bool is_classed(const struct engine *e, const struct entry *entry)
{
    const struct used_type *type = entry->type >= 0 ? &e->types[entry->type] : NULL;
    return type != NULL && !(entry->flags & ENTRY_UNCLASSED) && type_version(type->type) == type->version &&
           Py_TYPE(entry->obj) == type->type;
}

static bool has_own(PyObject *obj, PyObject *name)
{
    PyObject *method = NULL;
    int unbound = _PyObject_GetMethod(obj, name, &method);
    if (method == NULL)
        PyErr_Clear();
    Py_XDECREF(method);
    return !unbound;
}

/* Whether its predicates are still those that were found: the cheap part of entry_class(). */
bool entry_settled(const struct engine *e, const struct entry *entry)
{
    return is_classed(e, entry) && !(entry->flags & ENTRY_CALLED) && !has_own(entry->obj, S.name.readable) &&
           !has_own(entry->obj, S.name.writable);
}

/* What is known of obj, which is looked at. */
static unsigned traits_of(PyObject *obj, enum kind write)
{
    bool streams = attr_true(obj, S.name.connected) > 0 && attr_true(obj, S.name.accepting) == 0 &&
                   attr_none(obj, S.name._asyncore_tls) > 0;
    unsigned traits =
        trait_if(streams, TRAIT_STREAMS) |
        trait_if(is_ours(obj, S.name.handle_read_event, DISPATCHER_READ_EVENT), TRAIT_READ_EVENT) |
        trait_if(attr_none(obj, S.name._asyncore_idle), TRAIT_NO_IDLE) |
        trait_if(S.replacement[WITH_SEND_INITIATE] != NULL && attr_true(obj, S.name.debug) == 0 &&
                     is_ours(obj, S.name.initiate_send, WITH_SEND_INITIATE) && nothing_queued(obj),
                 TRAIT_SHORT) |
        trait_if(S.replacement[CHAT_INITIATE] != NULL && write == KIND_CHAT_WRITE && chat_is_short(obj), TRAIT_PUSH);
    PyErr_Clear();
    return traits;
}

/* To look may be to call Python: what was found counts only if all stands as it did. */
static unsigned entry_traits(struct engine *e, struct entry *entry)
{
    if (!is_classed(e, entry))
        return 0;
    if (entry->traits & TRAIT_KNOWN)
        return entry->traits;
    PyObject *obj = entry->obj;
    int fd = entry->fd, at = entry->type;
    uint64_t serial = entry->serial;
    unsigned version = e->types[at].version;
    unsigned traits = TRAIT_KNOWN | traits_of(obj, entry->write);
    PyObject *method = class_reads(obj);
    PyErr_Clear();
    if (S.serving != obj || S.serving_engine != e || (entry = entry_again(e, fd, serial)) == NULL ||
        entry->type != at || e->types[at].version != version || !is_classed(e, entry))
        return 0;
    if (method != NULL) {
        traits |= TRAIT_READ;
        e->types[at].handle_read = method;
    }
    entry->traits = (uint8_t)traits;
    return traits;
}

unsigned serving_entry_traits(PyObject *self)
{
    struct entry *entry = entry_at(S.serving_engine, S.serving_fd);
    return entry != NULL && entry->obj == self && S.serving_engine->thread == PyThread_get_thread_ident()
               ? entry_traits(S.serving_engine, entry)
               : 0;
}

static int by_order(const void *a, const void *b)
{
    const struct entry *x = *(struct entry *const *)a, *y = *(struct entry *const *)b;
    return x->order < y->order ? -1 : x->order > y->order;
}

int called_order(struct engine *e)
{
    int count = 0;
    if (!e->called_stale)
        return 0;
    struct entry **larger = PyMem_Realloc(e->called, ((size_t)e->called_count + 1) * sizeof *larger);
    if (larger == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    e->called = larger;
    for (int i = 0; i < e->count; i++)
        if (e->all[i]->flags & ENTRY_CALLED)
            e->called[count++] = e->all[i];
    qsort(e->called, (size_t)count, sizeof *e->called, by_order);
    e->called_stale = false;
    return 0;
}

/* -- The entry of a channel -- */

static int attr_fd(PyObject *channel)
{
    PyObject *fileno = PyObject_GetAttr(channel, S.name._fileno);
    if (fileno == NULL) {
        PyErr_Clear();
        return -1;
    }
    int fd = key_fd(fileno);
    Py_DECREF(fileno);
    return fd;
}

struct entry *entry_of(PyObject *channel, struct engine **engine)
{
    if (engine_count == 0 || Py_TYPE(channel)->tp_getattro != PyObject_GenericGetAttr)
        return NULL;
    PyObject *map = PyObject_GetAttr(channel, S.name._map);
    if (map == NULL) {
        PyErr_Clear();
        return NULL;
    }
    int fd = attr_fd(channel); /* before the engine is looked for: this may be Python */
    struct engine *e = Py_REFCNT(map) > 1 ? engine_find(map) : NULL; /* else it goes here, and its engine with it */
    struct entry *entry = e != NULL ? entry_at(e, fd) : NULL;
    Py_DECREF(map);
    if (entry == NULL || entry->obj != channel)
        return NULL;
    *engine = e;
    return entry;
}

void channel_note(PyObject *self)
{
    PyObject *type, *error, *traceback;
    struct engine *e = NULL;
    PyErr_Fetch(&type, &error, &traceback);
    struct entry *entry = entry_of(self, &e);
    if (entry != NULL) {
        entry->traits = 0;
        entry_dirty(e, entry);
    }
    PyErr_Restore(type, error, traceback);
}

/* -- add_channel and del_channel -- */

/* `map` of the arguments, or the channel's own; a new reference. NULL without an exception: ask the original. */
static PyObject *map_arg(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count > 1 || names != NULL)
        return NULL;
    PyObject *map = count == 1 && args[0] != Py_None ? args[0] : NULL;
    Py_XINCREF(map);
    if (map == NULL)
        map = PyObject_GetAttr(self, S.name._map);
    if (map != NULL && !PyDict_CheckExact(map))
        Py_CLEAR(map);
    return map;
}

int channel_elsewhere(PyObject *map)
{
    if (PyDict_GET_SIZE(S.maps) == 0)
        return 0;
    struct engine *e = engine_find(map);
    if (e != NULL && e->running != 0 && e->thread == PyThread_get_thread_ident())
        return 0;
    PyObject *answer = PyObject_CallFunctionObjArgs(S.elsewhere, map, NULL);
    int result = answer != NULL ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    return result;
}

/* A wait that another thread is in, in Python's turns, ends; and who wants to know is told which descriptor `left`. */
static int wake_others(PyObject *map, PyObject *left)
{
    if (PyDict_GET_SIZE(S.maps) == 0)
        return 0;
    struct engine *e = engine_find(map);
    if (e != NULL && e->running != 0 && e->foreign == 0 && !e->told && e->thread == PyThread_get_thread_ident())
        return 0;
    PyObject *done = left != NULL ? PyObject_CallFunctionObjArgs(S.left, map, left, NULL)
                                  : PyObject_CallFunctionObjArgs(S.wake, map, NULL);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

/* Whether the engine has what the dict has, and all keys are plain numbers: then to look one up runs no Python. */
static bool is_known(const struct engine *e)
{
    return e != NULL && engine_synced(e) && e->foreign == 0;
}

static int map_put(PyObject *map, PyObject *fileno, PyObject *self)
{
    struct engine *e = engine_find(map);
    bool known = is_known(e);
    struct entry *before = known ? entry_at(e, key_fd(fileno)) : NULL;
    PyObject *old = before != NULL ? before->obj : NULL; /* kept, since it may do something when it goes */
    Py_XINCREF(old);
    int result = PyDict_SetItem(map, fileno, self);
    e = engine_find(map);
    if (result < 0 && e != NULL)
        e->resync = true;
    else if (!known && e != NULL && (before = entry_at(e, key_fd(fileno))) != NULL) {
        entry_renew(e, before, self); /* or it would pass for what was there, if that had its address */
        e->resync = true;
    } else if (known && result == 0) {
#if DICT_WATCHERS
        if (old == self)
            entry_renew(e, before, self); /* the dict did not change, but the descriptor may be another file's */
#else
        engine_put(e, fileno, self);
        e->tag = dict_tag(map);
#endif
    }
    Py_XDECREF(old);
    return result;
}

PyObject *dispatcher_add_channel(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *map = map_arg(self, args, count, names), *fileno = NULL;
    if (map != NULL)
        fileno = PyObject_GetAttr(self, S.name._fileno);
    if (map == NULL || fileno == NULL || !PyLong_CheckExact(fileno)) {
        Py_XDECREF(map);
        Py_XDECREF(fileno);
        PyErr_Clear();
        return call_original(DISPATCHER_ADD, self, args, count, names);
    }
    int result = map_put(map, fileno, self);
    Py_DECREF(fileno);
    if (result == 0)
        result = wake_others(map, NULL);
    Py_DECREF(map);
    if (result < 0)
        return NULL;
    Py_RETURN_NONE;
}

static int map_take(PyObject *map, PyObject *fileno)
{
    struct engine *e = engine_find(map);
    bool known = is_known(e);
    struct entry *entry = known ? entry_at(e, key_fd(fileno)) : NULL;
    PyObject *old = entry != NULL ? entry->obj : NULL;
    Py_XINCREF(old);
    int result = PyDict_DelItem(map, fileno);
    if (known && result == 0) {
#if !DICT_WATCHERS
        engine_take(e, fileno);
        e->tag = dict_tag(map);
#endif
        engine_idle(e);
    }
    Py_XDECREF(old);
    return result;
}

PyObject *dispatcher_del_channel(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *map = map_arg(self, args, count, names), *fileno = NULL;
    if (map != NULL)
        fileno = PyObject_GetAttr(self, S.name._fileno);
    if (map == NULL || fileno == NULL || (!PyLong_CheckExact(fileno) && fileno != Py_None)) {
        Py_XDECREF(map);
        Py_XDECREF(fileno);
        PyErr_Clear();
        struct engine *e = NULL;
        struct entry *entry = entry_of(self, &e);
        if (entry != NULL && e->mapping) { /* nobody tells of the item that goes; if it stays it is added again */
            entry_unwatch(e, entry);
            entry_dirty(e, entry);
        }
        return call_original(DISPATCHER_DEL, self, args, count, names);
    }
    int result = PyDict_Contains(map, fileno);
    if (result > 0) {
        result = map_take(map, fileno);
        if (result == 0)
            result = wake_others(map, fileno);
    }
    Py_DECREF(fileno);
    Py_DECREF(map);
    if (result < 0 || PyObject_SetAttr(self, S.name._fileno, Py_None) < 0)
        return NULL;
    Py_RETURN_NONE;
}
