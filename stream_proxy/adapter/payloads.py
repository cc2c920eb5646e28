"""A service's body, cut into payloads: server-sent events, lines of JSON, or one JSON document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from stream_proxy.errors import response_too_large
from stream_proxy.sniff import Sniffed, sniff
from stream_proxy.sse import SSEDecoder

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
_BLANK = b" \t\r\n\x1e\xef\xbb\xbf"  # with json-seq's record separator (RFC 7464) and a BOM


@dataclass(frozen=True, slots=True)
class Payload:
    """One unit of a service's stream: its bytes, and the name of the event that carried it, if one did.

    ``bare``: it stood in an event stream without being an event, as some servers' last words do.
    """

    data: bytes
    event: str = "message"
    bare: bool = False


class PayloadDecoder:
    """Cuts a body into payloads, however it is cut into reads.

    :param format: what the body is; ``"auto"``: as `media` says, else as it looks.
    :param media: its media type, in lower case.
    :param max_bytes: how large one payload may be.
    """

    def __init__(self, format: Format, media: bytes, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._format = _by_media(media) if format == "auto" else format
        self._events: SSEDecoder | None = None
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[Payload]:
        """Take the next bytes, give the payloads that they complete.

        :raises APIError: one is too large.
        """
        if self._format == "auto":
            self._held += data
            self._format = _by_looks(bytes(self._held[:64]), ended=False)
            if self._format == "auto":
                return
            data = bytes(self._held)
            self._held.clear()
        if self._format == "sse":
            yield from self._feed_events(data)
        elif self._format == "ndjson":
            yield from self._feed_lines(data)
        else:
            self._hold(data)

    def end(self) -> Iterator[Payload]:
        """The body has ended as its framing said it would: give what is left of it.

        :raises APIError: one is too large.
        """
        if self._format == "auto":
            self._format = _by_looks(bytes(self._held[:64]), ended=True)
            data = bytes(self._held)
            self._held.clear()
            yield from self.feed(data)
        if self._format == "sse":
            # The standard drops an event without its blank line; many services forget the last one.
            stray = b"" if self._events is None else self._events.stray().strip(_BLANK)
            if stray:
                yield Payload(stray, bare=True)
            yield from self._feed_events(b"\n\n")
        elif self._held.strip(_BLANK):
            yield Payload(bytes(self._held.strip(_BLANK)))
        self._held.clear()

    def _feed_events(self, data: bytes) -> Iterator[Payload]:
        if self._events is None:
            self._events = SSEDecoder(max_event_bytes=self._max_bytes)
        for event in self._events.feed(data):
            yield Payload(event.data, event.event)

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
                    raise response_too_large(self._max_bytes)
                yield Payload(line)
        self._hold(rest)

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > self._max_bytes:
            raise response_too_large(self._max_bytes)


def _by_media(media: bytes) -> Format:
    if media == b"text/event-stream":
        return "sse"
    if media in _NDJSON:
        return "ndjson"
    if media == b"application/json" or media.endswith(b"+json"):
        return "json"
    return "auto"


def _by_looks(start: bytes, *, ended: bool) -> Format:
    match sniff(start, ended=ended or len(start) >= 64):
        case Sniffed.EVENTS:
            return "sse"
        case Sniffed.JSON:
            return "ndjson"
        case Sniffed.UNDECIDED:
            return "auto"
    return "json" if start.lstrip(_BLANK).startswith(b"[") else "sse"
