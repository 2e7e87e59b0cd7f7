"""Calls of everything public with arguments that it was not made for: what each raises, a line each.

Run on the standard library's modules and on these, which must raise the same.
"""
import contextlib
import io
import os
import socket
import sys
import tempfile
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import asynchat
    import asyncore

VALUES = ("None", "5", "-1", "'x'", "b'x'", "1.5", "[]", "{}", "object()", "2**70", "-2**70", "float('nan')", "(1, 2)",
          "bytearray(b'x')", "released", "strided", "Whole(3)", "Text('x')", "Untrue()", "Map()")
FUNCTIONS = {"loop": "timeout use_poll map count", "poll": "timeout map", "poll2": "timeout map", "read": "obj",
             "write": "obj", "readwrite": "obj flags", "compact_traceback": "", "close_all": "map ignore_all"}
METHODS = {
    "Plain": {"readable": "", "writable": "", "recv": "buffer_size", "send": "data", "handle_read_event": "",
              "handle_write_event": "", "handle_expt_event": "", "handle_connect_event": "", "add_channel": "map",
              "del_channel": "map", "create_socket": "family type", "set_socket": "sock map", "set_reuse_addr": "",
              "listen": "num", "bind": "addr", "connect": "address", "accept": "", "close": "", "log": "message",
              "log_info": "message type", "handle_accept": "", "handle_accepted": "sock addr"},
    "Sending": {"send": "data", "initiate_send": "", "handle_write": "", "writable": ""},
    "Chat": {"push": "data", "push_with_producer": "producer", "set_terminator": "term", "get_terminator": "",
             "handle_read": "", "handle_write": "", "initiate_send": "", "close_when_done": "", "discard_buffers": "",
             "readable": "", "writable": "", "_collect_incoming_data": "data", "_get_data": ""},
}
ATTRIBUTES = {"Plain": ("connected", "accepting", "_map", "socket", "readable", "writable"),
              "Sending": ("out_buffer", "debug", "connected", "_map"),
              "Chat": ("producer_fifo", "ac_in_buffer", "ac_in_buffer_size", "ac_out_buffer_size", "terminator",
                       "connected")}
ACTS = {"Plain": ("send(b'x')", "recv(5)", "close()", "handle_read_event()", "handle_write_event()"),
        "Sending": ("send(b'x')", "initiate_send()", "writable()"),
        "Chat": ("push(b'x')", "handle_read()", "initiate_send()", "discard_buffers()")}


class Whole(int):
    pass


class Text(str):
    pass


class Map(dict):
    pass


class Untrue:
    def __bool__(self):
        raise KeyError("bool")


class Plain(asyncore.dispatcher):
    def writable(self):
        return False


class Sending(asyncore.dispatcher_with_send):
    pass


class Chat(asynchat.async_chat):
    def __init__(self, sock=None, map=None):
        asynchat.async_chat.__init__(self, sock, map)
        self.set_terminator(b"l")

    def collect_incoming_data(self, data):
        pass

    def found_terminator(self):
        pass

    def handle_error(self):
        raise


def served(name, value):
    """Whether the call would be made well, and wait, or is one of the differences that the documents list."""
    waits = name in ("loop", "poll", "poll2") and value in ("None", "5", "1.5", "2**70", "Whole(3)")
    return waits or name == "poll2"  # with an empty map it returns at once, before it looks at the time


def cases():
    for name, parameters in FUNCTIONS.items():
        yield from calls("asyncore." + name, parameters, lambda value, name=name: not served(name, value))
    for kind, methods in METHODS.items():
        for name, parameters in methods.items():
            for made in (kind + "(a)", kind + "()"):
                yield from calls("%s.%s" % (made, name), parameters, lambda value: True)
        for value in VALUES:
            yield "%s(%s)" % (kind, value)
            yield "%s(None, map=%s)" % (kind, value)
            yield "%s(a, %s)" % (kind, value)
            for name in ATTRIBUTES[kind]:
                for act in ACTS[kind] + ("turn()",):
                    yield "changed(%s(a), '%s', %s).%s" % (kind, name, value, act)


def calls(name, parameters, wanted):
    yield name + "()"
    yield name + "(nothing=1)"
    yield name + "(*range(1, 12))"
    for value in filter(wanted, VALUES):
        yield "%s(%s)" % (name, value)
        for parameter in parameters.split():
            if parameter != "count" or value not in ("None", "2**70"):
                yield "%s(%s=%s)" % (name, parameter, value)


def changed(channel, name, value):
    setattr(channel, name, value)
    type(channel).turn = lambda self: (asyncore.poll(0), asyncore.poll2(0))
    return channel


def outcome(case):
    asyncore.socket_map.clear()
    a, b = socket.socketpair()
    b.send(b"hello")
    released = memoryview(b"x")
    released.release()
    names = dict(globals(), a=a, released=released, strided=memoryview(b"xyxyxy")[::2])
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            eval(case, names)
        return "nothing"
    except Exception as error:
        return type(error).__name__ + (" %s" % error.errno if isinstance(error, OSError) else "")
    finally:
        a.close()
        b.close()
        if os.path.exists("x"):
            os.unlink("x")


def main():
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for case in cases():
            print("%s: %s" % (case, outcome(case)))
        os.chdir("/")


if __name__ == "__main__":
    sys.exit(main())
