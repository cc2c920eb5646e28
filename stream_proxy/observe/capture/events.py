"""Events of a captured stream, cut out of its pieces when they are asked for. Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

#: Bytes of an event's data that are shown; the body has all of it.
_MOST_DATA = 2**20


class TimedEvent(NamedTuple):
    """One server-sent event, and when its end came."""

    at: float
    name: str
    last_id: str
    data: str


def timed_events(pieces: Iterable[tuple[float, bytes]]) -> Iterator[TimedEvent | None]:
    """Yield the events of a stream, as browsers dispatch them, and ``None`` behind each piece.

    Behind the standard (WHATWG HTML section 9.2.6), a last event that only lacks its blank line counts.
    """
    cutter = _Cutter()
    at = 0.0
    for at, piece in pieces:
        yield from cutter.feed(at, piece)
        yield None
    yield from cutter.feed(at, b"\n\n")


class _Cutter:
    def __init__(self) -> None:
        self._line = bytearray()
        self._after_cr = False
        self._begun = False
        self._name = self._id = ""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, at: float, data: bytes) -> Iterator[TimedEvent]:
        """Yield the events that are complete with `data`."""
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
        self._after_cr = data.endswith(b"\r")
        lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines[:-1]:
            if self._line:
                line = bytes(self._line) + line
                self._line.clear()
            yield from self._take(at, line)
        if len(self._line) <= _MOST_DATA:
            self._line += lines[-1]

    def _take(self, at: float, line: bytes) -> Iterator[TimedEvent]:
        if not self._begun:
            self._begun = True
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            if self._data:
                text = b"\n".join(self._data).decode("utf-8", "replace")
                yield TimedEvent(at, self._name or "message", self._id, text)
            self._name, self._data, self._size = "", [], 0
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            value = value[: max(0, _MOST_DATA - self._size)]
            self._size += len(value)
            self._data.append(value)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif field == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
