/* _asyncore.c: the module: what it replaces of asyncore and asynchat, and helpers to call Python.
 *
 * The classes are those of the Python modules. install() puts C methods into them, and keeps the Python ones: a C
 * method does what is usual in a short way and hands everything else, TLS and odd arguments included, to the original,
 * so that there is one text of the rules. The types of its own are `channel`, the base of dispatcher: an object without
 * state whose tp_setattro sees which attributes change; and `input`, which async_chat's input lies in.
 *
 * There is one state for the process. Other interpreters than the main one, which may end before others begin, and a
 * second copy of the module asyncore get no C: Python serves them. The state is never freed while methods may be
 * called, which is as long as the interpreter runs. */
#include "_asyncore.h"
#include <errno.h>

struct state S;

/* -- Calling -- */

PyObject *call0(PyObject *self, PyObject *name)
{
    PyObject *method = NULL, *result;
    int unbound = _PyObject_GetMethod(self, name, &method);
    if (method == NULL)
        return NULL;
    result = PyObject_Vectorcall(method, &self, unbound ? 1 : 0, NULL);
    Py_DECREF(method);
    return result;
}

PyObject *call1(PyObject *self, PyObject *name, PyObject *arg)
{
    PyObject *method = NULL, *result, *args[2] = {self, arg};
    int unbound = _PyObject_GetMethod(self, name, &method);
    if (method == NULL)
        return NULL;
    result = PyObject_Vectorcall(method, unbound ? args : args + 1, unbound ? 2 : 1, NULL);
    Py_DECREF(method);
    return result;
}

