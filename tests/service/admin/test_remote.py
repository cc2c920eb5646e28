"""Tests of an admin port that shows what other processes do."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

from stream_proxy.observe.ledger import Ledger
from stream_proxy.request_log import RequestLog
from stream_proxy.service.admin.local import LocalSource
from stream_proxy.service.admin.remote import WorkersSource
from stream_proxy.service.admin.worker import ObservationPort
from stream_proxy.service.workers.sockets import SocketDirectory
from tests.support.admin import FeedTestCase
from tests.support.loopback import reactor

LOG = RequestLog(observer=cast(Any, lambda event: None))


class RemoteTestCase(FeedTestCase):
    """Two workers, each a ledger of its own, and the parent's admin port."""

    def setUp(self) -> None:
        self.directory = SocketDirectory(LOG)
        self.directory.make()
        self.addCleanup(self.directory.remove)
        self.ledgers: dict[int, Ledger] = {}
        self.ports: dict[int, ObservationPort] = {}
        for number in (1, 2):
            self.start(number)
        self.addCleanup(self.stop_all)
        _, self.port = self.admin(source=WorkersSource(reactor, self.directory.socket, 2))

    def start(self, number: int) -> None:
        """Start a worker."""
        path = self.directory.socket(number)
        assert path is not None
        self.ledgers[number] = ledger = Ledger(reactor.seconds)
        self.ports[number] = ObservationPort(reactor, path, LocalSource(ledger), LOG)

    async def stop(self, number: int) -> None:
        """End a worker."""
        await self.ports.pop(number).close()

    def stop_all(self) -> Deferred[None]:
        """End all workers."""

        async def stop_all() -> None:
            for number in list(self.ports):
                await self.stop(number)

        return Deferred.fromCoroutine(stop_all())


class RemoteTests(RemoteTestCase):
    """What the parent shows."""

    async def test_merged(self) -> None:
        """The requests of all workers are shown, with the worker's number, and so are their figures."""
        self.ledgers[1].end(self.ledgers[1].begin("a"))
        self.ledgers[2].end(self.ledgers[2].begin("b"))
        first, second = self.ledgers[1].begin("a"), self.ledgers[2].begin("b")
        viewer = await self.view(self.port)
        await viewer.until(lambda: {"1-2", "2-2"} <= set(viewer.live) and len(viewer.ended) >= 2)
        self.assertEqual(viewer.flight, 2)
        self.assertEqual([row["id"] for row in viewer.ended], ["1-1", "2-1"])
        self.assertEqual(viewer.live["2-2"]["rule"], "b")
        second.events = 5
        await viewer.until(lambda: viewer.live["2-2"]["events"] == 5)
        self.ledgers[1].end(first)
        await viewer.until(lambda: "1-2" not in viewer.live)
        self.assertEqual((viewer.ended[-1]["id"], viewer.flight), ("1-2", 1))

    async def test_quiet(self) -> None:
        """Requests of the parent to its workers leave no entries in the log."""
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.ledgers[1].begin("a")
        self.assertEqual((await self.send(self.port, "/requests/1-1")).status, 200)
        self.assertEqual([event for event in events if event["log_namespace"].startswith("twisted.web")], [])

    async def test_dead(self) -> None:
        """A dead worker's rows go; what it had ended stays; its successor's ids are others."""
        self.ledgers[1].end(self.ledgers[1].begin("a"))
        self.ledgers[1].begin("a")
        self.ledgers[2].begin("b")
        viewer = await self.view(self.port)
        await viewer.until(lambda: {"1-2", "2-1"} == set(viewer.live) and viewer.ended)
        await self.stop(1)
        await viewer.until(lambda: set(viewer.live) == {"2-1"})
        self.assertEqual((viewer.flight, [row["id"] for row in viewer.ended]), (1, ["1-1"]))
        self.start(1)
        record = self.ledgers[1].begin("a")
        await viewer.until(lambda: "1.1-1" in viewer.live)
        self.assertEqual((await self.send(self.port, "/requests/1-1")).status, 404)
        self.assertEqual((await self.send(self.port, "/requests/1.1-1")).json()["id"], "1.1-1")
        self.ledgers[1].end(record)

    async def test_killed(self) -> None:
        """The socket that a killed worker has left is no hindrance to its successor."""
        await self.stop(1)
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(self.directory.socket(1) or "")
        self.start(1)
        self.ledgers[1].begin("a")
        viewer = await self.view(self.port)
        await viewer.until(lambda: "1-1" in viewer.live)

    async def test_nobody(self) -> None:
        """Workers collect nothing while nobody looks at the parent's port."""
        self.assertEqual(self.ledgers[1].ended_hooks, [])
        viewer = await self.view(self.port)
        await viewer.event()
        while not self.ledgers[1].ended_hooks:
            await deferLater(reactor, 0)
        viewer.stream.abort()
        while self.ledgers[1].ended_hooks or self.ledgers[2].ended_hooks:
            await deferLater(reactor, 0)

    async def test_requests(self) -> None:
        """Single requests are shown and cancelled where they run."""
        cancelled: list[int] = []
        record = self.ledgers[2].begin("b")
        record.cancel = lambda: cancelled.append(2)
        shown = (await self.send(self.port, "/requests/2-1")).json()
        self.assertEqual((shown["id"], shown["rule"]), ("2-1", "b"))
        response = await self.send(self.port, "/requests/2-1/cancel", "POST")
        self.assertEqual((response.status, cancelled), (200, [2]))
        for name in ("1-1", "3-1", "0-1", "2-x", "2", "-1", "2-1-1", "2.1.1-1", "%32-1"):
            self.assertEqual((await self.send(self.port, f"/requests/{name}")).status, 404, name)

    async def test_no_worker(self) -> None:
        """A worker that is not there is a 502 for who asks for its requests, and no hindrance to others."""
        await self.stop(1)
        self.ledgers[2].begin("b")
        viewer = await self.view(self.port)
        await viewer.until(lambda: "2-1" in viewer.live)
        response = await self.send(self.port, "/requests/1-1")
        self.assertEqual(response.status, 502)

    async def test_many(self) -> None:
        """Of many requests of all workers the oldest and the newest are shown."""
        for _ in range(150):
            for number in (1, 2):
                self.ledgers[number].begin("r")
        viewer = await self.view(self.port)
        await viewer.until(lambda: viewer.flight == 300 and len(viewer.live) == 200)
        self.assertIn("1-1", viewer.live)
        self.assertIn("2-150", viewer.live)


