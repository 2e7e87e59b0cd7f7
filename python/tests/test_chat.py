"""async_chat: terminators, the queue, producers; and its water marks."""
import asyncore
import asynchat
import errno
import os
import random
import socket
import sys
import time
import unittest
from collections import deque
from unittest import mock

from support import SLOWER, Case


class Chat(asynchat.async_chat):
    """Writes down what it is given; the socket is made of lists."""

    def __init__(self, terminator=b"\r\n"):
        asynchat.async_chat.__init__(self, map={})
        self.calls = []
        self.sent = []
        self.input = []
        self.takes = 1 << 30
        self.connected = True
        self.socket = self
        self.set_terminator(terminator)

    def recv(self, size):
        return self.input.pop(0)

    def send(self, data):
        self.sent.append(bytes(data))
        return min(self.takes, len(data))

    def read(self, *pieces):
        for piece in pieces:
            self.input.append(piece)
            self.handle_read()
        return self.calls

    def collect_incoming_data(self, data):
        self.calls.append(data)

    def found_terminator(self):
        self.calls.append(None)

    def handle_close(self):
        self.connected = False
        self.calls.append("close")


class Terminators(unittest.TestCase):
    def test_bytes(self):
        self.assertEqual(Chat().read(b"ab\r\ncd\r\n\r\nef"), [b"ab", None, b"cd", None, None, b"ef"])

    def test_bytes_that_come_in_pieces(self):
        self.assertEqual(Chat().read(b"ab\r", b"\ncd"), [b"ab", None, b"cd"])
        self.assertEqual(Chat().read(b"ab\r", b"xx"), [b"ab", b"\rxx"])
        self.assertEqual(Chat().read(b"\r", b"\r", b"\n"), [b"\r", None])
        self.assertEqual(Chat(b"aab").read(b"aa", b"aab"), [b"aa", None])

    def test_a_number_counts_down(self):
        chat = Chat(5)
        chat.read(b"ab")
        self.assertEqual(chat.get_terminator(), 3)
        chat.read(b"cdefg")
        self.assertEqual(chat.calls, [b"ab", b"cde", None, b"fg"])
        self.assertEqual(chat.get_terminator(), 0)

    def test_none_collects(self):
        for nothing in (None, 0, b"", ""):
            self.assertEqual(Chat(nothing).read(b"a\r\n", b"b"), [b"a\r\n", b"b"])

    def test_a_terminator_that_is_changed_on_the_way(self):
        class Switch(Chat):
            def found_terminator(self):
                Chat.found_terminator(self)
                self.set_terminator(next(self.terminators))

        chat = Switch(b"\n")
        chat.terminators = iter((5, b"X", None))
        self.assertEqual(chat.read(b"5\nhelloaXrest"), [b"5", None, b"hello", None, b"a", None, b"rest"])

    def test_it_does_not_exist_until_it_is_set(self):
        chat = Chat()
        del chat.terminator
        self.assertRaises(AttributeError, chat.read, b"x")

    def test_the_buffer_may_be_looked_at_and_taken(self):
        class Taker(Chat):
            def collect_incoming_data(self, data):
                self.calls.append((data, self.ac_in_buffer))

            def found_terminator(self):
                self.calls.append(self.ac_in_buffer)
                self.ac_in_buffer = b"Z" + self.ac_in_buffer if len(self.calls) < 4 else b""

        chat = Taker(b"\n")
        chat.read(b"ab\ncd\nef\ngh")
        self.assertEqual(chat.calls, [(b"ab", b"ab\ncd\nef\ngh"), b"cd\nef\ngh", (b"Zcd", b"Zcd\nef\ngh"), b"ef\ngh"])
        self.assertEqual(chat.ac_in_buffer, b"")

    def test_a_handler_that_raises_loses_no_input(self):
        class Once(Chat):
            def collect_incoming_data(self, data):
                Chat.collect_incoming_data(self, data)
                if len(self.calls) == 1:
                    raise ZeroDivisionError

        chat = Once(b"\n")
        self.assertRaises(ZeroDivisionError, chat.read, b"ab\n")
        self.assertEqual(chat.ac_in_buffer, b"ab\n")
        self.assertEqual(chat.read(b"c\n"), [b"ab", b"ab", None, b"c", None])

    def test_a_subclass_with_a_buffer_of_its_own(self):
        class Own(Chat):
            ac_in_buffer = b""

        self.assertEqual(Own().read(b"ab\r", b"\ncd\r\n"), [b"ab", None, b"cd", None])

    def test_what_is_set_is_checked(self):
        chat = Chat()
        with self.assertRaises(ValueError) as caught:
            chat.set_terminator(-1)
        self.assertEqual(str(caught.exception), "the number of received bytes must be positive")
        chat.set_terminator("x")
        self.assertEqual(chat.get_terminator(), "x")
        self.assertRaises(TypeError, chat.read, b"ab")
        chat.use_encoding = 1
        chat.set_terminator("\xe9")
        self.assertEqual(chat.get_terminator(), b"\xe9")

    def test_errors_of_recv(self):
        chat = Chat()
        with mock.patch.object(chat, "handle_error") as handle_error:
            for error, calls in ((BlockingIOError(), 0), (OSError(), 1)):
                with mock.patch.object(chat, "recv", side_effect=error):
                    chat.handle_read()
                self.assertEqual(handle_error.call_count, calls)

    def test_against_a_naive_one(self):
        # Whatever way the input is cut: the same lines, and never an empty piece.
        for seed in range(300):
            choice = random.Random(seed)
            terminator = bytes(choice.choice(b"ab") for _ in range(choice.randint(1, 4)))
            data = bytes(choice.choice(b"abc") for _ in range(choice.randint(0, 40)))
            chat = Chat(terminator)
            at = 0
            while at < len(data):
                size = choice.randint(1, 6)
                chat.read(data[at:at + size])
                at += size
            lines, line = [], b""
            for call in chat.calls:
                self.assertNotEqual(call, b"")
                if call is None:
                    lines.append(line)
                    line = b""
                else:
                    line += call
            expected = data.split(terminator)
            self.assertEqual((lines, line + chat.ac_in_buffer), (expected[:-1], expected[-1]), seed)

    def test_short_lines_in_a_large_read_take_no_quadratic_time(self):
        def seconds(count):
            chat = Chat(b"\n")
            before = time.process_time()
            chat.read(b"line\n" * count)
            self.assertEqual(len(chat.calls), 2 * count)
            return time.process_time() - before

        small, large = min(seconds(20000) for _ in range(3)), min(seconds(160000) for _ in range(2))
        self.assertLess(large, small * 8 * 3)  # quadratic: 64 times

    def test_the_helpers(self):
        chat = Chat()
        chat._collect_incoming_data(b"a")
        chat._collect_incoming_data(b"b")
        self.assertEqual((chat._get_data(), chat._get_data()), (b"ab", b""))
        self.assertRaises(NotImplementedError, asynchat.async_chat.collect_incoming_data, chat, b"")
        self.assertRaises(NotImplementedError, asynchat.async_chat.found_terminator, chat)
        for haystack, needle, found in (("qwerty\r", "\r\n", 1), ("qwertydkjf", "\r\n", 0), (b"aa", b"aaaa", 2),
                                        (b"", b"x", 0), (b"xaab", b"aabb", 3), (b"ab", b"ab", 0)):
            self.assertEqual(asynchat.find_prefix_at_end(haystack, needle), found)


