"""Tests of our client's connections: what goes out, uploads, the pool, and requests without a Deferred."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web._newclient import RequestGenerationFailed
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError
from stream_proxy.http.url import parse_upstream_url
from stream_proxy.upstream.client import Upstream
from stream_proxy.upstream.connection import Request, State, UpstreamConnection
from stream_proxy.upstream.http1.request import UNKNOWN, request_head
from stream_proxy.upstream.pool import UpstreamPool
from stream_proxy.upstream.response import UpstreamResponse
from stream_proxy.upstream.upload import SLICE_BYTES
from tests.support.flood import MIB
from tests.support.loopback import LoopbackTestCase, reactor, turns
from tests.support.wire import Stream, read_head, read_request, respond


class RequestHeadTests(SynchronousTestCase):
    """Heads of requests."""

    def test_verbatim(self) -> None:
        """Method, target and fields go out as they are, repeated and in order."""
        fields = [(b"x-B", b"1"), (b"X-A", b""), (b"x-b", b"\t2\xff ")]
        self.assertEqual(
            request_head(b"pAtCh", b"/a|b?[]#f", b"h:1", None, fields),
            b"pAtCh /a|b?[]#f HTTP/1.1\r\nHost: h:1\r\nx-B: 1\r\nX-A: \r\nx-b: \t2\xff \r\n\r\n",
        )

    def test_framing(self) -> None:
        """The framing is that of the body; a POST and a PUT without one say so."""
        for method, length, framing in (
            (b"GET", None, b""),
            (b"POST", None, b"Content-Length: 0\r\n"),
            (b"PUT", None, b"Content-Length: 0\r\n"),
            (b"GET", 0, b"Content-Length: 0\r\n"),
            (b"POST", 5, b"Content-Length: 5\r\n"),
            (b"POST", UNKNOWN, b"Transfer-Encoding: chunked\r\n"),
        ):
            head = request_head(method, b"/", b"h", length, [])
            self.assertEqual(head, b"%b / HTTP/1.1\r\nHost: h\r\n%b\r\n" % (method, framing))

    def test_splitting(self) -> None:
        """Nothing that would end a line, or make one that is no field, can be sent."""
        good = (b"GET", b"/", [(b"A", b"b")])
        bad: list[tuple[bytes, bytes, list[tuple[bytes, bytes]]]] = [
            (b"GET /x", b"/", []),
            (b"", b"/", []),
            (b"GET", b"/ HTTP/1.1\r\nX: y\r\n\r\nGET /", []),
            (b"GET", b"/a b", []),
            (b"GET", b"", []),
            (b"GET", b"/\xff", []),
            *[
                (b"GET", b"/", [(b"A", value)])
                for value in (b"a\r\nB: c", b"a\nb", b"a\rb", b"a\0", b"\r\n\r\n")
            ],
            *[(b"GET", b"/", [(name, b"x")]) for name in (b"", b"A ", b"A\r\nB", b" A", b"\xe9")],
        ]
        request_head(good[0], good[1], b"h", None, good[2])
        for method, target, fields in bad:
            with self.assertRaises(ValueError, msg=(method, target, fields)):
                request_head(method, target, b"h", None, fields)


@implementer(IBodyProducer)
class Producer:
    """Body that the test writes."""

    def __init__(self, length: Any) -> None:
        self.length = length
        self.stopped = False
        self.produced: Deferred[None] = Deferred()

    def startProducing(self, consumer: Any) -> Deferred[None]:
        self.consumer = consumer
        return self.produced

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None:
        self.stopped = True


class Told:
    """Requester or asker that notes what it is told."""

    def __init__(self) -> None:
        self.responses: list[UpstreamResponse] = []
        self.failures: list[Failure] = []

    def uploaded(self) -> None: ...

    def upstream_step(self, step: str) -> None: ...

    def responded(self, response: UpstreamResponse) -> None:
        self.responses.append(response)

    def failed(self, failure: Failure) -> None:
        self.failures.append(failure)

    upstream_responded, upstream_failed = responded, failed


class Kept:
    """Keeper that notes what it keeps."""

    def __init__(self) -> None:
        self.connections: list[UpstreamConnection] = []
        self.clock: Any = Clock()

    def keep(self, connection: UpstreamConnection) -> None:
        self.connections.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        self.connections.remove(connection)


class UploadTests(SynchronousTestCase):
    """Bodies that a producer writes."""

    def setUp(self) -> None:
        self.kept, self.told = Kept(), Told()
        self.transport = StringTransport()
        self.connection = UpstreamConnection(self.kept, "http://upstream")
        self.connection.makeConnection(self.transport)

    def upload(self, length: Any) -> Producer:
        """Begin an upload."""
        producer = Producer(length)
        self.connection.send(Request(b"", producer, False), self.told)
        return producer

    def test_chunked(self) -> None:
        """A body of unknown length is chunked; an empty write does not end it."""
        producer = self.upload(UNKNOWN_LENGTH)
        for data in (b"a" * 17, b"", b"b"):
            producer.consumer.write(data)
        producer.produced.callback(None)
        self.assertEqual(self.transport.value(), b"11\r\n" + b"a" * 17 + b"\r\n1\r\nb\r\n0\r\n\r\n")
        self.assertIsNone(self.transport.producer)

    def test_length(self) -> None:
        """A producer that writes less or more than it promised fails the request."""
        for data, sent in ((b"abcd", b"abcd"), (b"abcdef", b"")):
            self.setUp()
            producer = self.upload(5)
            producer.consumer.write(data)
            producer.produced.callback(None)
            self.assertEqual(self.transport.value(), sent)
            [failure] = self.told.failures
            failure.trap(RequestGenerationFailed)
            self.assertTrue(self.transport.disconnected)

    def test_response_first(self) -> None:
        """After a response that was first, the upload goes on, and the connection is closed at its end."""
        producer = self.upload(5)
        self.connection.dataReceived(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
        [response] = self.told.responses
        self.assertEqual((response.status, self.kept.connections), (413, []))
        self.assertFalse(producer.stopped)
        producer.consumer.write(b"abcde")
        self.assertTrue(self.transport.disconnecting)
        response.hang_up()
        self.assertTrue(producer.stopped)

    def test_lost(self) -> None:
        """A connection that is lost stops the producer."""
        producer = self.upload(5)
        self.connection.connectionLost(Failure(ConnectionDone()))
        self.assertTrue(producer.stopped)
        self.assertEqual(len(self.told.failures), 1)


class SlicedTests(LoopbackTestCase):
    """Large bodies in memory."""

    async def test_whole(self) -> None:
        """A body of several slices arrives as it is, and the connection is used again."""
        bodies: list[bytes] = []

        async def script(stream: Stream) -> None:
            while True:
                bodies.append((await read_request(stream)).body)
                respond(stream, 200, b"")

        server = await self.upstream(script)
        upstream = Upstream(reactor, parse_upstream_url(server.url))
        self.addCleanup(upstream.close)
        sent = [bytes(range(256)) * 4096 + b"!", b"x" * SLICE_BYTES, b"y" * (SLICE_BYTES + 1)]
        for body in sent:
            response = await upstream.request(b"POST", b"/", [], body)
            self.assertEqual(response.status, 200)
            await turns(1)  # until the response has ended
        self.assertEqual(bodies, sent)
        self.assertEqual(len(server.connections), 1)

    async def test_response_first(self) -> None:
        """A response may come before the body is out; the connection is not used again."""

        async def script(stream: Stream) -> None:
            await read_head(stream)
            stream.transport.pauseProducing()
            respond(stream, 413, b"large")

        server = await self.upstream(script)
        upstream = Upstream(reactor, parse_upstream_url(server.url))
        self.addCleanup(upstream.close)
        response = await upstream.request(b"POST", b"/", [], bytes(32 * MIB))
        self.assertEqual(response.status, 413)
        response.hang_up()
        server.connections[0].transport.resumeProducing()
        await server.connections[0].gone()


class PoolTests(SynchronousTestCase):
    """Idle connections."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.pool = UpstreamPool(self.clock)

    def idle(self, key: str = "key") -> UpstreamConnection:
        """Return a connection that the pool keeps."""
        connection = UpstreamConnection(Kept(), "http://upstream")
        connection.makeConnection(StringTransport())
        self.pool.keep(key, connection)
        return connection

    def test_last_first(self) -> None:
        """The connection that was used last is used next; others are left to expire."""
        first, last = self.idle(), self.idle()
        self.assertIs(self.pool.take("key"), last)
        self.assertIs(self.pool.take("key"), first)
        self.assertIsNone(self.pool.take("key"))
        self.assertIsNone(self.pool.take("other"))

    def test_expires(self) -> None:
        """Each connection is dropped after 30 idle seconds, by one timer for all."""
        first = self.idle()
        self.clock.advance(20)
        second = self.idle("other")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(10)
        self.assertEqual((first.state, self.pool.count), (State.ENDING, 1))
        self.clock.advance(19)
        self.assertEqual(second.state, State.IDLE)
        self.clock.advance(1)
        self.assertEqual((second.state, self.pool.count, self.clock.getDelayedCalls()), (State.ENDING, 0, []))

    def test_bounds(self) -> None:
        """Of too many connections the longest idle are dropped."""
        self.pool.most_idle = 2
        connections = [self.idle() for _ in range(4)]
        self.assertEqual(self.pool.idle("key"), connections[2:])
        self.pool.trim("key", 1)
        self.assertEqual(self.pool.idle("key"), connections[3:])
        self.assertEqual({one.state for one in connections[:3]}, {State.ENDING})

    def test_lost(self) -> None:
        """A connection that has ended is neither kept nor used."""
        kept = Kept()
        connection = UpstreamConnection(kept, "http://upstream")
        connection.makeConnection(StringTransport())
        kept.keep(connection)
        connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((kept.connections, connection.usable), ([], False))
        one = self.idle()
        self.pool.forget("key", one)
        self.assertEqual((self.pool.count, self.clock.getDelayedCalls()), (0, []))

    def test_closed(self) -> None:
        """A closed pool keeps nothing."""
        first = self.idle()
        closing = self.pool.close()
        first.connectionLost(Failure(ConnectionDone()))
        self.successResultOf(closing)
        self.assertEqual((self.idle().state, self.pool.count), (State.ENDING, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class AskTests(SynchronousTestCase):
    """``Upstream.ask``."""

    def ask(self, result: Any, headers: Any = ()) -> tuple[Any, Told, Upstream]:
        """Ask an upstream where connecting has this result."""

        class Endpoint:
            def connect(self, factory: object) -> Any:
                return result

        upstream = Upstream(Clock(), parse_upstream_url("http://127.0.0.1:1"))
        upstream._connections.endpoint = Endpoint()  # type: ignore[assignment]
        told = Told()
        return upstream.ask(b"GET", b"/", headers, None, told), told, upstream

    def test_told_at_once(self) -> None:
        """An asker may be told before ``ask`` returns; then the request is no longer active."""
        asking, told, upstream = self.ask(fail(ConnectionRefusedError()))
        [failure] = told.failures
        error = failure.value
        assert isinstance(error, APIError)
        self.assertEqual((error.code, asking.active), (ErrorCode.UPSTREAM_REFUSED.code, False))
        self.assertEqual(upstream._connections.slots.in_use, 0)

    def test_cancelled(self) -> None:
        """A request that is cancelled tells nothing, and leaves neither slot nor timer."""
        connecting: Deferred[Any] = Deferred()
        asking, told, upstream = self.ask(connecting)
        self.assertTrue(asking.active)
        asking.cancel()
        self.assertEqual((asking.active, told.failures, told.responses), (False, [], []))
        self.assertEqual(upstream._connections.slots.in_use, 0)
        clock: Any = upstream._connections.clock
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_cannot_be_sent(self) -> None:
        """Fields that would split the request are refused before anything is opened."""
        upstream = Upstream(Clock(), parse_upstream_url("http://127.0.0.1:1"))
        field = (b"X", b"a\r\nY: b")
        with self.assertRaises(ValueError):
            upstream.ask(b"GET", b"/", [field], None, Told())
        self.failureResultOf(upstream.request(b"GET", b"/", [field], None), ValueError)
        self.assertEqual(upstream._connections.slots.in_use, 0)

    def test_deferred_cancelled(self) -> None:
        """Cancelling the Deferred of ``request`` is a cancellation, and nothing else."""
        upstream = Upstream(Clock(), parse_upstream_url("http://127.0.0.1:1"))

        class Endpoint:
            def connect(self, factory: object) -> Any:
                return Deferred()

        upstream._connections.endpoint = Endpoint()  # type: ignore[assignment]
        asking = upstream.request(b"GET", b"/", [], None)
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertEqual(upstream._connections.slots.in_use, 0)
