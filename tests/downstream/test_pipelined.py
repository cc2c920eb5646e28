"""Pipelined requests of clients that do not read: few are held, and none begins before its turn."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from stream_proxy import ProxySite
from stream_proxy.downstream.response import respond, start_response
from stream_proxy.transport.eager_write import tcp_connection, unsent
from tests.support.certificates import server_context, trust
from tests.support.flood import MIB, Pour
from tests.support.loopback import reactor, turns
from tests.support.sites import LimitsTestCase
from tests.support.stalls import stands_still
from tests.support.ways import take_ways
from tests.support.wire import GET, UPLOAD, Stream, read_response

#: A request that is read line by line.
LONG = GET.replace(b"\r\n\r\n", b"\r\nConnection: x\r\n\r\n")
PAGE = 50_000
COUNT = 60


class Pages(Resource):
    """A resource whose responses are the test's business, or pages.

    :param when: pages are sent at once (``"now"``), filling the connection (``"full"``), in a later turn
        (``"later"``), or not at all (``"never"``).
    """

    isLeaf = True

    def __init__(self, when: str) -> None:
        super().__init__()
        self.when = when
        self.requests: list[Request] = []

    def render(self, request: Request) -> int:
        self.requests.append(request)
        if self.when == "full":
            request.channel.pauseProducing()
        if self.when in ("now", "full"):
            respond(request, 200, None, [], bytes(PAGE))
        elif self.when == "later":
            reactor.callLater(0, respond, request, 200, None, [], bytes(PAGE))
        return NOT_DONE_YET


class DeafTests(LimitsTestCase):
    """Clients that read nothing, on plain connections."""

    tls = False
    plain_ways = False

    async def deaf(self, when: str) -> Stream:
        """Return a client that reads nothing, on a connection with small buffers."""
        take_ways(self, plain=self.plain_ways)
        self.pages = Pages("now")
        self.served, port = await self.site(self.pages, server_context("127.0.0.1") if self.tls else None)
        client = Stream()
        endpoint: Any = HostnameEndpoint(reactor, "127.0.0.1", port)
        if self.tls:
            trust(self)
            endpoint = wrapClientTLS(optionsForClientTLS("127.0.0.1"), endpoint)
        await connectProtocol(endpoint, client)
        self.addCleanup(lambda: client.transport.abortConnection() if client.lost is None else None)
        client.write(GET)  # once this is answered, the handshake is over
        await read_response(client)
        self.pages.requests.clear()
        self.pages.when = when
        self.connection: Any = self.channel.outbox._connection
        below: Any = tcp_connection(client.transport)
        for end in (self.connection, below):
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                end.getHandle().setsockopt(socket.SOL_SOCKET, option, 65_536)
        client.transport.pauseProducing()
        return client

    @property
    def channel(self) -> Any:
        """The only connection."""
        (channel,) = self.served.channels
        return channel

    async def test_requests(self) -> None:
        """While a client does not take its response, no more than a read or two of its requests is held."""
        for request in (GET, LONG):
            client = await self.deaf("never")
            client.write(request)
            while not self.pages.requests:
                await turns(1)
            start_response(self.pages.requests[0], 200, None, [(b"Content-Length", b"%d" % (2 * MIB))])
            self.pages.requests[0].write(bytes(2 * MIB))
            await stands_still(self.connection)
            self.assertTrue(self.channel._waitingForTransport)
            pour = Pour(client, [UPLOAD % (3 * MIB), *[bytes(MIB // 16)] * 48])
            self.assertLess(await pour.stopped(), 40)
            self.assertLess(sum(map(len, self.channel._dataBuffer)) + len(self.channel._buffer), 200_000)
            client.transport.resumeProducing()
            self.pages.when = "now"
            self.pages.requests[0].finish()
            sizes = [len((await read_response(client)).body) for _ in range(2)]
            self.assertEqual(sizes, [2 * MIB, PAGE])
            client.close()
            await client.gone()
            while self.served.channels:
                await turns(1)

    async def responses(self, when: str, request: bytes) -> Stream:
        """Return a client that has pipelined requests and cannot be sent more than a few responses."""
        client = await self.deaf(when)
        client.write(request * COUNT)
        await stands_still(self.connection)
        self.assertLess(unsent(self.connection), 250_000)
        self.assertLess(len(self.pages.requests), COUNT // 2)
        return client

    async def test_responses(self) -> None:
        """A request begins when the client has read the responses before it, and all are served."""
        for when in ("now", "later"):
            for request in (GET, LONG):
                client = await self.responses(when, request)
                client.transport.resumeProducing()
                for _ in range(COUNT):
                    self.assertEqual(len((await read_response(client)).body), PAGE)
                client.write(request)
                self.assertEqual(len((await read_response(client)).body), PAGE)
                client.close()
                await client.gone()
                while self.served.channels:
                    await turns(1)

    async def test_half_closed(self) -> None:
        """The connection of such a client that has closed its end ends once it reads."""
        client = await self.responses("now", GET)
        client.transport.loseWriteConnection()
        client.transport.resumeProducing()
        await client.gone()
        while self.served.channels:
            await turns(1)

    async def test_drain(self) -> None:
        """A site that drains answers all that such a client has sent, and closes with the last response."""
        client = await self.responses("now", GET)
        drained = self.served.drain(None)
        client.transport.resumeProducing()
        while True:
            response = await read_response(client)
            if response.get("connection") == "close":
                break
        await drained
        self.assertEqual(len(self.pages.requests), COUNT)


class PlainWaysTests(DeafTests):
    """Plain connections that take no fast way."""

    plain_ways = True


class TLSTests(DeafTests):
    """TLS connections."""

    tls = True


class PlainWaysTLSTests(TLSTests):
    """TLS connections that take no fast way."""

    plain_ways = True


class HeldTests(SynchronousTestCase):
    """What is held behind a request that is being served."""

    def setUp(self) -> None:
        self.pages = Pages("never")
        self.clock = Clock()
        site = ProxySite(self.pages, reactor=self.clock)
        self.channel: Any = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        self.transport = StringTransport()
        self.channel.makeConnection(self.transport)
        self.addCleanup(self.channel._idle.stop)

    def begun(self) -> int:
        """Return how many requests have begun after this turn."""
        self.clock.advance(0)
        return len(self.pages.requests)

    def test_late(self) -> None:
        """A request waits even if the connection is full only at the end of the turn before its own."""
        self.pages.when = "now"
        self.channel.dataReceived(GET * 3)
        self.channel.pauseProducing()
        self.assertEqual(self.begun(), 1)
        self.channel.resumeProducing()
        self.assertEqual((self.begun(), self.transport.producerState), (3, "producing"))

    def test_full(self) -> None:
        """A request that comes after a response that fills the connection waits, too."""
        for request in (GET, LONG):
            self.pages.when = "full"
            self.pages.requests.clear()
            self.channel.dataReceived(request)
            self.channel.dataReceived(request)
            self.assertEqual((self.begun(), self.transport.producerState), (1, "paused"))
            self.pages.when = "now"
            self.channel.resumeProducing()
            self.assertEqual((self.begun(), self.transport.producerState), (2, "producing"))

    def test_lane_again(self) -> None:
        """Without a request that waits, the next one may take the lane when the client has read."""
        self.pages.when = "full"
        self.channel.dataReceived(GET)
        self.assertFalse(self.channel._at_start)
        self.channel.resumeProducing()
        self.assertEqual((self.begun(), self.channel._at_start, self.channel.paused), (1, True, False))

    def serve(self, request: bytes, piece: bytes) -> None:
        """Send a request, and then pieces for as long as they are read."""
        self.channel.dataReceived(request)
        self.channel.pauseProducing()
        self.sent = 0
        while self.transport.producerState == "producing" and self.sent < 100_000:
            self.channel.dataReceived(piece)
            self.sent += len(piece)

    def test_small(self) -> None:
        """Many small pieces are held as one."""
        self.serve(GET, b"x" * 10)
        self.assertEqual((self.sent, len(self.channel._dataBuffer)), (16_390, 1))

    def test_lane(self) -> None:
        """What came in one read with a plain request counts."""
        self.serve(GET + b"x" * 20_000, b"x")
        self.assertEqual(self.sent, 0)

    def test_next_turn(self) -> None:
        """What came in one read with a request that had to wait for its turn counts, too."""
        self.pages.when = "now"
        self.channel.dataReceived(GET * 2 + bytes(20_000))
        self.pages.when = "never"
        self.assertEqual((self.begun(), self.transport.producerState), (2, "paused"))

    def test_close(self) -> None:
        """A connection that closes after its response is read again: unread bytes would make it a reset."""
        self.serve(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), bytes(9_000))
        self.assertEqual(self.transport.producerState, "paused")
        respond(self.pages.requests[0], 200, None, [], b"ok")
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.transport.producerState, "producing")

    def test_taken_over(self) -> None:
        """A protocol that takes the connection over gets what is held, and what comes from then on."""
        self.serve(GET, bytes(9_000))
        self.assertEqual(len(self.channel.take_over(lambda data: None, lambda: None)), 18_000)
        self.assertEqual(self.transport.producerState, "producing")
