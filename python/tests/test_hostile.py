"""Programs that do what they should not: with each other's channels, in the middle of a turn, from everywhere that
Python can be called. Whatever comes of it, an exception included, the interpreter lives.

Each runs in a process of its own, where freed memory is filled with a pattern, so that who looks at it is found out.
$HOSTILE is how many random programs of hostile.py are run (40); $HOSTILE_SEED is the first one's seed (1).
"""
import os
import subprocess
import sys
import textwrap
import unittest

from support import DEADLINE, HERE, run

PRELUDE = """
import faulthandler, gc, os, signal, socket, sys, threading, time
faulthandler.enable()
faulthandler.dump_traceback_later(%d, exit=True)
import asyncore, asynchat

sockets = []


def pair():
    sockets.extend(socket.socketpair())
    return sockets[-2:]


class Quiet(asyncore.dispatcher):
    def writable(self):
        return False

    def log_info(self, message, type="info"):
        pass


class Flag:
    '''A flag that does something when it is looked at.'''

    def __init__(self, act, answer=True):
        self.act, self.answer = act, answer

    def __bool__(self):
        self.act()
        return self.answer


class Colliding(str):
    '''A key that is looked at whenever the name is looked up.'''

    def __new__(cls, name, act):
        self = str.__new__(cls, name + "?")
        self.name, self.act = name, act
        return self

    def __hash__(self):
        return hash(self.name)

    def __eq__(self, other):
        if other == self.name:
            self.act()
        return False


def plain(sock, map=None, cls=asyncore.dispatcher_with_send):
    '''A channel whose predicates need not be called.'''
    return cls(sock, map)


def turn(map=None, count=1, use_poll=False):
    try:
        asyncore.loop(0, use_poll, map, count)
    except Exception as error:
        return error
""" % (DEADLINE // 2)


class Case(unittest.TestCase):
    def lives(self, code, **environment):
        environment = dict({"PYTHONMALLOC": "debug"}, **dict(os.environ, **environment))
        status, output = run(PRELUDE + textwrap.dedent(code) + "\nprint('alive')\n", env=environment)
        self.assertEqual((status, output.split()[-1:]), (0, ["alive"]), output)
        return output


class Random(unittest.TestCase):
    def test_random_hostile_programs(self):
        first, count = os.environ.get("HOSTILE_SEED") or "1", os.environ.get("HOSTILE") or "40"
        process = subprocess.run([sys.executable, "-W", "ignore", os.path.join(HERE, "hostile.py"), first, count],
                                 env=dict({"PYTHONMALLOC": "debug"}, **os.environ), stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=DEADLINE + int(count))
        output = process.stdout.decode("utf-8", "replace")
        self.assertEqual((process.returncode, output.split()[-1:]), (0, ["alive"]), output[-20000:])


class Vanish(Case):
    """Channels that go while they are looked at."""

    def test_predicates_that_take_others_out_of_the_dict_leave_nothing_to_ask(self):
        self.lives("""
            class Taker(Quiet):
                def readable(self):
                    for fd in list(self._map):
                        if fd != self._fileno:
                            del self._map[fd]
                    return True

            for use_poll in False, True:
                map = {}
                taker = Taker(pair()[0], map)
                for _ in range(40):
                    plain(pair()[0], map)
                turn(map, 3, use_poll)
                assert list(map) == [taker._fileno]
        """)

    def test_a_thread_that_clears_the_dict_in_a_wait_leaves_no_events(self):
        self.lives("""
            for use_poll in False, True:
                map = {}
                for _ in range(20):
                    a, b = pair()
                    plain(a, map)
                class Clearer(Quiet):
                    def handle_read(self):
                        pass
                keeper = Clearer(pair()[0], map)

                def clear():
                    time.sleep(0.1)
                    for sock in sockets[1::2]:
                        sock.send(b"x")
                        break
                    dict.clear(map)
                    gc.collect()

                thread = threading.Thread(target=clear)
                sys.setswitchinterval(10)
                thread.start()
                asyncore.loop(5, use_poll, map, 1)
                thread.join()
                for sock in sockets:
                    sock.close()
                del sockets[:]
        """)

    def test_a_signal_handler_that_clears_the_dict_leaves_no_events(self):
        self.lives("""
            for use_poll in False, True:
                map = {}
                ends = []
                for _ in range(20):
                    a, b = pair()
                    ends.append(b)
                    plain(a, map)

                def clear(*_):
                    map.clear()

                signal.signal(signal.SIGALRM, clear)

                def act():
                    time.sleep(0.05)
                    for end in ends:
                        end.send(b"x")
                    os.kill(os.getpid(), signal.SIGALRM)

                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
                thread = threading.Thread(target=act)
                thread.start()
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
                asyncore.loop(5, use_poll, map, 1)
                thread.join()
        """)

    def test_a_key_that_only_equals_the_descriptor_takes_the_channel_out(self):
        self.lives("""
            for key in float, lambda fd: type("Number", (int,), {})(fd):
                map = {}

                class Taker(Quiet):
                    def readable(self):
                        for fd in list(self._map):
                            if fd != self._fileno:
                                map.pop(key(fd))
                        return True

                Taker(pair()[0], map)
                for _ in range(40):
                    plain(pair()[0], map)
                turn(map, 3)
                assert len(map) == 1, map
        """)

    def test_a_connected_that_closes_when_it_is_looked_at(self):
        self.lives("""
            class Reader(Quiet):
                def handle_read(self):
                    self.recv(10)

            for base in asyncore.dispatcher_with_send, Reader:
                for which in range(1, 12):
                    a, b = pair()
                    channel = base(a)
                    b.send(b"x")
                    left = [which]

                    def act():
                        left[0] -= 1
                        if left[0] == 0:
                            asyncore.socket_map.clear()
                            channel.del_channel()
                    channel.connected = Flag(act)
                    turn(None, 3)
                    asyncore.socket_map.clear()
        """)

    def test_a_queue_that_closes_its_channel_and_raises_when_it_is_looked_at(self):
        self.lives("""
            class Queue(list):
                def __bool__(self):
                    self.channel.del_channel()
                    raise KeyError

            for _ in range(20):
                chat = asynchat.async_chat(pair()[0])
                chat.producer_fifo = Queue()
                chat.producer_fifo.channel = chat
                error = turn()
                assert isinstance(error, KeyError), error
        """)

    def test_a_getattribute_that_closes_its_channel_when_the_loop_looks(self):
        self.lives("""
            for what in "_asyncore_tls", "readable", "_map", "_fileno", "accepting", "writable", "connected":
                class Odd(Quiet):
                    def __getattribute__(self, name):
                        if name == what and armed:
                            del armed[:]
                            dict.clear(asyncore.socket_map)
                        return object.__getattribute__(self, name)

                for use_poll in False, True:
                    armed = []
                    for _ in range(3):
                        Odd(pair()[0])
                        asyncore.dispatcher_with_send(pair()[0])
                    armed = [1]
                    turn(None, 2, use_poll)
                    asyncore.socket_map.clear()
        """)

    def test_names_in_an_instance_that_collide_and_close(self):
        self.lives("""
            names = ("_map", "_fileno", "readable", "writable", "_asyncore_tls", "connected", "accepting",
                     "handle_read", "handle_read_event", "producer_fifo", "_asyncore_out", "initiate_send")
            for cls in asyncore.dispatcher_with_send, asynchat.async_chat:
                for name in names:
                    for how in "close", "clear":
                        for after in range(1, 6):
                            a, b = pair()
                            b.send(b"x")
                            channel = cls(a)
                            channel.handle_error = lambda: None
                            channel.__class__ = type("Sub", (cls,), {"handle_read": lambda self: None})
                            left = [after]

                            def act():
                                left[0] -= 1
                                if left[0] == 0:
                                    if how == "close":
                                        fd = a.fileno()
                                        if fd in asyncore.socket_map:
                                            del asyncore.socket_map[fd]
                                        asyncore.dispatcher(pair()[0], other).del_channel()
                                    else:
                                        asyncore.socket_map.clear()
                            other = {}
                            channel.__dict__[Colliding(name, act)] = 1
                            turn(None, 2)
                            del channel
                            asyncore.socket_map.clear()
                            for sock in sockets:
                                sock.close()
                            del sockets[:]
        """)

    def test_a_descriptor_that_is_a_property_and_empties_the_map(self):
        self.lives("""
            class Odd(asyncore.dispatcher):
                @property
                def _fileno(self):
                    if armed:
                        other = armed.pop()
                        other.del_channel()
                    return 5

                @_fileno.setter
                def _fileno(self, value):
                    pass

            for _ in range(10):
                armed = []
                map = {}
                other = Quiet(pair()[0], map)
                turn(map)
                odd = Odd(None, map)
                armed.append(other)
                odd.connected = True
        """)


class Replaced(Case):
    """What stands in a map is replaced, and what goes does something."""

    def test_a_channel_that_dies_of_its_successor_takes_others_with_it(self):
        self.lives("""
            class Dying(Quiet):
                def __del__(self):
                    for fd in list(self._map):
                        if fd != self._fileno:
                            del self._map[fd]

            for _ in range(3):
                map = {}
                first = Dying(pair()[0], map)
                fd = first._fileno
                for _ in range(20):
                    plain(pair()[0], map)
                turn(map)
                second = Quiet(None, map)
                second._fileno = fd
                del first
                second.add_channel()
                gc.collect()
                turn(map, 3)
                assert list(map) == [fd]
        """)

    def test_a_channel_that_dies_of_a_removal_takes_others_with_it(self):
        self.lives("""
            class Dying(Quiet):
                def __del__(self):
                    for fd in list(self._map):
                        del self._map[fd]

            map = {}
            first = Dying(pair()[0], map)
            fd = first._fileno
            for _ in range(20):
                plain(pair()[0], map)
            turn(map)
            second = Quiet(None, map)
            second._fileno = fd
            del first
            second.del_channel()
            gc.collect()
            turn(map, 3)
            assert not map
        """)

    def test_a_channel_that_dies_of_its_successor_takes_that_out_again(self):
        self.lives("""
            class Dying(Quiet):
                def __del__(self):
                    self._map.pop(self._fileno, None)

            for _ in range(3):
                map = {}
                first = Dying(pair()[0], map)
                keeper = Quiet(pair()[0], map)
                turn(map)
                second = plain(None, map)
                second._fileno = first._fileno
                del first
                second.add_channel()
                del second
                gc.collect()
                turn(map, 3)
                assert list(map) == [keeper._fileno]
        """)


class Attributes(Case):
    def test_an_attribute_that_is_not_there_cannot_be_deleted(self):
        self.lives("""
            served = Quiet(pair()[0])
            turn()
            bare = asyncore.dispatcher.__new__(asyncore.dispatcher)
            for name in "connected", "accepting", "producer_fifo", "_map", "_fileno":
                try:
                    delattr(bare, name)
                except AttributeError:
                    pass
                else:
                    raise AssertionError(name)
        """)

    def test_the_past_setter_is_for_channels(self):
        self.lives("""
            setter = asyncore.dispatcher_with_send.out_buffer.fset
            for other in int, 5, object(), asyncore:
                try:
                    setter(other, b"")
                except (TypeError, AttributeError):
                    pass
            assert not hasattr(int, "_asyncore_out")
        """)

    def test_attributes_by_names_that_are_not_interned(self):
        self.lives("""
            class Other(asyncore.dispatcher):
                def readable(self):
                    called.append(1)
                    return True

            called = []
            channel = asyncore.dispatcher_with_send(pair()[0])
            turn(None, 2)
            asyncore.dispatcher.__setattr__(channel, "".join(["__cla", "ss__"]), Other)
            turn(None, 2)
            assert called
            for name in 5, None, b"x":
                try:
                    asyncore.dispatcher.__setattr__(channel, name, 1)
                except TypeError:
                    pass
                else:
                    raise AssertionError(name)
        """)


class Deep(Case):
    """What calls itself ends by RecursionError, as it does in Python."""

    def test_a_loop_in_its_own_handler(self):
        for use_poll in (False, True):
            self.lives("""
                class Deep(Quiet):
                    depth = most = 0

                    def handle_read(self):
                        self.most = max(self.most, self.depth)
                        self.depth += 1
                        try:
                            asyncore.loop(0, %r, None, 1)
                        finally:
                            self.depth -= 1

                    def handle_error(self):
                        raise

                a, b = pair()
                b.send(b"x")
                channel = Deep(a)
                sys.setrecursionlimit(3000)
                error = turn(None, 1, %r)
                assert isinstance(error, RecursionError), error
            """ % (use_poll, use_poll))

    def test_a_handle_close_that_reads(self):
        self.lives("""
            class Deep(Quiet):
                def handle_close(self):
                    self.recv(10)

            a, b = pair()
            b.close()
            channel = Deep(a)
            sys.setrecursionlimit(3000)
            try:
                channel.recv(10)
            except RecursionError:
                pass
            else:
                raise AssertionError
        """)

    def test_a_handle_close_that_sends(self):
        self.lives("""
            class Deep(Quiet):
                def handle_close(self):
                    self.send(b"x")

            a, b = pair()
            b.close()
            channel = Deep(a)
            sys.setrecursionlimit(3000)
            try:
                channel.send(b"x")
            except RecursionError:
                pass
            else:
                raise AssertionError
        """)

    def test_installing_twice(self):
        self.lives("""
            if asyncore._extension is not None:
                asyncore._extension.install(asyncore.__dict__)
                asyncore._extension.install_chat(asynchat.__dict__)
            a, b = pair()
            channel = asyncore.dispatcher(a)
            assert channel.send(b"x") == 1
            chat = asynchat.async_chat(b)
            chat.push(memoryview(b"xy"))
            assert channel.recv(5) == b"xy"
            asyncore.loop(0, False, None, 1)
        """)


class Limits(Case):
    def test_no_descriptor_is_left_for_an_engine(self):
        self.lives("""
            import resource
            a, b = pair()
            read = []

            class Reader(Quiet):
                def handle_read(self):
                    read.append(self.recv(10))

            channel = Reader(a)
            b.send(b"x")
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            held = []
            try:
                while True:
                    held.append(os.dup(0))
            except OSError:
                pass
            for turn in asyncore.poll, asyncore.poll2:
                turn(1)
            asyncore.loop(1, count=1)
            asyncore.loop(1, True, count=1)
            assert read[:1] == [b"x"], read
        """)

    def test_no_descriptor_is_left_for_a_child(self):
        self.lives("""
            import resource
            a, b = pair()
            channel = Quiet(a)
            turn(None, 2)
            pid = os.fork()
            if pid == 0:
                held = []
                resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
                try:
                    while True:
                        held.append(os.dup(0))
                except OSError:
                    pass
                turn(None, 2)
                turn(None, 2)
                for fd in held:
                    os.close(fd)
                assert turn(None, 2) is None
                channel.del_channel()
                turn(None, 2)
                os._exit(7)
            status = os.waitpid(pid, 0)[1]
            assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 7, status
        """)

    def test_an_engine_that_is_none(self):
        for name in ("", "rubbish", "x" * 5000, "EPOLL", "io_uring", "select", "poll", "epoll"):
            self.lives("""
                channel = Quiet(pair()[0])
                error = turn(None, 2)
                assert error is None or isinstance(error, ValueError), error
                channel.del_channel()
            """, ASYNCORE_ENGINE=name)


class Numbers(Case):
    def test_terminators_that_are_enormous(self):
        self.lives("""
            class Chat(asynchat.async_chat):
                got = b""

                def collect_incoming_data(self, data):
                    self.got += data

                def found_terminator(self):
                    found.append(self.got)

                def handle_error(self):
                    raise

            found = []
            a, b = pair()
            chat = Chat(a)
            chat.set_terminator(2 ** 70)
            b.send(b"abc")
            chat.handle_read()
            assert chat.got == b"abc" and chat.terminator == 2 ** 70 - 3, (chat.got, chat.terminator)
        """)

    def test_terminators_that_are_negative_keep_the_end_for_later(self):
        self.lives("""
            class Chat(asynchat.async_chat):
                def collect_incoming_data(self, data):
                    calls.append(data)

                def found_terminator(self):
                    calls.append(None)

            calls = []
            a, b = pair()
            chat = Chat(a)
            chat.terminator = -2
            b.send(b"abcdef")
            chat.handle_read()
            assert calls == [b"abcd", None, b"ef"], calls
            chat.terminator = -9
            b.send(b"xy")
            chat.handle_read()
            assert calls[3:] == [None, b"xy"], calls
        """)

    def test_terminators_that_are_true_and_empty(self):
        self.lives("""
            class Empty(bytes):
                def __bool__(self):
                    return True

            class Chat(asynchat.async_chat):
                def collect_incoming_data(self, data):
                    pass

                def found_terminator(self):
                    self.terminator = None

            a, b = pair()
            chat = Chat(a)
            chat.set_terminator(Empty())
            b.send(b"abc")
            chat.handle_read()
        """)


class Interpreters(Case):
    SUB = """
        try:
            import _interpreters as interpreters
        except ImportError:
            try:
                import _xxsubinterpreters as interpreters
            except ImportError:
                interpreters = None
        code = '''
        import sys
        sys.path[:] = %r
        import asyncore, socket
        class C(asyncore.dispatcher_with_send):
         def handle_read(self):
          self.recv(10)
        a, b = socket.socketpair()
        c = C(a)
        b.send(b"x")
        asyncore.loop(0, count=2)
        c.close()
        b.close()
        '''.replace("\\n        ", "\\n") % (sys.path,)


        def sub():
            if sys.version_info >= (3, 13):
                interpreter = interpreters.create("legacy")
            elif sys.version_info >= (3, 9):
                interpreter = interpreters.create(isolated=False)
            else:
                interpreter = interpreters.create()
            try:
                run = getattr(interpreters, "run_string", None) or interpreters.exec
                error = run(interpreter, code)
                assert not error, error
            finally:
                interpreters.destroy(interpreter)
    """

    def test_interpreters_after_and_before_the_main_one(self):
        self.lives(self.SUB + """
        if interpreters is not None:
            sub()
            turn()
            sub()
        """)

    def test_interpreters_one_after_the_other_before_the_main_one(self):
        code = self.SUB + """
        if interpreters is not None:
            for _ in range(4):
                sub()
        import asyncore, asynchat
        """
        self.lives(code)


class End(Case):
    """The interpreter ends in the middle of it."""

    def test_a_thread_that_waits(self):
        self.lives("""
            def serve():
                asyncore.loop(30, False, map)

            map = {}
            for _ in range(3):
                Quiet(pair()[0], map)
            for _ in range(3):
                threading.Thread(target=serve, daemon=True).start()
            Quiet(pair()[0])
            threading.Thread(target=asyncore.loop, daemon=True).start()
            time.sleep(0.1)
        """)

    def test_channels_that_loop_when_they_die(self):
        self.lives("""
            class Last(Quiet):
                def __del__(self):
                    asyncore.loop(0, count=1)
                    asyncore.poll(0, map)
                    asyncore.poll2(0, map)

            map = {}
            last = Last(pair()[0], map)
            last.me = last
            other = Last(pair()[0])
            turn()
            turn(map)
        """)

    def test_an_atexit_function_that_loops(self):
        self.lives("""
            import atexit
            a, b = pair()
            channel = Quiet(a)

            def last():
                b.send(b"x")
                asyncore.loop(0, count=2)
                channel.close()

            atexit.register(last)
        """)


if __name__ == "__main__":
    unittest.main()