class SocketTests(RemoteTestCase):
    """The sockets of the workers."""

    def test_private(self) -> None:
        """Nobody else can enter their directory or use them."""
        path = Path(self.directory.socket(1) or "")
        self.assertEqual(os.stat(path.parent).st_mode & 0o777, 0o700)
        self.assertEqual(os.stat(path).st_mode & 0o077, 0)

    async def test_no_page(self) -> None:
        """They serve requests and their feed, nothing else."""
        ask = WorkersSource(reactor, self.directory.socket, 2).ask
        for path, status in (("/", 404), ("/healthz", 404), ("/requests/7", 404)):
            self.assertEqual((await ask(1, b"GET", path)).code, status)

    def test_long(self) -> None:
        """The path of a socket is never longer than the system allows."""
        long = Path(self.mktemp()).absolute() / ("x" * 80)
        long.mkdir(parents=True)
        self.patch(tempfile, "tempdir", str(long))
        directory = SocketDirectory(LOG)
        directory.make()
        self.addCleanup(directory.remove)
        self.assertLess(len(directory.socket(64) or "x" * 200), 100)

    def test_nowhere(self) -> None:
        """Without a place there are no sockets, and the log says so."""
        self.patch(tempfile, "tempdir", "/nonexistent")
        lines: list[str] = []
        directory = SocketDirectory(
            RequestLog(observer=cast(Any, lambda event: lines.append(event["message"])))
        )
        directory.make()
        self.assertIsNone(directory.socket(1))
        self.assertIn("the admin port shows no requests", lines[0])

    def test_removed(self) -> None:
        """The directory goes with the service."""
        directory = SocketDirectory(LOG)
        self.assertIsNone(directory.socket(1))
        directory.make()
        path = Path(directory.socket(1) or "")
        path.touch()
        directory.remove()
        self.assertFalse(path.parent.exists())
        self.assertIsNone(directory.socket(1))
