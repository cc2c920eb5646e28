"""Ends of connections that clients would use again: announced where that is possible, and nothing is lost."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from stream_proxy.downstream.response import respond, start_response
from stream_proxy.downstream.site import ProxySite
from stream_proxy.limits import Limits
from tests.support.ways import take_ways

GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
#: A request that is read line by line.
LONG = b"GET /%d HTTP/1.1\r\nHost: x\r\nConnection: x\r\n\r\n"
#: Requests with bodies, read in both ways.
POST = b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
LONG_POST = b"POST /%d HTTP/1.1\r\nHost: x\r\nConnection: x\r\nContent-Length: 2\r\n\r\nhi"
KINDS = (GET, LONG, POST, LONG_POST)
CLOSE = b"Connection: close\r\n"


class Held(Resource):
    """A resource whose requests the test answers."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []

    def render(self, request: Request) -> int:
        self.requests.append(request)
        return NOT_DONE_YET


class LastRequestsTestCase(SynchronousTestCase):
    """A connection without a socket, under a clock that only the test advances."""

    def connect(self, **limits: Any) -> None:
        """Open a connection."""
        self.clock = Clock()
        self.resource = Held()
        self.site = ProxySite(self.resource, reactor=self.clock, limits=Limits(**limits))
        self.transport = cast(Any, StringTransport())
        self.transport.abortConnection = self.transport.loseConnection
        self.channel: Any = self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        self.channel.makeConnection(self.transport)

    def send(self, *numbers: int, template: bytes = GET) -> None:
        """Send requests at once."""
        self.channel.dataReceived(b"".join(template % number for number in numbers))
        self.clock.advance(0)

    def answer(self, *, chunked: bool = False) -> bytes:
        """Answer the oldest request, and return all that is sent for it."""
        self.transport.clear()
        request = self.resource.requests.pop(0)
        if chunked:
            start_response(request, 200, None, [])
            request.write(b"ok")
            request.finish()
        else:
            respond(request, 200, None, [], b"ok")
        self.clock.advance(0)
        return bytes(self.transport.value())

    @property
    def closed(self) -> bool:
        """Whether the connection has been closed."""
        self.clock.pump([0, 0])
        return bool(self.transport.disconnecting)


class LeavingTests(LastRequestsTestCase):
    """A site that is about to drain."""

    plain_ways = False

    def setUp(self) -> None:
        take_ways(self, plain=self.plain_ways)
        self.connect()

    def test_length(self) -> None:
        """A response with a length says that it is the last, and is."""
        for template in KINDS:
            self.connect()
            self.send(1, template=template)
            self.site.leaving = True
            self.assertFalse(self.closed)
            self.assertIn(CLOSE, self.answer())
            self.assertTrue(self.closed)

    def test_chunks(self) -> None:
        """One in chunks does not, and its connection serves the next request."""
        self.site.leaving = True
        for template in KINDS:
            self.connect()
            self.site.leaving = True
            self.send(1, template=template)
            self.assertNotIn(b"close", self.answer(chunked=True))
            self.assertFalse(self.closed)
            self.send(2, template=template)
            self.assertIn(CLOSE, self.answer())
            self.assertTrue(self.closed)

    def test_pipelined(self) -> None:
        """Pipelined requests are answered, and the last response says that it is the last."""
        for template in KINDS:
            self.connect()
            self.site.leaving = True
            self.send(1, 2, 3, template=template)
            self.assertEqual([CLOSE in self.answer() for _ in range(3)], [False, False, True])
            self.assertTrue(self.closed)

    def test_quiet(self) -> None:
        """When it drains, a connection that could not say that it ends closes once it has been idle.

        A load balancer uses first the connection that was used last, and would just have sent a request.
        """
        for used in (False, True):
            self.connect()
            self.site.leaving = True
            if used:
                self.send(1)
                self.answer(chunked=True)
            self.site.drain(None)
            self.clock.advance(4.9)
            self.assertFalse(self.closed)
            self.send(2)
            self.answer(chunked=True)
            self.clock.advance(4.9)
            self.assertFalse(self.closed)
            self.clock.advance(0.2)
            self.assertTrue(self.closed)

    def test_patience(self) -> None:
        """A client that goes on with streams keeps its connection for some seconds, not for ever."""
        for template in KINDS:
            self.connect()
            self.site.leaving = True
            self.send(0, template=template)
            self.site.drain(None)
            for number in range(1, 6):
                self.answer(chunked=True)
                self.assertFalse(self.closed)
                self.send(number, template=template)
                self.clock.advance(2.1)
            self.answer(chunked=True)
            self.assertTrue(self.closed)


