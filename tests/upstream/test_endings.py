"""Tests of how connections to upstreams end, and of when one is not used again."""

from __future__ import annotations

import gc
import select
import weakref
from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import UNKNOWN_LENGTH

from stream_proxy.http.access import Access
from stream_proxy.http.headers import RawHeader
from stream_proxy.http.url import parse_upstream_url
from stream_proxy.transport.eager_write import tcp_connection
from stream_proxy.transport.tuning import has_unread
from stream_proxy.upstream.client import Upstream
from stream_proxy.upstream.connection import CLOSE_SECONDS, Request, State, UpstreamConnection
from stream_proxy.upstream.upload import SLICE_BYTES
from tests.support.certificates import server_context, trust
from tests.support.flood import MIB
from tests.support.loopback import LoopbackTestCase, Script, reactor, turns
from tests.support.loopback import Upstream as Server
from tests.support.wire import Stream, read_head, read_request, respond
from tests.upstream.test_connection import Kept, Producer, Told

REFUSAL = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"
CLOSE = [("Connection", "close")]


class EndTests(SynchronousTestCase):
    """Connections whose response is whole, without sockets."""

    def setUp(self) -> None:
        self.kept, self.told = Kept(), Told()
        self.transport = StringTransport()
        self.connection = UpstreamConnection(self.kept, "http://upstream")
        self.connection.makeConnection(self.transport)

    def send(self, body: Any = None) -> None:
        """Send a request."""
        self.connection.send(Request(b"", body, False), self.told)

    def end(self) -> None:
        """End the connection, and check that this leaves no timer."""
        self.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.kept.clock.getDelayedCalls(), [])

    def test_body_at_hand(self) -> None:
        """A large body that is at hand is let go, and its connection dropped, when the response is whole."""
        self.send(bytes(SLICE_BYTES * 2))
        self.assertIsNotNone(self.transport.producer)
        self.connection.dataReceived(REFUSAL)
        self.assertIsNone(self.transport.producer)
        self.assertTrue(self.transport.disconnected)
        self.assertEqual((self.kept.connections, self.kept.clock.getDelayedCalls()), ([], []))

    def test_body_produced(self) -> None:
        """A body that is still being produced has a second."""
        producer = Producer(UNKNOWN_LENGTH)
        self.send(producer)
        self.connection.dataReceived(REFUSAL)
        self.kept.clock.advance(CLOSE_SECONDS / 2)
        producer.consumer.write(b"more")
        self.assertIn(b"more", self.transport.value())
        self.assertEqual((producer.stopped, self.transport.disconnected), (False, False))
        self.kept.clock.advance(CLOSE_SECONDS / 2)
        self.assertEqual((producer.stopped, self.transport.disconnected), (True, True))
        self.end()

    def test_close(self) -> None:
        """A connection that is not kept is closed in order, and dropped if that takes a second."""
        self.send()
        self.connection.dataReceived(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual((self.transport.disconnecting, self.transport.disconnected), (True, False))
        self.kept.clock.advance(CLOSE_SECONDS)
        self.assertTrue(self.transport.disconnected)
        self.end()

    def test_close_in_time(self) -> None:
        """The limit is gone as soon as the connection is."""
        self.send()
        self.connection.dataReceived(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(len(self.kept.clock.getDelayedCalls()), 1)
        self.end()

    def test_unasked(self) -> None:
        """An idle connection that bytes come on is dropped, and its keeper forgets it."""
        self.send()
        self.connection.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(self.kept.connections, [self.connection])
        self.connection.dataReceived(b"HTTP/1.1 408 Timeout\r\n\r\n")
        self.assertEqual((self.kept.connections, self.connection.state), ([], State.ENDING))


class BrokenAccess(Access):
    """Access whose judgement of a response fails."""

    def answer_headers(self, headers: Iterable[RawHeader]) -> list[RawHeader]:
        raise RuntimeError("a bug")


class AskedTests(SynchronousTestCase):
    """Requests on a connection that has been used before, without sockets."""

    def ask(self, body: bytes | None, access: Access | None = None) -> None:
        """Send a request on a kept connection."""
        self.clock = Clock()
        self.connects = connects = [0]

        class Endpoint:
            def connect(self, factory: object) -> Deferred[Any]:
                connects[0] += 1
                return Deferred()

        url = parse_upstream_url("http://127.0.0.1:1")
        upstream = self.upstream = Upstream(self.clock, url, access=access)
        connections = upstream._connections
        connections.endpoint = Endpoint()  # type: ignore[assignment]
        self.transport: Any = StringTransport()
        self.told = Told()
        self.connection = UpstreamConnection(connections, "http://upstream")
        self.connection.makeConnection(self.transport)
        self.connection.requests = 1
        connections.keep(self.connection)
        self.asking = upstream.ask(b"POST", b"/", [], body, self.told)

    def test_stale_after_upload(self) -> None:
        """A connection that ends within a second of the last byte of a slow upload was stale."""
        self.ask(bytes(SLICE_BYTES * 2))
        self.clock.advance(5)
        for _ in range(2):
            self.transport.producer.resumeProducing()
        self.clock.advance(1)
        self.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((self.connects, self.told.failures), ([1], []))
        self.asking.cancel()

    def test_ended_after_upload(self) -> None:
        """One that ends later was not; nor one that ends within an upload, after more than a second."""
        for slices in (2, 1):
            self.ask(bytes(SLICE_BYTES * 2))
            for _ in range(slices):
                self.transport.producer.resumeProducing()
            self.clock.advance(1.5)
            self.connection.connectionLost(Failure(ConnectionDone()))
            self.assertEqual((self.connects, len(self.told.failures)), ([0], 1))

    def test_bug(self) -> None:
        """An asker is told of a failure in the judgement of its response, whose connection is dropped."""
        self.ask(None, BrokenAccess())
        self.connection.dataReceived(REFUSAL)
        [failure] = self.told.failures
        failure.trap(RuntimeError)
        self.assertEqual((self.told.responses, self.transport.disconnected), ([], True))
        self.assertFalse(self.asking.active)
        self.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.upstream._connections.slots.in_use, 0)


class PlainTests(LoopbackTestCase):
    """Connections over sockets, here plain ones."""

    tls = False

    async def serve(self, script: Script) -> None:
        """Start a server and our client for it."""
        trust(self)
        self.server: Server = await self.upstream(script, server_context("127.0.0.1") if self.tls else None)
        self.client_side = Upstream(reactor, parse_upstream_url(self.server.url))
        self.addCleanup(self.client_side.close)

    @property
    def connections(self) -> list[Any]:
        """Our connections that have not ended."""
        return list(self.client_side._connections.paths._paths)

    async def ask(self, body: Any = None) -> int:
        """Send a request, and return the status of its response, whose body is read."""
        response = await self.client_side.request(b"POST", b"/", [], body)
        response.start(Ignored())
        await turns(5)
        return response.status

    async def test_early_response(self) -> None:
        """The connection of a server that refuses a large body, reads no more of it and stays is dropped.

        It is freed without the cycle collector, and the body with it.
        """
        ours: list[weakref.ref[Any]] = []

        async def script(stream: Stream) -> None:
            await read_head(stream)
            ours.extend(map(weakref.ref, self.connections))
            stream.transport.pauseProducing()
            stream.write(REFUSAL)

        await self.serve(script)
        gc.disable()
        self.addCleanup(gc.enable)
        self.assertEqual(await self.ask(bytes(16 * MIB)), 413)
        self.assertEqual((self.connections, [one() for one in ours]), ([], [None]))

    async def test_unsent(self) -> None:
        """A connection that holds a part of its request is not kept when the response is whole."""
        go: Deferred[None] = Deferred()

        async def script(stream: Stream) -> None:
            await read_head(stream)
            stream.transport.pauseProducing()
            await go
            stream.write(REFUSAL)

        await self.serve(script)
        producer = Producer(UNKNOWN_LENGTH)
        asked = Deferred.fromCoroutine(self.ask(producer))
        while not self.server.connections or not self.connections:
            await turns(1)
        producer.consumer.write(bytes(16 * MIB))
        producer.produced.callback(None)
        go.callback(None)
        self.assertEqual(await asked, 413)
        self.assertEqual((self.connections, self.client_side._connections.pool.count), ([], 0))

    async def test_unread(self) -> None:
        """A kept connection with unread bytes is not used again, as they would be taken for the response."""

        async def script(stream: Stream) -> None:
            while True:
                await read_request(stream)
                respond(stream, 200, b"real")

        await self.serve(script)
        self.assertEqual(await self.ask(), 200)
        [connection] = self.connections
        self.assertTrue(connection.usable)
        below: Any = tcp_connection(connection.transport)
        below.stopReading()
        respond(self.server.connections[0], 408, b"unasked")
        while not select.select([below.getHandle()], [], [], 0)[0]:
            await turns(1)
        self.assertEqual(await self.ask(), 200)
        self.assertEqual(len(self.server.connections), 2)

    async def test_closing(self) -> None:
        """A kept connection that is being closed below its protocol is not used again."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            respond(stream, 200, b"")

        await self.serve(script)
        await self.ask()
        [connection] = self.connections
        below: Any = tcp_connection(connection.transport)
        self.assertFalse(has_unread(connection.transport))
        below.loseConnection()
        self.assertEqual((connection.usable, connection.is_gone), (False, False))


class TLSTests(PlainTests):
    """The same over TLS, where a close has an answer."""

    tls = True

    async def test_no_close(self) -> None:
        """A connection that is not kept is dropped after a second without the server's close."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.transport.pauseProducing()
            respond(stream, 200, b"", CLOSE)

        await self.serve(script)
        clock: Any = Clock()
        self.client_side._connections.clock = clock
        self.assertEqual(await self.ask(), 200)
        self.assertEqual([one.state for one in self.connections], [State.ENDING])
        clock.advance(CLOSE_SECONDS)
        await turns(5)
        self.assertEqual((self.connections, clock.getDelayedCalls()), ([], []))


class Ignored:
    """Sink for a body that does not matter."""

    def body_received(self, data: bytes) -> None: ...

    def body_ended(self, error: object) -> None: ...
