"""Sockets, one thread, handlers: the asyncore module that Python had until 3.11, and more.

A channel is an object in a map, a dict from descriptors to channels. loop() asks every channel of a map what it
wants (readable(), writable()), waits until some of it is ready, and calls their handlers. Subclass dispatcher (or
dispatcher_with_send, file_dispatcher, asynchat.async_chat) and override handle_read, handle_write, handle_connect,
handle_accepted, handle_close, handle_error as needed.

Everything that programs relied on is as it was: names, defaults, the order of calls. What was mended, and what was
added, is listed in docs/python/differences.md. Additions: call_later, call_every, call_soon_threadsafe, wakeup,
set_engine, dispatcher.set_idle_timeout, TLS by passing an ssl.SSLSocket, serve_in_asyncio.

One pass of the loop is a turn. poll() and poll2() are two ways to make one: ask, wait, serve, timers. An event is
given to a channel only while it is the one that was asked, under the same descriptor of the same map: a handler may
close and add channels as it likes.

The extension _asyncore takes the place of the loop and of the busiest methods where it can be loaded; the environment
variable ASYNCORE_PURE=1 chooses Python.
"""
import math
import os
import select
import socket
import sys
import time
import warnings
from errno import (EAGAIN, EALREADY, EBADF, ECONNABORTED, ECONNRESET, EINPROGRESS, EINVAL, EISCONN, EMFILE, ENFILE,
                   ENOBUFS, ENOMEM, ENOTCONN, EPIPE, ESHUTDOWN, ETIMEDOUT, EWOULDBLOCK, errorcode)

from . import _serving
from ._idle import Idle as _Idle
from ._queue import Queue as _Queue
from ._tls import crossed as _crossed, ended as _ended, transport as _transport

__libasyncore__ = "0.1.0"  # this is not the standard library's


def _load_extension():
    """The module _asyncore, or None: then everything here is Python."""
    if os.environ.get("ASYNCORE_PURE", "") not in ("", "0"):
        return None
    try:
        from . import _asyncore
    except ImportError:
        return None
    return _asyncore


_extension = _load_extension()

# Sets an attribute past __setattr__. Not by __dict__: an object whose __dict__ was looked at is slower from 3.11 on.
_hold = object.__setattr__ if _extension is None else _extension.hold


def _note(channel):
    """The channel's predicates may answer something else now, and none of its attributes was set."""


if _extension is not None:
    _note = _extension.note

try:
    socket_map
except NameError:
    socket_map = {}  # the default map; it survives a reload

_DISCONNECTED = frozenset({ECONNRESET, ENOTCONN, ESHUTDOWN, ECONNABORTED, EPIPE, EBADF})
_EXHAUSTED = frozenset({EMFILE, ENFILE, ENOBUFS, ENOMEM})

ACCEPT_PAUSE = 0.1  # seconds that a listener rests when descriptors or memory ran out

_plain = {"select": select.select, "poll": getattr(select, "poll", None), "sleep": time.sleep}
_special = False  # whether there ever was a channel with a transport of its own, or one at rest


def _strerror(err):
    """The text of an errno value; never fails for a whole number."""
    try:
        return os.strerror(err)
    except (ValueError, OverflowError, NameError):
        return errorcode.get(err, "Unknown error %s" % err)


class ExitNow(Exception):
    """Raised by a handler, it leaves loop()."""


_reraised_exceptions = (ExitNow, KeyboardInterrupt, SystemExit)


# -- Events of one channel -------------------------------------------------------------------------------------------


def read(obj):
    """Calls obj.handle_read_event(); an exception goes to obj.handle_error()."""
    try:
        obj.handle_read_event()
    except _reraised_exceptions:
        raise
    except:
        _failed(obj)


def write(obj):
    """Calls obj.handle_write_event(); an exception goes to obj.handle_error()."""
    try:
        obj.handle_write_event()
    except _reraised_exceptions:
        raise
    except:
        _failed(obj)


def _exception(obj):
    """Calls obj.handle_expt_event(); an exception goes to obj.handle_error()."""
    try:
        obj.handle_expt_event()
    except _reraised_exceptions:
        raise
    except:
        _failed(obj)


