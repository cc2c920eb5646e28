"""Captured exchanges as HAR 1.2, in steps of which none is large. Sans-I/O.

Streams and WebSockets are in Chromium's own members. Its importer rejects a whole file for one number that
is none, skips a message without a time, a name or an id, and shows events only of a response whose type is
``text/event-stream``: so the stream behind a converted call is an entry of its own.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from urllib.parse import parse_qsl

import msgspec

from stream_proxy.http.headers import RawHeader
from stream_proxy.observe.capture.bodies import Body, values
from stream_proxy.observe.capture.events import timed_events
from stream_proxy.observe.capture.exchange import Answer, CapturedExchange
from stream_proxy.observe.capture.messages import TEXT
from stream_proxy.observe.capture.writing import as_string, members, milliseconds, moment, pairs, text

BEGIN = (
    b'{"log":{"version":"1.2","creator":{"name":"openai-stream-proxy","version":"1","comment":'
    b'"_leg: the stream behind a converted call is an entry of its own; _pieces: milliseconds and bytes"},'
    b'"pages":[],"entries":[\n'
)
SEPARATOR = b",\n"
END = b"\n]}}\n"

_EVENTS = "text/event-stream"
_HOST = re.compile(rb"[A-Za-z0-9.\-_]+(?::\d{1,5})?|\[[0-9A-Fa-f:.]+\](?::\d{1,5})?")
#: What no URI holds (RFC 3986 section 2).
_FOREIGN = re.compile(rb"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9%\-._~:/?@!$&'()*+,;=]")
_VERSION = re.compile(rb"HTTP/\d(?:\.\d)?")
_MOST_PARAMETERS = 1000


def entries(exchange: CapturedExchange, name: str, epoch: float) -> Iterator[bytes]:
    """Yield the entry of an exchange, and those of the streams behind it.

    :param name: of the exchange.
    :param epoch: seconds since 1970 at the zero of the clock.
    """
    yield from _entry(exchange, name, epoch, exchange.answer, "client")
    for answer in exchange.answers:
        yield SEPARATOR
        yield from _entry(exchange, name, epoch, answer, "upstream")


def _entry(
    exchange: CapturedExchange, name: str, epoch: float, answer: Answer | None, leg: str
) -> Iterator[bytes]:
    notes = exchange.notes
    ended = notes.ended if notes.ended is not None else notes.began
    timings = _timings(exchange, answer, ended)
    own = {
        "_id": name,
        "_leg": leg,
        "_rule": notes.rule,
        "_client": notes.client,
        "_mode": notes.mode,
        "_model": notes.model,
        "_code": notes.code,
        "startedDateTime": moment(epoch + notes.began),
        "time": round(sum(value for value in timings.values() if value > 0), 3),
        "cache": {},
        "timings": timings,
    }
    yield b"{" + members({key: value for key, value in own.items() if value is not None})
    yield from _request(exchange, leg)
    yield from _response(exchange, answer, leg)
    if answer is not None and answer.body.media == _EVENTS:
        yield b',"_resourceType":"eventsource","_eventSourceMessages":['
        yield from _events(answer.body, epoch)
        yield b"]"
    elif answer is not None and answer.status == 101:
        yield b',"_resourceType":"websocket","_webSocketMessages":['
        yield from _messages(exchange, epoch)
        yield b"]"
    else:
        yield b',"_resourceType":"fetch"'
    yield b"}"


def _request(exchange: CapturedExchange, leg: str) -> Iterator[bytes]:
    head, body = exchange.head, exchange.request
    is_client = leg == "client"
    version = head.version if _VERSION.fullmatch(head.version) else b"HTTP/1.1"
    yield b',"request":{' + members(
        {
            "method": text(head.method),
            "url": url(exchange) if is_client else head.origin + _quoted(head.target),
            "httpVersion": version.decode("ascii"),
            "cookies": [],
            "headers": _headers(body.fields) if is_client else [],
            "queryString": _query(head.target),
            "headersSize": -1,
            "bodySize": body.size,
        }
    )
    if is_client and (body.pieces or body.cut):
        yield b',"postData":{' + members({"mimeType": body.media}) + b',"text":"'
        yield from as_string(body)
        yield b'"' + _remarks(body) + (b"" if body.is_text else b',"_encoding":"base64"') + b"}"
    yield b"}"


def _response(exchange: CapturedExchange, answer: Answer | None, leg: str) -> Iterator[bytes]:
    body = answer.body if answer is not None else Body([])
    problem = exchange.notes.problem if leg == "client" else None
    yield b',"response":{' + members(
        {
            "status": 0 if answer is None else answer.status,
            "statusText": "" if answer is None else text(answer.reason),
            "httpVersion": "HTTP/1.1",
            "cookies": [],
            "headers": _headers(body.fields),
            "redirectURL": next((text(value) for value in values(body.fields, b"location")), ""),
            "headersSize": -1,
            "bodySize": body.size,
            "_whole": answer is not None and answer.whole,
            **({} if problem is None else {"_error": problem}),
        }
    )
    yield b',"content":{' + members({"size": body.size, "mimeType": body.media or "x-unknown"})
    if body.pieces:
        yield b',"text":"'
        yield from as_string(body)
        yield b'"' if body.is_text else b'","encoding":"base64"'
        yield b',"_pieces":['
        yield from _pieces(body, exchange.notes.began)
        yield b"]"
    yield _remarks(body) + b"}}"


def _pieces(body: Body, began: float) -> Iterator[bytes]:
    for start in range(0, len(body.pieces), 1000):
        listed = [[milliseconds(began, at), len(piece)] for at, piece in body.pieces[start : start + 1000]]
        yield (b"," if start else b"") + msgspec.json.encode(listed)[1:-1]


def _remarks(body: Body) -> bytes:
    return b"" if body.cut is None else b"," + members({"comment": f"Not whole: {body.cut}."})


def _timings(exchange: CapturedExchange, answer: Answer | None, ended: float) -> dict[str, float]:
    notes = exchange.notes
    asked = notes.began if notes.asked is None else notes.asked
    head = ended if answer is None else answer.at
    return {
        "blocked": milliseconds(notes.began, asked),
        "dns": -1,
        "connect": -1,
        "ssl": -1,
        "send": 0,
        "wait": milliseconds(asked, head),
        "receive": milliseconds(head, ended),
    }


def _events(body: Body, epoch: float) -> Iterator[bytes]:
    separator = b""
    for event in timed_events(body.pieces):
        if event is None:
            yield b""  # a piece has been read
            continue
        yield separator + msgspec.json.encode(
            {
                "time": epoch + event.at,
                "eventName": event.name,
                "eventId": event.last_id,
                "data": event.data,
            }
        )
        separator = b","


def _messages(exchange: CapturedExchange, epoch: float) -> Iterator[bytes]:
    separator = b""
    for message in exchange.messages:
        data = _message_text(message.kind, message.payload)
        yield separator + msgspec.json.encode(
            {
                "type": "send" if message.sent else "receive",
                "time": epoch + message.at,
                "opcode": message.kind,
                "data": data,
            }
        )
        separator = b","


def _message_text(kind: int, payload: bytes) -> str:
    if kind == TEXT:
        return payload.decode("utf-8", "replace")
    return b64encode(payload).decode("ascii")


def _headers(fields: list[RawHeader]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in pairs(fields)]


def _query(target: bytes) -> list[dict[str, str]]:
    query = text(target.partition(b"?")[2])
    try:
        found = parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS, errors="replace")
    except ValueError:
        return []
    return [{"name": name, "value": value} for name, value in found]


def url(exchange: CapturedExchange) -> str:
    """Return the URL that the client asked for, as a URI; the scheme is not known."""
    host = next(iter(values(exchange.request.fields, b"host")), b"")
    if not _HOST.fullmatch(host):
        host = b"localhost"
    return f"http://{host.decode('ascii')}{_quoted(exchange.head.target)}"


def _quoted(target: bytes) -> str:
    if not target.startswith(b"/"):
        scheme, separator, rest = target.partition(b"://")
        target = b"/" + (rest.partition(b"/")[2] if separator else scheme)
    return _FOREIGN.sub(lambda match: b"%%%02X" % match[0][0], target).decode("ascii")
