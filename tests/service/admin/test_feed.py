"""Tests of the feed of the page: who looks sees what goes through, at a bounded cost."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.observe.ledger import Ledger
from stream_proxy.observe.record import Phase, Usage
from stream_proxy.service.admin import feed
from stream_proxy.service.admin.local import LocalSource
from tests.support.admin import FeedTestCase
from tests.support.loopback import reactor
from tests.support.wire import read_head


class FeedTests(FeedTestCase):
    """What a viewer sees."""

    async def test_rows(self) -> None:
        """Requests appear, move, and end."""
        _, port = self.admin()
        self.ledger.end(self.begin(status=200))
        record = self.begin(model="m-1")
        viewer = await self.view(port)
        self.assertEqual(await viewer.event(), "snapshot")
        self.assertEqual((viewer.flight, viewer.state), (1, {"status": "ready", "keyed": False}))
        row = viewer.live["2"]
        self.assertEqual((row["kind"], row["model"], row["phase"]), ("chat", "m-1", "reading"))
        self.assertEqual([row["id"] for row in viewer.ended], ["1"])

        record.phase, record.events = Phase.STREAMING, 9
        await viewer.until(lambda: viewer.live["2"]["events"] == 9)
        self.assertEqual(viewer.live["2"]["phase"], "streaming")

        record.status, record.usage = 200, Usage(input=3, output=9)
        self.ledger.end(record)
        other = self.begin()
        await viewer.until(lambda: "2" not in viewer.live and "3" in viewer.live)
        self.assertEqual((viewer.ended[-1]["id"], viewer.ended[-1]["output"]), ("2", 9))
        self.assertEqual((viewer.flight, viewer.snapshots), (1, 1))
        self.ledger.end(other)

    async def test_http_1_0(self) -> None:
        """A client that knows no chunks is sent the events as they are."""
        _, port = self.admin()
        stream = await self.client(port)
        stream.write(b"GET /events HTTP/1.0\r\nHost: localhost\r\n\r\n")
        head = await read_head(stream)
        self.assertIsNone(head.get("Transfer-Encoding"))
        self.assertTrue((await stream.until(b"event: snapshot\n")).startswith(b"retry: "))

    async def test_state(self) -> None:
        """A drain is told."""
        _, port = self.admin()
        viewer = await self.view(port)
        await viewer.event()
        self.status = "draining"
        await viewer.event()
        self.assertEqual((viewer.state or {})["status"], "draining")

    async def test_nobody(self) -> None:
        """Nothing is collected before somebody looks, and after the last one has left."""
        service, port = self.admin()
        self.assertEqual(self.ledger.ended_hooks, [])
        first, second = await self.view(port), await self.view(port)
        await first.event()
        await second.event()
        self.assertEqual(len(self.ledger.ended_hooks), 1)
        for viewer in (first, second):
            viewer.stream.abort()
            await viewer.stream.gone()
        await self.no_viewers(service)
        self.assertEqual(self.ledger.ended_hooks, [])
        viewer = await self.view(port)
        self.assertEqual(await viewer.event(), "snapshot")

    async def no_viewers(self, service: Any) -> None:
        """Wait until the last viewer is known to be gone."""
        while service._feed._viewers:
            await self.turn()

    async def turn(self) -> None:
        """Wait for a turn of the reactor."""
        turned: Deferred[None] = Deferred()
        reactor.callLater(0, turned.callback, None)
        await turned

    async def test_most(self) -> None:
        """The seventeenth viewer is turned away, and may come when another has left."""
        service, port = self.admin()
        viewers = [await self.view(port) for _ in range(feed.MOST_VIEWERS)]
        response = await self.send(port, "/events")
        self.assertEqual((response.status, response.get("Retry-After")), (503, "5"))
        viewers[0].stream.abort()
        while len(service._feed._viewers) == feed.MOST_VIEWERS:
            await self.turn()
        await self.view(port)

    async def test_moved(self) -> None:
        """A port that stops lets its source go at once, for the port in its place."""
        source = LocalSource(self.ledger)
        service, port = self.admin(source=source)
        viewer = await self.view(port)
        await viewer.event()
        stopping = service.stopService()
        self.assertEqual(self.ledger.ended_hooks, [])
        _, other = self.admin(source=source)
        again = await self.view(other)
        await again.event()
        await stopping
        record = self.begin()
        await again.until(lambda: again.live)
        self.ledger.end(record)

    async def test_head(self) -> None:
        """HEAD makes no viewer."""
        service, port = self.admin()
        response = await self.send(port, "/events", "HEAD")
        self.assertEqual(response.status, 200)
        self.assertEqual(service._feed._viewers, {})

    async def test_keys_change(self) -> None:
        """Viewers have to show a key again when the keys have changed."""
        service, port = self.admin()
        viewer = await self.view(port)
        service.change_access([], [])
        await viewer.event()
        service.change_access([b"new"], [])
        await viewer.stream.until(b"0\r\n\r\n")
        self.assertEqual((await self.send(port, "/events")).status, 401)


class _Request:
    """A request whose response is kept in pieces."""

    method = b"GET"

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.producer: Any = None

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def take(self) -> list[str]:
        """Return the kinds of what came since the last call."""
        sent, self.sent = self.sent, []
        return [data.split(b"\n")[0].decode() for data in sent]


class _Visit:
    """A visit that is answered by such a request."""

    gone: Any = None

    def __init__(self) -> None:
        self.request = _Request()
        self.errors: list[int] = []

    def start(self, *head: Any) -> None:
        pass

    def fail(self, error: Any) -> None:
        self.errors.append(error.status)


class PaceTests(SynchronousTestCase):
    """How much a viewer is sent, and when."""

    def setUp(self) -> None:
        self.clock: Any = Clock()
        self.ledger = Ledger(self.clock.seconds)
        self.feed = feed.Feed(self.clock, LocalSource(self.ledger))

    def view(self) -> _Request:
        """Open the feed, and take its beginning."""
        visit: Any = _Visit()
        self.feed.attend(visit)
        request: _Request = visit.request
        self.clock.advance(0)
        return request

    def test_pace(self) -> None:
        """Batches are at least a quarter of a second apart, whatever happens."""
        viewer = self.view()
        self.assertEqual(viewer.take(), ["retry: 1000", "event: snapshot"])
        for _ in range(100):
            self.ledger.begin("8080")
            self.clock.advance(0.01)
        self.assertEqual(viewer.take(), ["event: batch"] * 4)

    def test_stopped(self) -> None:
        """Nobody comes to a feed that has stopped."""
        self.feed.stop()
        visit: Any = _Visit()
        self.feed.attend(visit)
        self.assertEqual((visit.errors, self.ledger.ended_hooks), ([503], []))

    def test_idle(self) -> None:
        """While nothing happens nothing is sent but a comment each 15 seconds."""
        viewer = self.view()
        viewer.take()
        self.clock.pump([0.25] * 240)
        self.assertEqual(viewer.take(), [":"] * 4)

    def test_same(self) -> None:
        """All viewers are sent the very same bytes."""
        first, second = self.view(), self.view()
        self.clock.advance(0.25)
        self.ledger.begin("8080")
        self.clock.advance(0.25)
        self.assertIs(first.sent[-1], second.sent[-1])

    def test_slow(self) -> None:
        """A viewer that takes nothing is sent nothing, and a snapshot once it takes something again."""
        slow, other = self.view(), self.view()
        self.clock.advance(2)
        slow.take(), other.take()
        slow.producer.pauseProducing()
        for _ in range(100):
            self.ledger.begin("8080")
            self.clock.advance(0.25)
        self.assertEqual((slow.take(), other.take()), ([], ["event: batch"] * 100))
        slow.producer.resumeProducing()
        self.clock.advance(0.25)
        self.assertEqual((slow.take(), other.take()), (["event: snapshot"], []))
        self.ledger.begin("8080")
        self.clock.advance(0.25)
        self.assertEqual((slow.take(), other.take()), (["event: batch"], ["event: batch"]))

    def test_slow_snapshots(self) -> None:
        """A viewer that does not even take snapshots in time gets one every two seconds at most."""
        viewer = self.view()
        viewer.take()
        for _ in range(8):
            viewer.producer.pauseProducing()
            self.ledger.begin("8080")
            self.clock.advance(0.25)
            viewer.producer.resumeProducing()
            self.clock.advance(0.25)
        self.assertEqual(viewer.take(), ["event: snapshot"] * 2)

    def test_paused_but_whole(self) -> None:
        """A pause in which nothing happened costs no snapshot."""
        viewer = self.view()
        viewer.take()
        viewer.producer.pauseProducing()
        self.clock.advance(0.25)
        viewer.producer.resumeProducing()
        self.ledger.begin("8080")
        self.clock.advance(0.25)
        self.assertEqual(viewer.take(), ["event: batch"])


class RequestTests(FeedTestCase):
    """Single requests."""

    async def test_details(self) -> None:
        """A request is shown while it runs and after, heads without secrets."""
        _, port = self.admin()
        record = self.begin(request_fields=[(b"Authorization", b"Bearer sk-1"), (b"X-A", b"b")])
        for live in (True, False):
            shown = (await self.send(port, "/requests/1")).json()
            self.assertEqual((shown["id"], shown["live"]), ("1", live))
            self.assertEqual(shown["request"], [["Authorization", "***"], ["X-A", "b"]])
            if live:
                self.ledger.end(record)

    async def test_cancel(self) -> None:
        """A running request is cancelled once, and only by POST."""
        _, port = self.admin()
        cancelled: list[int] = []
        record = self.begin()
        record.cancel = lambda: cancelled.append(1)
        self.assertEqual((await self.send(port, "/requests/1/cancel")).status, 404)
        self.assertEqual(cancelled, [])
        response = await self.send(port, "/requests/1/cancel", "POST")
        self.assertEqual((response.status, response.json(), cancelled), (200, {"cancelled": True}, [1]))
        self.ledger.end(record)
        self.assertEqual((await self.send(port, "/requests/1/cancel", "POST")).status, 404)

    async def test_unknown(self) -> None:
        """What is no request's id is a 404."""
        _, port = self.admin()
        for name in ("", "2", "x", "-1", "1/2", "9" * 400, "%31", "²"):
            target = "/requests/" + name.encode().decode("latin-1")
            self.assertIn((await self.send(port, target)).status, (400, 404), name)
            self.assertIn((await self.send(port, target + "/cancel", "POST")).status, (400, 404), name)
