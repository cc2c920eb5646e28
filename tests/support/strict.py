"""HTTP as h11 reads it, which takes nothing that the standard does not allow; and a proxy without sockets.

What h11 finds on either wire of the proxy is compared with what was meant.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

import h11
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from stream_proxy.downstream.site import ProxySite
from stream_proxy.flows.resource import ProxyResource
from stream_proxy.request_log import RequestLog
from stream_proxy.upstream.connection import UpstreamProtocol

_MOST_HEAD = 2**20


def _is_pause(event: object) -> bool:
    return event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed)


@dataclass(frozen=True)
class Got:
    """One request, as h11 read it."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def __str__(self) -> str:
        return f"{self.method} {self.target} {self.body.decode('latin-1')}".rstrip()

    @property
    def wants_events(self) -> bool:
        """Whether it is a converted one."""
        return ("accept", "text/event-stream") in self.headers


class StrictServer:
    """The upstream's end of one connection. It answers each request with what it read in it.

    :param first: what it answers to the first instead.
    """

    def __init__(self, first: bytes | None = None) -> None:
        self._first = first
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MOST_HEAD)
        self._head: h11.Request | None = None
        self._body = bytearray()
        self.requests: list[Got] = []
        #: Why what came is no HTTP, if so.
        self.error: str | None = None
        #: No other request can follow.
        self.closing = False

    def feed(self, data: bytes) -> bytes:
        """What it answers to these bytes."""
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
                    out += self._answer()
                    if connection.our_state is not h11.DONE:
                        self.closing = True
                        break
                    connection.start_next_cycle()
        except h11.RemoteProtocolError as error:
            self.error, self.closing = str(error), True
        return out

    def _answer(self) -> bytes:
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
        answer = b"".join(self._connection.send(event) or b"" for event in events)
        if self._first is not None:
            answer, self._first = self._first, None
        return answer


@dataclass(frozen=True)
class Answer:
    """One answer, as h11 read it."""

    status: int
    body: bytes
    #: Whether the body came to the end that its framing promises.
    complete: bool


def read_answers(data: bytes, *, closed: bool, methods: tuple[str, ...] = ()) -> list[Answer]:
    """The answers on a client's wire.

    :param closed: the connection has ended.
    :param methods: of the requests that they answer; ``GET`` where there are more answers.
    :raises h11.RemoteProtocolError: for what is no HTTP.
    """
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_HEAD)
    connection.receive_data(data)
    answers: list[Answer] = []
    while connection.trailing_data[0]:
        method = methods[len(answers)] if len(answers) < len(methods) else "GET"
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        connection.send(h11.EndOfMessage())
        answer = _read_answer(connection, closed)
        answers.append(answer)
        if connection.their_state is not h11.DONE or connection.our_state is not h11.DONE:
            break
        connection.start_next_cycle()
    return answers


def _read_answer(connection: h11.Connection, closed: bool) -> Answer:
    status, body, told = 0, bytearray(), not closed
    while True:
        try:
            event = connection.next_event()
            if event is h11.NEED_DATA and not told:
                told = True
                connection.receive_data(b"")
                continue
        except h11.RemoteProtocolError:
            if status and told and closed:
                return Answer(status, bytes(body), False)
            raise
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status, bytes(body), True)
        elif event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
            return Answer(status, bytes(body), False)


class Wire(StringTransport):
    """A transport without a socket, which is as patient as a real one."""

    def __init__(self) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "127.0.0.1", 1), lenient=True)
        self.ended = False

    def unregisterProducer(self) -> None:
        self.producer = None

    def stopProducing(self) -> None:
        self.loseConnection()

    def take(self) -> bytes:
        """What has been written since the last time."""
        data = bytes(self.value())
        self.clear()
        return data

    def end(self, protocol: Any) -> None:
        """The connection is closed."""
        if not self.ended:
            self.ended = True
            protocol.connectionLost(Failure(ConnectionDone()))


class _Link:
    """One connection from the proxy to a strict upstream."""

    def __init__(self, pool: MemoryPool) -> None:
        self.server = StrictServer(pool.first)
        pool.first = None
        self.wire = Wire()
        self.protocol = UpstreamProtocol(pool.idle.append)
        self.answers = b""
        self.protocol.makeConnection(cast(Any, self.wire))

    def move(self) -> bool:
        """Carry bytes; whether there were any."""
        if self.wire.ended:
            return False
        written = self.wire.take()
        if written:
            self.answers += self.server.feed(written)
        moved = bool(written)
        if self.answers and self.wire.producerState == "producing":
            answers, self.answers, moved = self.answers, b"", True
            self.protocol.dataReceived(answers)
        if self.wire.disconnecting or (self.server.closing and not self.answers):
            self.wire.end(self.protocol)
            moved = True
        return moved


class MemoryPool:
    """Connections to strict upstreams, kept for reuse.

    :param first: what the first request on the first one is answered with.
    """

    persistent = True

    def __init__(self, first: bytes | None) -> None:
        self.first = first
        self.idle: list[UpstreamProtocol] = []
        self.links: list[_Link] = []

    def getConnection(self, key: object, endpoint: object) -> Deferred[UpstreamProtocol]:
        """As HTTPConnectionPool's."""
        while self.idle:
            kept = self.idle.pop()
            if kept.state == "QUIESCENT":
                return succeed(kept)
        return self._newConnection(key, endpoint)

    def _newConnection(self, key: object, endpoint: object) -> Deferred[UpstreamProtocol]:
        self.links.append(_Link(self))
        return succeed(self.links[-1].protocol)

    def closeCachedConnections(self) -> Deferred[None]:
        """As HTTPConnectionPool's."""
        return succeed(None)


class MemoryProxy:
    """A proxy with one client, between them and the upstream no socket, and no time that passes.

    :param first: what the upstream answers to the first request; ``None``: what it read in it.
    """

    def __init__(self, first: bytes | None = None) -> None:
        self.clock = Clock()
        self.pool = MemoryPool(first)
        self.bugs: list[Failure] = []
        log = RequestLog(observer=cast(Any, self._observe))
        resource = ProxyResource(
            "http://upstream.example", reactor=self.clock, pool=cast(Any, self.pool), log=log
        )
        self.site = ProxySite(resource, reactor=self.clock)
        self.channel: Any = self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        self.wire = Wire()
        self.channel.makeConnection(self.wire)
        self.answered = b""
        self._unsent = b""

    def _observe(self, event: dict[str, Any]) -> None:
        if "log_failure" in event:
            self.bugs.append(event["log_failure"])

    def send(self, data: bytes) -> None:
        """Let the client send this, and everybody answer."""
        self._unsent += data
        while self._move():
            pass

    def _move(self) -> bool:
        moved = False
        if self._unsent and not self.wire.ended and self.wire.producerState == "producing":
            data, self._unsent, moved = self._unsent, b"", True
            self.channel.dataReceived(data)
        for link in self.pool.links:
            moved = link.move() or moved
        self.clock.advance(0)
        self.answered += self.wire.take()
        if self.wire.disconnecting and not self.wire.ended:
            self.wire.end(self.channel)
            moved = True
        return moved

    def leave(self) -> None:
        """The client goes."""
        self.wire.end(self.channel)
        while self._move():
            pass

    @property
    def requests(self) -> list[Got]:
        """What the upstream got, over all connections."""
        return [got for link in self.pool.links for got in link.server.requests]

    @property
    def errors(self) -> list[str]:
        """What the upstream got that is no HTTP."""
        return [link.server.error for link in self.pool.links if link.server.error is not None]