def readwrite(obj, flags):
    """Calls the handlers of poll(2)'s flags: reading, writing, exceptional, hang-up.

    An exception goes to obj.handle_error(), a lost connection to obj.handle_close(). A channel that left its map on the
    way, or whose descriptor is another's by then, gets no more of it.
    """
    map = getattr(obj, "_map", None)
    fd = getattr(obj, "_fileno", None)
    try:
        registered = map.get(fd) is obj
    except Exception:
        registered = False
    _readwrite(obj, flags, map if registered else None, fd)


def _readwrite(obj, flags, map, fd):
    """As readwrite(), while map.get(fd) is the channel; without a map all of it."""
    try:
        if flags & select.POLLIN:
            obj.handle_read_event()
            if map is not None and map.get(fd) is not obj:
                return
        if flags & select.POLLOUT:
            obj.handle_write_event()
            if map is not None and map.get(fd) is not obj:
                return
        if flags & select.POLLPRI:
            obj.handle_expt_event()
            if map is not None and map.get(fd) is not obj:
                return
        if flags & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
            obj.handle_close()
    except OSError as error:
        if error.errno in _DISCONNECTED:
            obj.handle_close()
        else:
            _failed(obj)
    except _reraised_exceptions:
        raise
    except:
        _failed(obj)


def _failed(obj):
    """A handler raised: what is no error of the channel's is seen to here, the rest is for its handle_error()."""
    error = sys.exc_info()[1]
    if isinstance(error, OSError):
        if _crossed(error):
            return  # TLS wants the other direction first, and the channel waits for it
        if error.errno in _EXHAUSTED and isinstance(obj, dispatcher) and obj.accepting:
            _rest(obj, error)
            return
    obj.handle_error()


def _lost(obj):
    """The descriptor was closed behind the loop's back. Called while the error is being handled."""
    try:
        obj.handle_close()
    except _reraised_exceptions:
        raise
    except OSError as error:
        if error.errno in _DISCONNECTED:
            obj.handle_close()
        else:
            obj.handle_error()
    except:
        obj.handle_error()


def _rest(listener, error):
    """Descriptors or memory ran out: the listener is not asked for a while, and the loop does not spin."""
    global _special
    _special = True
    listener.log_info("accept: %s: resting" % _strerror(error.errno), "warning")

    def rise():
        listener._asyncore_resting = False

    listener._asyncore_resting = call_later(ACCEPT_PAUSE, rise, map=listener._map)
    listener._asyncore_resting.set_background()


# -- A turn ----------------------------------------------------------------------------------------------------------


def poll(timeout=0.0, map=None):
    """One turn by select(): all that can be read, then all that can be written, then the exceptional.

    `timeout` is in seconds; None waits for ever. An empty map returns at once. Descriptors past select()'s limit are
    waited for by poll(2).
    """
    _turn(timeout, map, _wait_select, _serve_select)


def poll2(timeout=0.0, map=None):
    """One turn by poll(2): for each channel all that it is ready for.

    `timeout` is in seconds, rounded up to milliseconds; None waits for ever. An empty map returns at once.
    """
    _turn(timeout, map, _wait_poll, _serve_poll)


poll3 = poll2


def loop(timeout=30.0, use_poll=False, map=None, count=None):
    """Serves a map until no channel and no timer is left, or for `count` turns.

    timeout: how long one wait may take, in seconds.
    use_poll: poll2() instead of poll().
    map: the channels; socket_map unless given.
    """
    if map is None:
        map = socket_map
    if use_poll and hasattr(select, "poll"):
        turn = poll2
    else:
        turn = poll
    serving = _serving.enter(map)
    try:
        while (map or serving.keeps()) and (count is None or count > 0):
            turn(timeout, map)
            if count is not None:
                count = count - 1
    finally:
        _serving.leave(serving)


def set_engine(name, map=None):
    """Chooses how the loop waits for a map (None: socket_map): "epoll", "poll", "select" or "io_uring".

    io_uring is epoll where the library has none. The choice counts from the next loop on, and outlives times when the
    map is empty. None undoes it: then $ASYNCORE_ENGINE says, and epoll if that is not set. RuntimeError while the map
    is being served. It is for the extension: where the loop is Python's it changes nothing.
    """
    if map is None:
        map = socket_map
    if name is not None and name not in _serving.ENGINES:
        raise ValueError("no such engine: %r" % (name,))
    with _serving.lock:
        _serving.choose_engine(map, name)
        if _extension is not None:
            _extension.forget_engine(map)


