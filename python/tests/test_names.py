"""Names, signatures and defaults: what programs, and tools that look at programs, find."""
import asyncore
import asynchat
import collections
import errno
import importlib
import inspect
import io
import libasyncore
import os
import pickle
import re
import select
import smtpd
import socket
import sys
import time
import unittest
import warnings
import weakref

from support import ROOT, Case, run

# Recorded from Python 3.11.
SIGNATURES = {
    "asyncore": """
        read(obj) write(obj) _exception(obj) readwrite(obj, flags) poll(timeout=0.0, map=None)
        poll2(timeout=0.0, map=None) loop(timeout=30.0, use_poll=False, map=None, count=None) compact_traceback()
        close_all(map=None, ignore_all=False) _strerror(err)
        dispatcher.__init__(self, sock=None, map=None) dispatcher.__repr__(self) dispatcher.add_channel(self, map=None)
        dispatcher.del_channel(self, map=None) dispatcher.set_socket(self, sock, map=None)
        dispatcher.set_reuse_addr(self) dispatcher.readable(self) dispatcher.writable(self) dispatcher.listen(self, num)
        dispatcher.bind(self, addr) dispatcher.connect(self, address) dispatcher.accept(self)
        dispatcher.send(self, data) dispatcher.recv(self, buffer_size) dispatcher.close(self)
        dispatcher.log(self, message) dispatcher.log_info(self, message, type='info')
        dispatcher.handle_read_event(self) dispatcher.handle_connect_event(self) dispatcher.handle_write_event(self)
        dispatcher.handle_expt_event(self) dispatcher.handle_error(self) dispatcher.handle_expt(self)
        dispatcher.handle_read(self) dispatcher.handle_write(self) dispatcher.handle_connect(self)
        dispatcher.handle_accept(self) dispatcher.handle_accepted(self, sock, addr) dispatcher.handle_close(self)
        dispatcher_with_send.__init__(self, sock=None, map=None) dispatcher_with_send.initiate_send(self)
        dispatcher_with_send.handle_write(self) dispatcher_with_send.writable(self)
        dispatcher_with_send.send(self, data) file_dispatcher.__init__(self, fd, map=None)
        file_dispatcher.set_file(self, fd) file_wrapper.__init__(self, fd) file_wrapper.recv(self, *args)
        file_wrapper.send(self, *args) file_wrapper.getsockopt(self, level, optname, buflen=None)
        file_wrapper.read(self, *args) file_wrapper.write(self, *args) file_wrapper.close(self)
        file_wrapper.fileno(self)""",
    "asynchat": """
        find_prefix_at_end(haystack, needle) async_chat.__init__(self, sock=None, map=None)
        async_chat.collect_incoming_data(self, data) async_chat._collect_incoming_data(self, data)
        async_chat._get_data(self) async_chat.found_terminator(self) async_chat.set_terminator(self, term)
        async_chat.get_terminator(self) async_chat.handle_read(self) async_chat.handle_write(self)
        async_chat.handle_close(self) async_chat.push(self, data) async_chat.push_with_producer(self, producer)
        async_chat.readable(self) async_chat.writable(self) async_chat.close_when_done(self)
        async_chat.initiate_send(self) async_chat.discard_buffers(self)
        simple_producer.__init__(self, data, buffer_size=512) simple_producer.more(self)""",
    "smtpd": """
        SMTPServer.handle_accepted(self, conn, addr) DebuggingServer._print_message_content(self, peer, data)
        SMTPServer.process_message(self, peer, mailfrom, rcpttos, data, **kwargs)
        SMTPServer.__init__(self, localaddr, remoteaddr, data_size_limit=33554432, map=None, enable_SMTPUTF8=False, \
decode_data=False)
        SMTPChannel.__init__(self, server, conn, addr, data_size_limit=33554432, map=None, enable_SMTPUTF8=False, \
decode_data=False)
        SMTPChannel.push(self, msg) SMTPChannel.smtp_MAIL(self, arg) SMTPChannel.smtp_DATA(self, arg)
        SMTPChannel._getaddr(self, arg) SMTPChannel._getparams(self, params) usage(code, msg='') parseargs()""",
}


