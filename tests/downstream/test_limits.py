"""Limits on what clients may use: the size and time of heads, and the time of buffered bodies."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.error import ConnectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from stream_proxy import ProxyResource, ProxySite
from stream_proxy.downstream.channel import DownstreamChannel
from stream_proxy.limits import Limits
from stream_proxy.request_log import RequestLog
from tests.support.certificates import server_context, trust
from tests.support.loopback import reactor, turns
from tests.support.movements import Movements
from tests.support.payloads import CHAT
from tests.support.sites import LimitsTestCase, Ok
from tests.support.wire import GET, JSON, Stream, read_head, read_response, respond


class HeadSizeTests(LimitsTestCase):
    """``maxHeaderBytes`` and ``maxHeaderCount``, for each site separately."""

    async def test_bytes(self) -> None:
        """A head, or one line of it, beyond the limit is a 431 that names the key, and is logged."""
        for fields in (b"X: " + b"x" * 2000 + b"\r\n", b"X: %b\r\n" % (b"x" * 600) * 2):
            _, port = await self.site(max_header_bytes=1024)
            client = await self.client(port)
            client.write(b"GET /v1/x?secret HTTP/1.1\r\n" + fields + b"\r\n")
            self.assert_refused(await read_response(client), 431, "1024 bytes")
            self.assertIsInstance((await client.gone()).value, ConnectionDone)
            line = await self.log.match("maxHeaderBytes")
            self.assertRegex(line, r"\AGET /v1/x 431 refused - 0 bytes \d+ ms: The request head is larger")
            self.log.lines.clear()

    async def test_more_bytes(self) -> None:
        """A site with a higher limit accepts more, for every request of a connection; other sites do not."""
        _, large = await self.site(max_header_bytes=300_000)
        _, usual = await self.site()
        head = b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 200_000 + b"\r\n\r\n"
        client = await self.client(large)
        for _ in range(2):
            client.write(head)
            self.assertEqual((await read_response(client)).status, 200)
        other = await self.client(usual)
        other.write(head)
        self.assert_refused(await read_response(other), 431, "65536 bytes")

    async def test_count(self) -> None:
        """The limit is the number of fields accepted; one more is a 431 that names the key."""
        _, port = await self.site(max_header_count=3)
        client = await self.client(port)
        for count, status in ((3, 200), (3, 200), (4, 431)):
            client.write(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: x\r\n" * (count - 1) + b"\r\n")
            response = await read_response(client)
            self.assertEqual(response.status, status)
        self.assert_refused(response, 431, "maxHeaderCount")

    async def test_changed(self) -> None:
        """Changed limits apply to new connections."""
        site, port = await self.site()
        site.change_limits(Limits(max_header_bytes=1024, client_idle_seconds=7))
        response = await self.request(port, "GET", "/", headers=[("X", "x" * 2000)])
        self.assertEqual((response.status, site.timeOut), (431, 7))


class HeadTimeTests(LimitsTestCase):
    """``requestHeadSeconds``, counted from the first byte of a head to its end."""

    def channel(self, resource: Resource | None = None) -> tuple[DownstreamChannel, Any, Clock]:
        """Return a connection without a socket, under a clock that only the test advances."""
        clock = Clock()
        log = RequestLog(observer=self.log)
        site = ProxySite(resource or Ok(), reactor=clock, log=log)
        channel: Any = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        transport: Any = StringTransport()
        transport.abortConnection = transport.loseConnection
        channel.makeConnection(transport)
        return channel, transport, clock

    def test_dripping(self) -> None:
        """A head that is incomplete after 60 seconds is a 408, however often a byte arrives."""
        channel, transport, clock = self.channel()
        clock.advance(600)
        for _ in range(59):
            channel.dataReceived(b"G")
            clock.advance(1)
        self.assertEqual(transport.value(), b"")
        clock.advance(1)
        self.assertTrue(transport.value().startswith(b"HTTP/1.1 408 Request Timeout\r\n"))
        self.assertIn(b"requestHeadSeconds", transport.value())
        self.assertTrue(transport.disconnecting)
        self.assertRegex(self.log.lines[0], r"\A- - 408 refused - 0 bytes 0 ms: .*requestHeadSeconds")

    def test_later_request(self) -> None:
        """The limit applies to later requests of a connection as well, inside the first line or after it."""
        for begun in (b"GE", b"GET /v1/x HTTP/1.1\r\nHost: x\r\n"):
            channel, transport, clock = self.channel()
            channel.dataReceived(GET)
            clock.advance(600)
            channel.dataReceived(begun)
            transport.clear()
            clock.advance(59)
            self.assertEqual(transport.value(), b"")
            clock.advance(1)
            self.assertIn(b"HTTP/1.1 408", transport.value())

    def test_pipelined(self) -> None:
        """The time of a pipelined head starts with its own first byte."""
        channel, transport, clock = self.channel()
        for _ in range(10):
            channel.dataReceived(GET[:-2])
            clock.advance(40)
            channel.dataReceived(GET[-2:] + GET[:-2])
            clock.advance(40)
            channel.dataReceived(GET[-2:])
        self.assertEqual(transport.value().count(b"HTTP/1.1 200 OK"), 20)

    def test_behind_a_running_request(self) -> None:
        """The time of a pipelined head does not run while the request before it is being answered."""

        class Wait(Resource):
            isLeaf = True

            def render(self, request: Request) -> int:
                waiting.append(request)
                return NOT_DONE_YET

        waiting: list[Request] = []
        channel, transport, clock = self.channel(Wait())
        channel.dataReceived(GET + GET[:-2])
        clock.advance(6000)
        waiting[0].finish()
        clock.advance(59)
        self.assertNotIn(b"408", transport.value())
        clock.advance(1)
        self.assertIn(b"HTTP/1.1 408", transport.value())

    def test_slow_reader(self) -> None:
        """The time does not run while the channel is paused because the client reads nothing."""
        for begun in (True, False):
            channel, transport, clock = self.channel()
            channel.dataReceived(GET + GET[:-2])
            if begun:
                clock.advance(0)
            channel.pauseProducing()
            clock.advance(600)
            self.assertNotIn(b"408", transport.value())
            channel.resumeProducing()
            clock.advance(0)
            clock.advance(60)
            self.assertIn(b"HTTP/1.1 408", transport.value())

    def test_no_timer(self) -> None:
        """A head in one read, and the blank line that some clients send before it, start no timer."""
        channel, _, clock = self.channel()
        before = len(clock.getDelayedCalls())
        for data in (GET, b"\r\n", GET + GET):
            channel.dataReceived(data)
            clock.advance(0)  # the second request has a turn of its own
            self.assertEqual(len(clock.getDelayedCalls()), before)

    def test_lost(self) -> None:
        """A lost connection leaves no timer."""
        from twisted.python.failure import Failure

        channel, _, clock = self.channel()
        channel.dataReceived(b"G")
        channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_on_the_wire(self) -> None:
        """The client receives the whole 408, and an orderly close."""
        _, port = await self.site(request_head_seconds=0.1)
        client = await self.client(port)
        client.write(GET)
        self.assertEqual((await read_response(client)).status, 200)
        client.write(GET[:-2])
        self.assert_refused(await read_response(client), 408, "requestHeadSeconds")
        self.assertIsInstance((await client.gone()).value, ConnectionDone)


class BodyTimeTests(LimitsTestCase):
    """``requestBodySeconds``, for a body that is buffered."""

    def posted(self, length: int, target: str = CHAT) -> bytes:
        """Return the head of a call."""
        fields = f"Host: x\r\n{': '.join(JSON)}\r\nContent-Length: {length}\r\n\r\n"
        return f"POST {target} HTTP/1.1\r\n{fields}".encode()

    async def resource(self, url: str, clock: Clock, **limits: Any) -> tuple[ProxyResource, int]:
        """Start a proxy whose flows use `clock`; return its resource and its port."""
        log = RequestLog(observer=self.log)
        proxy = ProxyResource(url, reactor=reactor, limits=Limits(**limits), log=log)
        proxy.clock = clock
        _, port = await self.site(proxy)
        self.addCleanup(proxy.close)
        return proxy, port

    async def test_dripping(self) -> None:
        """A dripping body is a 408 after that time, which arrives while the client is still sending."""

        async def script(stream: Stream) -> None:
            raise AssertionError

        movements = Movements(self)
        upstream = await self.upstream(script)
        clock = Clock()
        _, port = await self.resource(upstream.url, clock, timeout_seconds=10, request_body_seconds=30)
        client = await self.client(port)
        client.write(self.posted(1000) + b"{")
        while not clock.getDelayedCalls():
            await turns(1)
        for _ in range(4):
            clock.advance(6)
            client.write(b" ")
            await movements.now(clock)
        clock.advance(6)
        client.write(b" " * 900)
        self.assert_refused(await read_response(client), 408, "requestBodySeconds")
        client.write(b" ")
        self.assertIsInstance((await client.gone()).value, ConnectionDone)
        self.assertRegex(self.log.lines[0], rf"POST {CHAT} 408 .*requestBodySeconds")
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_silent(self) -> None:
        """A body that is silent for ``timeoutSeconds`` is a 504, even if both times end together."""
        for body_seconds in (10, 30):
            clock = Clock()
            _, port = await self.resource(
                "http://127.0.0.1:1", clock, timeout_seconds=10, request_body_seconds=body_seconds
            )
            client = await self.client(port)
            client.write(self.posted(1000))
            while not clock.getDelayedCalls():
                await turns(1)
            clock.advance(10)
            response = await read_response(client)
            self.assertEqual((response.status, response.json()["error"]["type"]), (504, "upstream_timeout"))

    async def test_passed_through(self) -> None:
        """An upload that is not buffered may take any time, as long as it keeps moving."""
        came: Deferred[None] = Deferred()

        async def script(stream: Stream) -> None:
            await read_head(stream)
            await stream.exactly(1)
            came.callback(None)
            await stream.exactly(1)
            respond(stream, 200, b"ok")

        upstream = await self.upstream(script)
        clock = Clock()
        _, port = await self.resource(upstream.url, clock, timeout_seconds=600, request_body_seconds=1)
        client = await self.client(port)
        client.write(self.posted(2, "/v1/files") + b"1")
        await came
        clock.advance(599)
        client.write(b"2")
        self.assertEqual((await read_response(client)).status, 200)


class HandshakeTimeTests(LimitsTestCase):
    """``requestHeadSeconds`` for TLS handshakes."""

    async def connect(self) -> tuple[Stream, Clock]:
        """Return a client, which has sent nothing, of a site with TLS, under a clock of the test's."""
        clock = Clock()
        site, port = await self.site(tls=server_context("127.0.0.1"), clock=clock)
        client = await self.client(port)
        while not site.channels:
            await turns(1)
        return client, clock

    async def test_late(self) -> None:
        """A handshake that is not over after 60 seconds is the end, wherever it stopped."""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        near = SSL.Connection(context)
        near.set_connect_state()
        self.assertRaises(SSL.WantReadError, near.do_handshake)
        hello = near.bio_read(65536)
        for sent in (b"", hello[:1], hello[:20], hello):
            client, clock = await self.connect()
            client.write(sent)
            if sent is hello:
                await client.some()  # the server's half
            clock.advance(59)
            await turns(5)
            self.assertIsNone(client.lost)
            clock.advance(1)
            await client.gone()
            words = "- - 408 dropped - 0 bytes 0 ms: The TLS handshake took longer than 60 seconds."
            (line,) = self.log.lines
            self.assertEqual(line.partition(" | ")[0], words)
            self.log.lines.clear()

    async def test_in_time(self) -> None:
        """A connection whose handshake is over may be idle, and its timer is gone with it."""
        trust(self)
        clock = Clock()
        site, port = await self.site(tls=server_context("127.0.0.1"), clock=clock)
        client = Stream()
        endpoint = HostnameEndpoint(reactor, "127.0.0.1", port)
        await connectProtocol(wrapClientTLS(optionsForClientTLS("127.0.0.1"), endpoint), client)
        self.addCleanup(client.transport.abortConnection)
        client.write(GET)
        self.assertEqual((await read_response(client)).status, 200)
        clock.advance(120)
        await turns(5)
        self.assertEqual((len(site.channels), self.log.lines), (1, []))
        client.write(GET)
        self.assertEqual((await read_response(client)).status, 200)
        client.close()
        while site.channels:
            await turns(1)
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_plain(self) -> None:
        """A plain connection that has sent nothing is idle."""
        clock = Clock()
        site, port = await self.site(clock=clock)
        await self.client(port)
        while not site.channels:
            await turns(1)
        clock.advance(120)
        await turns(5)
        self.assertEqual(len(site.channels), 1)
