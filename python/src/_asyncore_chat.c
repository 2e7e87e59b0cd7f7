/* _asyncore_chat.c: async_chat.
 *
 * Input. `_asyncore_in` holds what is not dispatched yet: bytes, and how many of them at the beginning were. Here it is a
 * list whose number moves, so that a line costs no copy of what follows it; handlers may replace it (discard_buffers), or
 * look at it (ac_in_buffer makes a new one), and it is looked up anew after each.
 *
 * Output. push() sends at once when nothing is queued, and queues what the socket did not take. Producers, marks, other
 * types than bytes and items longer than a send are the original's. */
#include "_asyncore.h"
#include <errno.h>

/* -- Predicates -- */

int chat_reads(PyObject *self)
{
    int stopped = attr_true(self, S.name._asyncore_stopped);
    if (stopped <= 0)
        return stopped < 0 ? -1 : 1;
    PyObject *answer = call_original(CHAT_READABLE, self, NULL, 0, NULL);
    int result = answer != NULL ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    return result;
}

int chat_writes(PyObject *self)
{
    PyObject *fifo = PyObject_GetAttr(self, S.name.producer_fifo);
    int result = fifo == NULL ? -1 : Py_TYPE(fifo) == S.deque ? Py_SIZE(fifo) != 0 : PyObject_IsTrue(fifo);
    Py_XDECREF(fifo);
    if (result != 0)
        return result;
    int connected = attr_true(self, S.name.connected);
    return connected < 0 ? -1 : !connected;
}

PyObject *chat_readable(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    return call_original(CHAT_READABLE, self, args, count, names);
}

PyObject *chat_writable(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    return call_original(CHAT_WRITABLE, self, args, count, names);
}

/* -- Input -- */

/* What is not dispatched yet: 1, 0 if it is not in the form that is known here, -1 with an exception. `data` is a new
 * reference. */
static int held_input(PyObject *self, PyObject **data, Py_ssize_t *at)
{
    PyObject *held = NULL;
    if (lookup_attr(self, S.name._asyncore_in, &held) < 0)
        return -1;
    bool known = held != NULL && (PyList_CheckExact(held) || PyTuple_CheckExact(held)) &&
                 PySequence_Fast_GET_SIZE(held) == 2 && PyBytes_CheckExact(PySequence_Fast_GET_ITEM(held, 0)) &&
                 PyLong_CheckExact(PySequence_Fast_GET_ITEM(held, 1));
    if (known) {
        *data = PySequence_Fast_GET_ITEM(held, 0);
        *at = PyLong_AsSsize_t(PySequence_Fast_GET_ITEM(held, 1));
        known = *at >= 0 && *at <= PyBytes_GET_SIZE(*data);
    }
    if (known)
        Py_INCREF(*data);
    Py_XDECREF(held);
    PyErr_Clear();
    return known;
}

static int hold_input(PyObject *self, PyObject *data, Py_ssize_t at)
{
    PyObject *held = Py_BuildValue("[On]", data, at);
    int result = held != NULL ? PyObject_GenericSetAttr(self, S.name._asyncore_in, held) : -1;
    Py_XDECREF(held);
    return result;
}

/* So many bytes more were dispatched, of whatever is held by now. */
static int cut(PyObject *self, Py_ssize_t count)
{
    PyObject *held = NULL, *number = NULL;
    int result = -1;
    if (lookup_attr(self, S.name._asyncore_in, &held) < 0)
        return -1;
    if (held != NULL && PyList_CheckExact(held) && PyList_GET_SIZE(held) == 2) {
        Py_ssize_t at = PyLong_AsSsize_t(PyList_GET_ITEM(held, 1));
        number = at < 0 || at > PY_SSIZE_T_MAX - count ? NULL : PyLong_FromSsize_t(at + count);
        result = number != NULL ? PyList_SetItem(held, 1, number) : -1;
    } else if (held != NULL && PyTuple_CheckExact(held) && PyTuple_GET_SIZE(held) == 2) {
        Py_ssize_t at = PyLong_AsSsize_t(PyTuple_GET_ITEM(held, 1));
        result = at < 0 || at > PY_SSIZE_T_MAX - count ? -1 : hold_input(self, PyTuple_GET_ITEM(held, 0), at + count);
    } else
        result = -1;
    if (result < 0 && !PyErr_Occurred())
        PyErr_SetString(PyExc_TypeError, "_asyncore_in is asynchat's own");
    Py_XDECREF(held);
    return result;
}

