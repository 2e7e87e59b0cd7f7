"""TLS: what a channel needs to know of its ssl.SSLSocket.

The handshake is made as the loop finds the socket ready, before handle_connect or the first handle_read; it does not
block. A recv that waits for room to send, or the other way round, makes the loop wait for that and repeats it then. The
TLS layer may hold bytes that the kernel does not know of: they count as ready.
"""
import sys

READ, WRITE = "read", "write"


def transport(sock):
    """A TLS for an ssl.SSLSocket, else None. Whoever has such a socket has imported ssl."""
    ssl = sys.modules.get("ssl")
    if ssl is None or not isinstance(sock, ssl.SSLSocket):
        return None
    return TLS(sock, ssl)


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

    __slots__ = ("sock", "shaking", "direction", "read_waits", "write_waits")

    def __init__(self, sock, ssl):
        self.sock = sock
        sock.do_handshake_on_connect = False  # connect and accept would wait for it
        self.shaking = True
        self.direction = WRITE  # of the handshake
        self.read_waits = False  # for room to send
        self.write_waits = False  # for something to read

    def interest(self, is_r, is_w):
        """What to wait for, when the channel said this."""
        if self.shaking:
            return self.direction == READ, self.direction == WRITE
        if is_r and self.read_waits:
            return bool(is_w and self.write_waits), True
        if is_w and self.write_waits:
            return True, False
        return is_r, is_w

    def pending(self):
        try:
            return not self.shaking and self.sock.pending() > 0
        except (OSError, ValueError):
            return False

    def shake(self):
        """Goes on with the handshake. Whether it is done; a failure raises."""
        if self.shaking:
            try:
                self.sock.do_handshake()
            except OSError as error:
                direction = wanted(error)
                if direction is None:
                    raise
                self.direction = direction
                return False
            self.shaking = self.read_waits = self.write_waits = False
        return True

    def ready_for_reading(self, channel):
        """The socket is readable. Whether that is for handle_read."""
        if self.shaking:
            self.shake()  # what follows it is another event
            return False
        if self.write_waits:
            self.write_waits = False
            channel.handle_write()
            return channel._asyncore_tls is self and channel._fileno is not None and bool(channel.readable())
        return True

    def ready_for_writing(self, channel):
        """The socket takes data. Whether that is for handle_write."""
        if self.shaking:
            self.shake()  # what follows it is another event
            return False
        if self.read_waits:
            self.read_waits = False
            channel.handle_read()
            return channel._asyncore_tls is self and channel._fileno is not None and bool(channel.writable())
        return True

    def recv_failed(self, error):
        if wanted(error) == WRITE:
            self.read_waits = True

    def send_failed(self, error):
        """Whether it may be sent later."""
        direction = wanted(error)
        if direction == READ and not self.shaking:
            self.write_waits = True
        return direction is not None