class Names(Case):
    def test_signatures(self):
        for module, table in SIGNATURES.items():
            for line in table.replace(") ", ")\n").strip().split("\n"):
                name = line.strip().partition("(")[0]
                found = sys.modules[module]
                for part in name.split("."):
                    found = getattr(found, part)
                signature = str(inspect.signature(found))
                signature = signature.replace("(self, /)", "(self)").replace("(self, /, ", "(self, ")  # of C
                self.assertEqual(name + signature, line.strip())

    def test_create_socket_has_its_defaults(self):
        parameters = inspect.signature(asyncore.dispatcher.create_socket).parameters
        self.assertEqual([p.default for p in parameters.values()][1:], [socket.AF_INET, socket.SOCK_STREAM])

    def test_modules_that_programs_reach_through(self):
        for name, module in (("socket", socket), ("select", select), ("time", time), ("os", os), ("sys", sys)):
            self.assertIs(getattr(asyncore, name), module)
        self.assertIs(asynchat.asyncore, asyncore)
        self.assertIs(smtpd.asynchat, asynchat)
        self.assertIs(smtpd.asyncore, asyncore)

    def test_constants(self):
        for name in ("EALREADY EINPROGRESS EWOULDBLOCK ECONNRESET EINVAL ENOTCONN ESHUTDOWN EISCONN EBADF ECONNABORTED "
                     "EPIPE EAGAIN").split():
            self.assertEqual(getattr(asyncore, name), getattr(errno, name))
        self.assertEqual(asyncore._DISCONNECTED, frozenset({errno.ECONNRESET, errno.ENOTCONN, errno.ESHUTDOWN,
                                                            errno.ECONNABORTED, errno.EPIPE, errno.EBADF}))
        self.assertEqual(asyncore._reraised_exceptions, (asyncore.ExitNow, KeyboardInterrupt, SystemExit))
        self.assertIs(asyncore.poll3, asyncore.poll2)
        self.assertEqual(asyncore.errorcode, errno.errorcode)
        self.assertTrue(issubclass(asyncore.ExitNow, Exception))

    def test_class_attributes(self):
        cls = asyncore.dispatcher
        self.assertEqual((cls.debug, cls.connected, cls.accepting, cls.connecting, cls.closing, cls.addr),
                         (False, False, False, False, False, None))
        self.assertEqual(cls.ignore_log_types, frozenset({"warning"}))
        chat = asynchat.async_chat
        self.assertEqual((chat.ac_in_buffer_size, chat.ac_out_buffer_size, chat.use_encoding, chat.encoding),
                         (65536, 65536, 0, "latin-1"))

    def test_classes_say_they_are_of_their_modules(self):
        for module, names in ((asyncore, "ExitNow dispatcher dispatcher_with_send file_wrapper file_dispatcher"),
                              (asynchat, "async_chat simple_producer"),
                              (smtpd, "SMTPChannel SMTPServer DebuggingServer PureProxy Devnull Options")):
            for name in names.split():
                self.assertEqual(getattr(module, name).__module__, module.__name__)
                self.assertEqual(getattr(module, name).__qualname__, name)

    def test_everything_public_has_a_docstring(self):
        """Functions and methods in C as well; what was only imported is others'."""
        others = set()
        for module in (errno, io, os, select, socket, sys, time, collections, warnings):
            others.update(id(value) for value in vars(module).values())
        for module in (asyncore, asynchat, smtpd, libasyncore):
            self.assertTrue(module.__doc__)
            public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
            for name, found in public.items():
                if callable(found) and id(found) not in others:
                    self.assertTrue(found.__doc__, (module, name))
                for method in vars(found) if inspect.isclass(found) and id(found) not in others else ():
                    value = getattr(found, method)
                    if not method.startswith("_") and (callable(value) or isinstance(value, property)):
                        self.assertTrue(inspect.getdoc(value), (name, method))

    def test_the_version_is_the_librarys(self):
        with open(os.path.join(ROOT, "include", "asyncore.h")) as header:
            version = re.search('#define ASYNCORE_VERSION "(.*)"', header.read()).group(1)
        for module in (asyncore, asynchat, smtpd):
            self.assertEqual(module.__libasyncore__, version)

    def test_smtpd_exports_what_it_did(self):
        self.assertEqual(smtpd.__all__, ["SMTPChannel", "SMTPServer", "DebuggingServer", "PureProxy"])
        self.assertFalse(hasattr(smtpd, "MailmanProxy"))

    def test_strerror(self):
        self.assertEqual(asyncore._strerror(errno.EPERM), os.strerror(errno.EPERM))
        self.assertEqual(asyncore._strerror(10 ** 30), "Unknown error %d" % 10 ** 30)
        self.assertRaises(TypeError, asyncore._strerror, "x")

    def test_exit_now_can_be_pickled(self):
        self.assertIsInstance(pickle.loads(pickle.dumps(asyncore.ExitNow())), asyncore.ExitNow)