static int collect(PyObject *self, PyObject *data, Py_ssize_t at, Py_ssize_t size, Py_ssize_t gone)
{
    if (size > 0) {
        PyObject *piece = data, *done;
        if (size == PyBytes_GET_SIZE(data))
            Py_INCREF(piece);
        else
            piece = PyBytes_FromStringAndSize(PyBytes_AS_STRING(data) + at, size);
        done = piece != NULL ? call1(self, S.name.collect_incoming_data, piece) : NULL;
        Py_XDECREF(piece);
        Py_XDECREF(done);
        if (done == NULL)
            return -1;
    }
    return cut(self, gone);
}

/* A terminator that is a number. */
static int dispatch_length(PyObject *self, Py_ssize_t length, PyObject *data, Py_ssize_t at, Py_ssize_t size)
{
    bool whole = size >= length;
    if (collect(self, data, at, whole ? length : size, whole ? length : size) < 0)
        return -1;
    PyObject *old = whole ? NULL : PyObject_GetAttr(self, S.name.terminator), *left = NULL;
    PyObject *step = PyLong_FromSsize_t(whole ? 0 : size);
    if (step != NULL && (whole || old != NULL))
        left = whole ? PyNumber_Positive(step) : PyNumber_InPlaceSubtract(old, step);
    int result = left != NULL ? PyObject_SetAttr(self, S.name.terminator, left) : -1;
    Py_XDECREF(old);
    Py_XDECREF(step);
    Py_XDECREF(left);
    if (result < 0 || (whole && call0_void(self, S.name.found_terminator) < 0))
        return -1;
    return 1;
}

static int dispatch_bytes(PyObject *self, PyObject *terminator, PyObject *data, Py_ssize_t at, Py_ssize_t size)
{
    size_t keep = 0;
    Py_ssize_t length = PyBytes_GET_SIZE(terminator);
    ssize_t index = asynchat_find(PyBytes_AS_STRING(data) + at, (size_t)size, PyBytes_AS_STRING(terminator),
                                  (size_t)length, &keep);
    if (index >= 0) {
        if (collect(self, data, at, index, index + length) < 0)
            return -1;
        return call0_void(self, S.name.found_terminator) < 0 ? -1 : 1;
    }
    Py_ssize_t given = size - (Py_ssize_t)keep;
    if (given > 0 && collect(self, data, at, given, given) < 0)
        return -1;
    return keep == 0;
}

/* A terminator that is a number of bytes; -1: it is none, or one that Python knows what to do with. */
static Py_ssize_t length_of(PyObject *terminator)
{
    Py_ssize_t length = PyLong_Check(terminator) ? PyLong_AsSsize_t(terminator) : -1;
    PyErr_Clear();
    return length;
}

static PyObject *terminator_of(PyObject *self)
{
    if (_PyType_Lookup(Py_TYPE(self), S.name.get_terminator) == S.get_terminator)
        return PyObject_GetAttr(self, S.name.terminator);
    return call0(self, S.name.get_terminator);
}

/* Input up to one terminator: 1 to go on, 0 when there is none left, or -1. */
static int dispatch(PyObject *self)
{
    PyObject *data = NULL;
    Py_ssize_t at = 0;
    int result = held_input(self, &data, &at);
    if (result <= 0) {
        PyObject *on = result < 0 ? NULL : PyObject_CallFunctionObjArgs(S.dispatch, self, NULL);
        result = on != NULL ? PyObject_IsTrue(on) : -1;
        Py_XDECREF(on);
        return result;
    }
    Py_ssize_t size = PyBytes_GET_SIZE(data) - at;
    PyObject *terminator = size > 0 ? terminator_of(self) : NULL;
    int is = terminator == NULL ? (size > 0 ? -1 : 0) : PyObject_IsTrue(terminator);
    if (terminator == NULL)
        result = is;
    else if (is <= 0)
        result = is < 0 || collect(self, data, at, size, size) < 0 ? -1 : 1;
    else if (length_of(terminator) >= 0)
        result = dispatch_length(self, length_of(terminator), data, at, size);
    else if (PyBytes_Check(terminator))
        result = dispatch_bytes(self, terminator, data, at, size);
    else {
        PyObject *on = PyObject_CallFunctionObjArgs(S.dispatch, self, NULL);
        result = on != NULL ? PyObject_IsTrue(on) : -1;
        Py_XDECREF(on);
    }
    Py_XDECREF(terminator);
    Py_DECREF(data);
    return result;
}

