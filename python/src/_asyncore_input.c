/* _asyncore_input.c: what async_chat does with input.
 *
 * `_asyncore_in` holds what is not dispatched yet: bytes, and how many of them at the beginning were. Python makes it a
 * tuple; here it is an object of the type `input`, a pair for Python, whose number moves: a line costs no copy of what
 * follows it. Handlers may put another in its place (discard_buffers, ac_in_buffer, a read within the read), which
 * S.inputs counts.
 *
 * A read looks up the terminator and the two handlers once, and again when they may be others: when the version of the
 * class is another, or one of these names was set on any channel, which tp_setattro counts (S.handlers, S.terminators).
 * Methods that an instance has for itself, and all of classes whose setattr is not told, are looked up each time. */
#include "_asyncore.h"

struct input {
    PyObject_HEAD PyObject *data; /* bytes */
    Py_ssize_t at;                /* 0 to their size */
};

/* One handle_read. */
struct reading {
    PyObject *self;
    struct input *input;                    /* owned; NULL: to be found */
    PyObject *terminator, *collect, *found; /* owned; NULL: to be looked up */
    uint64_t inputs, handlers, terminators; /* S's when they were */
    unsigned version;                       /* of the class; 0: nothing may be kept */
};

/* -- The pair -- */

static void input_free(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(((struct input *)self)->data);
    type->tp_free(self);
    Py_DECREF(type);
}

static Py_ssize_t input_length(PyObject *self)
{
    (void)self;
    return 2;
}

static PyObject *input_item(PyObject *self, Py_ssize_t index)
{
    struct input *in = (struct input *)self;
    if (index == 0) {
        Py_INCREF(in->data);
        return in->data;
    }
    if (index == 1)
        return PyLong_FromSsize_t(in->at);
    PyErr_SetString(PyExc_IndexError, "input is a pair");
    return NULL;
}

static PyType_Slot input_slots[] = {{Py_tp_dealloc, (void *)input_free},
                                    {Py_sq_length, (void *)input_length},
                                    {Py_sq_item, (void *)input_item},
                                    {Py_tp_doc, (void *)"Bytes, and how many of them are dispatched."},
                                    {0, NULL}};

static PyType_Spec input_spec = {
    .name = "_asyncore.input",
    .basicsize = sizeof(struct input),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = input_slots,
};

PyObject *input_type(void)
{
    PyObject *type = PyType_FromSpec(&input_spec);
    if (type != NULL)
        ((PyTypeObject *)type)->tp_new = NULL; /* Python makes none */
    return type;
}

static void input_set(struct input *in, PyObject *data, Py_ssize_t at)
{
    Py_INCREF(data);
    Py_XSETREF(in->data, data);
    in->at = at;
}

/* A new one, which becomes the channel's. */
static struct input *input_new(PyObject *self, PyObject *data, Py_ssize_t at)
{
    struct input *in = PyObject_New(struct input, S.input);
    if (in == NULL)
        return NULL;
    Py_INCREF(data);
    in->data = data;
    in->at = at;
    S.inputs++;
    if (PyObject_GenericSetAttr(self, S.name._asyncore_in, (PyObject *)in) < 0)
        Py_CLEAR(in);
    return in;
}

/* The channel's, as r->input: 1; 0 if what it has is not in a form that is known here; -1 with an exception. */
static int input_find(struct reading *r)
{
    PyObject *held = NULL;
    Py_CLEAR(r->input);
    r->inputs = S.inputs;
    if (lookup_attr(r->self, S.name._asyncore_in, &held) < 0)
        return -1;
    if (held != NULL && Py_TYPE(held) == S.input) {
        r->input = (struct input *)held;
        return 1;
    }
    int result = held != NULL && PyTuple_CheckExact(held) && PyTuple_GET_SIZE(held) == 2 &&
                 PyBytes_CheckExact(PyTuple_GET_ITEM(held, 0)) && PyLong_CheckExact(PyTuple_GET_ITEM(held, 1));
    Py_ssize_t at = result ? PyLong_AsSsize_t(PyTuple_GET_ITEM(held, 1)) : -1;
    if (at < 0) {
        PyErr_Clear();
        result = 0;
    }
    if (result) {
        PyObject *data = PyTuple_GET_ITEM(held, 0);
        r->input = input_new(r->self, data, at < PyBytes_GET_SIZE(data) ? at : PyBytes_GET_SIZE(data));
        r->inputs = S.inputs;
        result = r->input != NULL ? 1 : -1;
    }
    Py_XDECREF(held);
    return result;
}

