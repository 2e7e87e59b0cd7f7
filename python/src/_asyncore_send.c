/* _asyncore_send.c: dispatcher_with_send.
 *
 * The short way: nothing is queued, and the socket takes all of it. Then nothing is kept, nor looked at. What it does
 * not take becomes out_buffer, whose growing and shrinking is asyncore._queue's. */
#include "_asyncore.h"
#include <errno.h>

#define PIECE 65536 /* what one send is offered */

bool nothing_queued(PyObject *self)
{
    PyObject *held = NULL;
    if (lookup_attr(self, S.name._asyncore_out, &held) < 0)
        PyErr_Clear();
    Py_XDECREF(held);
    return held != NULL && PyBytes_CheckExact(held) && PyBytes_GET_SIZE(held) == 0;
}

/* Whether send(data) may take the short way: 1, 0, or -1 with an exception. */
static int is_short(PyObject *self, PyObject *data, unsigned traits)
{
    if (!PyBytes_CheckExact(data) || PyBytes_GET_SIZE(data) == 0)
        return 0;
    if (traits & TRAIT_SHORT)
        return 1;
    if (!is_ours(self, S.name.initiate_send, WITH_SEND_INITIATE) || !nothing_queued(self))
        return 0;
    int debug = attr_true(self, S.name.debug);
    if (debug != 0)
        return debug < 0 ? -1 : 0;
    PyObject *map = PyObject_GetAttr(self, S.name._map);
    int elsewhere = map != NULL ? channel_elsewhere(map) : -1;
    Py_XDECREF(map);
    return elsewhere < 0 ? -1 : !elsewhere;
}

static int keep_rest(PyObject *self, PyObject *data, Py_ssize_t sent)
{
    PyObject *rest = PyBytes_FromStringAndSize(PyBytes_AS_STRING(data) + sent, PyBytes_GET_SIZE(data) - sent);
    int result = rest != NULL ? PyObject_SetAttr(self, S.name.out_buffer, rest) : -1;
    Py_XDECREF(rest);
    return result;
}

static int send_short(PyObject *self, PyObject *data, int fd, unsigned traits)
{
    Py_ssize_t size = PyBytes_GET_SIZE(data);
    ssize_t sent = send_raw(fd, PyBytes_AS_STRING(data), size < PIECE ? (size_t)size : PIECE);
    if (PyErr_Occurred())
        return -1;
    if (sent > 0 && touch(self, traits) < 0)
        return -1;
    if (sent == size)
        return 0;
    if (keep_rest(self, data, sent > 0 ? sent : 0) < 0)
        return -1;
    if (sent >= 0 || sent == -EAGAIN)
        return 0;
    library_error((int)sent);
    return is_disconnect((int)-sent) ? handle_method(self, S.name.handle_close) : -1;
}

PyObject *with_send_send(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    unsigned traits = serving_traits(self);
    int is = count == 1 && names == NULL ? is_short(self, args[0], traits) : 0;
    int fd = is > 0 ? channel_socket(self) : -1;
    if (is < 0 || fd == -2)
        return NULL;
    if (fd < 0)
        return call_noted(WITH_SEND_SEND, self, args, count, names);
    if (send_short(self, args[0], fd, traits) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Its out_buffer changes past tp_setattro. */
PyObject *with_send_initiate(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    return call_noted(WITH_SEND_INITIATE, self, args, count, names);
}

/* Whether it is not connected, or has something to send. */
int with_send_wants(PyObject *self)
{
    int connected = attr_true(self, S.name.connected);
    if (connected <= 0)
        return connected < 0 ? -1 : 1;
    PyObject *held = NULL;
    if (lookup_attr(self, S.name._asyncore_out, &held) < 0)
        return -1;
    if (held == NULL && (held = PyObject_GetAttr(self, S.name.out_buffer)) == NULL)
        return -1;
    Py_ssize_t size = PyBytes_CheckExact(held) ? PyBytes_GET_SIZE(held) : PyObject_Size(held);
    Py_DECREF(held);
    return size < 0 ? -1 : size != 0;
}

PyObject *with_send_writable(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    return call_original(WITH_SEND_WRITABLE, self, args, count, names);
}
