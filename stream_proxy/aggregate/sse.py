"""Decoder of server-sent events: bytes in, events out.

It follows "Parsing an event stream" of the WHATWG HTML standard (section 9.2.6), for one stream without
reconnection: ``id`` and ``retry`` are skipped. Where providers depart from the standard it goes beyond it: an
error on lines that are no fields is an event named ``error``, and `SSEDecoder.end` returns a last event that
only lacks its blank line.
"""

from __future__ import annotations

from dataclasses import dataclass

from stream_proxy.aggregate.stream_errors import find_error
from stream_proxy.errors import APIError
from stream_proxy.json_bounds import event_too_large
from stream_proxy.json_steps import (
    LONG_BYTES,
    Steps,
    decode_steps,
    done,
    valid_utf8_steps,
    values_exceed_steps,
)
from stream_proxy.lenient_json import BOM, valid_utf8
from stream_proxy.limits import MAX_EVENT_BYTES, MAX_VALUES

_NO_VALUE = (b"data", b"event", b"id", b"retry")  # fields without a colon: the value is empty
# An event beyond this will be long with the next read.
_LONG = LONG_BYTES - 2**16
_SKIPPED = (b"id:", b"retry:", b":")


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One dispatched event.

    ``data`` holds the ``data`` lines, joined by LF, as valid UTF-8: invalid bytes become U+FFFD. It is empty
    for an event whose ``data`` field was empty.
    """

    event: str = "message"
    data: bytes = b""


class EventTooLargeError(APIError, ValueError):
    """An event longer than ``max_event_bytes``; as an `APIError` it is the 502 for that."""

    def __init__(self, limit: int) -> None:
        cause = event_too_large(limit)
        super().__init__(
            cause.status, cause.message, cause.type, code=cause.code, should_retry=cause.should_retry
        )


class SSEDecoder:
    """Decoder of one event stream, cut into reads anywhere, at a cost linear in its length.

    :param max_event_bytes: the maximum size of one event: its ``data`` lines with their ends, and the line
        being read.
    :param max_stray_bytes: how much is kept of lines that are not fields.
    :param max_cleaned: the longest data that is made valid UTF-8 here; longer data is left as it came.
    :param keep_blanks: against the standard, the blank after ``data:`` is part of the data, as Spring writes
        events; ``None``: if the first data has no blank before it.
    """

    def __init__(
        self,
        max_event_bytes: int = MAX_EVENT_BYTES,
        max_stray_bytes: int = 64 * 2**10,
        *,
        max_cleaned: int | None = None,
        keep_blanks: bool | None = False,
    ) -> None:
        self.max_event_bytes = max_event_bytes
        self._max_stray_bytes = max_stray_bytes
        self._max_cleaned = max_event_bytes if max_cleaned is None else max_cleaned
        # Where the value begins in a line with "data: "; 0 before that is known.
        self._data_start = 0 if keep_blanks is None else 5 if keep_blanks else 6
        self._head: bytes | None = b""  # the first bytes while they may be a BOM; None once that is decided
        self._after_cr = False  # the last line ended with CR, to which an LF that follows belongs
        self._line = bytearray()  # the line that has not ended yet
        self._data: bytes | bytearray | None = None
        self._held = 0  # bytes of the event's finished data lines
        self._event = ""
        self._stray = bytearray()
        self._too_large = False

    def begin(self, data: bytes) -> bytes:
        """Return the first bytes of the stream, without a BOM; hold what may become one."""
        data = (self._head or b"") + data
        if len(data) < len(BOM) and BOM.startswith(data):
            self._head = data
            return b""
        self._head = None
        return data.removeprefix(BOM)

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Process the next bytes of the stream, and return the events that they complete.

        The result is a list because a caller that abandoned an iterator would leave a read half parsed.

        :raises EventTooLargeError: an event exceeds its bound. If events were complete before it, they are
            returned and the next call raises, so that the events do not depend on how the stream was cut.
        """
        if self._too_large:
            raise EventTooLargeError(self.max_event_bytes)
        if self._head is not None:
            data = self.begin(data)
        if self._after_cr and data:
            self._after_cr = False
            if data.startswith(b"\n"):
                data = data[1:]
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if not data:
            return []
        # Lines need no measuring if not even all of them together exceed the bound.
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

    def end(self) -> list[ServerSentEvent]:
        """Return what the end of a body completes, if the body ended as its framing promised.

        Gateways that close right after the last line are common, so an event without its blank line counts
        if its data is whole: ``[DONE]``, or JSON. The words of an ``error`` event always count.

        :raises EventTooLargeError: an event exceeds its bound.
        """
        return done(self.end_steps())

    def end_steps(self, max_values: int = MAX_VALUES) -> Steps[list[ServerSentEvent]]:
        """Return what `end` does, in steps.

        :param max_values: with more values the last event counts as whole: it is for others to refuse it.
        """
        if self._too_large:
            raise EventTooLargeError(self.max_event_bytes)
        events: list[ServerSentEvent] = []
        if self._line:
            self._take_lines([bytes(self._line)], events, bounded=False)
            self._line.clear()
        data = self._data
        if data is not None and (self._event == "error" or (yield from _is_whole(bytes(data), max_values))):
            self._take_lines([b""], events, bounded=False)
        self._data = None
        return events

    @property
    def holds_long(self) -> bool:
        """Whether the event that is being read is so long that it has to be worked on in steps."""
        return self._held + len(self._line) > _LONG

    @property
    def between_events(self) -> bool:
        """Whether nothing is held: the stream so far ends with an event, or consists of comments only."""
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
        """Return the lines since the last event that are not fields, joined by LF, even an unterminated one.

        Some servers end an event stream with a bare JSON error, which is found here. One that an event
        follows has become an event of its own.
        """
        line = bytes(self._line[: self._max_stray_bytes]) if self._line else self._head or b""
        if not line or _is_field(line):
            return bytes(self._stray)
        joined = self._stray + b"\n" + line if self._stray else line
        return bytes(joined[: self._max_stray_bytes])

    def _take_lines(self, lines: list[bytes], events: list[ServerSentEvent], bounded: bool) -> None:
        data_start = self._data_start or self._learn_blanks(lines)
        for line in lines:
            if bounded and self._held + len(line) > self.max_event_bytes:
                self._too_large = True
                return
            if not line:
                if self._data is not None:
                    if self._stray:
                        self._take_stray(events)
                    data = bytes(self._data)
                    if not data.isascii() and len(data) <= self._max_cleaned:
                        data = valid_utf8(data)
                    events.append(ServerSentEvent(self._event or "message", data))
                    self._data = None
                    self._held = 0
                self._event = ""
            elif line.startswith(b"data:"):
                value = line[data_start:] if line.startswith(b"data: ") else line[5:]
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

    def _take_stray(self, events: list[ServerSentEvent]) -> None:
        """Make an event of an error on the stray lines, which an event follows; forget other ones."""
        error = find_error(bytes(self._stray))
        if error is not None:
            events.append(ServerSentEvent("error", error))
        self._stray.clear()

    def _learn_blanks(self, lines: list[bytes]) -> int:
        first = next((line for line in lines if line.startswith(b"data:") and len(line) > 5), None)
        if first is None:
            return 6
        self._data_start = 6 if first.startswith(b"data: ") else 5
        return self._data_start

    def _add_data(self, value: bytes) -> None:
        if not isinstance(self._data, bytearray):  # joining bytes line by line would take quadratic time
            self._data = bytearray(self._data or b"")
        self._data += b"\n"
        self._data += value


