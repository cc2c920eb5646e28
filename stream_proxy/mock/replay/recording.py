"""Recording of exchanges, read from a capture: HAR, also of other programs, or JSON lines. Sans-I/O."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

_EVENTS = "text/event-stream"


class RecordingError(ValueError):
    """A file that is no recording; the message says why."""


class Piece(NamedTuple):
    """Part of a body, and the seconds between the start of its exchange and it."""

    at: float
    data: bytes


class RecordedMessage(NamedTuple):
    """Message of a WebSocket; the kind is its opcode (RFC 6455 section 5.2)."""

    at: float
    sent: bool
    kind: int
    payload: bytes


@dataclass(frozen=True)
class RecordedAnswer:
    """Response: its head came `at` so many seconds, and `whole` says if it did not break off."""

    at: float
    status: int
    headers: tuple[tuple[str, str], ...]
    pieces: tuple[Piece, ...]
    whole: bool = True

    @property
    def is_stream(self) -> bool:
        """Whether it is an event stream."""
        content_type = next((value for name, value in self.headers if name.lower() == "content-type"), "")
        return content_type.partition(";")[0].strip().lower() == _EVENTS

    @property
    def body(self) -> bytes:
        """All of the body."""
        return b"".join([piece.data for piece in self.pieces])


@dataclass
class RecordedExchange:
    """Request and what it got; of a converted call also the stream behind the response."""

    method: str
    target: str
    body: bytes
    answer: RecordedAnswer | None = None
    stream: RecordedAnswer | None = None
    messages: list[RecordedMessage] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


def read_recording(data: bytes) -> list[RecordedExchange]:
    """Return the exchanges of a file that have something to be served, in their order.

    :raises RecordingError: it is neither HAR nor JSON lines of a capture, or holds nothing to serve.
    """
    try:
        first = json.loads(data)
    except (ValueError, RecursionError):
        first = None
    try:
        if isinstance(first, dict) and "log" in first:
            exchanges = list(_read_har(first["log"]["entries"]))
        elif isinstance(first, dict):
            exchanges = [_read_line(first)]
        else:
            exchanges = [_read_line(json.loads(line)) for line in data.splitlines() if line.strip()]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise RecordingError("is neither HAR nor the JSON lines of a capture") from error
    served = [each for each in exchanges if each.answer or each.stream]
    if not served:
        raise RecordingError("holds no exchange with a response")
    return served


# JSON lines


def _read_line(line: Mapping[str, Any]) -> RecordedExchange:
    request = line["request"]
    exchange = RecordedExchange(
        request["method"], request["target"], b"".join([piece.data for piece in _pieces(request)])
    )
    if "response" in line:
        exchange.answer = _answer(line["response"])
    streams = [answer for each in line.get("upstreamResponses", ()) if (answer := _answer(each)).is_stream]
    exchange.stream = streams[-1] if streams else None
    exchange.messages = [
        RecordedMessage(at / 1000, direction == "send", kind, _payload(kind, data))
        for at, direction, kind, data in line.get("messages", ())
    ]
    return exchange


def _answer(answer: Mapping[str, Any]) -> RecordedAnswer:
    headers = tuple((str(name), str(value)) for name, value in answer["headers"])
    return RecordedAnswer(
        answer["at"] / 1000, int(answer["status"]), headers, tuple(_pieces(answer)), answer["whole"] is True
    )


def _pieces(part: Mapping[str, Any]) -> Iterator[Piece]:
    encoded = part.get("encoding") == "base64"
    for at, text in part.get("body", ()):
        yield Piece(at / 1000, base64.b64decode(text) if encoded else text.encode("utf-8", "replace"))


def _payload(kind: int, data: str) -> bytes:
    return data.encode("utf-8", "replace") if kind == 1 else base64.b64decode(data)


# HAR


def _read_har(entries: Iterable[Mapping[str, Any]]) -> Iterator[RecordedExchange]:
    last: RecordedExchange | None = None
    for entry in entries:
        if entry.get("_leg") == "upstream":
            if last is not None and (answer := _har_answer(entry)) is not None and answer.is_stream:
                last.stream = answer
            continue
        if last is not None:
            yield last
        last = _har_exchange(entry)
    if last is not None:
        yield last


def _har_exchange(entry: Mapping[str, Any]) -> RecordedExchange:
    request = entry["request"]
    url = urlsplit(request["url"])
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    posted = request.get("postData") or {}
    text = posted.get("text") or ""
    body = base64.b64decode(text) if posted.get("_encoding") == "base64" else text.encode("utf-8", "replace")
    exchange = RecordedExchange(request["method"], target, body, _har_answer(entry))
    started = [message["time"] for message in entry.get("_webSocketMessages") or ()][:1]
    exchange.messages = [
        RecordedMessage(
            max(0.0, message["time"] - started[0]),
            message["type"] == "send",
            int(message["opcode"]),
            _payload(int(message["opcode"]), message["data"]),
        )
        for message in entry.get("_webSocketMessages") or ()
        if message["type"] in ("send", "receive")
    ]
    return exchange


def _har_answer(entry: Mapping[str, Any]) -> RecordedAnswer | None:
    """Return the response of an entry; ``None`` if there was none."""
    response = entry["response"]
    if not response["status"]:
        return None
    timings = entry["timings"]
    at = (
        sum(max(0.0, timings.get(step) or 0.0) for step in ("blocked", "dns", "connect", "send", "wait"))
        / 1000
    )
    headers = tuple((str(each["name"]), str(each["value"])) for each in response["headers"])
    whole = response.get("_whole", not response.get("_error")) is True
    return RecordedAnswer(at, int(response["status"]), headers, tuple(_har_pieces(entry, at)), whole)


def _har_pieces(entry: Mapping[str, Any], at: float) -> Iterator[Piece]:
    content = entry["response"]["content"]
    text = content.get("text") or ""
    try:
        body = (
            base64.b64decode(text) if content.get("encoding") == "base64" else text.encode("utf-8", "replace")
        )
    except binascii.Error as error:
        raise ValueError("the body of a response is no Base64") from error
    events = entry.get("_eventSourceMessages") or ()
    if "_pieces" in content:
        begin = 0
        for milliseconds, length in content["_pieces"]:
            yield Piece(milliseconds / 1000, body[begin : begin + length])
            begin += length
    elif events:
        times = [at + event["time"] - events[0]["time"] for event in events]
        blocks = _blocks(body) if body else [_event(event) for event in events]
        if len(blocks) == len(times):
            yield from map(Piece, times, blocks)
        else:
            yield Piece(at, body)
    elif body:
        yield Piece(at, body)


def _blocks(body: bytes) -> list[bytes]:
    """Return the events of a stream, each with its blank line."""
    parts = body.replace(b"\r\n", b"\n").split(b"\n\n")
    return [part + b"\n\n" for part in parts if part.strip()]


def _event(event: Mapping[str, Any]) -> bytes:
    """Return an event of which only the meaning was recorded."""
    name, last_id = event.get("eventName"), event.get("eventId")
    lines = [f"event: {name}"] if name and name != "message" else []
    lines += [f"id: {last_id}"] if last_id else []
    lines += [f"data: {line}" for line in str(event.get("data") or "").split("\n")]
    return "\n".join([*lines, "", ""]).encode("utf-8", "replace")
