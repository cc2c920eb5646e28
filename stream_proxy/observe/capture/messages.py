"""Messages of an open WebSocket, read from the bytes of one peer. Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterator

#: Kinds of messages that a capture has (RFC 6455 section 5.2). Pings say nothing.
TEXT, BINARY, CLOSE = 1, 2, 8
_CONTINUATION = 0
_MOST_CONTROL = 125


class MessageReader:
    """Reader of the messages that one peer sends.

    :param most: the longest message that is kept whole; of a longer one the beginning is.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = bytearray()
        #: The frame that is coming: bytes that are missing, its mask from there on, its kind.
        self._left = 0
        self._key = b""
        self._opcode = 0
        self._ends = False
        #: The message that is coming, and a control frame between its frames.
        self._kind = TEXT
        self._message = bytearray()
        self._control = bytearray()
        self._closed = False

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the kind and the payload of each message that is complete with `data`."""
        self._held += data
        at, held = 0, bytes(self._held)
        self._held.clear()
        while not self._closed:
            if not self._left:
                begin = self._read_head(held, at)
                if begin is None:
                    self._held += held[at:]
                    return
                at = begin
            taken = held[at : at + self._left]
            at += len(taken)
            self._left -= len(taken)
            self._take(taken)
            if self._left:
                return
            yield from self._end_of_frame()

    def _read_head(self, data: bytes, at: int) -> int | None:
        """Note the head of a frame, and return where its payload begins; ``None`` if more is needed."""
        if len(data) - at < 2:
            return None
        first, second = data[at], data[at + 1]
        length, begin = second & 0x7F, at + 2
        extended = 2 if length == 126 else 8 if length == 127 else 0
        end = begin + extended + (4 if second & 0x80 else 0)
        if end > len(data):
            return None
        if extended:
            length = int.from_bytes(data[begin : begin + extended], "big")
        self._left = length
        self._key = data[end - 4 : end] if second & 0x80 else b""
        self._opcode, self._ends = first & 0x0F, bool(first & 0x80)
        if self._opcode in (TEXT, BINARY):
            self._kind = self._opcode
            self._message.clear()
        elif self._opcode != _CONTINUATION:
            self._control.clear()
        return end

    def _take(self, data: bytes) -> None:
        if self._key:
            key = self._key
            count = len(data)
            mask = (key * (count // 4 + 1))[:count]
            data = (int.from_bytes(data, "big") ^ int.from_bytes(mask, "big")).to_bytes(count, "big")
            turn = count % 4
            self._key = key[turn:] + key[:turn]
        if self._opcode > BINARY:
            self._control += data[: _MOST_CONTROL - len(self._control)]
        else:
            self._message += data[: max(0, self._most - len(self._message))]

    def _end_of_frame(self) -> Iterator[tuple[int, bytes]]:
        if self._opcode == CLOSE:
            self._closed = True
            yield CLOSE, bytes(self._control)
        elif self._opcode <= BINARY and self._ends:
            yield self._kind, bytes(self._message)
            self._message.clear()
