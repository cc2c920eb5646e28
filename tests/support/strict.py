"""HTTP as read by h11, which accepts nothing that the standard forbids.

Tests compare what h11 reads on both legs of the proxy with what was sent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import h11

_MAX_HEAD_BYTES = 2**20


def _is_pause(event: object) -> bool:
    return event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed)


@dataclass(frozen=True)
class Got:
    """One request, as read by h11."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def __str__(self) -> str:
        return f"{self.method} {self.target} {self.body.decode('latin-1')}".rstrip()

    @property
    def wants_events(self) -> bool:
        """Whether the proxy has turned this call into a streaming one."""
        return ("accept", "text/event-stream") in self.headers


class StrictServer:
    """The upstream's end of one connection. Each response repeats the request as h11 read it.

    :param first: the response to the first request instead.
    """

    def __init__(self, first: bytes | None = None) -> None:
        self._first = first
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
        self._head: h11.Request | None = None
        self._body = bytearray()
        self.requests: list[Got] = []
        #: Why the received bytes are not HTTP, once they are not.
        self.error: str | None = None
        #: Whether the connection accepts no further request.
        self.closing = False

    def feed(self, data: bytes) -> bytes:
        """Read these bytes and return the responses to them."""
        if self.closing:
            return b""
        connection, out = self._connection, b""
        try:
            connection.receive_data(data)
            while not _is_pause(event := connection.next_event()):
                if isinstance(event, h11.Request):
                    self._head, self._body = event, bytearray()
                elif isinstance(event, h11.Data):
                    self._body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    out += self._respond()
                    if connection.our_state is not h11.DONE:
                        self.closing = True
                        break
                    connection.start_next_cycle()
        except h11.RemoteProtocolError as error:
            self.error, self.closing = str(error), True
        return out

    def _respond(self) -> bytes:
        head = self._head
        assert head is not None
        fields = tuple((name.decode(), value.decode("latin-1")) for name, value in head.headers)
        got = Got(head.method.decode(), head.target.decode(), fields, bytes(self._body))
        self.requests.append(got)
        text, media = str(got).encode("latin-1"), "text/plain"
        if got.wants_events:
            chunk = {"choices": [{"index": 0, "delta": {"content": got.target}, "finish_reason": "stop"}]}
            text, media = b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(chunk).encode(), "text/event-stream"
        response = h11.Response(
            status_code=200, headers=[("Content-Length", str(len(text))), ("Content-Type", media)]
        )
        events: list[Any] = [response, h11.Data(data=text), h11.EndOfMessage()]
        if got.method == "HEAD":
            del events[1]
        sent = b"".join(self._connection.send(event) or b"" for event in events)
        if self._first is not None:
            sent, self._first = self._first, None
        return sent


@dataclass(frozen=True)
class Response:
    """One response, as read by h11."""

    status: int
    body: bytes
    #: Whether the body reached the end that its framing announced.
    complete: bool


def read_responses(data: bytes, *, closed: bool, methods: tuple[str, ...] = ()) -> list[Response]:
    """Read the responses in the bytes that a client received.

    :param closed: the connection has ended.
    :param methods: the requests' methods; ``GET`` is assumed for further responses.
    :raises h11.RemoteProtocolError: if the bytes are not HTTP.
    """
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
    connection.receive_data(data)
    responses: list[Response] = []
    while connection.trailing_data[0]:
        method = methods[len(responses)] if len(responses) < len(methods) else "GET"
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        connection.send(h11.EndOfMessage())
        responses.append(_read_response(connection, closed))
        if connection.their_state is not h11.DONE or connection.our_state is not h11.DONE:
            break
        connection.start_next_cycle()
    return responses


def _read_response(connection: h11.Connection, closed: bool) -> Response:
    status, body, ended = 0, bytearray(), not closed
    while True:
        try:
            event = connection.next_event()
            if event is h11.NEED_DATA and not ended:
                ended = True
                connection.receive_data(b"")
                continue
        except h11.RemoteProtocolError:
            if status and ended and closed:
                return Response(status, bytes(body), False)
            raise
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return Response(status, bytes(body), True)
        elif event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
            return Response(status, bytes(body), False)
