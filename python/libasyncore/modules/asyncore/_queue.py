"""Bytes on their way out, which grow at one end and shrink at the other without being copied each time."""

PIECE = 65536  # what one send is offered


class Queue:
    """What dispatcher_with_send keeps as its out_buffer once it is more than one piece."""

    __slots__ = ("all", "piece")

    def __init__(self, data):
        self.all = bytearray(data)
        self.piece = None  # a copy of the beginning, kept while the peer takes nothing

    def __len__(self):
        return len(self.all)

    def __getitem__(self, key):
        if key == slice(None, PIECE):
            if self.piece is None:
                self.piece = bytes(self.all[:PIECE])
            return self.piece
        return bytes(self.all[key])

    def append(self, data):
        if self.piece is not None and len(self.piece) < PIECE:
            self.piece = None
        self.all += data

    def skip(self, count):
        if count:
            del self.all[:count]
            self.piece = None

    def whole(self):
        return bytes(self.all)