/* Nobody keeps what was dispatched. */
static int let_go(PyObject *self)
{
    PyObject *data = NULL;
    Py_ssize_t at = 0;
    if (held_input(self, &data, &at) <= 0)
        return PyErr_Occurred() ? -1 : 0;
    PyObject *rest = PyBytes_FromStringAndSize(PyBytes_AS_STRING(data) + at, PyBytes_GET_SIZE(data) - at);
    int result = rest == NULL ? -1 : at == 0 ? 0 : hold_input(self, rest, 0);
    Py_XDECREF(rest);
    Py_DECREF(data);
    return result;
}

/* What was kept, and what came. */
static int add_input(PyObject *self, PyObject *came)
{
    PyObject *data = NULL;
    Py_ssize_t at = 0;
    int known = held_input(self, &data, &at);
    if (known <= 0) { /* a handle_close put something else there */
        PyObject *old = known < 0 ? NULL : PyObject_GetAttr(self, S.name.ac_in_buffer), *all = NULL;
        if (old != NULL)
            all = PyNumber_Add(old, came);
        int result = all != NULL ? PyObject_SetAttr(self, S.name.ac_in_buffer, all) : -1;
        Py_XDECREF(old);
        Py_XDECREF(all);
        return result;
    }
    Py_ssize_t kept = PyBytes_GET_SIZE(data) - at;
    PyObject *all = came;
    Py_INCREF(all);
    if (kept != 0) {
        Py_SETREF(all, PyBytes_FromStringAndSize(NULL, kept + PyBytes_GET_SIZE(came)));
        if (all != NULL) {
            memcpy(PyBytes_AS_STRING(all), PyBytes_AS_STRING(data) + at, (size_t)kept);
            memcpy(PyBytes_AS_STRING(all) + kept, PyBytes_AS_STRING(came), (size_t)PyBytes_GET_SIZE(came));
        }
    }
    int result = all != NULL ? hold_input(self, all, 0) : -1;
    Py_XDECREF(all);
    Py_DECREF(data);
    return result;
}