class Changes(Case):
    """What a handler changes in the middle of a read counts at once. The sockets are real ones: others are Python's."""

    def chat(self, acts, cls=Chat):
        """A chat that has read nothing yet; acts(chat, what) is called when something was collected or found."""
        a, b = self.pair()

        class Real(cls):
            recv = asyncore.dispatcher.recv
            send = asyncore.dispatcher.send

            def __init__(self):
                asynchat.async_chat.__init__(self, a, {})
                self.calls = []
                self.set_terminator(b"\n")

            def collect_incoming_data(self, data):
                self.calls.append(data)
                acts(self, data)

            def found_terminator(self):
                self.calls.append(None)
                acts(self, None)

        self.peer = b
        return Real()

    def read(self, chat, data):
        self.peer.send(data)
        chat.handle_read()
        return chat.calls

    def test_a_handler_of_the_class(self):
        def acts(chat, data):
            if data == b"a":
                type(chat).found_terminator = lambda self: self.calls.append("class's")
            elif data == b"b":
                type(chat).collect_incoming_data = lambda self, data: self.calls.append(("class's", data))

        self.assertEqual(self.read(self.chat(acts), b"a\nb\nc\n"),
                         [b"a", "class's", b"b", "class's", ("class's", b"c"), "class's"])

    def test_a_handler_of_the_instance(self):
        def acts(chat, data):
            if data == b"a":
                chat.found_terminator = lambda: (chat.calls.append("its own"), delattr(chat, "found_terminator"))
            elif data == b"c":
                chat.collect_incoming_data = lambda data: chat.calls.append(("its own", data))

        self.assertEqual(self.read(self.chat(acts), b"a\nb\nc\nd\n"),
                         [b"a", "its own", b"b", None, b"c", None, ("its own", b"d"), None])

    def test_the_attributes_all_at_once(self):
        def acts(chat, data):
            if data is None and len(chat.calls) == 2:
                chat.__dict__ = dict(chat.__dict__, terminator=b"X", found_terminator=lambda: chat.calls.append("new"))

        self.assertEqual(self.read(self.chat(acts), b"a\nb\nXc"), [b"a", None, b"b\n", "new", b"c"])

    def test_another_class(self):
        class Other(Chat):
            def found_terminator(self):
                self.calls.append("other")

            get_terminator = lambda self: b"X"

        def acts(chat, data):
            if data == b"b":
                chat.__class__ = Other

        self.assertEqual(self.read(self.chat(acts), b"a\nb\nc\nXd"), [b"a", None, b"b", "other", b"c\n", "other", b"d"])

    def test_the_terminator(self):
        def acts(chat, data):
            if data == b"a":
                chat.terminator = b"X"  # of what comes after this line
            elif data == b"b\n":
                del chat.terminator
                type(chat).terminator = 3
            elif data == b"cde":
                chat.get_terminator = lambda: b"Y"
            elif data == b"f":
                del chat.get_terminator
                chat.terminator = None

        self.assertEqual(self.read(self.chat(acts), b"a\nb\nXcdefYg\n"),
                         [b"a", None, b"b\n", None, b"cde", None, b"f", None, b"g\n"])

    def test_a_class_that_sets_past_us(self):
        class Sets(Chat):
            def __setattr__(self, name, value):
                if name == "terminator":
                    self.__dict__[name] = value
                else:
                    super().__setattr__(name, value)

        class Gets(Chat):
            terminator = property(lambda self: self.__dict__.get("other", b"\n"),
                                  lambda self, value: self.__dict__.update(other=value))

        class Asks(Chat):
            def __getattribute__(self, name):
                return b"X" if name == "terminator" and None in self.calls else super().__getattribute__(name)

        def acts(chat, data):
            if data == b"a":
                chat.terminator = b"X"

        for cls in (Sets, Gets, Asks):
            with self.subTest(cls.__name__):
                self.assertEqual(self.read(self.chat(acts, cls), b"a\nb\nX"), [b"a", None, b"b\n", None])

    def test_the_input_itself(self):
        def acts(chat, data):
            if data == b"a":
                chat.ac_in_buffer = b"a\nbb\n" + chat.ac_in_buffer
            elif data is None and chat.calls[-2] == b"bb":
                self.assertEqual(chat.ac_in_buffer, b"a\nc\nd\n")
                chat.ac_in_buffer = b"c\n"
            elif data == b"c":
                self.kept = dict(chat.__dict__)  # holds what a read uses, too
            elif data is None and chat.calls[-2] == b"c":
                chat.ac_in_buffer += b"e\nf"
            elif data == b"e":
                chat.discard_buffers()

        chat = self.chat(acts)
        self.assertEqual(self.read(chat, b"a\nc\nd\n"), [b"a", None, b"bb", None, b"c", None, b"e", None])
        self.assertEqual(chat.ac_in_buffer, b"")

    def test_a_read_within_a_read(self):
        def acts(chat, data):
            if data is None and chat.calls[-2] == b"a":
                self.peer.send(b"c\nd")
                chat.handle_read()
                chat.calls.append("within")

        chat = self.chat(acts)
        chat.set_terminator(b"\r\n")
        self.assertEqual(self.read(chat, b"a\r\nb\r\n\r"), [b"a", None, b"b", None, b"\rc\nd", "within"])
        self.assertEqual(self.read(chat, b"e\r\n")[-2:], [b"e", None])

    def test_a_close_goes_on_and_an_error_does_not(self):
        def acts(chat, data):
            if data == b"a":
                chat.close()
            elif data == b"b":
                raise ZeroDivisionError

        chat = self.chat(acts)
        self.assertRaises(ZeroDivisionError, self.read, chat, b"a\nb\nc\n")
        self.assertEqual((chat.calls, chat.ac_in_buffer), ([b"a", None, b"b"], b"b\nc\n"))

    def test_a_number_that_is_no_size(self):
        for number in (1 << 70, sys.maxsize):
            chat = self.chat(lambda chat, data: None)
            chat.set_terminator(number)
            self.assertEqual(self.read(chat, b"abc"), [b"abc"])
            self.assertEqual(chat.get_terminator(), number - 3)

    def test_a_number_that_is_set_while_one_counts_down(self):
        def acts(chat, data):
            if data == b"abcd":
                chat.set_terminator(2)  # of which the four that came are taken

        chat = self.chat(acts)
        chat.set_terminator(9)
        self.read(chat, b"abcd")
        self.assertEqual(chat.get_terminator(), -2)
        chat.ac_in_buffer_size = 3
        self.assertEqual(self.read(chat, b"efg"), [b"abcd", b"e", None, b"fg"])

    def test_the_terminator_is_asked_for_once_a_line(self):
        def get_terminator():
            asked.append(True)
            return bytearray(b"\n")

        asked = []
        chat = self.chat(lambda chat, data: None)
        chat.get_terminator = get_terminator
        self.assertEqual(self.read(chat, b"a\nb\nc"), [b"a", None, b"b", None, b"c"])
        self.assertEqual(len(asked), 3)