def get_engine(map=None):
    """The name of the engine that waits for a map (None: socket_map), or "python" where that is Python's select."""
    if map is None:
        map = socket_map
    return "python" if _extension is None else _extension.engine(map)


def _turn(timeout, map, wait, serve):
    """One turn: wait() asks and waits, serve() calls handlers; then timers and calls."""
    if map is None:
        map = socket_map
    serving = _serving.maps.get(id(map))
    if serving is None and (not map or timeout == 0):
        if map:
            _turn_of(map, None, timeout, wait, serve)  # nobody can have to wake it
    elif serving is not None and _serving.get_ident() in serving.threads:
        _turn_of(map, serving, timeout, wait, serve)  # loop() has seen to the rest
    else:
        serving = _serving.enter(map)
        try:
            _turn_of(map, serving, timeout, wait, serve)
        finally:
            _serving.leave(serving)


def _turn_of(map, serving, timeout, wait, serve):
    """A turn of a map that this thread serves. `serving` is None if there is nothing but the channels."""
    if serving is None:
        asked, ready = wait(map, None, timeout)
        if ready:
            serve(map, asked, ready)
        return
    if not map and not serving.keeps():
        return
    serving.begin_wait(timeout)  # from before the asking: what another thread changes meanwhile ends the wait
    try:
        asked, ready = wait(map, serving, timeout)
    finally:
        serving.end_wait()
    if ready:
        serve(map, asked, ready)
    if serving.timers or serving.calls:
        serving.run(time.monotonic(), _call)


def _bounded(serving, timeout):
    """How long the wait may take, since there may be timers and calls."""
    if serving is not None and (serving.timers or serving.calls):
        return serving.bound(timeout, time.monotonic())
    return timeout


def _interest(obj, is_r, is_w):
    """What a channel wants that a loop must know better: it rests, or its transport has its own needs."""
    if isinstance(obj, dispatcher):
        if obj._asyncore_resting:
            return False, False
        if obj._asyncore_tls is not None and not obj.accepting:
            return obj._asyncore_tls.interest(obj, is_r, is_w)
    return is_r, is_w


def _holds(obj):
    """Whether the channel's transport has bytes that the kernel does not know of."""
    return isinstance(obj, dispatcher) and obj._asyncore_tls is not None and obj._asyncore_tls.pending()


def _meant(obj, step):
    """Whether an event is the channel's, and not its TLS layer's alone."""
    tls = obj._asyncore_tls if isinstance(obj, dispatcher) else None
    if tls is None or obj.accepting or step is _exception:
        return True
    if step is write and tls.begins(obj):
        try:
            tls.shake()
        except _reraised_exceptions:
            raise
        except:
            _failed(obj)
            return False
    return tls.event("read" if step is read else "write")


def _meant_flags(obj, flags):
    """As _meant(), of poll(2)'s flags."""
    for flag, step in ((select.POLLIN, read), (select.POLLOUT, write)):
        if flags & flag and not _meant(obj, step):
            flags &= ~flag
    return flags


def _ask(map):
    """Asks every channel: descriptors to read, to write, to watch for the exceptional, and the channels asked."""
    r, w, e, asked = [], [], [], {}
    for fd, obj in list(map.items()):
        is_r = obj.readable()
        is_w = obj.writable()
        if _special:
            is_r, is_w = _interest(obj, is_r, is_w)
        if is_r:
            r.append(fd)
        if is_w and not obj.accepting:
            w.append(fd)
        if is_r or is_w:
            e.append(fd)
            asked[fd] = obj
    return r, w, e, asked


def _wait_select(map, serving, timeout):
    """poll()'s asking and waiting: the channels asked, and what is ready to read, to write, and exceptional."""
    r, w, e, asked = _ask(map)
    held = {fd for fd in r if _holds(asked[fd])} if _special else ()
    try:
        ready = _select(serving, r, w, e, 0 if held else timeout)
    except (OSError, ValueError) as error:
        if not _bury(map, asked, error):
            raise
        return asked, None
    if held:
        held.update(ready[0])
        ready = [fd for fd in r if fd in held], ready[1], ready[2]
    return asked, ready


def _serve_select(map, asked, ready):
    """poll()'s calls of handlers."""
    for step, fds in zip((read, write, _exception), ready):
        for fd in fds:
            obj = asked.get(fd)  # the waker is nobody's
            if obj is not None and map.get(fd) is obj and (not _special or _meant(obj, step)):
                step(obj)


