"""Timers, idle timeouts, calls and changes from other threads, forks."""
import asyncore
import asynchat
import contextlib
import gc
import io
import os
import random
import select
import signal
import socket
import sys
import threading
import time
import unittest
from unittest import mock

from support import DEADLINE, POLLS, Case, Trace, idle_cpu, waits

serving = asyncore._serving


class Timers(Case):
    def test_never_early_and_in_order(self):
        calls = []
        start = time.monotonic()
        for delay in (0.03, 0.01, 0.02, 0.01):
            asyncore.call_later(delay, lambda delay: calls.append((delay, time.monotonic() - start)), delay,
                                map=self.map)
        asyncore.loop(map=self.map)
        self.assertEqual([delay for delay, _ in calls], [0.01, 0.01, 0.02, 0.03])
        for delay, after in calls:
            self.assertGreaterEqual(after, delay)

    def test_equal_ones_in_the_order_of_the_calls(self):
        calls = []
        with mock.patch.object(time, "monotonic", return_value=5.0):
            for i in range(20):
                asyncore.call_later(0, calls.append, i, map=self.map)
            asyncore.poll(0, self.map)
        self.assertEqual(calls, list(range(20)))

    def test_a_loop_goes_on_while_there_are_timers_in_the_foreground(self):
        for use_poll in (False, True):
            calls = []
            asyncore.call_later(0.05, calls.append, 1, map=self.map)
            asyncore.call_later(DEADLINE, calls.append, 2, map=self.map).set_background()
            asyncore.loop(DEADLINE, use_poll, self.map)
            self.assertEqual(calls, [1])
            for _, _, timer in list(serving.maps[id(self.map)].timers):
                timer.cancel()

    def test_they_bound_the_wait(self):
        a, b = self.pair()
        Trace(a, self.map)
        for poll in POLLS:
            calls = []
            asyncore.call_later(0.02, calls.append, 1, map=self.map)
            before = time.monotonic()
            while not calls:
                poll(DEADLINE, self.map)
            self.assertLess(time.monotonic() - before, DEADLINE / 2)
            asyncore.call_later(0.02, calls.append, 2, map=self.map)
            while len(calls) < 2:
                poll(None, self.map)

    def test_cancel(self):
        calls = []
        timers = [asyncore.call_later(0, calls.append, i, map=self.map) for i in range(3)]
        timers[1].cancel()
        timers[1].cancel()
        self.assertEqual([timer.pending() for timer in timers], [True, False, True])
        asyncore.loop(map=self.map)
        self.assertEqual((calls, timers[0].pending()), ([0, 2], False))
        timers[0].cancel()

    def test_one_cancels_another_that_is_due_as_well(self):
        calls = []
        second = None
        asyncore.call_later(0, lambda: second.cancel(), map=self.map)
        second = asyncore.call_later(0, calls.append, 2, map=self.map)
        time.sleep(0.001)
        asyncore.loop(map=self.map)
        self.assertEqual(calls, [])

    def test_again_and_again(self):
        calls = []

        def call():
            calls.append(time.monotonic())
            if len(calls) == 4:
                self.assertTrue(timer.pending())
                timer.cancel()

        start = time.monotonic()
        timer = asyncore.call_every(0.01, call, map=self.map)
        asyncore.loop(map=self.map)
        for i, when in enumerate(calls):
            self.assertGreaterEqual(when - start, 0.01 * (i + 1) - 1e-9)

    def test_times_that_passed_unserved_are_left_out_and_there_is_no_drift(self):
        now = [0.0]
        calls = []
        with mock.patch.object(time, "monotonic", lambda: now[0]):
            timer = asyncore.call_every(10, lambda: calls.append(now[0]), map=self.map)
            for now[0] in (9, 10.5, 19.9, 20.1, 57, 59.9, 60, 69):
                asyncore.poll(0, self.map)
        timer.cancel()
        self.assertEqual(calls, [10.5, 20.1, 57, 60])

    def test_a_burst_does_not_starve_the_channels(self):
        calls = []
        for _ in range(3000):
            asyncore.call_later(0, calls.append, 1, map=self.map)
        time.sleep(0.001)
        sizes = []
        for _ in range(3):
            asyncore.poll(0, self.map)
            sizes.append(len(calls))
        self.assertEqual(sizes, [1024, 2048, 3000])

    def test_one_that_sets_itself_anew_does_not_hold_the_turn(self):
        calls = []

        def again():
            calls.append(1)
            if len(calls) < 3:
                asyncore.call_later(0, again, map=self.map)

        asyncore.call_later(0, again, map=self.map)
        time.sleep(0.001)
        asyncore.poll(0, self.map)
        self.assertEqual(len(calls), 1)
        asyncore.loop(map=self.map)
        self.assertEqual(len(calls), 3)

    def test_cancelled_ones_leave_the_memory(self):
        keep = asyncore.call_later(DEADLINE, print, map=self.map)
        for _ in range(10000):
            asyncore.call_later(DEADLINE, print, map=self.map).cancel()
        self.assertLess(len(serving.maps[id(self.map)].timers), 200)
        keep.cancel()

    def test_one_that_was_cancelled_behind_another_is_not_kept_when_that_ran(self):
        for poll in POLLS:
            a, b = self.pair()
            channel = Trace(a, self.map)
            asyncore.call_later(0, channel.close, map=self.map)
            asyncore.call_later(DEADLINE, channel.close, map=self.map).cancel()
            poll(0, self.map)
            self.assertEqual((self.map, serving.maps), ({}, {}))

    def test_what_they_raise(self):
        out = io.StringIO()
        calls = []
        asyncore.call_later(0, lambda: 1 / 0, map=self.map)
        asyncore.call_later(0, calls.append, 1, map=self.map)
        with contextlib.redirect_stdout(out):
            asyncore.loop(map=self.map)
        self.assertIn("error: uncaptured python exception, calling <function", out.getvalue())
        self.assertIn("<class 'ZeroDivisionError'>:division by zero", out.getvalue())
        self.assertEqual(calls, [1])
        asyncore.call_later(0, mock.Mock(side_effect=asyncore.ExitNow), map=self.map)
        self.assertRaises(asyncore.ExitNow, asyncore.loop, map=self.map)

    def test_what_a_channels_method_raises_goes_to_its_handle_error(self):
        class Channel(Trace):
            def tick(self):
                raise KeyError

        a, b = self.pair()
        channel = Channel(a, self.map)
        asyncore.call_later(0, channel.tick, map=self.map)
        asyncore.loop(map=self.map)
        self.assertEqual(channel.calls, ["error:KeyError"])

    def test_what_is_refused(self):
        for call in (asyncore.call_later, asyncore.call_every):
            self.assertRaises(TypeError, call, 1, None, map=self.map)
            self.assertRaises(ValueError, call, float("nan"), print, map=self.map)
            self.assertRaises(ValueError, call, "x", print, map=self.map)
        self.assertRaises(ValueError, asyncore.call_every, 0, print, map=self.map)
        self.assertRaises(TypeError, asyncore.call_soon_threadsafe, None, map=self.map)

    def test_the_default_map(self):
        calls = []
        with mock.patch.object(asyncore, "socket_map", {}):
            asyncore.call_later(0, calls.append, 1)
            asyncore.call_soon_threadsafe(calls.append, 2)
            asyncore.loop()
        self.assertEqual(calls, [2, 1])