class Queue(unittest.TestCase):
    def test_push_sends_at_once_and_once(self):
        chat = Chat()
        self.assertIsNone(chat.push(b"abc"))
        chat.takes = 2
        chat.push(bytearray(b"defg"))
        chat.push(memoryview(b"hi"))
        self.assertEqual(chat.sent, [b"abc", b"defg", b"fg"])
        self.assertEqual(list(chat.producer_fifo), [b"hi"])

    def test_only_bytes(self):
        for data in ("text", 5, None, [1]):
            with self.assertRaises(TypeError) as caught:
                Chat().push(data)
            self.assertEqual(caught.exception.args, ("data argument must be byte-ish (%r)", type(data)))

    def test_pieces(self):
        chat = Chat()
        chat.ac_out_buffer_size = 3
        chat.push(b"abcdefgh")
        self.assertEqual(list(chat.producer_fifo), [b"def", b"gh"])
        chat.push_with_producer(b"ijklm")
        chat.handle_write()
        chat.handle_write()
        chat.handle_write()
        self.assertEqual((chat.sent, list(chat.producer_fifo)), ([b"abc", b"def", b"gh", b"ijk", b"lm"], []))

    def test_nothing_is_sent_before_it_is_connected(self):
        chat = Chat()
        chat.connected = False
        chat.push(b"x")
        self.assertEqual((chat.sent, list(chat.producer_fifo)), ([], [b"x"]))

    def test_data_that_is_empty(self):
        chat = Chat()
        chat.push(b"")
        self.assertEqual((chat.sent, list(chat.producer_fifo)), ([b""], []))

    def test_producers(self):
        chat = Chat()
        chat.push_with_producer(asynchat.simple_producer(b"abcdef", 4))
        chat.push(b"x")
        chat.handle_write()
        chat.handle_write()
        self.assertEqual((chat.sent, list(chat.producer_fifo)), ([b"abcd", b"ef", b"x"], []))

    def test_text_with_an_encoding(self):
        chat = Chat()
        chat.use_encoding, chat.encoding = 1, "utf-8"
        chat.takes = 2
        chat.push_with_producer("a\xe9b")
        for _ in range(2):
            chat.handle_write()
        self.assertEqual(b"".join(data[:2] for data in chat.sent), "a\xe9b".encode("utf-8"))

    def test_close_when_done(self):
        chat = Chat()
        chat.takes = 1
        chat.push(b"ab")
        chat.close_when_done()
        self.assertEqual(chat.calls, [])
        chat.handle_write()
        self.assertEqual(chat.calls, [])
        chat.handle_write()
        self.assertEqual((chat.calls, chat.sent), (["close"], [b"ab", b"b"]))

    def test_errors_of_send(self):
        chat = Chat()
        chat.send = mock.Mock(side_effect=OSError)
        chat.handle_error = mock.Mock()
        chat.push(b"x")
        self.assertEqual((chat.handle_error.call_count, list(chat.producer_fifo)), (1, [b"x"]))

    def test_predicates(self):
        chat = Chat()
        self.assertEqual((chat.readable(), bool(chat.writable())), (1, False))
        chat.producer_fifo.append(b"x")
        self.assertIs(chat.writable(), chat.producer_fifo)
        chat.producer_fifo.clear()
        chat.connected = False
        self.assertTrue(chat.writable())

    def test_the_queue_is_a_deque_that_others_may_touch(self):
        chat = Chat()
        self.assertIsInstance(chat.producer_fifo, deque)
        chat.producer_fifo.append(b"own")
        chat.initiate_send()
        self.assertEqual(chat.sent, [b"own"])

    def test_discard_buffers(self):
        chat = Chat()
        chat.ac_in_buffer, chat.takes = b"x", 0
        chat._collect_incoming_data(b"y")
        chat.push(b"z")
        chat.discard_buffers()
        self.assertEqual((chat.ac_in_buffer, chat.incoming, len(chat.producer_fifo)), (b"", [], 0))

    def test_long_data_is_not_copied_for_each_piece(self):
        for data in (bytes(60 * 1000 * 1000), asynchat.simple_producer(bytes(60 * 1000 * 1000), 65536)):
            chat = Chat()
            chat.send = len
            before = time.process_time()
            chat.push_with_producer(data)
            while chat.producer_fifo and time.process_time() - before < 60:
                chat.initiate_send()
            self.assertLess(time.process_time() - before, 2 * SLOWER)  # 27 GB of copying otherwise

    def test_what_is_left_of_long_data(self):
        chat = Chat()
        chat.takes = 70
        data = os.urandom(300000)
        chat.push_with_producer(data)
        left = chat.producer_fifo[0]
        self.assertEqual((len(left), bytes(left), left[:5], left[-3:], left[2:4]),
                         (299930, data[70:], data[70:75], data[-3:], data[72:74]))
        sent = b""
        while chat.producer_fifo:
            chat.sent.clear()
            chat.takes = 65536
            chat.initiate_send()
            sent += chat.sent[0]
        self.assertEqual(sent, data[70:])

    def test_the_simple_producer(self):
        producer = asynchat.simple_producer(b"abcdef", buffer_size=4)
        self.assertEqual(producer.more(), b"abcd")
        self.assertEqual((producer.data, producer.buffer_size), (b"ef", 4))
        producer.data += b"gh"
        self.assertEqual([producer.more() for _ in range(2)], [b"efgh", b""])


