"""Site and channel on their own: clients that are slow, silent or idle."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, _IdentityTransferDecoder
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import alsoProvides

from stream_proxy.downstream.channel import DownstreamChannel
from stream_proxy.downstream.request import ProxyRequest
from stream_proxy.downstream.response import respond_error
from stream_proxy.downstream.site import ProxySite
from stream_proxy.errors import APIError, upstream_error
from stream_proxy.limits import Limits
from tests.support.loopback import LoopbackTestCase, reactor
from tests.support.wire import Message, read_response

CLIENT_IDLE_SECONDS = Limits().client_idle_seconds


class IdleTests(LoopbackTestCase):
    """Idle client connections, which are kept for a limited time."""

    def channel(self, resource: Resource | None = None) -> tuple[DownstreamChannel, Any, Clock]:
        """Return a connection without a socket, under a clock that only the test advances."""
        clock = Clock()
        site = ProxySite(resource or Resource(), reactor=clock)
        channel: Any = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        transport: Any = StringTransport()
        transport.abortConnection = transport.loseConnection
        channel.makeConnection(transport)
        return channel, transport, clock

    def test_idle(self) -> None:
        """An idle connection is closed after ``clientIdleSeconds``, not before."""
        _, transport, clock = self.channel()
        clock.advance(CLIENT_IDLE_SECONDS - 1)
        self.assertFalse(transport.disconnecting)
        clock.advance(1)
        self.assertTrue(transport.disconnecting)

    def test_idle_after_requests(self) -> None:
        """The same holds after a request, with and without an upload."""

        class Echo(Resource):
            isLeaf = True
            streamsUploads = True

            def render(self, request: Request) -> int:
                waiting.append(request)
                return NOT_DONE_YET

        for framing in (b"\r\n", b"Content-Length: 3\r\n\r\nabc"):
            waiting: list[Request] = []
            channel, transport, clock = self.channel(Echo())
            channel.dataReceived(b"POST / HTTP/1.1\r\nHost: x\r\n" + framing)
            clock.advance(10 * CLIENT_IDLE_SECONDS)
            self.assertFalse(transport.disconnecting)
            waiting[0].finish()
            clock.advance(CLIENT_IDLE_SECONDS - 1)
            self.assertFalse(transport.disconnecting)
            clock.advance(1)
            self.assertTrue(transport.disconnecting, framing)

    def test_upload_is_not_idle(self) -> None:
        """During an upload its reader watches the time, not the connection's idle timer."""

        class Wait(Resource):
            isLeaf = True
            streamsUploads = True

            def render(self, request: Request) -> int:
                return NOT_DONE_YET

        channel, transport, clock = self.channel(Wait())
        channel.dataReceived(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na")
        clock.advance(10 * CLIENT_IDLE_SECONDS)
        self.assertFalse(transport.disconnecting)

    def test_closing_is_bounded(self) -> None:
        """A client that does not read the rest of its response is finally disconnected."""

        class Ok(Resource):
            isLeaf = True

            def render(self, request: Request) -> bytes:
                return b"ok"

        channel, transport, clock = self.channel(Ok())
        transport.loseConnection = lambda: None
        dropped: list[None] = []
        transport.abortConnection = lambda: dropped.append(None)
        channel.dataReceived(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        clock.advance(CLIENT_IDLE_SECONDS)
        self.assertEqual(dropped, [None])

    def test_turn_by_turn(self) -> None:
        """Of requests that come at once and are answered at once, each has a turn of the reactor."""

        class Answer(Resource):
            isLeaf = True

            def render(self, request: Request) -> bytes:
                answered.append(request.uri)
                return b"ok"

        for body in (b"", b"abc"):
            answered: list[bytes] = []
            channel, transport, clock = self.channel(Answer())
            head = b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
            flood = b"".join(head % (number, len(body)) + body for number in range(5))
            channel.dataReceived(flood[:-4])
            self.assertEqual((len(answered), transport.producerState), (1, "paused"))
            for count in (2, 3, 4):
                call = clock.calls.pop(0)  # advance would run all the turns
                call.func(*call.args)
                self.assertEqual(len(answered), count)
            clock.advance(0)
            self.assertEqual(transport.producerState, "producing")
            channel.dataReceived(flood[-4:])
            self.assertEqual(answered, [b"/%d" % number for number in range(5)])
            self.assertEqual(
                [call for call in clock.getDelayedCalls() if call.getTime() == clock.seconds()], []
            )

    def test_waiting_in_turn(self) -> None:
        """While a request whose turn has come waits for its response, the connection is read: it may end."""

        class Wait(Resource):
            isLeaf = True

            def render(self, request: Request) -> int | bytes:
                return NOT_DONE_YET if request.uri == b"/1" else b"ok"

        channel, transport, clock = self.channel(Wait())
        requests = [b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(3)]
        channel.dataReceived(b"".join(requests))
        self.assertEqual(transport.producerState, "paused")
        clock.advance(0)
        self.assertEqual((len(channel.requests), transport.producerState), (1, "producing"))

    def test_turns_end(self) -> None:
        """Nothing of what waits for its turn is left when the connection closes or is lost."""

        class Close(Resource):
            isLeaf = True

            def render(self, request: Request) -> bytes:
                answered.append(request.uri)
                return b"ok"

        last = b"GET /1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        for requests, lost, count in ((last, False, 2), (b"", True, 1), (b"\0 \r\n\r\n", False, 1)):
            answered: list[bytes] = []
            channel, transport, clock = self.channel(Close())
            channel.dataReceived(
                b"GET /0 HTTP/1.1\r\nHost: x\r\n\r\n" + requests + b"GET /2 HTTP/1.1\r\nHost: x\r\n\r\n"
            )
            if lost:
                channel.connectionLost(Failure(ConnectionDone()))
                self.assertEqual(clock.getDelayedCalls(), [])
            clock.advance(0)
            clock.advance(0)
            self.assertEqual(len(answered), count)
            self.assertEqual(transport.disconnecting, not lost)

    def lingering(self) -> tuple[DownstreamChannel, list[str], Clock]:
        """Return a connection that was half-closed after a response before the end of its upload."""

        class Refuse(Resource):
            isLeaf = True
            streamsUploads = True

            def render(self, request: Request) -> bytes:
                return b"no"

        channel, transport, clock = self.channel(Refuse())
        alsoProvides(transport, IHalfCloseableDescriptor)
        calls: list[str] = []
        transport.loseWriteConnection = lambda: calls.append("half-closed")
        transport.loseConnection = lambda: calls.append("closed")
        transport.abortConnection = lambda: calls.append("dropped")
        channel.dataReceived(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\nfirst")
        self.assertEqual(calls, ["half-closed"])
        return channel, calls, clock

    def test_silent_linger(self) -> None:
        """A client that neither finishes a refused upload nor closes is disconnected after 5 seconds.

        The close is orderly, so that the client can still read the response.
        """
        channel, calls, clock = self.lingering()
        clock.advance(4)
        channel.dataReceived(b"more")
        clock.advance(4)
        self.assertEqual(calls, ["half-closed"])
        clock.advance(1)
        self.assertEqual(calls, ["half-closed", "closed"])

    def test_endless_linger(self) -> None:
        """A client that keeps sending after a refusal is disconnected after 30 seconds."""
        channel, calls, clock = self.lingering()
        for _ in range(29):
            clock.advance(1)
            channel.dataReceived(b"more")
        self.assertEqual(calls, ["half-closed"])
        clock.advance(1)
        self.assertEqual(calls, ["half-closed", "dropped"])


class ErrorResponseTests(LoopbackTestCase):
    """Errors of ours, combined with fields of the upstream."""

    async def answered(self, error: APIError, headers: list[tuple[bytes, bytes]]) -> Message:
        class Failing(Resource):
            isLeaf = True

            def render(self, request: Request) -> int:
                respond_error(request, error, headers)
                return NOT_DONE_YET

        site = ProxySite(Failing(), reactor=reactor)
        port = await self.listen(site)
        response = await self.request(port, "GET", "/")
        await site.drain(0)
        return response

    async def test_should_retry(self) -> None:
        """If an error states whether to retry, the upstream's own field for that is dropped."""
        error = upstream_error("no")
        response = await self.answered(error, [(b"x-should-retry", b"true"), (b"x-request-id", b"1")])
        self.assertEqual((response.get("x-should-retry"), response.get("x-request-id")), ("true", "1"))
        self.assertEqual((response.status, response.line), (502, "HTTP/1.1 502 Bad Gateway"))


class MemoryTests(LoopbackTestCase):
    """What a connection takes."""

    async def test_attributes(self) -> None:
        """A connection's dictionary has few attributes; CPython shares the names of up to 30 or so."""

        class Ok(Resource):
            isLeaf = True

            def render(self, request: Request) -> bytes:
                return b"ok"

        site = ProxySite(Ok(), reactor=reactor)
        port = await self.listen(site)
        clients = [await self.client(port) for _ in range(2)]
        for request in (
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nCookie: a=b\r\n\r\n",  # which is read line by line
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
        ):
            for client in clients:
                client.write(request)
                await read_response(client)
        self.assertEqual(len(site.channels), 2)
        names = {name for channel in site.channels for name in vars(channel)}
        self.assertLess(len(names), 26, sorted(names))
        await site.drain(0)


class TwistedTests(LoopbackTestCase):
    """Undocumented properties of Twisted that the site and the channel depend on."""

    def test_channel(self) -> None:
        """HTTPChannel has these private attributes."""
        channel = HTTPChannel()
        self.assertEqual((channel._transferDecoder, channel._dataBuffer, channel.requests), (None, [], []))
        for name in (
            "_savedTimeOut",
            "_receivedHeaderSize",
            "_receivedHeaderCount",
            "_handlingRequest",
            "_respondToBadRequestAndDisconnect",
            "maxHeaders",
            "totalHeadersSize",
        ):
            self.assertTrue(hasattr(channel, name), name)

    async def test_upload_hooks(self) -> None:
        """A channel calls a request with a body in this order: length, pieces, end."""
        calls: list[str] = []

        class Recording(ProxyRequest):
            def gotLength(self, length: int | None) -> None:
                channel: Any = self.channel
                calls.append(f"length {length} {channel._command} {channel._path} {channel._version}")
                assert isinstance(channel._transferDecoder, _IdentityTransferDecoder)
                super().gotLength(length)

            def handleContentChunk(self, data: bytes) -> None:
                calls.append(f"piece {data!r}")
                super().handleContentChunk(data)

            def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
                calls.append("end")
                super().requestReceived(command, path, version)

        class Ok(Resource):
            isLeaf = True

            def render(self, request: Request) -> bytes:
                return b"ok"

        site = ProxySite(Ok(), reactor=reactor)
        site.requestFactory = Recording
        port = await self.listen(site)
        client = await self.client(port)
        client.write(b"POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc")
        await client.rest()
        self.assertEqual(calls, ["length 3 b'POST' b'/x' b'HTTP/1.1'", "piece b'abc'", "end"])
        await site.drain(0)
