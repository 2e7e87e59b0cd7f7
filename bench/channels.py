"""Programs on asyncore and asynchat, whichever an import gets, as people write them: what bench/python measures.

    channels.py echo                a dispatcher_with_send that sends back what it reads
    channels.py lines [compare]     an async_chat that counts the lines of a stream, and compares each of them if asked
    channels.py replies             an async_chat that answers a line with itself
    channels.py forward PORT        two dispatchers a connection, which read 4,096 bytes at a time, to 127.0.0.1:PORT
    channels.py sends COUNT         so many sends of 1,000 bytes, whose peer sleeps

Servers listen on a free port of 127.0.0.1 and print it, with whose modules these are; they serve until killed. `sends`
prints that too, waits for a line, and prints the CPU seconds that the sends took."""

import asynchat
import asyncore
import os
import socket
import sys
import time


def whose():
    if not hasattr(asyncore, "__libasyncore__"):
        return "the standard library's"
    return "the extension" if asyncore._extension else "Python alone"


class Server(asyncore.dispatcher):
    """Has a channel of its class made for every connection."""

    def __init__(self, channel):
        asyncore.dispatcher.__init__(self)
        self.channel = channel
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.bind(("127.0.0.1", 0))
        self.listen(4096)
        print("channels.py: listening on 127.0.0.1:%d with %s" % (self.socket.getsockname()[1], whose()), flush=True)

    def handle_accepted(self, sock, address):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.channel(sock)


class Echo(asyncore.dispatcher_with_send):
    def handle_read(self):
        data = self.recv(65536)
        if data:
            self.send(data)


# -- Lines ------------------------------------------------------------------------------------------------------------


class Chat(asynchat.async_chat):
    def __init__(self, sock):
        asynchat.async_chat.__init__(self, sock)
        self.set_terminator(b"\n")
        self.parts = []

    def collect_incoming_data(self, data):
        self.parts.append(data)


class Lines(Chat):
    count = 0
    last = b""

    def found_terminator(self):
        self.last = b"".join(self.parts)
        self.parts = []
        self.count += 1

    def handle_close(self):
        self.socket.send(b"%d %s\n" % (self.count, self.last))
        self.close()


class ComparedLines(Lines):
    """bench/load_lines.c says what the lines are."""

    def found_terminator(self):
        expected = b"%063d" % self.count
        Lines.found_terminator(self)
        if self.last != expected:
            sys.exit("channels.py: line %d is %r" % (self.count, self.last))


class Replies(Chat):
    def found_terminator(self):
        line = b"".join(self.parts)
        self.parts = []
        self.push(line + b"\n")


# -- A forwarder like the tutorials' ----------------------------------------------------------------------------------


class End(asyncore.dispatcher):
    """What one end of a connection reads, the other one has to write."""

    def __init__(self, sock=None):
        asyncore.dispatcher.__init__(self, sock)
        self.buffer = b""
        self.other = None

    def handle_read(self):
        self.other.buffer += self.recv(4096)

    def writable(self):
        return len(self.buffer) > 0

    def handle_write(self):
        sent = self.send(self.buffer)
        self.buffer = self.buffer[sent:]

    def handle_close(self):
        self.close()
        self.other.close()


def forward_to(port):
    def connect(sock):
        client, remote = End(sock), End()
        client.other, remote.other = remote, client
        remote.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        remote.connect(("127.0.0.1", port))
    return connect


# -- Sends that pile up -----------------------------------------------------------------------------------------------


def sends(count):
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    channel = asyncore.dispatcher_with_send(ours)
    pieces = [b"%01000d" % number for number in range(count)]
    print("channels.py: sends with %s" % whose(), flush=True)
    sys.stdin.readline()
    start = time.process_time()
    for piece in pieces:
        channel.send(piece)
    seconds = time.process_time() - start
    arrived = []
    try:
        while True:
            arrived.append(theirs.recv(1 << 20))
    except BlockingIOError:
        pass
    if b"".join(arrived) + channel.out_buffer != b"".join(pieces):
        sys.exit("channels.py: what was sent and what is queued is not what was given to send")
    print("seconds %.6f" % seconds, flush=True)


def main(kind, *arguments):
    if kind == "sends":
        return sends(int(arguments[0]))
    if kind == "forward":
        Server(forward_to(int(arguments[0])))
    else:
        Server({"echo": Echo, "lines": ComparedLines if arguments else Lines, "replies": Replies}[kind])
    asyncore.loop(use_poll=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # what is queued needs no tidying