def _select(serving, r, w, e, timeout):
    """What of it is ready."""
    timeout = _bounded(serving, timeout)
    waker = None
    if timeout != 0 and select.select is _plain["select"]:
        waker = serving.waker
    if not (r or w or e) and (waker is None or time.sleep is not _plain["sleep"]):
        time.sleep(timeout)
        return [], [], []
    wanted = r + [waker.reader] if waker is not None else r
    try:
        ready = select.select(wanted, w, e, timeout)
    except ValueError:
        if _plain["poll"] is None or not any(isinstance(fd, int) and fd >= 1024 for fd in wanted + e):
            raise
        ready = _wide_select(wanted, w, e, timeout)
    if waker is not None and waker.reader in ready[0]:
        waker.clear()
    return ready


def _wide_select(r, w, e, timeout):
    """select() without its limit. Hang-up and error count as readable, an error as writable, as the kernel has it."""
    flags = {}
    for fds, flag in ((r, select.POLLIN), (w, select.POLLOUT), (e, select.POLLPRI)):
        for fd in fds:
            flags[fd] = flags.get(fd, 0) | flag
    pollster = select.poll()
    for fd, flag in flags.items():
        pollster.register(fd, flag)
    found = dict(pollster.poll(_milliseconds(timeout)))
    if any(flag & select.POLLNVAL for flag in found.values()):
        raise OSError(EBADF, _strerror(EBADF))
    readable = select.POLLIN | select.POLLHUP | select.POLLERR
    writable = select.POLLOUT | select.POLLERR
    return ([fd for fd in r if found.get(fd, 0) & readable], [fd for fd in w if found.get(fd, 0) & writable],
            [fd for fd in e if found.get(fd, 0) & select.POLLPRI])


def _bury(map, asked, error):
    """The wait failed: channels whose descriptors are no longer open get handle_close. False if there are none."""
    if isinstance(error, OSError) and error.errno != EBADF:
        return False
    dead = [(fd, obj) for fd, obj in asked.items() if not _open(fd)]
    for fd, obj in dead:
        if map.get(fd) is obj:
            _lost(obj)
    return bool(dead)


def _open(fd):
    """Whether a descriptor, or what has one, is open."""
    try:
        os.fstat(fd if isinstance(fd, int) else fd.fileno())
        return True
    except OSError as error:
        return error.errno != EBADF
    except (AttributeError, TypeError, ValueError):
        return True  # it is no descriptor at all, which is not for us to mend
    except OverflowError:
        return False


def _milliseconds(seconds):
    """As poll(2) takes it, never less than asked for: a wait that is cut to nothing makes a loop spin."""
    return None if seconds is None else math.ceil(round(seconds * 1000, 6))


def _wait_poll(map, serving, timeout):
    """poll2()'s asking and waiting: the channels asked, and (descriptor, flags) of those that are ready."""
    asked = {}
    held = []
    pollster = select.poll()
    for_reading, for_writing = select.POLLIN | select.POLLPRI, select.POLLOUT
    for fd, obj in list(map.items()):
        is_r = obj.readable()
        is_w = obj.writable()
        if _special:
            is_r, is_w = _interest(obj, is_r, is_w)
        flags = for_reading if is_r else 0
        if is_w and not obj.accepting:
            flags |= for_writing
        if flags:
            asked[fd] = obj
            try:
                pollster.register(fd, flags)
            except ValueError as error:
                if not _bury(map, {fd: obj}, error):
                    raise
            if _special and flags & select.POLLIN and _holds(obj):
                held.append(fd)
    timeout = _bounded(serving, 0 if held else timeout)
    waker = serving.waker if timeout != 0 and select.poll is _plain["poll"] else None
    if waker is not None:
        pollster.register(waker.reader, select.POLLIN)
    ready = pollster.poll(_milliseconds(timeout))
    if waker is not None and any(fd == waker.reader for fd, _ in ready):
        waker.clear()
    if held:
        found = dict(ready)
        found.update((fd, found.get(fd, 0) | select.POLLIN) for fd in held)
        ready = [(fd, found[fd]) for fd in asked if fd in found]
    return asked, ready


def _serve_poll(map, asked, ready):
    """poll2()'s calls of handlers."""
    for fd, flags in ready:
        obj = asked.get(fd)
        if obj is None or map.get(fd) is not obj:
            continue
        if _special:
            flags = _meant_flags(obj, flags)
            if map.get(fd) is not obj:
                continue
        _readwrite(obj, flags, map, fd)