/* It was found, and is not another by now. */
static inline int find(struct reading *r)
{
    return r->input != NULL && r->inputs == S.inputs ? 1 : input_find(r);
}

/* So many bytes more were dispatched, of whatever the channel has by now. */
static int cut(struct reading *r, Py_ssize_t count)
{
    int known = find(r);
    if (known > 0) {
        Py_ssize_t left = PyBytes_GET_SIZE(r->input->data) - r->input->at;
        r->input->at += count < left ? count : left;
    }
    if (known != 0)
        return known < 0 ? -1 : 0;
    PyObject *all = PyObject_GetAttr(r->self, S.name.ac_in_buffer);
    PyObject *rest = all != NULL ? PySequence_GetSlice(all, count, PY_SSIZE_T_MAX) : NULL;
    int result = rest != NULL ? PyObject_SetAttr(r->self, S.name.ac_in_buffer, rest) : -1;
    Py_XDECREF(all);
    Py_XDECREF(rest);
    return result;
}

/* -- What is looked up -- */

static void forget(struct reading *r)
{
    Py_CLEAR(r->terminator);
    Py_CLEAR(r->collect);
    Py_CLEAR(r->found);
    r->version = 0;
}

/* Nothing of what is kept may have become another since. */
static bool is_known(const struct reading *r)
{
    return r->version != 0 && r->version == type_version(Py_TYPE(r->self)) && r->handlers == S.handlers;
}

/* From now on what is looked up may be kept, if the class tells of changes. */
static void know(struct reading *r)
{
    PyTypeObject *type = Py_TYPE(r->self);
    forget(r);
    if (type->tp_setattro != channel_setattro || type->tp_getattro != PyObject_GenericGetAttr)
        return;
    PyObject *terminator = _PyType_Lookup(type, S.name.terminator); /* a class without a version gets one */
    if (terminator == NULL || Py_TYPE(terminator)->tp_descr_get == NULL)
        r->version = type_version(type);
    r->handlers = S.handlers;
}

/* self.name(), or self.name(arg), by what is kept in `place`. */
static PyObject *call_handler(struct reading *r, PyObject **place, PyObject *name, PyObject *arg)
{
    PyObject *args[2] = {r->self, arg}, *method = NULL;
    size_t count = arg != NULL ? 2 : 1;
    if (!is_known(r))
        know(r);
    if (*place != NULL)
        return PyObject_Vectorcall(*place, args, count, NULL);
    int unbound = _PyObject_GetMethod(r->self, name, &method);
    if (method == NULL)
        return NULL;
    if (unbound && r->version != 0) {
        Py_INCREF(method);
        *place = method;
    }
    PyObject *result = PyObject_Vectorcall(method, unbound ? args : args + 1, unbound ? count : count - 1, NULL);
    Py_DECREF(method);
    return result;
}

/* self.get_terminator(); a new reference. */
static PyObject *terminator_of(struct reading *r)
{
    PyObject *method = NULL, *result;
    if (!is_known(r))
        know(r);
    if (r->terminator != NULL && r->terminators == S.terminators) {
        Py_INCREF(r->terminator);
        return r->terminator;
    }
    int unbound = _PyObject_GetMethod(r->self, S.name.get_terminator, &method);
    if (unbound && method == S.get_terminator) {
        result = PyObject_GetAttr(r->self, S.name.terminator);
        if (result != NULL && r->version != 0) {
            Py_INCREF(result);
            Py_XSETREF(r->terminator, result);
            r->terminators = S.terminators;
        }
    } else
        result = method != NULL ? PyObject_Vectorcall(method, &r->self, unbound ? 1 : 0, NULL) : NULL;
    Py_XDECREF(method);
    return result;
}

/* -- Dispatching -- */

