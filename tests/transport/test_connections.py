"""Tests of the bound on a site's connections, and of their end when the site stops."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import Clock
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface.verify import verifyObject

from stream_proxy import ProxyResource, ProxySite
from stream_proxy.downstream import site as downstream
from tests.support.certificates import server_context, trust
from tests.support.loopback import reactor, turns
from tests.support.sessions import HANDSHAKE, accepted, handshake
from tests.support.sites import LimitsTestCase
from tests.support.wire import GET, Stream, read_head, read_response


class ConnectionsTestCase(LimitsTestCase):
    """Tests with a site and its connections."""

    async def connected(self, site: ProxySite, port: int) -> Stream:
        """Return a client that the site has accepted."""
        known = site.channels | site.turned_away
        client = await self.client(port)
        while not (site.channels | site.turned_away) - known:
            await turns(1)
        return client


class MostTests(ConnectionsTestCase):
    """``maxConnections``."""

    async def too_many(self, client: Stream) -> None:
        """Check that the client gets the 503, and an orderly close."""
        answer = await read_response(client)
        self.assertEqual((answer.status, answer.line), (503, "HTTP/1.1 503 Service Unavailable"))
        self.assertEqual(answer.get("content-type"), "application/json")
        self.assertEqual((answer.get("retry-after"), answer.get("connection")), ("1", "close"))
        error = answer.json()["error"]
        self.assertEqual((error["type"], error["code"]), ("server_error", "server_is_overloaded"))
        self.assertIn("maxConnections", error["message"])
        self.assertIsInstance((await client.gone()).value, ConnectionDone)

    async def test_one_too_many(self) -> None:
        """A connection beyond the bound gets a 503; once another has gone, the next is served."""
        site, port = await self.site(max_connections=2)
        clients = [await self.connected(site, port) for _ in range(2)]
        refused = await self.connected(site, port)
        refused.write(GET)
        await self.too_many(refused)
        for client in clients:
            client.write(GET)
            self.assertEqual((await read_response(client)).status, 200)
        clients[0].close()
        while len(site.channels) == 2:
            await turns(1)
        self.assertEqual((await self.request(port, "GET", "/")).status, 200)

    async def test_whatever_it_asks(self) -> None:
        """An unfinished upload, a WebSocket and bytes that are no HTTP get the 503, too."""
        site, port = await self.site(max_connections=1)
        await self.connected(site, port)
        upload = b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n" + b"x" * 2_000_000
        for data in (upload, handshake(HANDSHAKE), b"rubbish\r\n\r\n"):
            client = await self.connected(site, port)
            client.write(data)
            await self.too_many(client)

    async def test_tls(self) -> None:
        """A connection over TLS gets the 503, too."""
        trust(self)
        site, port = await self.site(tls=server_context("127.0.0.1"), max_connections=1)
        await self.connected(site, port)
        client = Stream()
        endpoint = HostnameEndpoint(reactor, "127.0.0.1", port)
        await connectProtocol(wrapClientTLS(optionsForClientTLS("127.0.0.1"), endpoint), client)
        client.write(GET)
        await self.too_many(client)

    async def test_silent(self) -> None:
        """A rejected connection without a request is closed after 5 seconds."""
        clock = Clock()
        site, port = await self.site(clock=clock, max_connections=1)
        await self.connected(site, port)
        client = await self.connected(site, port)
        clock.advance(4)
        await turns(3)
        self.assertEqual(len(site.turned_away), 1)
        clock.advance(1)
        self.assertEqual(await client.rest(), b"")

    async def test_crowd(self) -> None:
        """Where many connections wait for their 503, further ones are dropped."""
        self.patch(downstream, "_MOST_TURNED_AWAY", 2)
        site, port = await self.site(max_connections=1)
        await self.connected(site, port)
        waiting = [await self.connected(site, port) for _ in range(2)]
        dropped = await self.client(port)
        self.assertEqual(await dropped.rest(), b"")
        for client in waiting:
            client.write(GET)
            await self.too_many(client)

    async def test_log(self) -> None:
        """The log has a line at most every 10 seconds, with their number."""
        clock = Clock()
        site, port = await self.site(clock=clock, max_connections=1)
        await self.connected(site, port)
        for _ in range(3):
            client = await self.connected(site, port)
            client.write(GET)
            await self.too_many(client)
        clock.advance(10)
        await self.connected(site, port)
        full = "all 1 that maxConnections allows are in use"
        self.assertEqual(
            self.log.lines, [f"refused connections: 1; {full}", f"refused connections: 3; {full}"]
        )

    async def test_stop(self) -> None:
        """Rejected connections do not delay the end of the site."""
        site, port = await self.site(max_connections=1)
        client = await self.connected(site, port)
        refused = await self.connected(site, port)
        client.close()
        while site.channels:
            await turns(1)
        await site.drain(None)
        await refused.gone()


class Waiting(Resource):
    """Resource that responds when the test says so."""

    isLeaf = True
    streamsUploads = True

    def __init__(self) -> None:
        super().__init__()
        self.came: Deferred[Request] = Deferred()

    def render(self, request: Request) -> int:
        came, self.came = self.came, Deferred()
        came.callback(request)
        return NOT_DONE_YET


class DrainTests(ConnectionsTestCase):
    """Ends of a site, with connections in different states."""

    def answered(self, request: Request) -> None:
        """Respond."""
        request.setHeader(b"Content-Length", b"2")
        request.write(b"ok")
        request.finish()

    async def last(self, client: Stream) -> None:
        """Check that the client gets one more response, announced as the last."""
        answer = await read_response(client)
        self.assertEqual((answer.status, answer.get("connection")), (200, "close"))
        self.assertIsInstance((await client.gone()).value, ConnectionDone)

    async def idle(self, site: ProxySite, port: int) -> Stream:
        """Return a client that has had a response."""
        client = await self.connected(site, port)
        client.write(GET)
        self.assertEqual((await read_response(client)).status, 200)
        return client

    async def test_idle(self) -> None:
        """An idle connection ends at once, with or without a limit."""
        for seconds in (None, 60):
            site, port = await self.site()
            client = await self.idle(site, port)
            await site.drain(seconds)
            self.assertEqual(await client.rest(), b"")

    async def test_on_its_way(self) -> None:
        """A request that is in the kernel already is answered, although its connection seems idle."""
        for part in (GET, GET[:9]):
            site, port = await self.site()
            client = await self.idle(site, port)
            client.transport.getHandle().send(part)
            drained = site.drain(60)
            client.transport.getHandle().send(GET[len(part) :])
            await self.last(client)
            await drained

    async def test_in_a_head(self) -> None:
        """A request whose head has begun is answered, whether it is the first of its connection or not."""
        for begin in (b"GE", GET[:-2]):
            for client_of in (self.idle, self.connected):
                site, port = await self.site()
                client = await client_of(site, port)
                client.write(begin)
                while not any(channel.in_head for channel in site.channels):
                    await turns(1)
                drained = site.drain(60)
                await turns(5)
                client.write(GET[len(begin) :])
                await self.last(client)
                await drained

    async def test_new(self) -> None:
        """A connection without a request has a second to begin one."""
        clock = Clock()
        site, port = await self.site(clock=clock)
        asking, late = await self.connected(site, port), await self.connected(site, port)
        drained = site.drain(60)
        clock.advance(0.9)
        asking.write(GET)
        await self.last(asking)
        self.assertFalse(drained.called)
        clock.advance(0.1)
        self.assertEqual(await late.rest(), b"")
        await drained
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_even_newer(self) -> None:
        """A connection that is accepted while the site drains has a second, too."""
        clock = Clock()
        site, port = await self.site(Waiting(), clock=clock)
        came = site.resource.came
        busy = await self.connected(site, port)
        busy.write(GET)
        request = await came
        drained = site.drain(None)
        new = await self.connected(site, port)
        clock.advance(1)
        self.assertEqual(await new.rest(), b"")
        self.answered(request)
        await self.last(busy)
        await drained

    async def test_running(self) -> None:
        """A running request, and an upload, end with a response that is announced as the last."""
        for request in (GET, b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na"):
            waiting = Waiting()
            site, port = await self.site(waiting)
            came = waiting.came
            client = await self.connected(site, port)
            client.write(request)
            running = await came
            drained = site.drain(60)
            await turns(5)
            self.answered(running)
            await self.last(client)
            await drained

    async def test_lingering(self) -> None:
        """A client that goes on sending after its response is not waited for."""
        site, port = await self.site(Waiting())
        came = site.resource.came
        client = await self.connected(site, port)
        client.write(b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na")
        self.answered(await came)
        await read_response(client)
        await site.drain(60)
        await client.gone()

    async def test_without_and_with_limit(self) -> None:
        """Without a limit all may take their time; a limit that is set later ends them all."""
        clock = Clock()
        site, port = await self.site(Waiting(), clock=clock)
        came = site.resource.came
        client = await self.connected(site, port)
        client.write(GET)
        await came
        first = site.drain(None)
        clock.advance(100_000)
        await turns(3)
        self.assertFalse(first.called)
        second = site.drain(5)
        clock.advance(4)
        await turns(3)
        self.assertFalse(second.called)
        clock.advance(1)
        await first
        await second
        self.assertEqual(await client.rest(), b"")
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_websockets(self) -> None:
        """Without a limit WebSockets go on; with one they are closed, also those that are just opening."""
        servers: list[Stream] = []

        async def script(stream: Stream) -> None:
            request = await read_head(stream)
            servers.append(stream)
            if len(servers) == 2:
                await opens
            stream.write(accepted(request))

        opens: Deferred[None] = Deferred()
        upstream = await self.upstream(script)
        proxy = ProxyResource(upstream.url, reactor=reactor)
        self.addCleanup(proxy.close)
        site, port = await self.site(proxy)
        clients = []
        for _ in range(2):
            client = await self.client(port)
            client.write(handshake(HANDSHAKE))
            clients.append(client)
            if len(clients) == 1:
                await read_head(client)
        while len(servers) < 2:
            await turns(1)
        first = site.drain(None)
        await turns(10)
        servers[0].write(b"\x81\x02hi")
        self.assertEqual(await clients[0].exactly(4), b"\x81\x02hi")
        second = site.drain(60)
        going_away = b"\x88\x02\x03\xe9"
        self.assertEqual(await clients[0].exactly(4), going_away)
        opens.callback(None)
        await read_head(clients[1])
        self.assertEqual(await clients[1].exactly(4), going_away)
        for stream in (*clients, *servers):
            stream.abort()
        await first
        await second


class TLSTests(LimitsTestCase):
    """Ports with TLS."""

    def test_http_1(self) -> None:
        """Only HTTP/1.1 is offered, because nothing else is supported."""
        site = ProxySite(Resource())
        self.assertTrue(verifyObject(IProtocolNegotiationFactory, site))
        self.assertEqual(site.acceptableProtocols(), [b"http/1.1"])

    async def test_negotiated(self) -> None:
        """A client that prefers HTTP/2 gets HTTP/1.1."""
        trust(self)
        _, port = await self.site(tls=server_context("127.0.0.1"))
        client = Stream()
        client.factory = None
        options: Any = optionsForClientTLS("127.0.0.1", acceptableProtocols=[b"h2", b"http/1.1"])
        endpoint = HostnameEndpoint(reactor, "127.0.0.1", port)
        await connectProtocol(wrapClientTLS(options, endpoint), client)
        client.write(GET)
        self.assertEqual((await read_response(client)).status, 200)
        self.assertEqual(client.transport.negotiatedProtocol, b"http/1.1")
        client.close()
        await client.gone()

    async def test_refused(self) -> None:
        """A rejection ends with TLS's close alert, without which a client cannot trust its end."""
        trust(self)
        _, port = await self.site(tls=server_context("127.0.0.1"))
        client = Stream()
        endpoint = HostnameEndpoint(reactor, "127.0.0.1", port)
        await connectProtocol(wrapClientTLS(optionsForClientTLS("127.0.0.1"), endpoint), client)
        client.write(b"rubbish\r\n\r\n")
        self.assertEqual((await read_response(client)).status, 400)
        self.assertIsInstance((await client.gone()).value, ConnectionDone)