# -- Timers, and calls from other threads ------------------------------------------------------------------------------


timer = _serving.Timer


def _call(function, args):
    """Calls what a timer or another thread left. A failure is its channel's, if it is a channel's method."""
    try:
        function(*args)
    except _reraised_exceptions:
        raise
    except:
        owner = getattr(function, "__self__", None)
        if isinstance(owner, dispatcher):
            _failed(owner)
        else:
            _, kind, value, info = compact_traceback()
            print("error: uncaptured python exception, calling %r (%s:%s %s)" % (function, kind, value, info))


def _seconds(value):
    value = float(value)
    if math.isnan(value):
        raise ValueError("a time must be a number of seconds")
    return max(0.0, value)


def _timer(map, delay, period, function, args):
    if not callable(function):
        raise TypeError("%r is not callable" % (function,))
    if map is None:
        map = socket_map
    with _serving.lock:
        timer = _serving.of(map).add(function, args, delay, period, time.monotonic())
    _serving.wake(map)
    return timer


def call_later(seconds, function, *args, map=None):
    """The loop of the map will call function(*args), once, after so many seconds and never before.

    Returns a timer: timer.cancel(), timer.pending(), timer.set_background(). loop() goes on while there are timers,
    but for those in the background.
    """
    return _timer(map, _seconds(seconds), None, function, args)


def call_every(seconds, function, *args, map=None):
    """As call_later(), again and again: without drift, and times that passed unserved are left out."""
    seconds = _seconds(seconds)
    if seconds == 0:
        raise ValueError("the time between calls must be positive")
    return _timer(map, seconds, seconds, function, args)


def call_soon_threadsafe(function, *args, map=None):
    """Any thread, and signal handlers: the loop of the map will call function(*args), in the order of these calls."""
    if not callable(function):
        raise TypeError("%r is not callable" % (function,))
    _serving.post(socket_map if map is None else map, function, args)


def wakeup(map=None):
    """Any thread, and signal handlers: a wait in progress for the map ends, and the channels are asked again."""
    _serving.wake(socket_map if map is None else map)


def serve_in_asyncio(map=None):
    """A coroutine that serves a map from the running asyncio loop: `await asyncore.serve_in_asyncio()`.

    As loop(), it returns when no channel and no timer is left, and lets through what loop() would; cancelling it ends
    it. Channels are served in turns of poll(), which asks all of them, and asyncio's own transports and tasks between
    them. A predicate that changes its mind by itself, outside of the map's handlers, is noticed after wakeup().
    """
    from . import _bridge
    return _bridge.serve(sys.modules[__name__], socket_map if map is None else map)


# -- Channels ----------------------------------------------------------------------------------------------------------


