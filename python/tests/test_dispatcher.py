"""Channels: sockets, connecting, sending, files; and how they end."""
import asyncore
import contextlib
import errno
import gc
import io
import os
import socket
import sys
import time
import unittest
import warnings
from unittest import mock

from support import DEADLINE, POLLS, SLOWER, Case, Trace


class Made(Case):
    def test_a_false_socket_is_none(self):
        for sock in (None, 0, b"", []):
            channel = asyncore.dispatcher(sock, self.map)
            self.assertIsNone(channel.socket)
        self.assertEqual(self.map, {})

    def test_a_connected_socket(self):
        a, b = self.tcp()
        channel = asyncore.dispatcher(sock=a, map=self.map)
        self.assertEqual((channel.connected, channel.addr, channel._fileno), (True, b.getsockname(), a.fileno()))
        self.assertEqual(a.gettimeout(), 0)
        self.assertIs(self.map[a.fileno()], channel)

    def test_one_that_is_not_connected(self):
        with socket.socket() as sock:
            channel = asyncore.dispatcher(sock, self.map)
            self.assertFalse(channel.connected)
            self.assertIn(sock.fileno(), self.map)

    def test_any_other_error_of_getpeername_is_told_and_leaves_the_map(self):
        sock = mock.Mock()
        sock.getpeername.side_effect = OSError(errno.EPERM, "")
        self.assertRaises(OSError, asyncore.dispatcher, sock, self.map)
        self.assertEqual(self.map, {})
        for number in (errno.EINVAL, errno.ENOTCONN):
            sock.getpeername.side_effect = OSError(number, "")
            self.assertFalse(asyncore.dispatcher(sock, self.map).connected)

    def test_a_descriptor_may_be_anything_that_can_be_a_key(self):
        channel = asyncore.dispatcher(map=self.map)
        sock = mock.Mock()
        channel.set_socket(sock)
        self.assertIs(self.map[sock.fileno.return_value], channel)
        channel.del_channel()
        self.assertEqual((self.map, channel._fileno), ({}, None))

    def test_add_and_del_channel_are_called_virtually(self):
        class Channel(asyncore.dispatcher):
            def add_channel(self, map=None):
                calls.append(("add", map))

            def del_channel(self, map=None):
                calls.append(("del", map))

        calls = []
        a, b = self.pair()
        channel = Channel(a, self.map)
        channel.create_socket()
        sock = channel.socket
        channel.close()
        self.assertEqual(calls, [("add", self.map), ("add", None), ("del", None)])
        self.assertIs(channel.socket, sock)

    def test_create_socket(self):
        channel = asyncore.dispatcher(map=self.map)
        channel.create_socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.assertEqual(channel.family_and_type, (socket.AF_UNIX, socket.SOCK_DGRAM))
        self.assertEqual(channel.socket.gettimeout(), 0)
        with mock.patch.object(asyncore, "socket") as fake:
            other = asyncore.dispatcher(map=self.map)
            other.create_socket()
        self.assertIs(other.socket, fake.socket.return_value)

    def test_set_reuse_addr_fails_in_silence(self):
        channel = asyncore.dispatcher(map=self.map)
        channel.socket = mock.Mock(getsockopt=mock.Mock(side_effect=OSError))
        channel.set_reuse_addr()


