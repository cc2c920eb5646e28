"""Bodies in memory, in pieces that are never joined: that would copy them whole, in one step."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

_BLANK = b" \t\n\r"
_LOOK_BYTES = 16_384


class BodyPieces:
    """Body that grows at its end. Its parts refer to its bytes instead of copying them."""

    __slots__ = ("_length", "_pieces", "_starts")

    def __init__(self) -> None:
        self._pieces: list[bytes | memoryview] = []
        self._starts: list[int] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __bytes__(self) -> bytes:
        return b"".join(self._pieces)

    def append(self, piece: bytes | memoryview) -> None:
        """Add bytes; each piece takes some 100 bytes besides."""
        if piece:
            self._pieces.append(piece)
            self._starts.append(self._length)
            self._length += len(piece)

    def extend(self, other: BodyPieces) -> None:
        """Add another body's bytes."""
        for piece in other._pieces:
            self.append(piece)

    def part(self, start: int, end: int) -> BodyPieces:
        """Return the bytes from one offset up to another."""
        part = BodyPieces()
        for view in self._views(start, end):
            part.append(view)
        return part

    def read(self, start: int, end: int) -> bytes:
        """Return a copy of the bytes from one offset up to another, which may be beyond the end."""
        return b"".join(self._views(start, end))

    def stripped(self, start: int, end: int) -> tuple[int, int]:
        """Return the offsets without the blanks of JSON at both ends."""
        while start < end:
            blank = self.read(start, min(start + _LOOK_BYTES, end))
            start += len(blank) - len(blank.lstrip(_BLANK))
            if blank.lstrip(_BLANK):
                break
        while start < end:
            blank = self.read(max(end - _LOOK_BYTES, start), end)
            end -= len(blank) - len(blank.rstrip(_BLANK))
            if blank.rstrip(_BLANK):
                break
        return start, end

    def _views(self, start: int, end: int) -> Iterator[memoryview]:
        at = max(bisect_right(self._starts, start) - 1, 0)
        while at < len(self._pieces) and self._starts[at] < end:
            begin = self._starts[at]
            view = memoryview(self._pieces[at])[max(start - begin, 0) : end - begin]
            if view:
                yield view
            at += 1