class dispatcher(object if _extension is None else _extension.channel):
    """A socket with its handlers.

    Handlers to override: handle_read, handle_write, handle_connect, handle_accepted, handle_expt, handle_close,
    handle_error; predicates: readable, writable. All state is in instance attributes.
    """

    debug = False
    connected = False
    accepting = False
    connecting = False
    closing = False
    addr = None
    ignore_log_types = frozenset({"warning"})

    _asyncore_tls = None  # what TLS needs, if the socket is an ssl.SSLSocket
    _asyncore_idle = None  # the idle timeout
    _asyncore_resting = False  # or the timer that ends it: a listener that ran out of descriptors

    def __init__(self, sock=None, map=None):
        """Takes over a socket, if there is one, and adds the channel to the map (None: socket_map)."""
        self._map = socket_map if map is None else map
        self._fileno = None
        if not sock:
            self.socket = None
            return
        sock.setblocking(False)
        self.set_socket(sock, map)
        self.connected = True
        try:
            self.addr = sock.getpeername()
        except OSError as error:
            if error.errno not in (ENOTCONN, EINVAL):
                self.del_channel(map)
                raise
            self.connected = False

    def __repr__(self):
        cls = type(self)
        words = [cls.__module__ + "." + cls.__qualname__]
        if self.accepting and self.addr:
            words.append("listening")
        elif self.connected:
            words.append("connected")
        if self.addr is not None:
            try:
                words.append("%s:%d" % self.addr)
            except TypeError:
                words.append(repr(self.addr))
        return "<%s at %#x>" % (" ".join(words), id(self))

    def add_channel(self, map=None):
        """Puts the channel into a map (None: its own) under its descriptor."""
        if map is None:
            map = self._map
        map[self._fileno] = self
        _serving.wake(map)

    def del_channel(self, map=None):
        """Takes the channel out of a map (None: its own)."""
        fd = self._fileno
        if map is None:
            map = self._map
        if fd in map:
            del map[fd]
            _serving.left(map, fd)
        self._fileno = None

    def create_socket(self, family=socket.AF_INET, type=socket.SOCK_STREAM):
        """Makes a non-blocking socket and adds the channel to its map."""
        self.family_and_type = family, type
        sock = socket.socket(family, type)
        sock.setblocking(False)
        self.set_socket(sock)

    def set_socket(self, sock, map=None):
        """Takes over a socket, which is non-blocking, and adds the channel to the map (None: its own).

        An ssl.SSLSocket makes it a channel on TLS, before connect() or, after a STARTTLS, in the middle.
        """
        global _special
        self.socket = sock
        self._fileno = sock.fileno()
        tls = _transport(sock)
        if tls is not None or self._asyncore_tls is not None:
            _special = True
            self._asyncore_tls = tls
        self.add_channel(map)

    def set_reuse_addr(self):
        """Lets bind() take an address that was in use a moment ago."""
        try:
            value = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, value | 1)
        except OSError:
            pass

    def set_idle_timeout(self, seconds):
        """handle_error, with a TimeoutError, when recv() and send() moved no byte for so long. None: never.

        Connecting counts. An override of handle_error that does not close gets it again after as long.
        """
        if self._asyncore_idle is not None:
            self._asyncore_idle.stop()
            self._asyncore_idle = None
        if seconds is not None:
            seconds = _seconds(seconds)
            if seconds == 0:
                raise ValueError("an idle timeout must be positive")
            self._asyncore_idle = _Idle(self, seconds, call_later)

    def _asyncore_due(self):
        if self._asyncore_idle is not None and self._asyncore_idle.due():
            self._asyncore_expired()

    def _asyncore_expired(self):
        raise TimeoutError(ETIMEDOUT, _strerror(ETIMEDOUT))

    # -- predicates

    def readable(self):
        """Whether to call handle_read, or handle_accept, when there is something. True unless overridden."""
        return True

    def writable(self):
        """Whether to call handle_write when the socket takes data. True unless overridden, which keeps a loop busy."""
        return True

    # -- sockets

    def listen(self, num):
        """Waits for clients, of which `num` may queue."""
        self.accepting = True
        _serving.wake(self._map)
        return self.socket.listen(num)

    def bind(self, addr):
        """Gives the socket an address."""
        self.addr = addr
        return self.socket.bind(addr)

    def connect(self, address):
        """Connects: handle_connect will tell, or handle_error."""
        self.connected = False
        self.connecting = True
        _serving.wake(self._map)
        error = self.socket.connect_ex(address)
        if error in (EINPROGRESS, EALREADY, EWOULDBLOCK):
            self.addr = address
        elif error in (0, EISCONN):
            self.addr = address
            self.handle_connect_event()
        else:
            raise OSError(error, errorcode[error])

    def accept(self):
        """The next client, (socket, address), or None if there is none after all."""
        try:
            conn, addr = self.socket.accept()
        except TypeError:
            return None
        except OSError as error:
            if error.errno in (EWOULDBLOCK, ECONNABORTED, EAGAIN):
                return None
            raise
        return conn, addr

    def send(self, data):
        """Sends what the socket takes of it and returns how much that was. A lost connection is handle_close and 0."""
        try:
            sent = self.socket.send(data)
        except OSError as error:
            if error.errno == EWOULDBLOCK:
                return 0
            if self._asyncore_tls is not None and self._asyncore_tls.send_failed(error):
                return 0
            if error.errno in _DISCONNECTED or _ended(error):
                self.handle_close()
                return 0
            raise
        if self._asyncore_idle is not None and sent:
            self._asyncore_idle.touch()
        return sent

    def recv(self, buffer_size):
        """At most so many bytes. b"" is the end, or a lost connection, after handle_close. Nothing yet raises."""
        try:
            data = self.socket.recv(buffer_size)
            if not data:
                self.handle_close()
                return b""
        except OSError as error:
            if self._asyncore_tls is not None:
                self._asyncore_tls.recv_failed(error)
            if error.errno in _DISCONNECTED:
                self.handle_close()
                return b""
            raise
        if self._asyncore_idle is not None:
            self._asyncore_idle.touch()
        return data

    def close(self):
        """Out of the map, and the socket is closed. Closing twice is nothing."""
        self.connected = False
        self.accepting = False
        self.connecting = False
        self.del_channel()
        if self._asyncore_idle is not None:
            self._asyncore_idle.stop()
            self._asyncore_idle = None
        if self._asyncore_resting:
            self._asyncore_resting.cancel()
            self._asyncore_resting = False
        if self.socket is not None:
            try:
                self.socket.close()
            except OSError as error:
                if error.errno not in (ENOTCONN, EBADF):
                    raise

    # -- logging

    def log(self, message):
        """Writes to sys.stderr."""
        sys.stderr.write("log: %s\n" % str(message))

    def log_info(self, message, type="info"):
        """Prints, unless the type is one of ignore_log_types."""
        if type not in self.ignore_log_types:
            print("%s: %s" % (type, message))

    # -- events, as the loop delivers them

    def handle_read_event(self):
        """There is something to read, or a client, or a connection stands."""
        if self.accepting:
            self.handle_accept()
            return
        if not self.connected:
            if self.connecting:
                self.handle_connect_event()
                if self._asyncore_tls is not None:
                    return  # it was the handshake's event
        self.handle_read()

    def handle_connect_event(self):
        """A connection stands, or failed."""
        error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error != 0:
            raise OSError(error, _strerror(error))
        if self._asyncore_tls is not None and not self._asyncore_tls.shake():
            return
        self.handle_connect()
        self.connected = True
        self.connecting = False

    def handle_write_event(self):
        """The socket takes data, or a connection stands."""
        if self.accepting:
            return
        if not self.connected:
            if self.connecting:
                self.handle_connect_event()
                if self._asyncore_tls is not None:
                    return  # it was the handshake's event
        self.handle_write()

    def handle_expt_event(self):
        """An urgent byte, or an error of the socket."""
        error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error != 0:
            self.handle_close()
        else:
            self.handle_expt()

    # -- handlers

    def handle_error(self):
        """A handler raised, and its exception is the current one. Logs it and calls handle_close."""
        _, kind, value, info = compact_traceback()
        try:
            me = repr(self)
        except:
            me = "<__repr__(self) failed for object at %0x>" % id(self)
        self.log_info("uncaptured python exception, closing channel %s (%s:%s %s)" % (me, kind, value, info), "error")
        self.handle_close()

    def handle_expt(self):
        """An urgent byte came."""
        self.log_info("unhandled incoming priority event", "warning")

    def handle_read(self):
        """There is something to recv()."""
        self.log_info("unhandled read event", "warning")

    def handle_write(self):
        """The socket takes data."""
        self.log_info("unhandled write event", "warning")

    def handle_connect(self):
        """A connection stands."""
        self.log_info("unhandled connect event", "warning")

    def handle_accept(self):
        """A client waits: accepts it and calls handle_accepted."""
        pair = self.accept()
        if pair is not None:
            self.handle_accepted(*pair)

    def handle_accepted(self, sock, addr):
        """A client came; the socket is yours."""
        sock.close()
        self.log_info("unhandled accepted event", "warning")

    def handle_close(self):
        """The connection ended."""
        self.log_info("unhandled close event", "warning")
        self.close()


