"""Server-sent events: bytes in, events out.

The decoder follows "Parsing an event stream" of the WHATWG HTML standard (section 9.2.6), for one stream
without reconnecting: ``id`` and ``retry`` are read over.
"""

from __future__ import annotations

from dataclasses import dataclass

from stream_proxy.errors import APIError, response_too_large
from stream_proxy.lenient_json import BOM
from stream_proxy.limits import MAX_HELD_BYTES

_NO_VALUE = (b"data", b"event", b"id", b"retry")  # fields without a colon: the value is empty
_READ_OVER = (b"id:", b"retry:", b":")


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One dispatched event.

    ``data`` is valid UTF-8 (what was not is U+FFFD), its lines joined by LF; it is empty for an event whose
    ``data`` field was empty.
    """

    event: str = "message"
    data: bytes = b""


class EventTooLargeError(APIError, ValueError):
    """An event grew beyond ``max_event_bytes``; as an `APIError` it is the 502 for an answer too large."""

    def __init__(self, limit: int) -> None:
        cause = response_too_large(limit)
        super().__init__(
            cause.status, cause.message, cause.type, code=cause.code, should_retry=cause.should_retry
        )


class SSEDecoder:
    """Decodes one event stream, however it is cut into reads, at a cost linear in its length.

    :param max_event_bytes: how many bytes one event may be: its ``data`` lines with their ends, and the
        line being read.
    :param max_stray_bytes: how much of the lines that are no field is kept.
    """

    def __init__(self, max_event_bytes: int = MAX_HELD_BYTES, max_stray_bytes: int = 64 * 2**10) -> None:
        self.max_event_bytes = max_event_bytes
        self._max_stray_bytes = max_stray_bytes
        self._head: bytes | None = b""  # the first bytes while they may be a BOM; None once that is decided
        self._after_cr = False  # the last line ended with CR; an LF that comes next belongs to it
        self._line = bytearray()  # the line not yet ended
        self._data: bytes | bytearray | None = None
        self._held = 0  # bytes of the event's finished data lines
        self._event = ""
        self._stray = bytearray()
        self._too_large = False

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Take the next bytes of the stream, return the events that they complete.

        A list, not an iterator: a caller who stops reading it leaves no half-parsed read behind.

        :raises EventTooLargeError: an event outgrew its bound. Events that were complete before it are
            returned first, then the next call raises; so they do not depend on how the stream was cut.
        """
        if self._too_large:
            raise EventTooLargeError(self.max_event_bytes)
        if self._head is not None:
            data = self._after_bom(data)
        if self._after_cr and data:
            self._after_cr = False
            if data.startswith(b"\n"):
                data = data[1:]
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if not data:
            return []
        # When not even all of it together can pass the bound, no line needs to be measured.
        bounded = self._held + len(self._line) + len(data) > self.max_event_bytes
        lines = data.split(b"\n")
        rest = lines.pop()
        events: list[ServerSentEvent] = []
        if lines:
            if self._line:
                self._line += lines[0]
                lines[0] = bytes(self._line)
                self._line.clear()
            self._take_lines(lines, events, bounded)
        if rest:
            self._line += rest
        if bounded and self._held + len(self._line) > self.max_event_bytes:
            self._too_large = True
        if self._too_large:
            self._line.clear()
            self._data = None
            if not events:
                raise EventTooLargeError(self.max_event_bytes)
        return events

    @property
    def between_events(self) -> bool:
        """Whether nothing is held: what was fed so far ends with an event, or is nothing but comments."""
        return not (
            self._head
            or self._after_cr
            or self._line
            or self._data is not None
            or self._event
            or self._stray
            or self._too_large
        )

    def stray(self) -> bytes:
        """The lines since the last event that are no field, joined by LF; an unterminated last one counts.

        Some servers end an event stream with a bare JSON error; this is where it is found.
        """
        line = bytes(self._line[: self._max_stray_bytes]) if self._line else self._head or b""
        if not line or _is_field(line):
            return bytes(self._stray)
        joined = self._stray + b"\n" + line if self._stray else line
        return bytes(joined[: self._max_stray_bytes])

    def _after_bom(self, data: bytes) -> bytes:
        data = (self._head or b"") + data
        if len(data) < len(BOM) and BOM.startswith(data):
            self._head = data
            return b""
        self._head = None
        return data.removeprefix(BOM)

    def _take_lines(self, lines: list[bytes], events: list[ServerSentEvent], bounded: bool) -> None:
        for line in lines:
            if bounded and self._held + len(line) > self.max_event_bytes:
                self._too_large = True
                return
            if not line:
                if self._data is not None:
                    data = bytes(self._data)
                    if not data.isascii():
                        data = _valid_utf8(data)
                    events.append(ServerSentEvent(self._event or "message", data))
                    self._data = None
                    self._held = 0
                    if self._stray:
                        self._stray.clear()
                self._event = ""
            elif line.startswith(b"data:"):
                value = line[6:] if line.startswith(b"data: ") else line[5:]
                self._held += len(line) + 1
                if self._data is None:
                    self._data = value
                else:
                    self._add_data(value)
            elif line.startswith(b"event:"):
                self._event = line[6:].removeprefix(b" ").decode("utf-8", "replace")
            elif line == b"data":
                self._held += len(line) + 1
                if self._data is None:
                    self._data = b""
                else:
                    self._add_data(b"")
            elif line == b"event":
                self._event = ""
            elif not _is_field(line):
                room = self._max_stray_bytes - len(self._stray)
                if room > 0:
                    self._stray += (b"\n" + line if self._stray else line)[:room]

    def _add_data(self, value: bytes) -> None:
        if not isinstance(self._data, bytearray):  # joining bytes line by line would be quadratic
            self._data = bytearray(self._data or b"")
        self._data += b"\n"
        self._data += value


def _is_field(line: bytes) -> bool:
    """Whether `line` is a field of the standard or a comment."""
    return line.startswith((b"data:", b"event:", *_READ_OVER)) or line in _NO_VALUE


def _valid_utf8(data: bytes) -> bytes:
    try:
        data.decode()
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace").encode()
    return data