class Idle(Case):
    def test_silence_is_an_error(self):
        class Channel(Trace):
            def handle_error(self):
                self.note("%s:%d" % (type(sys.exc_info()[1]).__name__, sys.exc_info()[1].errno))
                self.close()

        for use_poll in (False, True):
            a, b = self.pair()
            channel = Channel(a, self.map)
            channel.set_idle_timeout(0.05)
            start = time.monotonic()
            asyncore.loop(DEADLINE, use_poll, self.map)
            self.assertGreaterEqual(time.monotonic() - start, 0.05)
            self.assertEqual(channel.calls, ["TimeoutError:110"])

    def test_bytes_put_it_off_both_ways(self):
        now = [0.0]
        with mock.patch.object(time, "monotonic", lambda: now[0]):
            a, b = self.pair()
            channel = Trace(a, self.map)
            channel.set_idle_timeout(10)
            for now[0], act in ((6, lambda: b.send(b"x")), (13, lambda: channel.send(b"y")), (20, lambda: None)):
                act()
                asyncore.poll(0, self.map)
            self.assertEqual(channel.calls, ["read"])
            now[0] = 22.9
            asyncore.poll(0, self.map)
            self.assertEqual(channel.calls, ["read"])
            now[0] = 23.1
            asyncore.poll(0, self.map)
            self.assertEqual(channel.calls, ["read", "error:TimeoutError"])

    def test_one_that_carries_on_gets_it_again(self):
        class Channel(Trace):
            def handle_error(self):
                self.note("timeout")
                if len(self.calls) == 3:
                    self.close()

        a, b = self.pair()
        channel = Channel(a, self.map)
        channel.set_idle_timeout(0.01)
        asyncore.loop(map=self.map)
        self.assertEqual(channel.calls, ["timeout"] * 3)

    def test_it_can_be_taken_back_and_ends_with_the_channel(self):
        a, b = self.pair()
        channel = Trace(a, self.map)
        channel.set_idle_timeout(0.01)
        channel.set_idle_timeout(None)
        asyncore.loop(0.03, map=self.map, count=2)
        self.assertEqual(channel.calls, [])
        channel.set_idle_timeout(DEADLINE)
        channel.close()
        self.assertNotIn(id(self.map), serving.maps)
        for seconds in (0, "x", float("nan")):
            self.assertRaises(ValueError, channel.set_idle_timeout, seconds)

    def test_a_connection_that_is_not_answered(self):
        channel = Trace(map=self.map)
        channel.create_socket()
        channel.wants = (False, False)
        channel.connecting = True
        channel.set_idle_timeout(0.02)
        asyncore.loop(map=self.map)
        self.assertEqual(channel.calls, ["error:TimeoutError"])

    def test_a_bare_raise_leaves_the_loop(self):
        class Channel(Trace):
            def handle_error(self):
                raise

        a, b = self.pair()
        Channel(a, self.map).set_idle_timeout(0.01)
        self.assertRaises(TimeoutError, asyncore.loop, map=self.map)