/* Gives so many bytes to collect_incoming_data, none if there are none, and cuts that and the terminator off. */
static int collect(struct reading *r, PyObject *data, Py_ssize_t at, Py_ssize_t size, Py_ssize_t gone)
{
    if (size > 0) {
        PyObject *piece = data, *done;
        if (size == PyBytes_GET_SIZE(data))
            Py_INCREF(piece);
        else
            piece = PyBytes_FromStringAndSize(PyBytes_AS_STRING(data) + at, size);
        done = piece != NULL ? call_handler(r, &r->collect, S.name.collect_incoming_data, piece) : NULL;
        Py_XDECREF(piece);
        if (done == NULL)
            return -1;
        Py_DECREF(done);
    }
    return cut(r, gone);
}

static int found(struct reading *r)
{
    PyObject *done = call_handler(r, &r->found, S.name.found_terminator, NULL);
    Py_XDECREF(done);
    return done != NULL ? 1 : -1;
}

static int dispatch_length(struct reading *r, Py_ssize_t length, PyObject *data, Py_ssize_t at, Py_ssize_t size)
{
    bool whole = size >= length;
    Py_ssize_t given = whole ? length : size;
    if (collect(r, data, at, given, given) < 0)
        return -1;
    PyObject *step = PyLong_FromSsize_t(whole ? 0 : size), *left = whole ? step : NULL;
    PyObject *old = whole ? NULL : PyObject_GetAttr(r->self, S.name.terminator);
    if (step != NULL && old != NULL)
        left = PyNumber_InPlaceSubtract(old, step);
    int result = left != NULL ? PyObject_SetAttr(r->self, S.name.terminator, left) : -1;
    if (!whole)
        Py_XDECREF(left);
    Py_XDECREF(step);
    Py_XDECREF(old);
    return result < 0 ? -1 : whole ? found(r) : 1;
}

static int dispatch_bytes(struct reading *r, PyObject *terminator, PyObject *data, Py_ssize_t at, Py_ssize_t size)
{
    size_t keep = 0;
    Py_ssize_t length = PyBytes_GET_SIZE(terminator);
    ssize_t index =
        asynchat_find(PyBytes_AS_STRING(data) + at, (size_t)size, PyBytes_AS_STRING(terminator), (size_t)length, &keep);
    if (index >= 0)
        return collect(r, data, at, index, index + length) < 0 ? -1 : found(r);
    Py_ssize_t given = size - (Py_ssize_t)keep;
    if (given > 0 && collect(r, data, at, given, given) < 0)
        return -1;
    return keep == 0;
}

/* By what asynchat has for it in Python. */
static int dispatch_python(PyObject *answer)
{
    int on = answer != NULL ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    return on;
}

static int dispatch_other(struct reading *r, PyObject *terminator, PyObject *data, Py_ssize_t at)
{
    PyObject *number = PyLong_FromSsize_t(at), *answer = NULL;
    if (number != NULL)
        answer = PyObject_CallFunctionObjArgs(S.cut_at, r->self, data, number, terminator, NULL);
    Py_XDECREF(number);
    return dispatch_python(answer);
}

static int dispatch_with(struct reading *r, PyObject *terminator, PyObject *data, Py_ssize_t at, Py_ssize_t size)
{
    if (PyBytes_Check(terminator) && PyBytes_GET_SIZE(terminator) != 0)
        return dispatch_bytes(r, terminator, data, at, size);
    int is = PyObject_IsTrue(terminator);
    if (is <= 0)
        return is < 0 || collect(r, data, at, size, size) < 0 ? -1 : 1;
    Py_ssize_t length = PyLong_Check(terminator) ? PyLong_AsSsize_t(terminator) : -1;
    if (length > 0)
        return dispatch_length(r, length, data, at, size);
    PyErr_Clear(); /* a number that is out of range, or something else */
    return dispatch_other(r, terminator, data, at);
}

/* Input up to one terminator: 1 to go on, 0 when there is none left, or -1. */
static int dispatch(struct reading *r)
{
    int known = find(r);
    if (known <= 0)
        return known < 0 ? -1 : dispatch_python(PyObject_CallFunctionObjArgs(S.dispatch, r->self, NULL));
    PyObject *data = r->input->data;
    Py_ssize_t at = r->input->at, size = PyBytes_GET_SIZE(data) - at;
    if (size == 0)
        return 0;
    Py_INCREF(data);
    PyObject *terminator = terminator_of(r);
    int result = terminator != NULL ? dispatch_with(r, terminator, data, at, size) : -1;
    Py_XDECREF(terminator);
    Py_DECREF(data);
    return result;
}

/* -- A read -- */

