/* _asyncore_chat.c: async_chat's predicates, and its output; _asyncore_input.c has its input.
 *
 * push() sends at once when nothing is queued, and queues what the socket did not take. Producers, marks, other types
 * than bytes and items longer than a send are the original's. */
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

/* The send failed: as dispatcher.send() and initiate_send() have it, which takes handle_close's OSError for send's. */
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
        return call_noted(CHAT_PUSH, self, args, count, names);
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
        return call_noted(CHAT_INITIATE, self, args, count, names);
    }
    if (result < 0)
        return NULL;
    Py_RETURN_NONE;
}