class PlainWaysLeavingTests(LeavingTests):
    """The same without the fast ways."""

    plain_ways = True


class DrainingTests(LastRequestsTestCase):
    """A site that drains."""

    def setUp(self) -> None:
        self.connect()

    def test_pipelined(self) -> None:
        """All that was pipelined is answered, whenever it came, and whatever the responses say."""
        for chunked in (False, True):
            self.connect()
            self.send(1, 2)
            self.site.drain(None)
            self.answer(chunked=chunked)
            self.assertFalse(self.closed)
            self.send(3)
            self.answer(chunked=chunked)
            self.assertFalse(self.closed)
            self.assertEqual(CLOSE in self.answer(chunked=chunked), not chunked)
            self.assertTrue(self.closed)

    def test_while_streaming(self) -> None:
        """What comes while a stream is sent that could not say that it is the last is answered as well."""
        self.send(1)
        self.site.drain(None)
        (stream,) = self.resource.requests
        start_response(stream, 200, None, [])
        stream.write(b"begun")
        self.send(2)
        self.resource.requests.clear()
        stream.finish()
        self.assertFalse(self.closed)
        self.assertIn(CLOSE, self.answer())
        self.assertTrue(self.closed)

    def test_half_a_head(self) -> None:
        """Half a head is waited for; what is no part of one is not."""
        for rest, waits in ((b"GET /2 HTTP/1.1\r\n", True), (b"\r\n", False)):
            self.connect()
            self.channel.dataReceived(GET % 1 + rest)
            self.site.drain(None)
            self.answer(chunked=True)
            self.assertEqual(self.closed, not waits)
            if waits:
                self.channel.dataReceived(b"Host: x\r\n\r\n")
                self.assertIn(CLOSE, self.answer())
                self.assertTrue(self.closed)

    def test_bound(self) -> None:
        """A client that goes on pipelining does not keep its connection for ever."""
        self.send(*range(150))
        self.site.drain(None)
        answered = 0
        while self.resource.requests:
            last = self.answer()
            answered += 1
        self.assertTrue(100 <= answered <= 102, answered)
        self.assertIn(CLOSE, last)
        self.assertTrue(self.closed)


class AgeTests(LastRequestsTestCase):
    """``maxConnectionAgeSeconds``, which is 10 % more or less."""

    def test_length(self) -> None:
        """An old connection closes after its next response, which says so; a young one stays."""
        self.connect(max_connection_age_seconds=100)
        self.clock.advance(89)
        self.send(1)
        self.assertNotIn(CLOSE, self.answer())
        self.clock.advance(22)
        self.assertFalse(self.closed)
        self.send(2)
        self.assertIn(CLOSE, self.answer())
        self.assertTrue(self.closed)

    def test_chunks(self) -> None:
        """After a response in chunks it closes without a word when it has been idle for 5 s."""
        self.connect(max_connection_age_seconds=100)
        self.clock.advance(111)
        self.send(1, 2)
        self.answer(chunked=True)
        self.assertFalse(self.closed)
        self.assertNotIn(b"close", self.answer(chunked=True))
        self.clock.advance(4.9)
        self.assertFalse(self.closed)
        self.clock.advance(0.2)
        self.assertTrue(self.closed)

    def test_jitter(self) -> None:
        """Connections that were opened together do not reach their age together."""
        olds = set()
        for _ in range(20):
            self.connect(max_connection_age_seconds=100)
            while not self.channel._closing.is_due:
                self.clock.advance(1)
            olds.add(self.clock.seconds())
        self.assertTrue(len(olds) > 3 and min(olds) >= 90 and max(olds) <= 111, olds)

    def test_any(self) -> None:
        """Without it, connections become as old as they like."""
        self.connect(client_idle_seconds=1e7)
        self.clock.advance(1e6)
        self.send(1)
        self.assertNotIn(CLOSE, self.answer())
        self.assertFalse(self.closed)
