/* _asyncore_chat.c: async_chat. */
#include "_asyncore.h"

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

PyObject *chat_handle_read(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    return call_original(CHAT_READ, self, args, count, names);
}

PyObject *chat_push(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *result = call_original(CHAT_PUSH, self, args, count, names);
    channel_note(self);
    return result;
}

PyObject *chat_initiate_send(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *result = call_original(CHAT_INITIATE, self, args, count, names);
    channel_note(self);
    return result;
}