class Threads(Case):
    """A loop runs in a thread; the test's own thread interferes."""

    def start(self, use_poll=False, timeout=DEADLINE * 10):
        self.failed = []

        def run():
            try:
                asyncore.loop(timeout, use_poll, self.map)
            except BaseException as error:
                self.failed.append(error)

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()
        end = time.monotonic() + DEADLINE
        while not waits(self.map):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.001)

    def join(self):
        self.thread.join(DEADLINE)
        self.assertFalse(self.thread.is_alive(), "the loop was not woken")
        self.assertEqual(self.failed, [])

    def test_calls_come_in_order_and_wake_the_wait(self):
        for use_poll in (False, True):
            a, b = self.pair()
            channel = Trace(a, self.map)
            self.start(use_poll)
            calls = []
            for i in range(1000):
                asyncore.call_soon_threadsafe(calls.append, i, map=self.map)
            asyncore.call_soon_threadsafe(channel.close, map=self.map)
            self.join()
            self.assertEqual(calls, list(range(1000)))

    def test_a_wait_with_nothing_to_wait_for_is_woken(self):
        a, b = self.pair()
        channel = Trace(a, self.map)
        channel.wants = (False, False)
        self.start()
        asyncore.call_soon_threadsafe(channel.close, map=self.map)
        self.join()

    def test_a_call_before_the_loop_keeps_it_running_once(self):
        calls = []
        asyncore.call_soon_threadsafe(calls.append, 1, map=self.map)
        asyncore.loop(map=self.map)
        self.assertEqual(calls, [1])

    def test_a_channel_that_is_closed_or_added_wakes_the_wait(self):
        for use_poll in (False, True):
            a, b = self.pair()
            c, d = self.pair()
            first = Trace(a, self.map)
            self.start(use_poll)
            second = Trace(c, self.map)
            d.send(b"x")
            end = time.monotonic() + DEADLINE
            while not second.calls:
                self.assertLess(time.monotonic(), end, "the new channel was not seen")
                time.sleep(0.001)
            first.close()
            second.close()
            self.join()

    def test_a_predicate_that_changed_is_asked_after_wakeup(self):
        a, b = self.pair()

        class Channel(Trace):
            wants = (False, False)

            def handle_write(self):
                self.close()

        channel = Channel(a, self.map)
        self.start()
        channel.wants = (False, True)
        asyncore.wakeup(self.map)
        self.join()

    def test_a_push_from_another_thread_is_sent_by_the_loop(self):
        # GH-70559: both threads sent, and data came twice, or not at all.
        for use_poll in (False, True):
            for kind in (asynchat.async_chat, asyncore.dispatcher_with_send):
                a, b = self.pair()
                channel = kind(a, self.map)
                channel.handle_read = lambda: channel.recv(1)
                channel.handle_close = channel.close
                send = channel.push if kind is asynchat.async_chat else channel.send
                self.start(use_poll)
                size, count, threads = 1000, 300, 4

                def pusher(letter):
                    for _ in range(count):
                        send(letter * size)

                workers = [threading.Thread(target=pusher, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
                for worker in workers:
                    worker.start()
                received = bytearray()
                while len(received) < size * count * threads:
                    received += b.recv(1 << 20)
                for worker in workers:
                    worker.join()
                b.close()
                self.join()
                pieces = [bytes(received[i:i + size]) for i in range(0, len(received), size)]
                self.assertEqual(sorted(pieces), [letter * size for letter in (b"a", b"b", b"c", b"d")
                                                  for _ in range(count)])

    def test_a_push_is_sent_at_once_where_no_loop_runs(self):
        a, b = self.pair()
        chat = asynchat.async_chat(a, self.map)
        worker = threading.Thread(target=chat.push, args=(b"x",))
        worker.start()
        worker.join()
        self.assertEqual(b.recv(10), b"x")

    def test_a_timer_from_another_thread(self):
        a, b = self.pair()
        channel = Trace(a, self.map)
        self.start()
        asyncore.call_later(0, channel.close, map=self.map)
        self.join()

    def test_a_descriptor_that_another_thread_shut_down_and_closed(self):
        for use_poll in (False, True):
            listener = socket.socket()
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            server = asyncore.dispatcher(map=self.map)
            server.set_socket(listener)
            server.accepting = True
            server.handle_error = server.close
            self.start(use_poll, 0.2)
            listener.shutdown(socket.SHUT_RDWR)
            server.close()
            self.join()

    def test_nothing_is_missed_on_the_way_into_a_wait(self):
        # Each wake-up that the wait does not see takes a second at least.
        class Channel(Trace):
            wish = False

            def writable(self):
                wish = self.wish
                for _ in range(random.randrange(2000)):  # another thread may run here
                    pass
                return wish

            def handle_write(self):
                self.wish = False
                called.release()

        def serve():
            while self.map:
                asyncore.loop(DEADLINE * 10, use_poll, self.map, count=random.choice([1, 2, 1000]))

        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-5)
        end = time.monotonic() + DEADLINE
        for use_poll in (False, True):
            a, b = self.pair()
            channel = Channel(a, self.map)
            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            called = threading.Lock()
            called.acquire()
            for i in range(1500):
                for _ in range(random.randrange(2000)):
                    pass
                if i % 2:
                    asyncore.call_soon_threadsafe(called.release, map=self.map)
                else:
                    channel.wish = True
                    asyncore.wakeup(self.map)
                self.assertTrue(called.acquire(timeout=max(0.001, end - time.monotonic())), i)
            asyncore.call_soon_threadsafe(channel.close, map=self.map)
            thread.join(DEADLINE)
            self.assertFalse(thread.is_alive())

    def test_a_wakeup_between_the_asking_and_the_wait_ends_the_turn(self):
        class Channel(Trace):
            wish = False

            def writable(self):
                wish = self.wish
                if not wish:
                    self.wish = True
                    thread = threading.Thread(target=asyncore.wakeup, args=(self._map,))
                    thread.start()
                    thread.join()
                return wish

        for use_poll in (False, True):
            a, b = self.pair()
            channel = Channel(a, self.map)
            asyncore.loop(DEADLINE, use_poll, self.map, 1)
            self.assertEqual(channel.calls, [])
            asyncore.loop(DEADLINE, use_poll, self.map, 1)
            self.assertEqual(channel.calls, ["write"])
            channel.close()

    def test_wakeup_ends_a_turn(self):
        a, b = self.pair()
        Trace(a, self.map)
        for use_poll in (False, True):
            turn = threading.Thread(target=asyncore.loop, args=(DEADLINE * 10, use_poll, self.map, 1), daemon=True)
            turn.start()
            while not waits(self.map):
                time.sleep(0.001)
            asyncore.wakeup(self.map)
            turn.join(DEADLINE)
            self.assertFalse(turn.is_alive())

    def test_from_a_signal_handler(self):
        a, b = self.pair()
        channel = Trace(a, self.map)
        channel.wants = (False, False)
        old = signal.signal(signal.SIGALRM,
                            lambda *args: asyncore.call_soon_threadsafe(channel.close, map=self.map))
        self.addCleanup(signal.signal, signal.SIGALRM, old)
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        before = time.monotonic()
        asyncore.loop(DEADLINE, map=self.map)
        self.assertLess(time.monotonic() - before, DEADLINE / 2)

    def test_two_maps_in_two_threads_do_not_know_of_each_other(self):
        maps = [{}, {}]
        done = []

        def serve(map):
            a, b = socket.socketpair()
            channel = Trace(a, map)
            asyncore.call_later(0.05, channel.close, map=map)
            asyncore.loop(map=map)
            b.close()
            done.append(1)

        workers = [threading.Thread(target=serve, args=(map,)) for map in maps]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(DEADLINE)
        self.assertEqual(len(done), 2)

    def test_an_idle_loop_takes_no_time(self):
        a, b = self.pair()
        Trace(a, self.map)
        self.assertLess(idle_cpu(0.3, lambda seconds: asyncore.loop(seconds, map=self.map, count=1)), 0.1)

    def test_nothing_is_left_of_maps_and_descriptors(self):
        def descriptors():
            gc.collect()
            return len(os.listdir("/proc/self/fd"))

        a, b = self.pair()
        for round in range(60):
            map = {}
            channel = Trace(a, map)
            asyncore.loop(0.0001, map=map, count=1)
            channel.del_channel()
            if round == 20:
                before = descriptors()
        self.assertLessEqual(descriptors(), before)  # fewer where engines that earlier tests left were dropped


class Forks(Case):
    def test_a_child_has_its_own_wake_up_and_the_parent_loses_nothing(self):
        a, b = self.pair()
        channel = Trace(a, self.map)
        calls = []

        def child():
            asyncore.call_soon_threadsafe(calls.append, "child", map=self.map)
            asyncore.poll(DEADLINE, self.map)
            assert calls == ["child"], calls
            b.send(b"x")
            asyncore.poll(DEADLINE, self.map)
            assert channel.calls == ["read"], channel.calls

        def within():
            self.fork(child)
            waker = serving.maps[id(self.map)].waker  # the extension's loop has none
            self.assertEqual(select.select([waker.reader] if waker is not None else [], [], [], 0)[0], [])
            calls.append("parent")

        asyncore.call_later(0, within, map=self.map)
        asyncore.loop(0.05, map=self.map, count=2)
        self.assertEqual(calls, ["parent"])

    def test_in_the_child_of_a_threaded_program_a_push_is_sent_at_once(self):
        a, b = self.pair()
        chat = asynchat.async_chat(a, self.map)
        chat.collect_incoming_data = lambda data: None
        chat.set_terminator(None)
        thread = threading.Thread(target=asyncore.loop, kwargs={"timeout": DEADLINE, "map": self.map}, daemon=True)
        thread.start()
        while not waits(self.map):
            time.sleep(0.001)
        self.fork(lambda: chat.push(b"child"))
        self.assertEqual(b.recv(10), b"child")
        b.close()
        thread.join(DEADLINE)
        self.assertFalse(thread.is_alive())


if __name__ == "__main__":
    unittest.main()