class Connecting(Case):
    def listener(self):
        sock = socket.socket()
        self.addCleanup(sock.close)
        sock.bind(("127.0.0.1", 0))
        sock.listen(5)
        return sock

    def test_a_connection_stands(self):
        class Client(Trace):
            def handle_connect(self):
                self.note("connect:%d" % self.connected)

        for poll in POLLS:
            client = Client(map=self.map)
            client.wants = (True, True)
            client.create_socket()
            listener = self.listener()
            client.connect(listener.getsockname())
            self.assertEqual((client.connecting, client.connected, client.addr), (True, False, listener.getsockname()))
            self.until(lambda: "write" in client.calls, poll=poll)
            self.assertEqual(client.calls[:2], ["connect:0", "write"])
            self.assertEqual((client.connecting, client.connected), (False, True))
            client.close()

    def test_one_that_is_refused_is_one_error(self):
        class Client(Trace):
            def handle_error(self):
                self.note("error:%d" % sys.exc_info()[1].errno)
                self.handle_close()

        with self.listener() as listener:
            address = listener.getsockname()
        for poll in POLLS:
            client = Client(map=self.map)
            client.wants = (True, True)
            client.create_socket()
            client.connect(address)
            self.until(lambda: client.calls, poll=poll)
            poll(0, self.map)
            self.assertEqual(client.calls, ["error:%d" % errno.ECONNREFUSED, "close"])

    def test_connect_knows_at_once(self):
        client = Trace(map=self.map)
        client.socket = mock.Mock()
        client.socket.getsockopt.return_value = 0
        for number in (0, errno.EISCONN):
            client.socket.connect_ex.return_value = number
            client.connect("there")
            self.assertEqual((client.calls, client.connected, client.addr), (["connect"], True, "there"))
            del client.calls[:]
        client.socket.connect_ex.return_value = errno.ENETUNREACH
        with self.assertRaises(OSError) as caught:
            client.connect("elsewhere")
        self.assertEqual(caught.exception.args, (errno.ENETUNREACH, "ENETUNREACH"))

    def test_a_datagram_socket_is_neither_connected_nor_connecting(self):
        with socket.socket(type=socket.SOCK_DGRAM) as peer:
            for poll in POLLS:
                channel = Trace(map=self.map)
                channel.create_socket(type=socket.SOCK_DGRAM)
                channel.bind(("127.0.0.1", 0))
                peer.sendto(b"x", channel.socket.getsockname())
                poll(1, self.map)
                self.assertEqual(channel.calls, ["read"])
                channel.close()

    def test_accept(self):
        channel = asyncore.dispatcher(map=self.map)
        for effect in (TypeError, OSError(errno.EWOULDBLOCK, ""), OSError(errno.ECONNABORTED, "")):
            channel.socket = mock.Mock(accept=mock.Mock(side_effect=effect))
            self.assertIsNone(channel.accept())
        channel.socket = mock.Mock(accept=mock.Mock(return_value=None))
        self.assertIsNone(channel.accept())
        for number in (errno.EMFILE, errno.EINVAL):
            channel.socket = mock.Mock(accept=mock.Mock(side_effect=OSError(number, "")))
            self.assertRaises(OSError, channel.accept)

    def test_the_default_handle_accepted_closes(self):
        channel = asyncore.dispatcher(map=self.map)
        a, b = self.pair()
        channel.handle_accepted(a, None)
        self.assertEqual(a.fileno(), -1)