class dispatcher_with_send(dispatcher):
    """A dispatcher whose send() takes everything, and sends it as the peer takes it."""

    def __init__(self, sock=None, map=None):
        dispatcher.__init__(self, sock, map)
        self.out_buffer = b""

    @property
    def out_buffer(self):
        """What is not sent yet, as bytes."""
        try:
            value = self.__dict__["_asyncore_out"]
        except KeyError:
            raise AttributeError("%r object has no attribute 'out_buffer'" % type(self).__name__) from None
        if type(value) is _Queue:
            value = self.__dict__["_asyncore_out"] = value.whole()
        return value

    @out_buffer.setter
    def out_buffer(self, value):
        _hold(self, "_asyncore_out", value)

    def initiate_send(self):
        """Sends what the socket takes of out_buffer."""
        held = self.__dict__.get("_asyncore_out")
        if held is None:  # a subclass has an out_buffer of its own
            sent = dispatcher.send(self, self.out_buffer[:65536])
            self.out_buffer = self.out_buffer[sent:]
            return
        sent = dispatcher.send(self, held[:65536])
        held = self.__dict__["_asyncore_out"]  # handle_close, or a send of the socket's, may have changed it
        if type(held) is bytes and len(held) > 65536:
            held = self.__dict__["_asyncore_out"] = _Queue(held)
        if type(held) is _Queue:
            held.skip(sent)
        else:
            self.__dict__["_asyncore_out"] = held[sent:]

    def handle_write(self):
        """The socket takes data again."""
        self.initiate_send()

    def writable(self):
        """While connecting, and while out_buffer holds something."""
        held = self.__dict__.get("_asyncore_out")
        return (not self.connected) or len(self.out_buffer if held is None else held)

    def send(self, data):
        """Takes all of it. From a thread that does not serve the channel's map it is handed to the one that does."""
        if self.debug:
            self.log_info("sending %s" % repr(data))
        if _serving.maps and _serving.elsewhere(self._map):
            call_soon_threadsafe(self._asyncore_send, b"" + data, map=self._map)
        else:
            self._asyncore_send(data)

    def _asyncore_send(self, data):
        held = self.__dict__.get("_asyncore_out")
        if type(held) is bytes and held and isinstance(data, (bytes, bytearray, memoryview)):
            held = self.__dict__["_asyncore_out"] = _Queue(held)
        if type(held) is _Queue:
            held.append(data)
        else:
            self.out_buffer = (self.out_buffer if held is None else held) + data
        self.initiate_send()
        if self.__dict__.get("_asyncore_out"):
            _serving.wake(self._map)


