"""An idle timeout: what set_idle_timeout() leaves with a channel."""
import time


class Idle:
    """Of one channel. The timer is not moved by every byte: when it is due it is set anew for what is left."""

    __slots__ = ("channel", "seconds", "last", "timer", "call_later")

    def __init__(self, channel, seconds, call_later):
        self.call_later = call_later
        self.channel = channel
        self.seconds = seconds
        self.touch()
        self.arm(seconds)

    def touch(self):
        self.last = time.monotonic()

    def arm(self, seconds):
        self.timer = self.call_later(seconds, self.channel._asyncore_due, map=self.channel._map)
        self.timer.set_background()

    def due(self):
        """The timer ran: whether it was that long."""
        if self.channel._fileno is None:
            return False  # the channel left its map without close()
        left = self.last + self.seconds - time.monotonic()
        if left > 0:
            self.arm(left)
            return False
        self.touch()
        self.arm(self.seconds)
        return True

    def stop(self):
        self.timer.cancel()
