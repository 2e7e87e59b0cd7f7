/* _asyncore_channel.c: dispatcher's busiest methods.
 *
 * recv and send go past the socket object where it is exactly a socket.socket whose class nobody patched, and which has
 * the timeout 0: the descriptor is asked from the object each time, and the call does not block. Any other transport is
 * called by the original methods. A read or write of up to 16 KiB keeps the GIL, since it takes less time than giving
 * it away and back. */
#include "_asyncore.h"
#include <errno.h>
#include <sys/socket.h>

#define SMALL 16384 /* bytes that are moved with the GIL */
#define BULK  16    /* so many reads after one that was longer are expected to be long, too */

static PyCFunction builtin_method(PyTypeObject *type, const char *name, PyObject *builtin)
{
    PyObject *text = PyUnicode_InternFromString(name);
    PyObject *method = text != NULL ? _PyType_Lookup(type, text) : NULL;
    Py_XDECREF(text);
    if (method == NULL || !PyObject_TypeCheck(method, &PyMethodDescr_Type) ||
        PyDescr_TYPE(method) != (PyTypeObject *)builtin)
        return NULL;
    return ((PyMethodDescrObject *)method)->d_method->ml_meth;
}

/* Whether socket.socket's methods are those of _socket.socket; looked at when the class changed. */
static bool socket_verify(PyTypeObject *type)
{
    PyObject *module = PyImport_ImportModule("_socket");
    PyObject *builtin = module != NULL ? PyObject_GetAttrString(module, "socket") : NULL;
    bool good = builtin != NULL && type->tp_getattro == PyObject_GenericGetAttr && type->tp_dictoffset == 0 &&
                builtin_method(type, "recv", builtin) != NULL && builtin_method(type, "send", builtin) != NULL;
    S.fileno = good ? builtin_method(type, "fileno", builtin) : NULL;
    S.gettimeout = good ? builtin_method(type, "gettimeout", builtin) : NULL;
    Py_XDECREF(builtin);
    Py_XDECREF(module);
    PyErr_Clear();
    S.socket_version = type_version(type);
    return S.socket_version != 0 && S.fileno != NULL && S.gettimeout != NULL;
}

/* The descriptor of a plain socket that does not block; -1: it is another transport. */
int plain_socket(PyObject *sock)
{
    PyTypeObject *type = Py_TYPE(sock);
    if (type != S.socket_type)
        return -1;
    if ((type_version(type) != S.socket_version || S.socket_version == 0) && !socket_verify(type))
        return -1;
    if (S.gettimeout == NULL || S.fileno == NULL)
        return -1;
    PyObject *timeout = S.gettimeout(sock, NULL);
    bool blocks = timeout == NULL || !PyFloat_CheckExact(timeout) || PyFloat_AS_DOUBLE(timeout) != 0.0;
    Py_XDECREF(timeout);
    PyObject *number = blocks ? NULL : S.fileno(sock, NULL);
    int fd = number != NULL ? (int)PyLong_AsLong(number) : -1;
    Py_XDECREF(number);
    if (fd < 0)
        PyErr_Clear();
    return fd;
}

int channel_socket(PyObject *self)
{
    PyObject *sock = PyObject_GetAttr(self, S.name.socket);
    if (sock == NULL)
        return -2;
    int fd = plain_socket(sock);
    Py_DECREF(sock);
    return fd;
}

int touch(PyObject *self, unsigned traits)
{
    if (traits & TRAIT_NO_IDLE)
        return 0;
    PyObject *idle = PyObject_GetAttr(self, S.name._asyncore_idle);
    int result = idle == NULL ? -1 : idle == Py_None ? 0 : call0_void(idle, S.name.touch);
    Py_XDECREF(idle);
    return result;
}

/* -- recv -- */

static ssize_t recv_again(int fd, void *data, size_t size, int flags)
{
    ssize_t n;
    do
        n = recv(fd, data, size, flags | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR && PyErr_CheckSignals() == 0);
    return n < 0 ? (PyErr_Occurred() ? -EINTR : -errno) : n;
}

/* Reads what may be a long one: into the bytes object, without the GIL, after what is at its beginning already. */
static PyObject *recv_long(int fd, Py_ssize_t size, const char *begun, ssize_t length, ssize_t *result)
{
    PyObject *data = PyBytes_FromStringAndSize(NULL, size);
    if (data == NULL)
        return NULL;
    char *at = PyBytes_AS_STRING(data);
    if (length != 0)
        memcpy(at, begun, (size_t)length);
    ssize_t n;
    int error = 0;
    Py_BEGIN_ALLOW_THREADS n = recv(fd, at + length, (size_t)(size - length), MSG_DONTWAIT);
    error = errno;
    Py_END_ALLOW_THREADS *result = n < 0 ? -error : n;
    if (n <= 0 && length == 0) {
        Py_DECREF(data);
        return NULL;
    }
    S.bulk = n + length > SMALL ? BULK : S.bulk - (S.bulk != 0);
    if (_PyBytes_Resize(&data, (n > 0 ? n : 0) + length) < 0)
        return NULL;
    return data;
}

/* Not inlined: its buffer is not to lie on the stack while handlers run, which may call recv again.
 * NULL without an exception: *result is 0 for the end, or the negated errno. What follows the first bytes may be the
 * end or an error: that is the next call's. */
