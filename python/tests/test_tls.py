"""Channels whose socket is an ssl.SSLSocket."""
import asyncio
import asyncore
import asynchat
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import unittest
from unittest import mock

try:
    import ssl
except ImportError:
    ssl = None

from support import DEADLINE, POLLS, Case, Trace, until


class Echo(asyncore.dispatcher_with_send):
    size = 8192

    def handle_read(self):
        self.send(self.recv(self.size))

    def handle_close(self):
        self.close()


@unittest.skipIf(ssl is None, "this Python has no ssl")
@unittest.skipIf(shutil.which("openssl") is None, "there is no openssl to make a certificate with")
class TLS(Case):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.cert = os.path.join(cls.folder.name, "cert.pem")
        key = os.path.join(cls.folder.name, "key.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cls.cert,
                        "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        cls.server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        cls.server_context.load_cert_chain(cls.cert, key)
        cls.client_context = ssl.create_default_context(cafile=cls.cert)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def server(self, factory=Echo, wrap_listener=False):
        """A listener in the map, whose clients become channels of TLS. Its address."""
        context = self.server_context

        class Server(asyncore.dispatcher):
            def writable(self):
                return False

            def handle_accepted(self, sock, addr):
                if not wrap_listener:
                    sock = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                factory(sock, self._map)

        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        address = listener.getsockname()
        if wrap_listener:
            listener = context.wrap_socket(listener, server_side=True)
        server = Server(map=self.map)
        server.set_socket(listener)
        listener.setblocking(False)
        server.accepting = True
        return address

    def talk(self, address, talk, poll=asyncore.poll):
        """Runs talk(sock) in a thread, with a blocking socket of TLS, while the map is served. What it returned."""
        result = []

        def run():
            try:
                with socket.create_connection(address, timeout=DEADLINE) as sock:
                    with self.client_context.wrap_socket(sock, server_hostname="localhost") as tls:
                        result.append(talk(tls))
            except BaseException as error:
                result.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        until(lambda: not thread.is_alive(), lambda: poll(0.05, self.map))
        if isinstance(result[0], BaseException):
            raise result[0]
        return result[0]

    def client(self, address, cls=Trace, context=None):
        channel = cls(map=self.map)
        context = context or self.client_context
        channel.set_socket(context.wrap_socket(socket.socket(), server_hostname="localhost"))
        channel.socket.setblocking(False)
        channel.connect(address)
        return channel

    def echo(self, tls, size=150000):
        """In pieces that the sockets take: OpenSSL does not read and write at once."""
        data = os.urandom(size)
        received = bytearray()
        for at in range(0, size, 50000):
            tls.sendall(data[at:at + 50000])
            while len(received) < min(at + 50000, size):
                piece = tls.recv(65536)
                self.assertTrue(piece)
                received += piece
        self.assertEqual(bytes(received), data)

    def test_echo(self):
        for poll in POLLS:
            for wrap_listener in (False, True):
                self.talk(self.server(wrap_listener=wrap_listener), self.echo, poll)
                self.close_map()

    def test_much_to_a_slow_peer(self):
        class Source(Echo):
            def handle_read(self):
                self.recv(10)
                self.send(data)

        def talk(tls):
            tls.sendall(b"x")
            time.sleep(0.05)
            received = bytearray()
            while len(received) < len(data):
                received += tls.recv(65536)
            return bytes(received) == data

        data = os.urandom(8000000)
        for poll in POLLS:
            self.assertTrue(self.talk(self.server(Source), talk, poll))
            self.close_map()

    def test_bytes_that_the_tls_layer_holds_are_read(self):
        # A record has up to 16 KiB; the handler takes ten bytes, and the kernel has nothing more to tell.
        class Slow(Echo):
            size = 10

        def talk(tls):
            tls.sendall(b"x" * 2000)
            received = b""
            while len(received) < 2000:
                received += tls.recv(4096)
            return received

        for poll in POLLS:
            self.assertEqual(self.talk(self.server(Slow), talk, poll), b"x" * 2000)
            self.close_map()

    def test_bytes_held_for_a_channel_that_does_not_read_make_no_spin(self):
        class Pausing(Echo):
            size = 10
            reading = True

            def readable(self):
                return self.reading

            def handle_read(self):
                Echo.handle_read(self)
                self.reading = False
                channels.append(self)

        channels = []

        def talk(tls):
            tls.sendall(b"x" * 2000)
            first = tls.recv(100)
            until(lambda: channels, lambda: time.sleep(0.001))
            before = time.process_time()
            time.sleep(0.3)
            spent.append(time.process_time() - before)
            asyncore.call_soon_threadsafe(setattr, channels[0], "reading", True, map=self.map)
            return first, tls.recv(100)

        spent = []
        first, second = self.talk(self.server(Pausing), talk)
        self.assertEqual((first, second), (b"x" * 10, b"x" * 10))
        self.assertLess(spent[0], 0.15)

    def pair_of_tls(self):
        """Two connected sockets of TLS, which have shaken hands."""
        a, b = self.pair()
        server = self.server_context.wrap_socket(a, server_side=True, do_handshake_on_connect=False)
        client = self.client_context.wrap_socket(b, server_hostname="localhost", do_handshake_on_connect=False)
        self.addCleanup(server.close)
        self.addCleanup(client.close)
        sides = [server, client]
        for side in sides:
            side.setblocking(False)
        while sides:
            for side in list(sides):
                try:
                    side.do_handshake()
                    sides.remove(side)
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    pass
        return server, client

    def test_held_bytes_and_events_are_served_in_one_turn_in_the_order_of_the_map(self):
        class Channel(Trace):
            def handle_read(self):
                self.note("read")
                self.recv(10)

        for use_poll in (False, True):
            calls, plain, peers = [], [], []
            for i in range(5):
                if i % 2:
                    sock, peer = self.pair()
                    plain.append(peer)
                else:
                    sock, peer = self.pair_of_tls()
                    peer.send(b"x" * 30)
                peers.append(peer)
                Channel(sock, self.map, calls, str(i))
            served = ["0read", "2read", "4read"]
            asyncore.loop(DEADLINE, use_poll, self.map, 1)
            self.assertEqual(calls, served)
            asyncore.loop(DEADLINE, use_poll, self.map, 1)
            self.assertEqual(calls, served * 2)
            for peer in plain:
                peer.send(b"x")
            asyncore.loop(DEADLINE, use_poll, self.map, 1)
            self.assertEqual(calls, served * 2 + ["0read", "1read", "2read", "3read", "4read"])
            asyncore.loop(0, use_poll, self.map, 1)
            self.assertEqual(len(calls), 11)
            self.close_map()

    @unittest.skipIf(asyncore._extension is None, "the loop is Python's here")
    def test_a_map_with_a_channel_of_tls_stays_with_the_extension(self):
        for poll in POLLS:
            with mock.patch.object(asyncore, "_turn", side_effect=AssertionError("a turn of Python's")):
                self.talk(self.server(), self.echo, poll)
            self.close_map()

    def test_a_handshake_that_is_not_finished_blocks_nobody(self):
        for wrap_listener in (False, True):
            address = self.server(wrap_listener=wrap_listener)
            with socket.create_connection(address) as silent:
                self.until(lambda: len(self.map) == 2)
                self.talk(address, lambda tls: self.echo(tls, 1000))
                self.assertEqual(silent.fileno() >= 0, True)
            self.close_map()

    def test_a_server_that_speaks_first(self):
        class Greeter(asynchat.async_chat):
            def __init__(self, sock, map):
                asynchat.async_chat.__init__(self, sock, map)
                self.set_terminator(b"\n")
                self.push(b"hello\n")

            def collect_incoming_data(self, data):
                self.push(data)

            def found_terminator(self):
                self.push(b"\n")
                self.close_when_done()

        for poll in POLLS:
            def talk(tls):
                greeting = tls.recv(100)
                tls.sendall(b"abc\n")
                answer = b""
                while True:
                    data = tls.recv(100)
                    if not data:
                        return greeting, answer
                    answer += data

            self.assertEqual(self.talk(self.server(Greeter), talk, poll), (b"hello\n", b"abc\n"))
            self.close_map()

    def test_a_client(self):
        class Client(Trace):
            def handle_connect(self):
                self.note("connect:" + str(self.socket.version() is not None))

            def handle_read(self):
                self.note(self.recv(100).decode())

        for poll in POLLS:
            client = self.client(self.server(), Client)
            self.until(lambda: client.connected, poll=poll)
            self.assertEqual(client.calls, ["connect:True"])
            client.send(b"hello")
            self.until(lambda: len(client.calls) == 2, poll=poll)
            self.assertEqual(client.calls[1], "hello")
            self.close_map()

    def test_a_client_that_waits_for_its_server(self):
        class Greeter(Echo):
            def __init__(self, sock, map):
                Echo.__init__(self, sock, map)
                self.send(b"hello")

        class Client(Trace):
            def handle_read(self):
                self.note(self.recv(100).decode())

        client = self.client(self.server(Greeter), Client)
        self.until(lambda: "hello" in client.calls)
        self.assertEqual(client.calls, ["connect", "hello"])

    def test_a_client_on_a_connection_that_stands(self):
        # It begins the handshake, though its program only waits.
        class Greeter(Echo):
            def __init__(self, sock, map):
                Echo.__init__(self, sock, map)
                self.send(b"hello")

        class Client(Trace):
            def handle_read(self):
                self.note(self.recv(100).decode())

        sock = socket.create_connection(self.server(Greeter))
        client = Client(self.client_context.wrap_socket(sock, server_hostname="localhost",
                                                        do_handshake_on_connect=False), self.map)
        self.until(lambda: "hello" in client.calls)
        self.assertEqual(client.calls, ["hello"])

    def test_a_certificate_that_is_not_trusted(self):
        address = self.server()
        client = self.client(address, context=ssl.create_default_context())
        self.until(lambda: client.calls)
        self.assertEqual(client.calls, ["error:SSLCertVerificationError"])

    def test_what_is_no_tls_at_all(self):
        class Channel(Trace):
            pass

        channels = []
        address = self.server(lambda sock, map: channels.append(Channel(sock, map)))
        with socket.create_connection(address) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            self.until(lambda: channels and "error:SSLError" in channels[0].calls)

    def test_a_peer_that_goes_away_in_the_handshake(self):
        channels = []
        address = self.server(lambda sock, map: channels.append(Trace(sock, map)))
        for poll in POLLS:
            socket.create_connection(address).close()
            self.until(lambda: channels and len(self.map) == 1, poll=poll)
            self.assertIn(channels.pop().calls[-1], ("close", "error:SSLEOFError"))

    def test_starttls(self):
        context = self.server_context

        class Server(asynchat.async_chat):
            def __init__(self, sock, map):
                asynchat.async_chat.__init__(self, sock, map)
                self.set_terminator(b"\n")

            collect_incoming_data = asynchat.async_chat._collect_incoming_data

            def found_terminator(self):
                line = self._get_data()
                if line == b"STARTTLS":
                    self.push(b"go\n")
                    self.del_channel()
                    self.set_socket(context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False))
                else:
                    self.push(line[::-1] + b"\n")

        a, b = self.tcp()
        Server(a, self.map)
        result = []

        def talk():
            b.sendall(b"abc\nSTARTTLS\n")
            plain = b""
            while plain.count(b"\n") < 2:
                plain += b.recv(100)
            with self.client_context.wrap_socket(b, server_hostname="localhost") as tls:
                tls.sendall(b"secret\n")
                result.extend([plain, tls.recv(100)])

        thread = threading.Thread(target=talk)
        thread.start()
        until(lambda: not thread.is_alive(), lambda: asyncore.poll(0.05, self.map))
        self.assertEqual(result, [b"cba\ngo\n", b"terces\n"])

    def test_an_idle_connection_takes_no_time(self):
        address = self.server()

        def talk(tls):
            self.echo(tls, 10)
            before = time.process_time()
            time.sleep(0.3)
            return time.process_time() - before

        for poll in POLLS:
            self.assertLess(self.talk(address, talk, poll), 0.15)

    def test_want_read_out_of_a_handler_is_no_error(self):
        class Eager(Trace):
            def handle_read(self):
                while self.connected:
                    self.calls.append(self.recv(100))

        channels = []
        address = self.server(lambda sock, map: channels.append(Eager(sock, map)))

        def talk(tls):
            tls.sendall(b"x")
            until(lambda: b"x" in channels[0].calls, lambda: time.sleep(0.001))

        self.talk(address, talk)
        self.assertEqual(channels[0].calls[0], b"x")
        self.assertNotIn("error:SSLWantReadError", channels[0].calls)

    def test_in_asyncio(self):
        address = self.server()

        async def main():
            task = asyncio.ensure_future(asyncore.serve_in_asyncio(self.map))
            reader, writer = await asyncio.open_connection(*address, ssl=self.client_context,
                                                           server_hostname="localhost")
            data = os.urandom(500000)
            writer.write(data)
            self.assertEqual(await reader.readexactly(len(data)), data)
            writer.close()
            while len(self.map) > 1:
                await asyncio.sleep(0.005)
            self.close_map()
            await task

        asyncio.run(asyncio.wait_for(main(), DEADLINE))


if __name__ == "__main__":
    unittest.main()
