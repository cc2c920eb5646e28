"""Messages to systemd: what is said when, and to sockets of both kinds."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import time
from typing import Any

from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.service.control.systemd import ServiceManager
from tests.support.loopback import reactor
from tests.support.twistd import ProcessTestCase, free_port
from tests.support.wire import Waiters


class ServiceManagerTests(SynchronousTestCase):
    """What is said, under a clock that only the test advances."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.path = f"@stream-proxy-{os.getpid()}-{id(self)}"
        self.socket = self.bind("\0" + self.path[1:])
        self.is_ready = True

    def bind(self, address: str) -> socket.socket:
        """Listen on an address."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(listener.close)
        listener.bind(address)
        listener.setblocking(False)
        return listener

    def manager(self, **environ: str) -> ServiceManager:
        """Return one with these variables, beside the name of the socket."""
        return ServiceManager(self.clock, {"NOTIFY_SOCKET": self.path, **environ})

    def said(self) -> list[str]:
        """Return the messages that have come."""
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(1000).decode())
            except BlockingIOError:
                return messages

    def test_ready(self) -> None:
        """It is ready once it says so itself."""
        manager, self.is_ready = self.manager(), False
        manager.starting(lambda: self.is_ready)
        self.clock.pump([0.1] * 5)
        self.assertEqual(self.said(), [])
        self.is_ready = True
        self.clock.pump([0.1] * 5)
        self.assertEqual(self.said(), ["READY=1"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopped_before(self) -> None:
        """One that stops before it was ready never says that it is."""
        manager = self.manager()
        manager.starting(lambda: False)
        manager.stopping()
        self.assertEqual((self.said(), self.clock.getDelayedCalls()), (["STOPPING=1"], []))

    def test_reload(self) -> None:
        """The time of a reload is in the same message; systemd 257 waits for ever without it."""
        manager = self.manager()
        before = time.monotonic_ns() // 1000
        manager.reloading()
        manager.ready()
        reloading, ready = self.said()
        first, _, second = reloading.partition("\n")
        self.assertEqual(
            (first, second.partition("=")[0], ready), ("RELOADING=1", "MONOTONIC_USEC", "READY=1")
        )
        self.assertTrue(before <= int(second.partition("=")[2]) <= time.monotonic_ns() // 1000)

    def test_watchdog(self) -> None:
        """The watchdog is fed in half of its time, until the end; another process's is not."""
        manager = self.manager(WATCHDOG_USEC="3000000", WATCHDOG_PID=str(os.getpid()))
        manager.starting(lambda: True)
        self.said()
        self.clock.advance(1.4)
        self.assertEqual(self.said(), [])
        self.clock.advance(0.2)
        manager.stopping()
        self.clock.advance(1.5)
        self.assertEqual(self.said(), ["WATCHDOG=1", "STOPPING=1", "WATCHDOG=1"])
        manager.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        for environ in ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "x"}, {}):
            self.manager(**environ).starting(lambda: True)
            self.assertEqual((self.said(), self.clock.getDelayedCalls()), (["READY=1"], []))

    def test_file(self) -> None:
        """The socket may be a file."""
        self.path = os.path.relpath(self.mktemp())
        self.socket = self.bind(self.path)
        self.manager().ready()
        self.assertEqual(self.said(), ["READY=1"])

    def test_nobody(self) -> None:
        """Without a socket nothing is said, and a socket that nobody reads holds up nothing."""
        silent = ServiceManager(self.clock, {"WATCHDOG_USEC": "1000000"})
        silent.starting(lambda: False)
        silent.reloading()
        silent.stopping()
        self.assertEqual((self.said(), self.clock.getDelayedCalls()), ([], []))
        for _ in range(2000):
            self.manager().ready()
        self.socket.close()
        self.manager().ready()


class Messages(DatagramProtocol):
    """The messages that come."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self._news = Waiters()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.messages.append(datagram.decode())
        self._news.wake()

    async def begins(self, start: str) -> None:
        """Wait for a message that begins so, and forget those before it."""
        while not any(message.startswith(start) for message in self.messages):
            await self._news.wait()
        while not self.messages.pop(0).startswith(start):
            pass


class ProcessTests(ProcessTestCase):
    """A whole process."""

    async def test_life(self) -> None:
        """It says that it is ready when it listens, that it reloads, and that it stops."""
        directory = tempfile.mkdtemp()  # others have longer names than sockets may have
        self.addCleanup(shutil.rmtree, directory)
        path, port, messages = os.path.join(directory, "notify"), free_port(), Messages()
        listening = reactor.listenUNIXDatagram(path, messages)
        self.addCleanup(listening.stopListening)
        rule = {"listenPort": port, "upstreamUrl": "http://127.0.0.1:9"}
        config = self.write_config({"workers": self.workers, "drainDelaySeconds": 0.1, "rules": [rule]})
        process = self.twistd("-c", str(config), env={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"})
        await messages.begins("READY=1")
        await self.client(port)
        await messages.begins("WATCHDOG=1")
        process.signal("HUP")
        await messages.begins("RELOADING=1\nMONOTONIC_USEC=")
        await messages.begins("READY=1")
        process.signal("TERM")
        await messages.begins("STOPPING=1")
        await process.ended()
        self.assert_ended_by(signal.SIGTERM, process)
        self.assertNotIn("READY=1", messages.messages)


class WorkersTests(ProcessTests):
    """The process that has workers."""

    workers = 2
