"""Protocols with terminators on asyncore: the asynchat module that Python had until 3.11, and more.

Input is cut at a terminator: some bytes, a length, or none. What lies before it goes to collect_incoming_data, then
found_terminator is called, which may set another one. Output is a queue of data and producers (push,
push_with_producer), sent as the peer takes it.

Additions: set_marks() and queued(), and that push() may be called from any thread while another one serves the map.
docs/python/differences.md has the list.
"""
import asyncore
from collections import deque

if not hasattr(asyncore, "__libasyncore__"):
    raise ImportError("libasyncore's asynchat found an asyncore that is not libasyncore's: %s" % asyncore.__file__)

__libasyncore__ = "0.1.0"

_call_soon_threadsafe = asyncore.call_soon_threadsafe
_elsewhere = asyncore._serving.elsewhere
_crossed = asyncore._crossed
_hold = asyncore._hold


class async_chat(asyncore.dispatcher):
    """A dispatcher for conversations. Override collect_incoming_data and found_terminator, and set a terminator."""

    ac_in_buffer_size = 65536  # bytes that one handle_read asks for
    ac_out_buffer_size = 65536  # bytes that one send is offered
    use_encoding = 0  # whether str is taken, and encoded
    encoding = "latin-1"

    _asyncore_marks = None  # (low, high, limit)
    _asyncore_queued = 0  # bytes pushed and not sent, counted while there are marks
    _asyncore_stopped = False  # past the high mark, and not yet below the low one

    def __init__(self, sock=None, map=None):
        self.ac_in_buffer = b""
        self.incoming = []
        self.producer_fifo = deque()
        asyncore.dispatcher.__init__(self, sock, map)

    # -- input

    @property
    def ac_in_buffer(self):
        """Input that is not dispatched yet, as bytes."""
        try:
            data, at = self.__dict__["_asyncore_in"]
        except KeyError:
            raise AttributeError("%r object has no attribute 'ac_in_buffer'" % type(self).__name__) from None
        if at:
            data = data[at:]
            _hold(self, "_asyncore_in", (data, 0))
        return data

    @ac_in_buffer.setter
    def ac_in_buffer(self, data):
        _hold(self, "_asyncore_in", (data, 0))

    def collect_incoming_data(self, data):
        """A piece of input. To be overridden."""
        raise NotImplementedError("must be implemented in subclass")

    def found_terminator(self):
        """The terminator came; it is not part of the data. To be overridden."""
        raise NotImplementedError("must be implemented in subclass")

    def _collect_incoming_data(self, data):
        """A collect_incoming_data that keeps the pieces."""
        self.incoming.append(data)

    def _get_data(self):
        """What _collect_incoming_data kept, joined and forgotten."""
        data = b"".join(self.incoming)
        del self.incoming[:]
        return data

    def set_terminator(self, term):
        """What to wait for: bytes, a number of bytes, or None (0, b"") to collect everything."""
        if isinstance(term, str) and self.use_encoding:
            term = term.encode(self.encoding)
        elif isinstance(term, int) and term < 0:
            raise ValueError("the number of received bytes must be positive")
        self.terminator = term

    def get_terminator(self):
        """What set_terminator set; a number counts down as bytes come."""
        return self.terminator

    def handle_read(self):
        """Reads once and dispatches what came."""
        try:
            data = self.recv(self.ac_in_buffer_size)
        except BlockingIOError:
            return
        except OSError as error:
            if not _crossed(error):
                self.handle_error()
            return
        if isinstance(data, str) and self.use_encoding:
            data = data.encode(self.encoding)
        self.ac_in_buffer = self.ac_in_buffer + data
        while _dispatch(self):
            pass
        if self.__dict__.get("_asyncore_in", (b"", 0))[1]:
            self.ac_in_buffer  # lets go of what was dispatched

    # -- output

    def handle_write(self):
        """The socket takes data."""
        self.initiate_send()

    def handle_close(self):
        """The connection ended: closes."""
        self.close()

    def push(self, data):
        """Queues bytes, and sends at once what the socket takes.

        With marks set: True once more than the high mark is queued, else False; OSError(ENOBUFS) past the limit, and
        nothing was taken. From a thread that does not serve the channel's map, the one that does will send.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError("data argument must be byte-ish (%r)", type(data))
        if self._asyncore_marks is not None:
            _count(self, len(data))
        size = self.ac_out_buffer_size
        if len(data) > size:
            self.producer_fifo.extend([data[i:i + size] for i in range(0, len(data), size)])
        else:
            self.producer_fifo.append(data)
        return _start(self)

    def push_with_producer(self, producer):
        """Queues a producer: anything with more(), which gives bytes until it gives none; or data."""
        if self._asyncore_marks is not None and isinstance(producer, (bytes, bytearray, memoryview)):
            _count(self, len(producer))
        self.producer_fifo.append(producer)
        asyncore._note(self)
        return _start(self)

    def close_when_done(self):
        """When all that was pushed is sent: handle_close."""
        self.producer_fifo.append(None)
        asyncore._note(self)
        asyncore.wakeup(self._map)

    def readable(self):
        """True; with marks set, not while more than the high mark is queued."""
        return 0 if self._asyncore_stopped and _stopped(self) else 1

    def writable(self):
        """While something is queued, and while connecting."""
        return self.producer_fifo or (not self.connected)

    def initiate_send(self):
        """Makes one send of what is first in the queue."""
        while self.producer_fifo and self.connected:
            first = self.producer_fifo[0]
            if not first:
                del self.producer_fifo[0]
                if first is None:
                    self.handle_close()
                    return
            if isinstance(first, str) and self.use_encoding:
                first = first.encode(self.encoding)
                if first:
                    self.producer_fifo[0] = first  # part of a character may be sent
            size = self.ac_out_buffer_size
            try:
                data = first[:size]
            except TypeError:
                self._asyncore_produce(first)
                continue
            try:
                sent = self.send(data)
            except OSError:
                self.handle_error()
                return
            if sent:
                if self._asyncore_marks is not None:
                    self._asyncore_queued -= sent
                if sent < len(data) or size < len(first):
                    self.producer_fifo[0] = _after(first, sent)
                else:
                    del self.producer_fifo[0]
            return

    def _asyncore_produce(self, producer):
        data = producer.more()
        if data:
            self.producer_fifo.appendleft(data)
            if self._asyncore_marks is not None:
                self._asyncore_queued += len(data)
        else:
            del self.producer_fifo[0]

    def discard_buffers(self):
        """Forgets input and output that wait."""
        self.ac_in_buffer = b""
        del self.incoming[:]
        self.producer_fifo.clear()
        asyncore._note(self)
        self._asyncore_queued = 0

    def set_marks(self, low=131072, high=262144, limit=16777216):
        """Bounds what is queued, in bytes: past `high` the channel stops reading until no more than `low` is left, past
        `limit` push() takes nothing. There are no bounds until this is called. A subclass with a readable() of its
        own asks async_chat.readable(self), too."""
        if not 0 <= low < high <= limit:
            raise ValueError("marks must be low < high <= limit: %r, %r, %r" % (low, high, limit))
        self._asyncore_marks = low, high, limit
        self._asyncore_queued = self.queued()
        self._asyncore_stopped = self._asyncore_queued > high

    def queued(self):
        """Bytes that are pushed and not yet sent. What producers will yield is not counted."""
        kinds = (bytes, bytearray, memoryview, _Tail)
        return sum(len(item) for item in list(self.producer_fifo) if isinstance(item, kinds))


def _dispatch(chat):
    """Dispatches input up to one terminator. Whether to go on."""
    data, at = chat.__dict__.get("_asyncore_in") or (chat.ac_in_buffer, 0)
    return len(data) > at and _cut_at(chat, data, at, chat.get_terminator())


def _cut_at(chat, data, at, terminator):
    """What is not dispatched yet, which is something, up to the terminator. Whether to go on."""
    size = len(data) - at
    if not terminator:
        _collect(chat, data, at, size, size)
    elif isinstance(terminator, int):
        if terminator < 0:
            terminator = max(0, size + terminator)  # all but so many, once, as slices count
        if size < terminator:
            _collect(chat, data, at, size, size)
            chat.terminator -= size
        else:
            if terminator < 0:  # another was set in the middle of the above: so many at the end are kept
                terminator = max(size + terminator, 0)
                if not terminator:
                    chat.collect_incoming_data(data[:0])
            _collect(chat, data, at, terminator, terminator)
            chat.terminator = 0
            chat.found_terminator()
    else:
        length = len(terminator)
        index = data.find(terminator, at)
        if index >= 0:
            _collect(chat, data, at, index - at, index - at + length)
            chat.found_terminator()
        else:
            kept = find_prefix_at_end(data[max(at, len(data) - length):], terminator)
            if kept < size:
                _collect(chat, data, at, size - kept, size - kept)
            return not kept
    return True


def _collect(chat, data, at, size, cut):
    """Gives so many bytes to collect_incoming_data, none if there are none, then cuts that and the terminator off."""
    if size > 0:
        chat.collect_incoming_data(data[at:at + size])
    held = chat.__dict__.get("_asyncore_in")
    if held is None:  # a subclass has an ac_in_buffer of its own
        chat.ac_in_buffer = chat.ac_in_buffer[cut:]
    else:
        _hold(chat, "_asyncore_in", (held[0], held[1] + cut))


def _count(chat, size):
    """So many bytes are about to be queued."""
    low, high, limit = chat._asyncore_marks
    if not chat.producer_fifo:
        chat._asyncore_queued = 0
    if chat._asyncore_queued + size > limit:
        raise OSError(asyncore.ENOBUFS, "%s: %d bytes queued, and %d more pass the limit of %d"
                      % (asyncore._strerror(asyncore.ENOBUFS), chat._asyncore_queued, size, limit))
    chat._asyncore_queued += size


def _stopped(chat):
    """Whether the channel still waits for its queue to shrink to the low mark."""
    if not chat.producer_fifo or chat._asyncore_queued <= chat._asyncore_marks[0]:
        chat._asyncore_stopped = False
    return chat._asyncore_stopped


def _start(chat):
    """Something was queued: sends, or has it sent by the thread that serves the map."""
    if _elsewhere(chat._map):
        _call_soon_threadsafe(_go_on, chat, map=chat._map)
    else:
        chat.initiate_send()
        asyncore.wakeup(chat._map)
    if chat._asyncore_marks is None:
        return None
    over = bool(chat.producer_fifo) and chat._asyncore_queued > chat._asyncore_marks[1]
    if over:
        chat._asyncore_stopped = True
    return over


def _go_on(chat):
    """Sends what another thread pushed, in the thread of the map."""
    if chat._fileno is not None:
        asyncore._call(chat.initiate_send, ())


class _Tail:
    """What is left of long data that was queued in one piece: it is cut off in front without being copied."""

    __slots__ = ("data", "at")

    def __init__(self, data, at):
        self.data = data
        self.at = at

    def __len__(self):
        return len(self.data) - self.at

    def __getitem__(self, key):
        if key.start is None and key.stop is not None and key.stop >= 0 and key.step is None:
            return self.data[self.at:self.at + key.stop]
        return self.data[self.at:][key]

    def __bytes__(self):
        return bytes(self.data[self.at:])


def _after(data, count):
    """data[count:], without a copy where that would be a long one."""
    if type(data) is _Tail:
        return _Tail(data.data, data.at + count)
    if type(data) is bytes and len(data) > 262144:
        return _Tail(data, count)
    return data[count:]


class simple_producer:
    """A producer that yields data in pieces of buffer_size."""

    def __init__(self, data, buffer_size=512):
        self.data = data
        self.buffer_size = buffer_size

    @property
    def data(self):
        """What is not yielded yet."""
        data, at = self.__dict__["_asyncore_data"]
        if at:
            data = data[at:]
            self.__dict__["_asyncore_data"] = data, 0
        return data

    @data.setter
    def data(self, data):
        self.__dict__["_asyncore_data"] = data, 0

    def more(self):
        """The next piece; b"" at the end."""
        data, at = self.__dict__["_asyncore_data"]
        size = self.buffer_size
        if len(data) - at > size:
            self.__dict__["_asyncore_data"] = data, at + size
            return data[at:at + size]
        piece = self.data
        self.data = b""
        return piece


def find_prefix_at_end(haystack, needle):
    """How many characters at the end of haystack may be the beginning of needle, less than all of it."""
    for size in range(min(len(haystack), len(needle) - 1), 0, -1):
        if haystack.endswith(needle[:size]):
            return size
    return 0


if asyncore._extension is not None:
    asyncore._extension.install_chat(globals())
