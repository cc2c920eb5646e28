"""Proxy without sockets: one client, an upstream read by h11, and a clock that only the test advances."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from stream_proxy.downstream.site import ProxySite
from stream_proxy.flows.resource import ProxyResource
from stream_proxy.request_log import RequestLog
from stream_proxy.upstream.connection import UpstreamConnection
from tests.support.strict import Got, StrictServer


class Wire(StringTransport):
    """A transport without a socket; like a real one, it tolerates calls in any order."""

    def __init__(self) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "127.0.0.1", 1), lenient=True)
        self.ended = False

    def unregisterProducer(self) -> None:
        self.producer = None

    def stopProducing(self) -> None:
        self.loseConnection()

    def take(self) -> bytes:
        """Return the bytes written since the last call."""
        data = bytes(self.value())
        self.clear()
        return data

    def end(self, protocol: Any) -> None:
        """Close the connection, once."""
        if not self.ended:
            self.ended = True
            protocol.connectionLost(Failure(ConnectionDone()))


class _Link:
    """One connection from the proxy to a strict upstream."""

    def __init__(self, first: bytes | None, protocol: UpstreamConnection) -> None:
        self.server = StrictServer(first)
        self.wire = Wire()
        self.protocol = protocol
        self._responses = b""
        self.protocol.makeConnection(cast(Any, self.wire))

    def move(self) -> bool:
        """Carry bytes both ways, and report whether anything happened."""
        if self.wire.ended:
            return False
        written = self.wire.take()
        if written:
            self._responses += self.server.feed(written)
        moved = bool(written)
        if self._responses and self.wire.producerState == "producing":
            responses, self._responses, moved = self._responses, b"", True
            self.protocol.dataReceived(responses)
        if self.wire.disconnecting or (self.server.closing and not self._responses):
            self.wire.end(self.protocol)
            moved = True
        return moved


class MemoryEndpoint:
    """Endpoint that connects to strict upstreams.

    :param first: the response to the first request on the first connection.
    """

    def __init__(self, first: bytes | None) -> None:
        self._first = first
        self.links: list[_Link] = []

    def connect(self, factory: Any) -> Deferred[UpstreamConnection]:
        """Stand in for the method of an endpoint."""
        first, self._first = self._first, None
        self.links.append(_Link(first, factory.buildProtocol(None)))
        return succeed(self.links[-1].protocol)


class MemoryProxy:
    """A proxy between one client and a strict upstream.

    :param first: the upstream's response to the first request; if ``None``, that repeats the request.
    """

    def __init__(self, first: bytes | None = None) -> None:
        self.clock = Clock()
        self.endpoint = MemoryEndpoint(first)
        self.bugs: list[Failure] = []
        log = RequestLog(observer=cast(Any, self._observe))
        resource = ProxyResource("http://upstream.example", reactor=self.clock, log=log)
        resource.upstream._connections.endpoint = self.endpoint  # type: ignore[assignment]
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
        """Send bytes as the client, and carry everything that follows."""
        self._unsent += data
        while self._move():
            pass

    def _move(self) -> bool:
        moved = False
        if self._unsent and not self.wire.ended and self.wire.producerState == "producing":
            data, self._unsent, moved = self._unsent, b"", True
            self.channel.dataReceived(data)
        for link in self.endpoint.links:
            moved = link.move() or moved
        self.clock.advance(0)
        self.answered += self.wire.take()
        if self.wire.disconnecting and not self.wire.ended:
            self.wire.end(self.channel)
            moved = True
        return moved

    def leave(self) -> None:
        """Disconnect the client."""
        self.wire.end(self.channel)
        while self._move():
            pass

    @property
    def requests(self) -> list[Got]:
        """The requests that the upstream received, over all connections."""
        return [got for link in self.endpoint.links for got in link.server.requests]

    @property
    def errors(self) -> list[str]:
        """What the upstream received that is not HTTP."""
        return [link.server.error for link in self.endpoint.links if link.server.error is not None]
