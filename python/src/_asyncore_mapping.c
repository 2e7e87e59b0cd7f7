/* _asyncore_mapping.c: engines of maps that are not exactly a dict.
 *
 * Nothing tells of their changes, and their methods may be anything: as poll() does, items() is taken before each wait,
 * and get() asked before each step. So all of them are looked at every turn, in the order of items(). The engine holds
 * what it got until it takes the next, which keeps the channels that the entries name alive.
 *
 * The engine is found by the map's address, and goes with the map, by a weak reference; at the end of the loop where
 * the map takes none. */
#include "_asyncore.h"

static bool has_method(PyObject *map, PyObject *name)
{
    PyObject *method = _PyType_Lookup(Py_TYPE(map), name);
    return method != NULL;
}

/* A dict, or what has the methods that a map needs; Python's turns say what is wrong with anything else. */
bool mapping_usable(PyObject *map)
{
    return PyDict_Check(map) || (has_method(map, S.name.items) && has_method(map, S.name.get));
}

void mapping_open(struct engine *e)
{
    e->mapping = true;
    e->weak = PyWeakref_NewRef(e->dict, S.gone);
    PyErr_Clear();
}

/* The callback of these weak references. */
PyObject *mapping_gone(PyObject *module, PyObject *weak)
{
    (void)module;
    struct engine *e = engine_next(NULL);
    while (e != NULL && e->weak != weak)
        e = engine_next(e);
    if (e != NULL)
        engine_drop(e);
    Py_RETURN_NONE;
}

static int sync_pair(struct engine *e, PyObject *pair)
{
    if (!PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2) {
        e->foreign++; /* Python's turns know what to make of it */
        return 0;
    }
    if (sync_item(e, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1)) == 0)
        return 0;
    PyErr_NoMemory();
    return -1;
}

static int sync_pairs(struct engine *e, PyObject *pairs)
{
    int result = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(pairs) && result == 0; i++)
        result = sync_pair(e, PyList_GET_ITEM(pairs, i));
    return result;
}

/* The same without pairs. */
static int sync_dict(struct engine *e)
{
    PyObject *key, *obj;
    Py_ssize_t at = 0;
    int result = 0;
    while (result == 0 && PyDict_Next(e->dict, &at, &key, &obj))
        result = sync_item(e, key, obj);
    if (result < 0)
        PyErr_NoMemory();
    return result;
}

int mapping_sync(struct engine *e)
{
    bool plain = PyDict_Check(e->dict) &&
                 _PyType_Lookup(Py_TYPE(e->dict), S.name.items) == _PyType_Lookup(&PyDict_Type, S.name.items);
    PyObject *items = plain ? PyDict_Values(e->dict) : PyMapping_Items(e->dict), *last = e->items;
    if (items == NULL)
        return -1;
    uint64_t before = e->order;
    e->resync = false;
    e->foreign = 0;
    int result = plain ? sync_dict(e) : sync_pairs(e, items);
    sync_rest(e, result == 0 ? before : e->order); /* none is left of a half */
    engine_all_dirty(e);
    e->items = items;
    Py_XDECREF(last);
    return result;
}

/* Whether it has obj there; -1 with the exception of its get(), which leaves the loop. */
int mapping_has(struct engine *e, int fd, PyObject *obj)
{
    PyObject *key = PyLong_FromLong(fd);
    PyObject *found = key != NULL ? PyObject_CallMethodObjArgs(e->dict, S.name.get, key, NULL) : NULL;
    Py_XDECREF(key);
    Py_XDECREF(found);
    return found == NULL ? -1 : found == obj;
}