class Data(Case):
    def channel(self, **methods):
        channel = Trace(map=self.map)
        channel.socket = mock.Mock(**methods)
        return channel

    def test_send(self):
        self.assertEqual(self.channel(send=lambda data: 2).send(b"abc"), 2)
        channel = self.channel(send=mock.Mock(side_effect=OSError(errno.EWOULDBLOCK, "")))
        self.assertEqual((channel.send(b"x"), channel.calls), (0, []))
        for number in asyncore._DISCONNECTED:
            channel = self.channel(send=mock.Mock(side_effect=OSError(number, "")))
            self.assertEqual((channel.send(b"x"), channel.calls), (0, ["close"]))
        channel = self.channel(send=mock.Mock(side_effect=OSError(errno.EMSGSIZE, "")))
        self.assertRaises(OSError, channel.send, b"x")

    def test_recv(self):
        self.assertEqual(self.channel(recv=lambda size: b"abc").recv(1), b"abc")
        channel = self.channel(recv=lambda size: b"")
        self.assertEqual((channel.recv(1), channel.calls), (b"", ["close"]))
        for number in asyncore._DISCONNECTED:
            channel = self.channel(recv=mock.Mock(side_effect=OSError(number, "")))
            self.assertEqual((channel.recv(1), channel.calls), (b"", ["close"]))
        channel = self.channel(recv=mock.Mock(side_effect=BlockingIOError(errno.EAGAIN, "")))
        self.assertRaises(BlockingIOError, channel.recv, 1)

    def test_the_error_is_the_current_one_in_handle_close(self):
        class Channel(Trace):
            def handle_close(self):
                self.note(sys.exc_info()[1].errno)

            def note(self, what):
                self.calls.append(what)

        for method in ("recv", "send"):
            channel = Channel(map=self.map)
            channel.socket = mock.Mock(**{method: mock.Mock(side_effect=OSError(errno.EPIPE, ""))})
            getattr(channel, method)(b"x")
            self.assertEqual(channel.calls, [errno.EPIPE])

    def test_close(self):
        channel = self.channel()
        channel.connected = channel.accepting = channel.connecting = True
        channel.close()
        self.assertEqual((channel.connected, channel.accepting, channel.connecting), (False, False, False))
        channel.close()
        for number in (errno.ENOTCONN, errno.EBADF):
            self.channel(close=mock.Mock(side_effect=OSError(number, ""))).close()
        self.assertRaises(OSError, self.channel(close=mock.Mock(side_effect=OSError(errno.EIO, ""))).close)

    def test_handle_expt_event_looks_for_an_error_first(self):
        channel = self.channel(getsockopt=lambda *args: 0)
        channel.handle_expt_event()
        channel.socket.getsockopt = lambda *args: errno.ECONNRESET
        channel.handle_expt_event()
        self.assertEqual(channel.calls, ["expt", "close"])

    def test_a_listener_takes_read_events_for_clients_and_no_write_events(self):
        channel = self.channel()
        channel.accepting = True
        channel.handle_accept = lambda: channel.note("accept")
        channel.handle_read_event()
        channel.handle_write_event()
        self.assertEqual(channel.calls, ["accept"])


class Logging(Case):
    def printed(self, call, *args):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            call(*args)
        return out.getvalue(), err.getvalue()

    def test_where_it_goes(self):
        channel = asyncore.dispatcher(map=self.map)
        self.assertEqual(self.printed(channel.log, 5), ("", "log: 5\n"))
        self.assertEqual(self.printed(channel.log_info, "x"), ("info: x\n", ""))
        self.assertEqual(self.printed(channel.log_info, "x", "warning"), ("", ""))
        self.assertEqual(self.printed(channel.handle_read), ("", ""))

    def test_what_the_defaults_say(self):
        channel = asyncore.dispatcher(map=self.map)
        channel.ignore_log_types = ()
        for name, text in (("handle_expt", "unhandled incoming priority event"),
                           ("handle_read", "unhandled read event"),
                           ("handle_write", "unhandled write event"),
                           ("handle_connect", "unhandled connect event"),
                           ("handle_close", "unhandled close event")):
            self.assertEqual(self.printed(getattr(channel, name)), ("warning: %s\n" % text, ""))

    def test_handle_error(self):
        class Channel(asyncore.dispatcher):
            def handle_close(self):
                closed.append(1)

        class Bad(Channel):
            def __repr__(self):
                raise ValueError

        for cls, name in ((Channel, "<test_dispatcher."), (Bad, "<__repr__(self) failed for object at ")):
            closed = []
            try:
                1 / 0
            except ZeroDivisionError:
                out, err = self.printed(cls(map=self.map).handle_error)
            self.assertTrue(out.startswith("error: uncaptured python exception, closing channel " + name), out)
            self.assertIn("(<class 'ZeroDivisionError'>:division by zero [", out)
            self.assertEqual((err, closed), ("", [1]))