class Reload(unittest.TestCase):
    def test_the_default_map_survives_a_reload(self):
        status, output = run("import asyncore, importlib\n"
                             "m = asyncore.socket_map; m['x'] = 1\n"
                             "importlib.reload(asyncore)\n"
                             "assert asyncore.socket_map is m and m == {'x': 1}\n")
        self.assertEqual((status, output), (0, ""))

    def test_a_second_copy_of_the_module_uses_the_modules_it_is_given(self):
        # eventlet makes a green asyncore so: other modules in sys.modules, and a fresh import.
        status, output = run("""
import sys, types, asyncore as plain
import select, socket, time
green = {}
for m in (select, socket, time):
    copy = types.ModuleType(m.__name__); copy.__dict__.update(vars(m)); green[m.__name__] = copy
calls = []
real = select.select
green['select'].select = lambda *a: calls.append('select') or real(*a)
sys.modules.update(green); del sys.modules['asyncore']
import asyncore
assert asyncore is not plain and asyncore.select is green['select'] and asyncore.socket is green['socket']
a, b = socket.socketpair(); map = {}
class Quiet(asyncore.dispatcher):
    def writable(self): return False
d = Quiet(a, map); asyncore.poll(0, map); assert calls == ['select']; d.close(); b.close()
""")
        self.assertEqual((status, output), (0, ""))


class Shapes(Case):
    """Classes as programs build them: all of a channel's state is in its __dict__."""

    def test_layouts_that_are_combined(self):
        import threading
        shapes = [(asyncore.dispatcher, threading.Thread), (asyncore.dispatcher, Exception),
                  (asyncore.dispatcher, dict), (asyncore.file_dispatcher, asynchat.async_chat),
                  (asyncore.dispatcher_with_send, list),
                  (asyncore.file_dispatcher, asyncore.dispatcher_with_send), (str, asyncore.dispatcher)]
        for bases in shapes:
            type("Mixed", bases, {})

    def test_a_diamond_of_a_file_and_a_socket(self):
        class File(asyncore.file_dispatcher):
            pass

        class Sock(asyncore.dispatcher):
            pass

        class Both(File, Sock):
            def writable(self):
                return False

            def handle_read(self):
                self.data = self.recv(10)

        r, w = os.pipe()
        channel = Both(r, self.map)
        os.close(r)
        os.write(w, b"x")
        os.close(w)
        asyncore.poll(1, self.map)
        self.assertEqual(channel.data, b"x")

    def test_instances_take_attributes_and_weak_references(self):
        channel = asyncore.dispatcher()
        channel.anything = 1
        self.assertEqual(channel.anything, 1)
        self.assertIs(weakref.ref(channel)(), channel)
        self.assertIn("socket", vars(channel))

    def test_classes_can_be_patched(self):
        from unittest import mock
        with mock.patch("asynchat.async_chat.push") as push:
            asynchat.async_chat(map=self.map).push(b"x")
        push.assert_called_once_with(b"x")
        with mock.patch.object(asyncore.dispatcher, "handle_read", lambda self: seen.append(1)):
            seen = []
            asyncore.dispatcher(map=self.map).handle_read()
        self.assertEqual(seen, [1])

    def test_an_instance_overrides_a_method(self):
        a, b = self.pair()
        channel = asynchat.async_chat(a, self.map)
        seen = []
        channel.initiate_send = lambda: seen.append(list(channel.producer_fifo))
        channel.push(b"x")
        channel.handle_write_event()
        self.assertEqual(seen, [[b"x"], [b"x"]])

    def test_methods_are_called_unbound(self):
        a, b = self.pair()

        class Sub(asyncore.dispatcher):
            def handle_write_event(self):
                seen.append("event")
                asyncore.dispatcher.handle_write_event(self)

            def handle_write(self):
                seen.append("write")

            def readable(self):
                return False

        seen = []
        Sub(a, self.map)
        asyncore.poll(1, self.map)
        self.assertEqual(seen, ["event", "write"])

    def test_repr(self):
        class Channel(asyncore.dispatcher):
            pass

        channel = Channel(map=self.map)
        prefix = "<test_names.Shapes.test_repr.<locals>.Channel"
        for changes, middle in (({}, ""), ({"connected": True}, " connected"), ({"addr": ("h", 1)}, " connected h:1"),
                                ({"accepting": True}, " listening h:1"), ({"addr": "/x"}, " listening '/x'"),
                                ({"addr": ("::1", 1, 0, 0)}, " listening ('::1', 1, 0, 0)"),
                                ({"addr": None}, " connected")):
            vars(channel).update(changes)
            self.assertEqual(repr(channel), "%s%s at %#x>" % (prefix, middle, id(channel)))


if __name__ == "__main__":
    unittest.main()