def compact_traceback():
    """Of the exception being handled: ((file, function, line), type, value, "[file|function|line] ...")."""
    kind, value, traceback = sys.exc_info()
    if traceback is None:
        raise AssertionError("traceback does not exist")
    frames = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append((code.co_filename, code.co_name, str(traceback.tb_lineno)))
        traceback = traceback.tb_next
    return frames[-1], kind, value, " ".join("[%s|%s|%s]" % frame for frame in frames)


def close_all(map=None, ignore_all=False):
    """Closes every channel of a map and empties it.

    A descriptor that is closed already is no failure; any other ends it, unless ignore_all.
    """
    if map is None:
        map = socket_map
    for obj in list(map.values()):
        try:
            obj.close()
        except OSError as error:
            if error.errno != EBADF and not ignore_all:
                raise
        except _reraised_exceptions:
            raise
        except:
            if not ignore_all:
                raise
    map.clear()


# -- Files -------------------------------------------------------------------------------------------------------------

if os.name == "posix":

    class file_wrapper:
        """A duplicate of a descriptor, with the methods of a socket that a dispatcher needs."""

        fd = -1

        def __init__(self, fd):
            self.fd = os.dup(fd)

        def __del__(self):
            if self.fd >= 0:
                warnings.warn("unclosed file %r" % self, ResourceWarning, source=self)
            self.close()

        def recv(self, *args):
            """os.read()."""
            return os.read(self.fd, *args)

        def send(self, *args):
            """os.write()."""
            return os.write(self.fd, *args)

        def getsockopt(self, level, optname, buflen=None):
            """Knows SO_ERROR alone, which a file has none of."""
            if level == socket.SOL_SOCKET and optname == socket.SO_ERROR and not buflen:
                return 0
            raise NotImplementedError("Only asyncore specific behaviour implemented.")

        read = recv
        write = send

        def close(self):
            """Closes the duplicate. Closing twice is nothing."""
            if self.fd < 0:
                return
            fd = self.fd
            self.fd = -1
            os.close(fd)

        def fileno(self):
            """The duplicate's number."""
            return self.fd

    class file_dispatcher(dispatcher):
        """A channel of a pipe, a terminal, a file: anything with a descriptor that is no socket."""

        def __init__(self, fd, map=None):
            """fd: a descriptor, or what has a fileno(). It is duplicated, and made non-blocking."""
            dispatcher.__init__(self, None, map)
            self.connected = True
            try:
                fd = fd.fileno()
            except AttributeError:
                pass
            self.set_file(fd)
            os.set_blocking(fd, False)

        def set_file(self, fd):
            """Takes a duplicate of the descriptor and adds the channel to its map."""
            self.socket = file_wrapper(fd)
            self._fileno = self.socket.fileno()
            self.add_channel()


if _extension is not None and _extension.install(globals()):
    _serving.wake_engine = _extension.wake
