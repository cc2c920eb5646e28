"""Scrapes over several turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.downstream.site import ProxySite
from stream_proxy.observe.metrics.cells import Cells
from stream_proxy.request_log import RequestLog
from stream_proxy.service.admin.access import AdminAccess
from stream_proxy.service.admin.router import AdminResource
from stream_proxy.service.metrics.gathering import Gathering
from stream_proxy.service.metrics.route import MetricsRoute
from stream_proxy.service.metrics.scrapes import MOST_SCRAPES, Scrapes


class _Clock(Clock):
    """A clock that counts the calls that are put off."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = 0
        #: Called between two turns.
        self.between: Callable[[], object] = lambda: None

    def callLater(self, *args: Any, **kwargs: Any) -> Any:
        self.turns += 1
        self.between()
        return super().callLater(*args, **kwargs)


class ScrapesTestCase(SynchronousTestCase):
    """A process with many models."""

    def setUp(self) -> None:
        self.clock = _Clock()
        self.gathering = Gathering(cast(Any, self.clock))
        cells: Cells = self.gathering._cells
        for number in range(100):
            cells.histogram("time_to_first_event_seconds", "main", f"m{number}").observe(1)
        self.scrapes = Scrapes(cast(Any, self.clock), self.gathering)
        self.ended: list[bytes | Failure] = []

    def begin(self) -> Any:
        """Begin a scrape."""
        return self.scrapes.begin("", lambda _, text: self.ended.append(text))


class ScrapesTests(ScrapesTestCase):
    """Scrapes under way."""

    def test_turns(self) -> None:
        """A scrape takes many turns, in which other things go on."""
        self.begin()
        self.clock.advance(0)
        self.assertGreater(self.clock.turns, 10)
        (text,) = self.ended
        assert isinstance(text, bytes)
        self.assertEqual(text.count(b"first_event_seconds_count{"), 100)

    def test_bound(self) -> None:
        """No more than two go on at once; whoever comes later finds room again."""
        stops = [self.begin() for _ in range(MOST_SCRAPES + 1)]
        self.assertEqual([stop is None for stop in stops], [False, False, True])
        stops[0]()
        self.assertIsNotNone(self.begin())
        self.clock.advance(0)
        self.assertEqual(len(self.ended), MOST_SCRAPES)
        self.assertIsNotNone(self.begin())

    def test_bug(self) -> None:
        """A scrape that fails says so, and makes room."""
        self.patch(self.gathering, "series", lambda: [None])
        for _ in range(MOST_SCRAPES + 1):
            self.assertIsNotNone(self.begin())
            self.clock.advance(0)
        self.assertTrue(all(isinstance(each, Failure) for each in self.ended))

    def test_changes(self) -> None:
        """What is counted for the first time during a scrape does no harm."""
        cells = self.gathering._cells

        def count() -> None:
            name = str(self.clock.turns)
            cells.counter("requests_total", "main", "chat", "passed", name).value += 1
            cells.histogram("time_to_first_event_seconds", "x", name).observe(1)

        self.clock.between = count
        self.begin()
        self.clock.advance(0)
        self.assertIsInstance(self.ended[0], bytes)


class RouteTests(ScrapesTestCase):
    """Scrapes by HTTP."""

    def setUp(self) -> None:
        super().setUp()
        log = RequestLog(observer=cast(Any, lambda _: None))
        self.resource = AdminResource(self.clock, AdminAccess([b"secret"], local=False), log)
        self.site = ProxySite(self.resource, reactor=self.clock, idle_seconds=60)
        route = MetricsRoute(cast(Any, self.clock), self.gathering, log)
        route.serve(self.resource, open_to_all=True)
        self.scrapes, self.route = route._scrapes, route

    def visit(self) -> tuple[Any, Any]:
        """Ask for the metrics, and return the transport and the channel."""
        channel: Any = self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        transport: Any = StringTransport()
        transport.abortConnection = transport.loseConnection
        channel.makeConnection(transport)
        channel.dataReceived(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return transport, channel

    def test_http(self) -> None:
        """The third at once gets a 503; one whose client leaves ends, and makes room."""
        visits = [self.visit() for _ in range(MOST_SCRAPES + 1)]
        self.assertIn(b"HTTP/1.1 503", visits[2][0].value())
        self.assertEqual(visits[0][0].value(), b"")
        visits[0][1].connectionLost(Failure(ConnectionError()))
        self.assertEqual(len(self.scrapes._running), 1)
        self.assertEqual(self.visit()[0].value(), b"")
        self.clock.advance(0)
        self.assertIn(b"HTTP/1.1 200", visits[1][0].value())
        self.assertEqual(visits[0][0].value(), b"")
        self.assertEqual(len(self.scrapes._running), 0)

    def test_key(self) -> None:
        """Without a key nobody gets a scrape, unless that is wanted."""
        self.route.serve(self.resource, open_to_all=False)
        self.assertIn(b"HTTP/1.1 401", self.visit()[0].value())
        self.assertEqual(len(self.scrapes._running), 0)

    def test_bug(self) -> None:
        """A scrape that fails is a 500."""
        self.patch(self.gathering, "series", lambda: [None])
        transport, _ = self.visit()
        self.clock.advance(0)
        self.assertIn(b"HTTP/1.1 500", transport.value())