class WithSend(Case):
    def test_everything_arrives_though_the_peer_is_slow(self):
        for poll in POLLS:
            a, b = self.pair()
            channel = asyncore.dispatcher_with_send(a, self.map)
            channel.handle_read = lambda: None
            data = os.urandom(300000) * 10
            self.assertIsNone(channel.send(data[:1000000]))
            channel.send(bytearray(data[1000000:2000000]))
            channel.send(memoryview(data[2000000:]))
            received = bytearray()
            b.settimeout(0)

            def turn():
                poll(0, self.map)
                try:
                    received.extend(b.recv(100000))
                except BlockingIOError:
                    pass

            end = time.monotonic() + DEADLINE
            while len(received) < len(data) and time.monotonic() < end:
                turn()
            self.assertEqual(bytes(received), data)
            self.assertEqual((channel.out_buffer, bool(channel.writable())), (b"", False))
            channel.close()

    def test_out_buffer_is_bytes_to_be_looked_at_and_set(self):
        class Sock(mock.Mock):
            def send(self, data):
                sent.append(data)
                return self.takes

        sent = []
        channel = asyncore.dispatcher_with_send(map=self.map)
        channel.socket = Sock(takes=0)
        self.assertEqual(channel.out_buffer, b"")
        for data in (b"ab", bytearray(b"cd"), memoryview(b"ef")):
            channel.send(data)
        self.assertEqual((channel.out_buffer, type(channel.out_buffer)), (b"abcdef", bytes))
        channel.out_buffer += b"gh"
        channel.socket.takes = 3
        channel.send(b"ij")
        self.assertEqual(channel.out_buffer, b"defghij")
        self.assertEqual((sent[-1], type(sent[-1])), (b"abcdefghij", bytes))
        channel.out_buffer = b"x" * 65537
        channel.handle_write()
        self.assertEqual((len(sent[-1]), len(channel.out_buffer)), (65536, 65534))
        channel.send(b"y" * 70000)
        channel.initiate_send()
        self.assertEqual((len(sent[-1]), len(channel.out_buffer)), (65536, 65534 + 70000 - 6))
        self.assertEqual(channel.out_buffer[65534 - 7:65534 - 5], b"xy")
        channel.out_buffer = b""
        self.assertFalse(channel.writable() and channel.connected)

    def test_what_cannot_be_sent_is_a_type_error(self):
        a, b = self.pair()
        for state in (b"", b"queued"):
            channel = asyncore.dispatcher_with_send(a, self.map)
            channel.socket = mock.Mock(send=lambda data: 0)
            channel.out_buffer = state
            for data in ("text", 5, None, [1]):
                self.assertRaises(TypeError, channel.send, data)
            self.assertEqual(channel.out_buffer, state)

    def test_a_subclass_with_an_out_buffer_of_its_own(self):
        class Own(asyncore.dispatcher_with_send):
            out_buffer = b"greeting "

            def __init__(self, sock, map):
                asyncore.dispatcher.__init__(self, sock, map)

        a, b = self.pair()
        channel = Own(a, self.map)
        self.assertTrue(channel.writable())
        channel.send(b"x")
        self.assertEqual((b.recv(100), channel.out_buffer), (b"greeting x", b""))

    def test_a_send_that_closes_and_refills(self):
        class Channel(asyncore.dispatcher_with_send):
            def handle_close(self):
                self.out_buffer = b"more"

        channel = Channel(map=self.map)
        channel.socket = mock.Mock(send=mock.Mock(side_effect=OSError(errno.EPIPE, "")))
        channel.send(b"x")
        self.assertEqual(channel.out_buffer, b"more")

    def test_debug_tells_what_is_sent(self):
        channel = asyncore.dispatcher_with_send(map=self.map)
        channel.socket = mock.Mock(send=len)
        channel.debug = True
        with mock.patch.object(channel, "log_info") as log:
            channel.send(b"x")
        log.assert_called_once_with("sending b'x'")

    def test_many_small_sends_to_a_peer_that_sleeps_take_no_quadratic_time(self):
        def seconds(count):
            channel = asyncore.dispatcher_with_send(map=self.map)
            channel.socket = mock.Mock()
            channel.socket.send = lambda data: 0
            before = time.process_time()
            for _ in range(count):
                channel.send(b"x" * 1000)
            self.assertEqual(len(channel.out_buffer), count * 1000)
            return time.process_time() - before

        seconds(100)
        small, large = min(seconds(1000) for _ in range(3)), min(seconds(8000) for _ in range(3))
        self.assertLess(large, small * 8 * 3)  # quadratic: 64 times

    def test_one_large_send_is_not_copied_for_each_piece(self):
        channel = asyncore.dispatcher_with_send(map=self.map)
        channel.socket = mock.Mock()
        channel.socket.send = len
        before = time.process_time()
        channel.send(bytes(60 * 1000 * 1000))
        while channel.out_buffer and time.process_time() - before < 60:
            for _ in range(1000):
                channel.initiate_send()
        self.assertLess(time.process_time() - before, 2 * SLOWER)  # 27 GB of copying otherwise


