"""Decoder that cuts a service's body into payloads: server-sent events, lines of JSON, or one document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from stream_proxy.aggregate.sse import SSEDecoder
from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, upstream_error
from stream_proxy.http.body_kind import BodyKind, sniff
from stream_proxy.json_bounds import event_too_large, payload_checks
from stream_proxy.json_steps import LONG_BYTES, Steps, decode_steps, valid_utf8_steps
from stream_proxy.lenient_json import BOM

Format = Literal["auto", "sse", "ndjson", "json"]

_NDJSON = frozenset(
    {
        b"application/json-lines",
        b"application/json-seq",
        b"application/jsonl",
        b"application/ndjson",
        b"application/stream+json",
        b"application/x-jsonlines",
        b"application/x-ndjson",
    }
)
# How much of a body decides its format.
_LOOK = 64
_SPACE = b" \t\r\n\x1e"  # with the record separator of json-seq (RFC 7464)
_BLANK = _SPACE + BOM


@dataclass(frozen=True, slots=True)
class Payload:
    """One unit of a service's stream: its bytes, and the name of the event that carried it.

    ``bare``: bytes in an event stream that are no event, as some servers write their last error.
    """

    data: bytes
    event: str = "message"
    bare: bool = False


class PayloadDecoder:
    """Decoder of a body into payloads, however the body is cut into reads.

    :param format: the body's format; ``"auto"``: by its first bytes, else by `media`.
    :param media: its media type, in lower case.
    :param max_bytes: how large one payload may be.
    :param text: payloads are text, even those that look like JSON.
    :param keep_blanks: the blank after ``data:`` is part of the payload; ``None``: if the first has none.
    """

    def __init__(
        self,
        format: Format,
        media: bytes,
        max_bytes: int,
        *,
        text: bool = False,
        keep_blanks: bool | None = None,
    ) -> None:
        self._text = text
        self._keep_blanks = keep_blanks
        self._max_bytes = max_bytes
        self._media = _by_media(media)
        self._format = format
        self._events: SSEDecoder | None = None
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[Payload | None]:
        """Add the next bytes, and yield the payloads that they complete, ``None`` between steps of work.

        :raises APIError: a payload is too large.
        """
        if self._format == "auto":
            # After the first bytes, only a whole line tells more: do not parse a long one at every read.
            looked = len(self._held) >= _LOOK
            self._held += data
            if not looked or b"\n" in data:
                yield from self._decide(ended=False)
            if self._format == "auto":
                self._hold(b"")
                return
            data = bytes(self._held)
            self._held.clear()
        if self._format == "sse":
            yield from self._feed_events(data)
        elif self._format == "ndjson":
            yield from self._feed_lines(data)
        else:
            self._hold(data)

    def end(self) -> Iterator[Payload | None]:
        """Yield the last payloads of a body that has ended as its framing announced; see `feed`.

        :raises APIError: a payload is too large, or cut off.
        """
        if self._format == "auto":
            yield from self._decide(ended=True)
            data = bytes(self._held)
            self._held.clear()
            yield from self.feed(data)
        if self._format == "sse":
            # The standard drops an event without its blank line; many services forget the last one.
            stray = b"" if self._events is None else self._events.stray().strip(_BLANK)
            if stray:
                yield Payload(stray, bare=True)
            for payload in self._feed_events(b"\n\n"):
                if payload is not None and not self._text and (yield from _is_cut(payload.data)):
                    raise upstream_error(
                        "The service's answer ended in the middle of an event.", ErrorCode.UPSTREAM_INCOMPLETE
                    )
                yield payload
        elif self._held.strip(_BLANK):
            yield Payload(bytes(self._held.strip(_BLANK)))
        self._held.clear()

    def _decide(self, *, ended: bool) -> Steps[None]:
        """Decide the format: by the first bytes, since services mislabel bodies, else by the media type."""
        head = bytes(self._held[:_LOOK]).lstrip(_SPACE).removeprefix(BOM).lstrip(_SPACE)
        match sniff(head, ended=ended or len(self._held) >= _LOOK):
            case BodyKind.EVENTS:
                self._format = "sse"
            case BodyKind.JSON:
                yield from self._decide_json(ended)
            case BodyKind.OTHER if head.startswith(b"["):
                self._format = "json"
            case BodyKind.OTHER:
                self._format = "sse" if self._media == "auto" else self._media

    def _decide_json(self, ended: bool) -> Steps[None]:
        """Tell lines, of which the first is a whole object, from one document over several lines."""
        line, end, _ = bytes(self._held).lstrip(_BLANK).partition(b"\n")
        if end or ended:
            try:
                yield from payload_checks(line)
                yield from decode_steps(line)
            except (APIError, ValueError):
                self._format = "ndjson" if self._media == "ndjson" else "json"
            else:
                self._format = "ndjson"

    def _feed_events(self, data: bytes) -> Iterator[Payload | None]:
        if self._events is None:
            self._events = SSEDecoder(self._max_bytes, max_cleaned=LONG_BYTES, keep_blanks=self._keep_blanks)
        for event in self._events.feed(data):
            cleaned = event.data
            if len(cleaned) > LONG_BYTES:
                cleaned = yield from valid_utf8_steps(cleaned)
            yield Payload(cleaned, event.event)

    def _feed_lines(self, data: bytes) -> Iterator[Payload]:
        lines = data.split(b"\n")
        rest = lines.pop()
        for line in lines:
            if self._held:
                self._held += line
                line = bytes(self._held)
                self._held.clear()
            line = line.strip(_BLANK)
            if line:
                if len(line) > self._max_bytes:
                    raise event_too_large(self._max_bytes)
                yield Payload(line)
        self._hold(rest)

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > self._max_bytes:
            raise event_too_large(self._max_bytes)


def _is_cut(data: bytes) -> Steps[bool]:
    """Report whether `data` begins as JSON does and is not complete."""
    if not data.lstrip(_BLANK).startswith((b"{", b"[")):
        return False
    try:
        yield from payload_checks(data)
        yield from decode_steps(data)
    except APIError:
        return False  # whole or not, it is too much
    except ValueError:
        return True
    return False


def _by_media(media: bytes) -> Format:
    if media == b"text/event-stream":
        return "sse"
    if media in _NDJSON:
        return "ndjson"
    if media == b"application/json" or media.endswith(b"+json"):
        return "json"
    return "auto"