/* The part of data from `at`, and `more` after it. */
static PyObject *joined(PyObject *data, Py_ssize_t at, PyObject *more)
{
    Py_ssize_t kept = PyBytes_GET_SIZE(data) - at, came = PyBytes_GET_SIZE(more);
    PyObject *all = PyBytes_FromStringAndSize(NULL, kept + came);
    if (all != NULL) {
        memcpy(PyBytes_AS_STRING(all), PyBytes_AS_STRING(data) + at, (size_t)kept);
        memcpy(PyBytes_AS_STRING(all) + kept, PyBytes_AS_STRING(more), (size_t)came);
    }
    return all;
}

/* Where there is something else than async_chat puts there. */
static int add_python(PyObject *self, PyObject *came)
{
    PyObject *old = PyObject_GetAttr(self, S.name.ac_in_buffer);
    PyObject *all = old != NULL ? PyNumber_Add(old, came) : NULL;
    int result = all != NULL ? PyObject_SetAttr(self, S.name.ac_in_buffer, all) : -1;
    Py_XDECREF(old);
    Py_XDECREF(all);
    return result;
}

/* What was kept, and what came. */
static int add(struct reading *r, PyObject *came)
{
    int known = find(r);
    if (known <= 0)
        return known < 0 ? -1 : add_python(r->self, came);
    struct input *in = r->input;
    PyObject *all = came;
    if (in->at < PyBytes_GET_SIZE(in->data))
        all = joined(in->data, in->at, came);
    else
        Py_INCREF(all);
    if (all != NULL && Py_REFCNT(in) == 2)
        input_set(in, all, 0);
    else if (all != NULL) { /* a read that this one is within has it: it shall see that there is another */
        Py_DECREF(in);
        r->input = input_new(r->self, all, 0);
        r->inputs = S.inputs;
    }
    Py_XDECREF(all);
    return all != NULL && r->input != NULL ? 0 : -1;
}

/* Nobody keeps what was dispatched. */
static int let_go(struct reading *r)
{
    int known = find(r);
    if (known <= 0 || r->input->at == 0)
        return known < 0 ? -1 : 0;
    struct input *in = r->input;
    Py_ssize_t kept = PyBytes_GET_SIZE(in->data) - in->at;
    PyObject *rest = PyBytes_FromStringAndSize(PyBytes_AS_STRING(in->data) + in->at, kept);
    if (rest == NULL)
        return -1;
    input_set(in, rest, 0);
    Py_DECREF(rest);
    return 0;
}

/* Whether the short way is open: recv is dispatcher's, and ac_in_buffer async_chat's. The size to read, or 0. */
static Py_ssize_t read_size(PyObject *self)
{
    Py_ssize_t result = 0;
    if (_PyType_Lookup(Py_TYPE(self), S.name.ac_in_buffer) != S.in_buffer ||
        !is_ours(self, S.name.recv, DISPATCHER_RECV))
        return 0;
    PyObject *size = PyObject_GetAttr(self, S.name.ac_in_buffer_size);
    if (size != NULL && PyLong_CheckExact(size))
        result = PyLong_AsSsize_t(size);
    Py_XDECREF(size);
    PyErr_Clear();
    return result > 0 ? result : 0;
}

static int read_all(PyObject *self, PyObject *data)
{
    struct reading r = {.self = self};
    int on = add(&r, data) < 0 ? -1 : 1;
    while (on > 0)
        on = dispatch(&r);
    if (on == 0)
        on = let_go(&r);
    forget(&r);
    Py_XDECREF(r.input);
    return on;
}

PyObject *chat_handle_read(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Py_ssize_t size = count == 0 && names == NULL ? read_size(self) : 0;
    PyObject *data = size > 0 ? recv_bytes(self, size) : NULL;
    if (data == NULL && !PyErr_Occurred())
        return call_original(CHAT_READ, self, args, count, names);
    if (data == NULL) {
        if (PyErr_ExceptionMatches(PyExc_BlockingIOError))
            PyErr_Clear();
        else if (!PyErr_ExceptionMatches(PyExc_OSError) || handle_method(self, S.name.handle_error) < 0)
            return NULL;
        Py_RETURN_NONE;
    }
    int result = read_all(self, data);
    Py_DECREF(data);
    if (result < 0)
        return NULL;
    Py_RETURN_NONE;
}