class Files(Case):
    def test_a_pipe(self):
        class Reader(asyncore.file_dispatcher):
            data = b""

            def writable(self):
                return False

            def handle_read(self):
                self.data += self.recv(100)

            def handle_close(self):
                self.close()

        for poll in POLLS:
            r, w = os.pipe()
            channel = Reader(r, self.map)
            os.close(r)
            os.write(w, b"abc")
            os.close(w)
            self.until(lambda: not self.map, poll=poll)
            self.assertEqual(channel.data, b"abc")

    def test_what_has_a_fileno(self):
        with open(__file__, "rb") as f:
            channel = asyncore.file_dispatcher(f, self.map)
            self.assertTrue(channel.connected)
            self.assertNotEqual(channel._fileno, f.fileno())
        for poll in POLLS:
            channel.handle_read = lambda: reads.append(channel.recv(3))
            reads = []
            poll(0, self.map)
            self.assertEqual(len(reads), 1)

    def test_the_wrapper(self):
        r, w = os.pipe()
        reader, writer = asyncore.file_wrapper(r), asyncore.file_wrapper(w)
        os.close(r)
        os.close(w)
        self.assertEqual((writer.send(b"ab"), writer.write(b"c"), reader.recv(2), reader.read(9)), (2, 1, b"ab", b"c"))
        self.assertEqual(reader.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0)
        self.assertRaises(NotImplementedError, reader.getsockopt, socket.SOL_SOCKET, socket.SO_ERROR, 4)
        self.assertRaises(NotImplementedError, reader.getsockopt, socket.SOL_SOCKET, socket.SO_TYPE)
        writer.close()
        writer.close()
        self.assertEqual(writer.fileno(), -1)
        os.close(reader.fd)
        self.assertRaises(OSError, reader.close)
        self.assertEqual(reader.fd, -1)
        reader.close()

    def test_one_that_is_not_closed_says_so(self):
        r, w = os.pipe()
        os.close(w)
        wrapper = asyncore.file_wrapper(r)
        os.close(r)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fd = wrapper.fd
            del wrapper
            gc.collect()
        self.assertEqual([w.category for w in caught], [ResourceWarning])
        self.assertIn("unclosed file <asyncore.file_wrapper object at", str(caught[0].message))
        self.assertRaises(OSError, os.fstat, fd)

    def test_a_descriptor_that_is_none(self):
        r, w = os.pipe()
        os.close(r)
        os.close(w)
        with mock.patch("sys.unraisablehook") as hook:
            self.assertRaises(OSError, asyncore.file_wrapper, r)
            gc.collect()
        hook.assert_not_called()
        self.assertRaises(OSError, asyncore.file_dispatcher, r, self.map)
        self.assertEqual(self.map, {})


if __name__ == "__main__":
    unittest.main()