def simple_event(event: bytes) -> ServerSentEvent | None:
    """Return the event in bytes that are one ``data: `` line, perhaps after an ``event: `` line, and the end.

    :param event: what stands in a stream from the end of another event to the next empty line, with that.
    :return: ``None`` if it may be anything else, which takes a decoder.
    """
    name, start = "message", 6
    line_end = event.find(b"\n")
    if event.startswith(b"event: ") and line_end > 7:
        name = event[7:line_end].decode("utf-8", "replace")
        start = line_end + 7
        line_end = event.find(b"\n", start)
    if not event.startswith(b"data: ", start - 6) or line_end != len(event) - 2:
        return None
    data = event[start:line_end]
    return ServerSentEvent(name, data if data.isascii() else valid_utf8(data))


def _is_field(line: bytes) -> bool:
    """Report whether `line` is a field of the standard or a comment."""
    return line.startswith((b"data:", b"event:", *_SKIPPED)) or line in _NO_VALUE


def _is_whole(data: bytes, max_values: int) -> Steps[bool]:
    if data.strip() == b"[DONE]":
        return True
    data = yield from valid_utf8_steps(data)
    if (yield from values_exceed_steps(data, max_values)):
        return True
    try:
        yield from decode_steps(data)
    except ValueError:
        return False
    return True