class Ends(Case):
    def test_handle_close_closes(self):
        a, b = self.pair()
        chat = asynchat.async_chat(a, self.map)
        b.close()
        self.until(lambda: not self.map)
        self.assertEqual(a.fileno(), -1)

    def test_the_attributes_are_there_before_the_base_class_runs(self):
        class Early(asynchat.async_chat):
            def add_channel(self, map=None):
                self.early = (self.ac_in_buffer, self.incoming, self.producer_fifo)

        a, b = self.pair()
        self.assertEqual(Early(a, self.map).early, (b"", [], deque()))


class Marks(unittest.TestCase):
    def chat(self, *marks):
        chat = Chat()
        chat.takes = 0
        chat.set_marks(*marks)
        return chat

    def test_there_are_none_unless_they_are_set(self):
        chat = Chat()
        chat.takes = 0
        self.assertIsNone(chat.push(bytes(50000000)))
        self.assertEqual((chat.readable(), chat.queued()), (1, 50000000))

    def test_past_the_high_mark_it_stops_reading_until_the_low_one(self):
        chat = self.chat(10, 20, 1000)
        self.assertIs(chat.push(b"x" * 20), False)
        self.assertEqual(chat.readable(), 1)
        self.assertIs(chat.push(b"x"), True)
        self.assertEqual(chat.readable(), 0)
        chat.takes = 5
        for left in (16, 11):
            chat.initiate_send()
            self.assertEqual((chat.queued(), chat.readable()), (left, 0))
        chat.initiate_send()
        self.assertEqual((chat.queued(), chat.readable()), (6, 1))
        self.assertIs(chat.push(b"x" * 5), False)

    def test_past_the_limit_nothing_is_taken(self):
        chat = self.chat(10, 20, 30)
        chat.push(b"x" * 25)
        for push in (chat.push, chat.push_with_producer):
            with self.assertRaises(OSError) as caught:
                push(b"y" * 6)
            self.assertEqual(caught.exception.errno, errno.ENOBUFS)
        self.assertEqual(chat.queued(), 25)
        chat.push(b"y" * 5)
        self.assertEqual(chat.queued(), 30)

    def test_producers_count_as_they_yield(self):
        chat = self.chat(10, 20, 1000)
        chat.push_with_producer(asynchat.simple_producer(b"x" * 50, 30))
        self.assertEqual((chat.queued(), chat.push(b"y")), (30, True))
        chat.takes = 1000
        while chat.producer_fifo:
            chat.initiate_send()
        self.assertEqual((chat.queued(), chat._asyncore_queued, chat.readable()), (0, 0, 1))

    def test_a_queue_that_others_emptied(self):
        chat = self.chat(10, 20, 30)
        chat.push(b"x" * 25)
        chat.producer_fifo.clear()
        self.assertEqual(chat.readable(), 1)
        self.assertIs(chat.push(b"x" * 15), False)
        chat.discard_buffers()
        self.assertIs(chat.push(b"x" * 15), False)

    def test_what_they_may_be(self):
        for marks in ((5, 5, 10), (6, 5, 10), (1, 11, 10), (-1, 5, 10)):
            self.assertRaises(ValueError, Chat().set_marks, *marks)
        self.assertRaises(TypeError, Chat().set_marks, "x")

    def test_they_may_be_set_late(self):
        chat = Chat()
        chat.takes = 0
        chat.push(b"x" * 25)
        chat.set_marks(10, 20, 30)
        self.assertEqual(chat.readable(), 0)
        chat.set_marks(30, 40, 50)
        self.assertEqual(chat.readable(), 1)

    def test_a_slow_reader_stops_an_echo(self):
        a, b = socket.socketpair()
        map = {}

        class Echo(asynchat.async_chat):
            def collect_incoming_data(self, data):
                self.push(data)

        echo = Echo(a, map)
        echo.set_terminator(None)
        echo.set_marks(20000, 40000, 1000000)
        b.setblocking(False)
        sent = received = 0
        try:
            for _ in range(3000):
                try:
                    sent += b.send(bytes(65536))
                except BlockingIOError:
                    pass
                asyncore.poll(0, map)
            self.assertLess(echo.queued(), 40000 + 65536 + 1)
            b.setblocking(True)
            b.settimeout(30)
            while received < sent:
                asyncore.poll(0, map)
                received += len(b.recv(1 << 20))
            self.assertEqual(received, sent)
        finally:
            echo.close()
            b.close()


if __name__ == "__main__":
    unittest.main()
