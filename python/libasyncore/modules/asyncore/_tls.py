"""TLS: what a channel needs to know of its ssl.SSLSocket.

A channel that connects shakes hands before handle_connect, as the loop finds the socket ready. One that is connected
does so by the way, as it sends and receives, or when its program calls do_handshake(); a client's side begins by
itself, since its server may wait for that. Nothing blocks. A recv that waits for room to send, or a send that waits
for something to read, makes the loop wait for that, until the next event: then the channel is asked again. The TLS
layer may hold bytes that the kernel does not know of: they count as ready.

Programs that do some of this themselves go on doing so: all that is done here is to choose what the loop waits for.
"""
import sys

READ, WRITE = "read", "write"


def transport(sock):
    """A TLS for an ssl.SSLSocket, else None. Whoever has such a socket has imported ssl."""
    ssl = sys.modules.get("ssl")
    if ssl is None or not isinstance(sock, ssl.SSLSocket):
        return None
    return TLS(sock)


def wanted(error):
    """READ or WRITE if the error only says that the TLS layer waits for that."""
    ssl = sys.modules.get("ssl")
    if ssl is None:
        return None
    if isinstance(error, ssl.SSLWantReadError):
        return READ
    return WRITE if isinstance(error, ssl.SSLWantWriteError) else None


def crossed(error):
    """Whether the error is no failure, but a wait of the TLS layer's."""
    return wanted(error) is not None


def ended(error):
    """Whether the error says that the peer's TLS is at its end."""
    ssl = sys.modules.get("ssl")
    return ssl is not None and isinstance(error, (ssl.SSLZeroReturnError, ssl.SSLEOFError))


class TLS:
    """See above."""

    __slots__ = ("sock", "begun", "direction", "read_waits", "write_waits", "asked")

    def __init__(self, sock):
        self.sock = sock
        sock.do_handshake_on_connect = False  # connect and accept would wait for it
        self.begun = sock.server_side  # the handshake
        self.direction = WRITE  # what it waits for, while the channel connects
        self.read_waits = False  # for room to send
        self.write_waits = False  # for something to read
        self.asked = False, False  # what the channel wanted

    def interest(self, channel, is_r, is_w):
        """What to wait for, when the channel said this."""
        if channel.connecting:
            self.asked = True, True
            return self.direction == READ, self.direction == WRITE
        self.asked = is_r, is_w
        begins = channel.connected and not self.begun
        if self.read_waits and is_r:
            return bool(self.write_waits and is_w), True
        if self.write_waits and is_w:
            return True, begins
        return is_r, is_w or begins

    def event(self, direction):
        """The socket is ready for that. Whether the channel is to be told: it may not have asked."""
        self.read_waits = self.write_waits = False
        return self.asked[direction == WRITE]

    def begins(self, channel):
        """Whether the handshake is to be begun here."""
        return not self.begun and channel.connected

    def pending(self):
        try:
            return self.sock.pending() > 0
        except (OSError, ValueError):
            return False

    def shake(self):
        """Goes on with the handshake. Whether it is done; a failure raises."""
        self.begun = True
        try:
            self.sock.do_handshake()
        except OSError as error:
            self.direction = wanted(error)
            if self.direction is None:
                raise
            return False
        return True

    def recv_failed(self, error):
        if wanted(error) == WRITE:
            self.read_waits = True

    def send_failed(self, error):
        """Whether it may be sent later."""
        direction = wanted(error)
        if direction == READ:
            self.write_waits = True
        return direction is not None