/* Whether the short way is open: recv is dispatcher's, and ac_in_buffer async_chat's. The size to read, or 0. */
static Py_ssize_t read_size(PyObject *self)
{
    PyObject *data = NULL, *size;
    Py_ssize_t at = 0, result = 0;
    if (_PyType_Lookup(Py_TYPE(self), S.name.ac_in_buffer) != S.in_buffer ||
        !is_ours(self, S.name.recv, DISPATCHER_RECV) || held_input(self, &data, &at) <= 0) {
        PyErr_Clear();
        return 0;
    }
    Py_DECREF(data);
    size = PyObject_GetAttr(self, S.name.ac_in_buffer_size);
    if (size != NULL && PyLong_CheckExact(size))
        result = PyLong_AsSsize_t(size);
    Py_XDECREF(size);
    PyErr_Clear();
    return result > 0 ? result : 0;
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
    int on = add_input(self, data) < 0 ? -1 : 1;
    Py_DECREF(data);
    while (on > 0)
        on = dispatch(self);
    if (on < 0 || let_go(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* -- Output -- */

/* Whether send() is dispatcher's, initiate_send async_chat's, and there are no marks, for this channel. */
bool chat_is_short(PyObject *self)
{
    int marks = attr_none(self, S.name._asyncore_marks);
    if (marks < 0)
        PyErr_Clear();
    return marks > 0 && is_ours(self, S.name.initiate_send, CHAT_INITIATE) &&
           is_ours(self, S.name.send, DISPATCHER_SEND);
}

/* ac_out_buffer_size, or 0 where the original knows what to do with it. */
static Py_ssize_t piece_size(PyObject *self)
{
    PyObject *size = PyObject_GetAttr(self, S.name.ac_out_buffer_size);
    Py_ssize_t result = size != NULL && PyLong_CheckExact(size) ? PyLong_AsSsize_t(size) : 0;
    Py_XDECREF(size);
    PyErr_Clear();
    return result > 0 ? result : 0;
}

/* Whether the attribute `producer_fifo` is a plain deque; a new reference. */
static PyObject *plain_fifo(PyObject *self)
{
    PyObject *fifo = PyObject_GetAttr(self, S.name.producer_fifo);
    if (fifo == NULL)
        PyErr_Clear();
    if (fifo != NULL && Py_TYPE(fifo) != S.deque)
        Py_CLEAR(fifo);
    return fifo;
}

/* The send failed: as dispatcher.send() and initiate_send() have it, which takes an OSError of handle_close for send's. */
static int send_failed(PyObject *self, ssize_t error)
{
    library_error((int)error);
    if (is_disconnect((int)-error)) {
        if (handle_method(self, S.name.handle_close) == 0)
            return 0;
        if (!PyErr_ExceptionMatches(PyExc_OSError))
            return -1;
    }
    return handle_method(self, S.name.handle_error);
}

/* Sends bytes, and sees that what was not taken is the first in the queue, where the item is already if `queued`. */
static int send_first(PyObject *self, PyObject *fifo, PyObject *data, int fd, bool queued, unsigned traits)
{
    Py_ssize_t size = PyBytes_GET_SIZE(data);
    ssize_t sent = send_raw(fd, PyBytes_AS_STRING(data), (size_t)size);
    if (PyErr_Occurred() || (sent > 0 && touch(self, traits) < 0))
        return -1;
    PyObject *rest = data;
    Py_INCREF(rest);
    if (sent > 0)
        Py_SETREF(rest, PyBytes_FromStringAndSize(PyBytes_AS_STRING(data) + sent, size - sent));
    int result = rest != NULL ? 0 : -1;
    if (result == 0 && queued)
        result = sent == size ? PySequence_DelItem(fifo, 0) : sent > 0 ? PySequence_SetItem(fifo, 0, rest) : 0;
    else if (result == 0 && sent < size) {
        PyObject *done = PyObject_CallMethod(fifo, "append", "O", rest);
        Py_XDECREF(done);
        result = done != NULL ? 0 : -1;
    }
    Py_XDECREF(rest);
    if (result == 0 && (queued || sent < size))
        channel_note(self);
    return result == 0 && sent < 0 && sent != -EAGAIN ? send_failed(self, sent) : result;
}

/* The descriptor to send by at once; -1: by the original. */
static int short_socket(PyObject *self, unsigned traits)
{
    if (!(traits & TRAIT_PUSH)) {
        PyObject *map = chat_is_short(self) ? PyObject_GetAttr(self, S.name._map) : NULL;
        int elsewhere = map != NULL ? channel_elsewhere(map) : 1;
        Py_XDECREF(map);
        if (elsewhere != 0)
            return -1;
    }
    if (!(traits & TRAIT_STREAMS) && attr_true(self, S.name.connected) <= 0)
        return -1;
    return channel_socket(self);
}

PyObject *chat_push(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    unsigned traits = serving_traits(self);
    PyObject *fifo = NULL;
    int fd = -1, result = -1;
    if (count == 1 && names == NULL && PyBytes_CheckExact(args[0]) && PyBytes_GET_SIZE(args[0]) != 0 &&
        PyBytes_GET_SIZE(args[0]) <= piece_size(self))
        fifo = plain_fifo(self);
    if (fifo != NULL && Py_SIZE(fifo) == 0)
        fd = short_socket(self, traits);
    if (fd >= 0)
        result = send_first(self, fifo, args[0], fd, false, traits);
    Py_XDECREF(fifo);
    if (fd < 0) {
        PyErr_Clear();
        PyObject *done = call_original(CHAT_PUSH, self, args, count, names);
        if (done != NULL)
            channel_note(self);
        return done;
    }
    if (result < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyObject *chat_initiate_send(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    unsigned traits = serving_traits(self);
    PyObject *fifo = count == 0 && names == NULL ? plain_fifo(self) : NULL;
    PyObject *first = fifo != NULL && Py_SIZE(fifo) != 0 ? PySequence_GetItem(fifo, 0) : NULL;
    int fd = -1, result = -1;
    if (first != NULL && PyBytes_CheckExact(first) && PyBytes_GET_SIZE(first) != 0 &&
        PyBytes_GET_SIZE(first) <= piece_size(self))
        fd = short_socket(self, traits);
    if (fd >= 0)
        result = send_first(self, fifo, first, fd, true, traits);
    Py_XDECREF(first);
    Py_XDECREF(fifo);
    if (fd < 0) {
        PyErr_Clear();
        PyObject *done = call_original(CHAT_INITIATE, self, args, count, names);
        if (done != NULL)
            channel_note(self);
        return done;
    }
    if (result < 0)
        return NULL;
    Py_RETURN_NONE;
}