__attribute__((noinline)) static PyObject *recv_some(int fd, Py_ssize_t size, ssize_t *result)
{
    char small[SMALL];
    if (size > SMALL && S.bulk != 0)
        return recv_long(fd, size, NULL, 0, result);
    *result = recv_again(fd, small, size < SMALL ? (size_t)size : SMALL, 0);
    if (*result <= 0)
        return NULL;
    if (*result == SMALL && size > SMALL)
        return recv_long(fd, size, small, SMALL, result);
    return PyBytes_FromStringAndSize(small, *result);
}

/* An error of a lost connection out of handle_close counts as recv's own, as ever: it is called once more. */
static PyObject *ended(PyObject *self)
{
    if (call0_void(self, S.name.handle_close) < 0 &&
        (!lost_connection() || handle_method(self, S.name.handle_close) < 0))
        return NULL;
    Py_INCREF(S.empty);
    return S.empty;
}

/* self.recv(size) of a plain socket; NULL without an exception: it has another transport. */
PyObject *recv_bytes(PyObject *self, Py_ssize_t size)
{
    ssize_t result = 0;
    int fd = channel_socket(self);
    if (fd < 0)
        return NULL;
    PyObject *data = recv_some(fd, size, &result);
    if (data != NULL) {
        if (touch(self, serving_traits(self)) < 0)
            Py_CLEAR(data);
        return data;
    }
    if (PyErr_Occurred())
        return NULL;
    if (result == 0)
        return ended(self);
    library_error((int)result);
    if (!is_disconnect((int)-result))
        return NULL;
    if (handle_method(self, S.name.handle_close) < 0)
        return NULL;
    Py_INCREF(S.empty);
    return S.empty;
}

PyObject *dispatcher_recv(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count == 1 && names == NULL && PyLong_CheckExact(args[0])) {
        Py_ssize_t size = PyLong_AsSsize_t(args[0]);
        PyObject *data = size > 0 ? recv_bytes(self, size) : NULL;
        if (data != NULL)
            return data;
        if (size > 0 && PyErr_Occurred())
            return NULL;
        PyErr_Clear();
    }
    return call_original(DISPATCHER_RECV, self, args, count, names);
}

/* -- send -- */

ssize_t send_raw(int fd, const void *data, size_t size)
{
    ssize_t n;
    if (size <= SMALL) {
        do
            n = send(fd, data, size, MSG_DONTWAIT);
        while (n < 0 && errno == EINTR && PyErr_CheckSignals() == 0);
        return n < 0 ? -errno : n;
    }
    int error;
    Py_BEGIN_ALLOW_THREADS n = send(fd, data, size, MSG_DONTWAIT);
    error = errno;
    Py_END_ALLOW_THREADS return n < 0 ? -error : n;
}

PyObject *dispatcher_send(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    int fd = count == 1 && names == NULL && PyObject_CheckBuffer(args[0]) ? channel_socket(self) : -1;
    Py_buffer view;
    if (fd == -2)
        return NULL;
    if (fd < 0)
        return call_original(DISPATCHER_SEND, self, args, count, names);
    if (PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) < 0)
        return NULL;
    ssize_t sent = send_raw(fd, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    if (PyErr_Occurred())
        return NULL;
    if (sent > 0 && touch(self, serving_traits(self)) < 0)
        return NULL;
    if (sent >= 0)
        return PyLong_FromSsize_t(sent);
    if (sent == -EAGAIN)
        return PyLong_FromLong(0);
    library_error((int)sent);
    if (!is_disconnect((int)-sent) || handle_method(self, S.name.handle_close) < 0)
        return NULL;
    return PyLong_FromLong(0);
}

/* -- Events -- */

PyObject *dispatcher_readable(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count != 0 || names != NULL)
        return call_original(DISPATCHER_READABLE, self, args, count, names);
    Py_RETURN_TRUE;
}

/* What a channel with TLS, or none that is connected, does is the original's. 1: self is connected and plain. */
static int is_simple(PyObject *self)
{
    int connected = attr_true(self, S.name.connected);
    return connected <= 0 ? connected : attr_none(self, S.name._asyncore_tls);
}

static int original_event(enum replaced which, PyObject *self)
{
    PyObject *result = call_original(which, self, NULL, 0, NULL);
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

int read_event(PyObject *self)
{
    int accepting = attr_true(self, S.name.accepting);
    if (accepting != 0)
        return accepting < 0 ? -1 : call0_void(self, S.name.handle_accept);
    int simple = is_simple(self);
    if (simple <= 0)
        return simple < 0 ? -1 : original_event(DISPATCHER_READ_EVENT, self);
    return call0_void(self, S.name.handle_read);
}

int write_event(PyObject *self)
{
    int accepting = attr_true(self, S.name.accepting);
    if (accepting != 0)
        return accepting < 0 ? -1 : 0;
    int simple = is_simple(self);
    if (simple <= 0)
        return simple < 0 ? -1 : original_event(DISPATCHER_WRITE_EVENT, self);
    return call0_void(self, S.name.handle_write);
}

PyObject *dispatcher_read_event(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count != 0 || names != NULL)
        return call_original(DISPATCHER_READ_EVENT, self, args, count, names);
    if (read_event(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyObject *dispatcher_write_event(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count != 0 || names != NULL)
        return call_original(DISPATCHER_WRITE_EVENT, self, args, count, names);
    if (write_event(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}