int call0_void(PyObject *self, PyObject *name)
{
    PyObject *result = call0(self, name);
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

PyObject *call_original(enum replaced which, PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *all[8];
    Py_ssize_t given = PyVectorcall_NARGS((size_t)count), named = names != NULL ? PyTuple_GET_SIZE(names) : 0;
    if (given + named >= 8) {
        PyErr_SetString(PyExc_TypeError, "too many arguments");
        return NULL;
    }
    all[0] = self;
    for (Py_ssize_t i = 0; i < given + named; i++)
        all[i + 1] = args[i];
    return PyObject_Vectorcall(S.original[which], all, (size_t)given + 1, names);
}

PyObject *call_noted(enum replaced which, PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *result = call_original(which, self, args, count, names);
    channel_note(self);
    return result;
}

bool is_ours(PyObject *self, PyObject *name, enum replaced which)
{
    if (Py_TYPE(self)->tp_getattro != PyObject_GenericGetAttr ||
        _PyType_Lookup(Py_TYPE(self), name) != S.replacement[which])
        return false;
    PyObject *method = NULL;
    int unbound = _PyObject_GetMethod(self, name, &method);
    bool ours = unbound && method == S.replacement[which];
    if (method == NULL)
        PyErr_Clear();
    Py_XDECREF(method);
    return ours;
}

int attr_true(PyObject *self, PyObject *name)
{
    PyObject *value = PyObject_GetAttr(self, name);
    if (value == NULL)
        return -1;
    int result = value == Py_True ? 1 : value == Py_False ? 0 : PyObject_IsTrue(value);
    Py_DECREF(value);
    return result;
}

int attr_none(PyObject *self, PyObject *name)
{
    PyObject *value = PyObject_GetAttr(self, name);
    if (value == NULL)
        return -1;
    Py_DECREF(value);
    return value == Py_None;
}

/* -- Exceptions -- */

bool is_disconnect(int error)
{
    return error == ECONNRESET || error == ENOTCONN || error == ESHUTDOWN || error == ECONNABORTED || error == EPIPE ||
           error == EBADF;
}

/* The current exception is an OSError of a lost connection. */
bool lost_connection(void)
{
    PyObject *type, *value, *traceback, *number;
    if (!PyErr_ExceptionMatches(PyExc_OSError))
        return false;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    number = PyObject_GetAttrString(value, "errno");
    bool lost = number != NULL && PyLong_Check(number) && is_disconnect((int)PyLong_AsLong(number));
    Py_XDECREF(number);
    PyErr_Clear();
    PyErr_Restore(type, value, traceback);
    return lost;
}

/* callable(arg), or arg.name() where callable is NULL. */
static int handled(PyObject *callable, PyObject *arg, PyObject *name)
{
    PyObject *type, *value, *traceback, *old_type, *old_value, *old_traceback, *result;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback == NULL) { /* it comes from C alone, but handle_error may rely on one */
        PyErr_Restore(type, value, traceback);
        _PyTraceback_Add("loop", "_asyncore.c", 1);
        PyErr_Fetch(&type, &value, &traceback);
    }
    if (traceback != NULL)
        PyException_SetTraceback(value, traceback);
    PyErr_GetExcInfo(&old_type, &old_value, &old_traceback);
    PyErr_SetExcInfo(type, value, traceback);
    result = NULL;
    if (!Py_EnterRecursiveCall(" in a handler of asyncore")) {
        result = callable == NULL ? call0(arg, name) : PyObject_CallFunctionObjArgs(callable, arg, NULL);
        Py_LeaveRecursiveCall();
    }
    PyErr_SetExcInfo(old_type, old_value, old_traceback);
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

int handle_with(PyObject *callable, PyObject *arg)
{
    return handled(callable, arg, NULL);
}

int handle_method(PyObject *self, PyObject *name)
{
    return handled(NULL, self, name);
}

/* -- What is replaced -- */

#define METHOD(name, function, text)                                                                                   \
    {                                                                                                                  \
        name, (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS, text                             \
    }

/* In the order of enum replaced. */
static PyMethodDef methods[REPLACED] = {
    METHOD("readable", dispatcher_readable,
           "readable($self)\n--\n\nWhether to call handle_read, or handle_accept, when there is something. "
           "True unless overridden."),
    METHOD("writable", dispatcher_readable,
           "writable($self)\n--\n\nWhether to call handle_write when the socket takes data. "
           "True unless overridden, which keeps a loop busy."),
    METHOD("recv", dispatcher_recv,
           "recv($self, buffer_size)\n--\n\nAt most so many bytes. b\"\" is the end, or a lost connection, "
           "after handle_close. Nothing yet raises."),
    METHOD("send", dispatcher_send,
           "send($self, data)\n--\n\nSends what the socket takes of it and returns how much that was. "
           "A lost connection is handle_close and 0."),
    METHOD("handle_read_event", dispatcher_read_event,
           "handle_read_event($self)\n--\n\nThere is something to read, or a client, or a connection stands."),
    METHOD("handle_write_event", dispatcher_write_event,
           "handle_write_event($self)\n--\n\nThe socket takes data, or a connection stands."),
    METHOD("add_channel", dispatcher_add_channel,
           "add_channel($self, map=None)\n--\n\nPuts the channel into a map (None: its own) under its descriptor."),
    METHOD("del_channel", dispatcher_del_channel,
           "del_channel($self, map=None)\n--\n\nTakes the channel out of a map (None: its own)."),
    METHOD("send", with_send_send,
           "send($self, data)\n--\n\nTakes all of it. From a thread that does not serve the channel's map it is "
           "handed to the one that does."),
    METHOD("initiate_send", with_send_initiate,
           "initiate_send($self)\n--\n\nSends what the socket takes of out_buffer."),
    METHOD("writable", with_send_writable,
           "writable($self)\n--\n\nWhile connecting, and while out_buffer holds something."),
    METHOD("readable", chat_readable,
           "readable($self)\n--\n\nTrue; with marks set, not while more than the high mark is queued."),
    METHOD("writable", chat_writable, "writable($self)\n--\n\nWhile something is queued, and while connecting."),
    METHOD("handle_read", chat_handle_read, "handle_read($self)\n--\n\nReads once and dispatches what came."),
    METHOD("push", chat_push,
           "push($self, data)\n--\n\nQueues bytes, and sends at once what the socket takes.\n\nWith marks set: True "
           "once more than the high mark is queued, else False; OSError(ENOBUFS) past the limit, and\nnothing was "
           "taken. From a thread that does not serve the channel's map, the one that does will send."),
    METHOD("initiate_send", chat_initiate_send,
           "initiate_send($self)\n--\n\nMakes one send of what is first in the queue."),
};

static PyMethodDef functions[] = {
    {"loop", (PyCFunction)(void (*)(void))loop_loop, METH_VARARGS | METH_KEYWORDS,
     "loop(timeout=30.0, use_poll=False, map=None, count=None)\n--\n\n"
     "Serves a map until no channel and no timer is left, or for `count` turns.\n\n"
     "timeout: how long one wait may take, in seconds.\nuse_poll: poll2() instead of poll().\n"
     "map: the channels; socket_map unless given."},
    {"poll", (PyCFunction)(void (*)(void))loop_poll, METH_VARARGS | METH_KEYWORDS,
     "poll(timeout=0.0, map=None)\n--\n\n"
     "One turn as select() has it: all that can be read, then all that can be written, then the exceptional.\n\n"
     "`timeout` is in seconds; None waits for ever. An empty map returns at once."},
    {"poll2", (PyCFunction)(void (*)(void))loop_poll2, METH_VARARGS | METH_KEYWORDS,
     "poll2(timeout=0.0, map=None)\n--\n\n"
     "One turn as poll(2) has it: for each channel all that it is ready for.\n\n"
     "`timeout` is in seconds, rounded up to milliseconds; None waits for ever. An empty map returns at once."},
    {NULL, NULL, 0, NULL}};

static int replace(PyObject *class, int from, int to)
{
    for (int i = from; i <= to; i++) {
        PyObject *original = PyObject_GetAttrString(class, methods[i].ml_name);
        if (original != NULL && original == S.replacement[i]) { /* it was done already */
            Py_DECREF(original);
            continue;
        }
        PyObject *descriptor = original != NULL ? PyDescr_NewMethod((PyTypeObject *)class, &methods[i]) : NULL;
        if (descriptor == NULL || PyObject_SetAttrString(class, methods[i].ml_name, descriptor) < 0) {
            Py_XDECREF(original);
            Py_XDECREF(descriptor);
            return -1;
        }
        Py_XSETREF(S.original[i], original);
        Py_XSETREF(S.replacement[i], descriptor);
    }
    return 0;
}

/* globals[name], borrowed. */
static PyObject *global(PyObject *globals, const char *name)
{
    PyObject *value = PyDict_GetItemString(globals, name);
    if (value == NULL)
        PyErr_Format(PyExc_ImportError, "the module asyncore has no %s", name);
    return value;
}

static int keep(PyObject **place, PyObject *value)
{
    Py_XINCREF(value);
    Py_XSETREF(*place, value);
    return value != NULL ? 0 : -1;
}

static int keep_attr(PyObject **place, PyObject *owner, const char *name)
{
    PyObject *value = owner != NULL ? PyObject_GetAttrString(owner, name) : NULL;
    if (value == NULL)
        return -1;
    Py_XSETREF(*place, value);
    return 0;
}

static int socket_open(PyObject *globals)
{
    PyObject *module = global(globals, "socket");
    PyObject *type = module != NULL ? PyObject_GetAttrString(module, "socket") : NULL;
    if (type == NULL)
        return -1;
    if (!PyType_Check(type)) { /* somebody's own: every socket is called */
        Py_DECREF(type);
        return 0;
    }
    Py_XSETREF(S.socket_type, (PyTypeObject *)type);
    return 0;
}

static int keep_globals(PyObject *globals)
{
    PyObject *serving = global(globals, "_serving"), *plain = global(globals, "_plain");
    if (serving == NULL || plain == NULL)
        return -1;
    if (keep(&S.plain_select, global(plain, "select")) < 0 || keep(&S.plain_poll, global(plain, "poll")) < 0 ||
        keep(&S.plain_sleep, global(plain, "sleep")) < 0 || keep(&S.failed, global(globals, "_failed")) < 0 ||
        keep(&S.lost, global(globals, "_lost")) < 0 || keep(&S.call, global(globals, "_call")) < 0 ||
        keep(&S.interest, global(globals, "_interest")) < 0 || keep(&S.holds, global(globals, "_holds")) < 0 ||
        keep(&S.meant, global(globals, "_meant_flags")) < 0 ||
        keep(&S.reraised, global(globals, "_reraised_exceptions")) < 0 || keep(&S.poll, global(globals, "poll")) < 0 ||
        keep(&S.poll2, global(globals, "poll2")) < 0 || keep(&S.loop, global(globals, "loop")) < 0)
        return -1;
    if (keep_attr(&S.enter, serving, "enter") < 0 || keep_attr(&S.leave, serving, "leave") < 0 ||
        keep_attr(&S.elsewhere, serving, "elsewhere") < 0 || keep_attr(&S.maps, serving, "maps") < 0 ||
        keep_attr(&S.engines, serving, "engines") < 0 ||
        keep_attr(&S.wake, serving, "wake") < 0 || keep_attr(&S.left, serving, "left") < 0)
        return -1;
    return socket_open(globals);
}

/* The functions of the module say that they are asyncore's. */
static int replace_functions(PyObject *globals)
{
    static const char *const names[] = {"loop", "poll", "poll2"};
    PyObject *module = PyUnicode_FromString("asyncore");
    int result = module != NULL ? 0 : -1;
    for (int i = 0; i < 3 && result == 0; i++) {
        PyObject *function = PyCFunction_NewEx(&functions[i], NULL, module);
        result = function != NULL ? PyDict_SetItemString(globals, names[i], function) : -1;
        if (i > 0 && result == 0)
            keep(i == 1 ? &S.c_poll : &S.c_poll2, function);
        Py_XDECREF(function);
    }
    Py_XDECREF(module);
    return result < 0 ? -1 : PyDict_SetItemString(globals, "poll3", S.c_poll2);
}

/* install(globals of asyncore): whether it was done. */
static PyObject *install(PyObject *self, PyObject *globals)
{
    (void)self;
    if (!PyDict_CheckExact(globals)) {
        PyErr_SetString(PyExc_TypeError, "install() takes a module's dict");
        return NULL;
    }
    if (S.module != NULL && S.module != globals)
        Py_RETURN_FALSE; /* a second copy, made for another select or socket: its loop is Python's */
    if (S.module == globals && global(globals, "poll3") == S.c_poll2)
        Py_RETURN_TRUE; /* it was done already */
    PyObject *dispatcher = global(globals, "dispatcher"), *with_send = global(globals, "dispatcher_with_send");
    if (dispatcher == NULL || with_send == NULL || keep_globals(globals) < 0 ||
        replace(dispatcher, DISPATCHER_READABLE, DISPATCHER_DEL) < 0 ||
        replace(with_send, WITH_SEND_SEND, WITH_SEND_WRITABLE) < 0 || replace_functions(globals) < 0)
        return NULL;
    keep(&S.module, globals);
    Py_RETURN_TRUE;
}

/* The same for asynchat. */
static PyObject *install_chat(PyObject *self, PyObject *globals)
{
    (void)self;
    PyObject *chat = PyDict_Check(globals) ? global(globals, "async_chat") : NULL;
    PyObject *deque = chat != NULL ? global(globals, "deque") : NULL;
    PyObject *asyncore = deque != NULL ? global(globals, "asyncore") : NULL;
    if (asyncore == NULL)
        return NULL;
    if (!PyModule_Check(asyncore) || PyModule_GetDict(asyncore) != S.module || !PyType_Check(deque))
        Py_RETURN_FALSE;
    if (keep(&S.dispatch, global(globals, "_dispatch")) < 0 || keep(&S.cut_at, global(globals, "_cut_at")) < 0 ||
        keep_attr(&S.get_terminator, chat, "get_terminator") < 0 || keep_attr(&S.in_buffer, chat, "ac_in_buffer") < 0)
        return NULL;
    Py_INCREF(deque);
    Py_XSETREF(S.deque, (PyTypeObject *)deque);
    if (replace(chat, CHAT_READABLE, CHAT_INITIATE) < 0)
        return NULL;
    Py_RETURN_TRUE;
}

/* hold(channel, name, value): object.__setattr__, which refuses classes with a tp_setattro of their own. */
static PyObject *hold(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)self;
    if (count != 3 || !PyObject_TypeCheck(args[0], (PyTypeObject *)S.channel)) {
        PyErr_SetString(PyExc_TypeError, "hold() takes a channel, a name and a value");
        return NULL;
    }
    S.inputs++;
    if (PyObject_GenericSetAttr(args[0], args[1], args[2]) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* note(channel): what it wants may be something else now. */
static PyObject *note(PyObject *self, PyObject *channel)
{
    (void)self;
    channel_note(channel);
    Py_RETURN_NONE;
}

/* -- The module -- */

static PyType_Slot channel_slots[] = {
    {Py_tp_setattro, (void *)channel_setattro},
    {Py_tp_doc, (void *)"The base of asyncore.dispatcher: the loop notices which of its attributes change."},
    {0, NULL}};

static PyType_Spec channel_spec = {
    .name = "_asyncore.channel",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = channel_slots,
};

static void forget(void)
{
    memset(&S, 0, sizeof S); /* the interpreter has ended */
}

static PyInterpreterState *interpreter(void)
{
#if PY_VERSION_HEX < 0x03090000
    return _PyInterpreterState_Get();
#else
    return PyInterpreterState_Get();
#endif
}

static PyMethodDef gone = {"gone", mapping_gone, METH_O, NULL};

static int state_open(void)
{
#define NAME_INTERN(text)                                                                                              \
    S.name.text = PyUnicode_InternFromString(#text);                                                                   \
    if (S.name.text == NULL)                                                                                           \
        return -1;
    NAMES(NAME_INTERN)
    S.empty = PyBytes_FromStringAndSize(NULL, 0);
    S.channel = PyType_FromSpec(&channel_spec);
    S.gone = PyCFunction_NewEx(&gone, NULL, NULL);
    S.input = (PyTypeObject *)input_type();
    changes_open();
    if (S.empty == NULL || S.channel == NULL || S.gone == NULL || S.input == NULL || watcher_open() < 0)
        return -1;
    Py_AtExit(forget);
    S.opened = true;
    return 0;
}

static int module_exec(PyObject *module)
{
    if (interpreter() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "_asyncore serves the main interpreter alone");
        return -1;
    }
    if (!S.opened && state_open() < 0)
        return -1;
    Py_INCREF(S.channel);
    if (PyModule_AddObject(module, "channel", S.channel) < 0) {
        Py_DECREF(S.channel);
        return -1;
    }
    return 0;
}

static PyMethodDef module_methods[] = {
    {"note", note, METH_O, "note($module, channel, /)\n--\n\nWhat it wants may be something else now."},
    {"counts", engine_counts, METH_NOARGS,
     "counts($module, /)\n--\n\nFor tests: how many engines and entries there are, and how often channels were asked."},
    {"install", install, METH_O, "install($module, globals, /)\n--\n\nPuts C into asyncore, whose globals these are."},
    {"install_chat", install_chat, METH_O, "install_chat($module, globals, /)\n--\n\nPuts C into asynchat."},
    {"wake", loop_wake, METH_O, "wake($module, map, /)\n--\n\nA wait of the C loop for the map ends."},
    {"waiting", loop_waiting, METH_O, "waiting($module, map, /)\n--\n\nWhether the C loop waits for the map."},
    {"engine", engine_name, METH_O, "engine($module, map, /)\n--\n\nThe name of the engine of a dict."},
    {"forget_engine", engine_forget, METH_O,
     "forget_engine($module, map, /)\n--\n\nThe next loop makes the map's engine anew."},
    {"hold", (PyCFunction)(void (*)(void))hold, METH_FASTCALL,
     "hold($module, channel, name, value, /)\n--\n\nSets an attribute past __setattr__."},
    {NULL, NULL, 0, NULL}};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL}};

static struct PyModuleDef module_def = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_asyncore",
    .m_doc = "The loop and the busiest methods of asyncore and asynchat, on libasyncore.",
    .m_methods = module_methods,
    .m_slots = module_slots,
};

/* 3.8 does not say itself that it is to be seen. */
ASYNCORE_API PyMODINIT_FUNC PyInit__asyncore(void);

PyMODINIT_FUNC PyInit__asyncore(void)
{
    return PyModuleDef_Init(&module_def);
}
