"""A map that a running asyncio loop serves."""
import asyncio
import asyncore
import asynchat
import os
import socket
import threading
import time
import unittest

from support import DEADLINE, Case, Trace, run

serving = asyncore._serving


class Asyncio(Case):
    def run_with(self, main):
        """Runs main(task) in asyncio, with a task that serves the test's map; waits for both."""
        async def run():
            task = asyncio.ensure_future(asyncore.serve_in_asyncio(self.map))
            try:
                await asyncio.wait_for(main(task), DEADLINE)
                await asyncio.wait_for(task, DEADLINE)
            finally:
                task.cancel()

        asyncio.run(run())

    async def become(self, condition):
        while not condition():
            await asyncio.sleep(0.005)

    def test_an_echo_server_beside_an_asyncio_client(self):
        class Echo(asyncore.dispatcher_with_send):
            def handle_read(self):
                self.send(self.recv(65536))

            def handle_close(self):
                self.close()

        class Server(asyncore.dispatcher):
            def handle_accepted(self, sock, addr):
                Echo(sock, self._map)

            def writable(self):
                return False

        server = Server(map=self.map)
        server.create_socket()
        server.bind(("127.0.0.1", 0))
        server.listen(5)

        async def client(task):
            reader, writer = await asyncio.open_connection(*server.socket.getsockname())
            data = os.urandom(3000000)
            writer.write(data)
            self.assertEqual(await reader.readexactly(len(data)), data)
            writer.close()
            await self.become(lambda: len(self.map) == 1)
            server.close()

        self.run_with(client)

    def test_an_asyncore_client_of_an_asyncio_server(self):
        class Client(asynchat.async_chat):
            def __init__(self, address, map):
                asynchat.async_chat.__init__(self, map=map)
                self.lines = []
                self.set_terminator(b"\n")
                self.create_socket()
                self.connect(address)

            def handle_connect(self):
                self.push(b"hello\n")

            collect_incoming_data = asynchat.async_chat._collect_incoming_data

            def found_terminator(self):
                self.lines.append(self._get_data())
                self.close_when_done()

        async def main(task):
            async def serve(reader, writer):
                writer.write(await reader.readline())
                await reader.read()
                writer.close()

            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            client = Client(server.sockets[0].getsockname(), self.map)
            await self.become(lambda: not self.map)
            self.assertEqual(client.lines, [b"hello"])
            server.close()

        Trace(self.pair()[0], self.map).set_idle_timeout(0.05)  # keeps the map until then
        self.run_with(main)

    def test_a_push_out_of_a_task_is_sent_to_the_end(self):
        a, b = self.pair()
        chat = asynchat.async_chat(a, self.map)
        data = os.urandom(5000000)

        async def main(task):
            await asyncio.sleep(0.02)
            chat.push(data)
            chat.close_when_done()
            received = bytearray()
            while len(received) < len(data):
                received += await asyncio.get_event_loop().run_in_executor(None, b.recv, 1 << 20)
            self.assertEqual(bytes(received), data)

        self.run_with(main)

    def test_it_ends_as_loop_does(self):
        calls = []
        asyncore.call_later(0.02, calls.append, 1, map=self.map)

        async def main(task):
            await task
            self.assertEqual(calls, [1])

        self.run_with(main)

    def test_what_leaves_loop_leaves_it(self):
        class Channel(Trace):
            def handle_read(self):
                raise asyncore.ExitNow

        a, b = self.pair()
        Channel(a, self.map)
        b.send(b"x")

        async def main(task):
            with self.assertRaises(asyncore.ExitNow):
                await task

        with self.assertRaises(asyncore.ExitNow):
            self.run_with(main)

    def test_cancelling_ends_it(self):
        a, b = self.pair()
        channel = Trace(a, self.map)

        async def main():
            task = asyncio.ensure_future(asyncore.serve_in_asyncio(self.map))
            await asyncio.sleep(0.01)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            b.send(b"x")
            await asyncio.sleep(0.01)

        asyncio.run(main())
        self.assertEqual((channel.calls, serving.maps), ([], {}))

    def test_once_at_a_time(self):
        a, b = self.pair()
        channel = Trace(a, self.map)

        async def main(task):
            await asyncio.sleep(0.01)
            with self.assertRaises(RuntimeError):
                await asyncore.serve_in_asyncio(self.map)
            channel.close()

        self.run_with(main)

    def test_a_descriptor_that_is_used_again_at_once(self):
        a, b = self.pair()
        c, d = self.pair()
        first = Trace(a, self.map)

        async def main(task):
            await asyncio.sleep(0.01)
            fd = first._fileno
            first.close()
            os.dup2(c.fileno(), fd)
            first.set_socket(socket.socket(fileno=fd))
            await asyncio.sleep(0.01)
            d.send(b"x")
            await self.become(lambda: first.calls == ["read"])
            first.close()

        self.run_with(main)

    def test_a_duplicate_of_what_was_closed_makes_no_spin(self):
        # Who leaves the map without del_channel leaves its file in the kernel's set, if somebody else has it too.
        a, b = self.pair()
        c, d = self.pair()
        first, second = Trace(a, self.map), Trace(c, self.map)

        async def main(task):
            await asyncio.sleep(0.01)
            copy = os.dup(a.fileno())
            try:
                del self.map[first._fileno]
                a.close()
                b.send(b"x")
                asyncore.wakeup(self.map)
                await asyncio.sleep(0.05)
                before = time.process_time()
                await asyncio.sleep(0.3)
                self.assertLess(time.process_time() - before, 0.15)
                self.assertEqual(first.calls, [])
            finally:
                os.close(copy)
            second.close()

        self.run_with(main)

    def test_an_idle_map_takes_no_time(self):
        a, b = self.pair()
        channel = Trace(a, self.map)

        async def main(task):
            await asyncio.sleep(0.02)
            before = time.process_time()
            await asyncio.sleep(0.3)
            self.assertLess(time.process_time() - before, 0.15)
            channel.close()

        self.run_with(main)

    def test_files_are_always_ready(self):
        class Reader(asyncore.file_dispatcher):
            data = b""

            def writable(self):
                return False

            def handle_read(self):
                self.data += self.recv(4096)

            def handle_close(self):
                self.close()

        async def main(task):
            await task

        with open(__file__, "rb") as f:
            reader = Reader(f, self.map)
            self.run_with(main)
            f.seek(0)
            self.assertEqual(reader.data, f.read())

    def test_another_thread_wakes_it(self):
        a, b = self.pair()
        channel = Trace(a, self.map)
        channel.wants = (False, False)

        async def main(task):
            await asyncio.sleep(0.01)
            thread = threading.Thread(target=asyncore.call_soon_threadsafe, args=(channel.close,),
                                      kwargs={"map": self.map})
            thread.start()
            await self.become(lambda: not self.map)
            thread.join()

        self.run_with(main)

    def test_a_descriptor_closed_behind_it(self):
        a, b = self.pair()
        c, d = self.pair()
        lost, other = Trace(a, self.map), Trace(c, self.map)

        async def main(task):
            await asyncio.sleep(0.01)
            a.close()
            d.send(b"x")
            await self.become(lambda: lost.calls == ["close"])
            await self.become(lambda: other.calls == ["read"])
            other.close()

        self.run_with(main)

    def test_what_it_opens_for_itself_passes_for_no_closed_channel(self):
        status, output = run("""
import asyncio, asyncore, os, socket
class Channel(asyncore.dispatcher):
    def writable(self):
        return False
    def handle_close(self):
        self.socket.detach()
        self.close()
async def main():
    pairs = [socket.socketpair() for _ in range(4)]
    for channel in [Channel(pair[0]) for pair in pairs]:
        os.close(channel._fileno)
    await asyncio.wait_for(asyncore.serve_in_asyncio(), 30)
asyncio.run(main())
""")
        self.assertEqual((status, output), (0, ""))


if __name__ == "__main__":
    unittest.main()
