"""Tests of the lean turn of the epoll reactor."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.transport.eager_write import send_promptly
from stream_proxy.transport.tuning import has_unsent
from tests.support.ways import take_ways

if sys.platform != "linux":
    __unittest_skip__ = "there is no epoll"
else:
    from twisted.internet.epollreactor import EPollReactor

    from stream_proxy.transport.lean_epoll import FITS, poll_leanly
    from stream_proxy.transport.turn import turn_of


class _Reader:
    """One end of a pair of sockets, which the reactor reads."""

    def __init__(self, did: Callable[[_Reader], object] | None = None) -> None:
        self._socket, self.peer = socket.socketpair()
        self._socket.setblocking(False)
        self._did = did
        self.read: list[bytes] = []
        self.written = 0
        self.lost: list[Failure] = []

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "reader"

    def doRead(self) -> object:
        data = self._socket.recv(100)
        self.read.append(data)
        if not data:
            return CONNECTION_DONE
        return None if self._did is None else self._did(self)

    def doWrite(self) -> None:
        self.written += 1

    def connectionLost(self, reason: Failure) -> None:
        self.lost.append(reason)
        self.close()

    def close(self) -> None:
        """Close both ends."""
        self._socket.close()
        self.peer.close()


class LeanTurnTests(SynchronousTestCase):
    """A reactor of its own, one turn after another."""

    plain = False

    def setUp(self) -> None:
        take_ways(self, plain=self.plain)
        self.reactor: Any = EPollReactor()
        poll_leanly(self.reactor)
        self.addCleanup(self.reactor._poller.close)
        self.addCleanup(lambda: [each.connectionLost(None) for each in list(self.reactor._internalReaders)])

    def reader(self, did: Callable[[_Reader], object] | None = None) -> _Reader:
        """Return a reader that the reactor reads, which then does `did`."""
        reader = _Reader(did)
        self.addCleanup(reader.close)
        self.reactor.addReader(reader)
        return reader

    def test_kind(self) -> None:
        """Only the epoll reactor itself is changed, and only on the fast way."""
        self.assertTrue(FITS)
        self.assertIs(type(self.reactor) is EPollReactor, self.plain)

        class Other(EPollReactor):
            pass

        other: Any = Other.__new__(Other)
        poll_leanly(other)
        self.assertIs(type(other), Other)

    def test_read(self) -> None:
        """Whoever has something to read is read once for each turn; others are not."""
        one, other = self.reader(), self.reader()
        one.peer.send(b"x" * 150)
        self.reactor.doIteration(0)
        self.assertEqual(one.read, [b"x" * 100])
        self.reactor.doIteration(0)
        self.reactor.doIteration(0)
        self.assertEqual((one.read, other.read), ([b"x" * 100, b"x" * 50], []))

    def test_raises(self) -> None:
        """An exception is logged, and ends only the connection whose read raised it."""
        one, other = self.reader(lambda _: 1 // 0), self.reader()
        one.peer.send(b"x")
        other.peer.send(b"y")
        self.reactor.doIteration(0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual([reason.type for reason in one.lost], [ZeroDivisionError])
        self.assertEqual((other.read, other.lost), ([b"y"], []))
        self.reactor.doIteration(0)
        self.assertEqual(len(one.lost), 1)

    def test_ends(self) -> None:
        """A peer that has closed is an end, once all it sent was read."""
        one = self.reader()
        one.peer.send(b"last")
        one.peer.close()
        self.reactor.doIteration(0)
        self.reactor.doIteration(0)
        self.assertEqual(one.read[0], b"last")
        self.assertEqual([reason.type for reason in one.lost], [ConnectionDone])

    def test_half_closed(self) -> None:
        """A peer that has closed its sending half is an end, too."""
        one = self.reader()
        one.peer.shutdown(socket.SHUT_WR)
        self.reactor.doIteration(0)
        self.assertEqual([reason.type for reason in one.lost], [ConnectionDone])

    def test_removed(self) -> None:
        """Whoever is removed, or closed, while another one is read, is not read any more in this turn."""
        pair: list[_Reader] = []

        def remove_other(reader: _Reader) -> None:
            for each in pair:
                if each is not reader:
                    self.reactor.removeReader(each)
                    each.close()

        pair += [self.reader(remove_other), self.reader(remove_other)]
        for each in pair:
            each.peer.send(b"x")
        self.reactor.doIteration(0)
        self.assertEqual(sum(len(each.read) for each in pair), 1)

    def test_added(self) -> None:
        """A reader that is added while another one is read has its turn later."""
        added: list[_Reader] = []

        def add(reader: _Reader) -> None:
            new = self.reader()
            new.peer.send(b"new")
            added.append(new)

        self.reader(add).peer.send(b"x")
        self.reactor.doIteration(0)
        self.reactor.doIteration(0)
        self.assertEqual(added[0].read, [b"new"])

    def test_write(self) -> None:
        """Whoever waits for room is told of it, also when there is something to read."""
        one = self.reader()
        self.reactor.addWriter(one)
        one.peer.send(b"x")
        self.reactor.doIteration(0)
        self.assertEqual((one.read, one.written), ([b"x"], 1))

    def test_many(self) -> None:
        """Nobody starves, however many are ready at once."""
        readers = [self.reader() for _ in range(40)]
        self.patch(sys.modules["stream_proxy.transport.lean_epoll"], "_MOST_EVENTS", 7)
        for each in readers:
            each.peer.send(b"x" * 300)
        for _ in range(30):
            self.reactor.doIteration(0)
        self.assertEqual({len(b"".join(each.read)) for each in readers}, {300})

    def run_until_crash(self) -> None:
        """Let the reactor run until something calls its ``crash``."""
        self.reactor._registerAsIOThread = False
        self.reactor.run(installSignalHandlers=False)

    def test_run(self) -> None:
        """While it reads, the reactor makes each delayed call that comes due, old or new, in its order."""
        made: list[object] = []

        def read(reader: _Reader) -> None:
            made.append("read")
            if len(made) < 8:
                self.reactor.callLater(0, made.append, "new")
            reader.peer.send(b"x")

        clock = iter(range(1_000_000))
        self.reactor.seconds = lambda: float(next(clock))  # each look at the clock finds a second gone
        self.reactor.callLater(0, made.append, "early")
        self.reader(read).peer.send(b"x")
        self.reactor.callLater(30, made.append, "later")
        self.reactor.callLater(200, self.reactor.crash)
        self.run_until_crash()
        self.assertEqual(made[0], "early")
        self.assertEqual(made[1:7], ["read", "new"] * 3)
        self.assertEqual((made.count("new"), made.count("later")), (3, 1))

    def test_run_threads(self) -> None:
        """A running reactor makes a thread's call at once, and ends in an orderly way when it is stopped."""
        made: list[str] = []
        self.reactor.addSystemEventTrigger("before", "shutdown", made.append, "shutdown")

        def read(reader: _Reader) -> None:
            thread = threading.Thread(target=self.reactor.callFromThread, args=(called,))
            thread.start()
            thread.join()

        def called() -> None:
            made.append("called")
            one.peer.send(b"x")
            one._did = lambda _: self.reactor.stop()

        one = self.reader(read)
        one.peer.send(b"x")
        self.run_until_crash()
        self.assertEqual(made, ["called", "shutdown"])

    def test_run_fails(self) -> None:
        """A failure between reads is logged, and the reactor runs on; a delay may be very long."""
        self.reactor.callLater(10**9, int)
        self.reactor.callLater(0, lambda: 1 // 0)
        poller, polls = self.reactor._poller, iter([OSError("no"), OSError("no again")])

        class Poller:
            def poll(self, timeout: float, most: int) -> Any:
                for error in polls:
                    raise error
                one.peer.send(b"x")
                return poller.poll(0, most)

            def __getattr__(self, name: str) -> Any:
                return getattr(poller, name)

        one = self.reader(lambda reader: len(reader.read) == 2 and self.reactor.crash())
        self.reactor._poller = Poller()
        self.run_until_crash()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 2)
        self.assertEqual(one.read, [b"x"] * 2)

    def test_thread(self) -> None:
        """A thread's call wakes a poll that would wait for ever."""
        called: list[str] = []
        self.reactor._registerAsIOThread = False
        self.reactor.installWaker()
        thread = threading.Thread(target=lambda: self.reactor.callFromThread(called.append, "x"))
        thread.start()
        self.reactor.doIteration(None)
        thread.join()
        self.reactor.runUntilCurrent()
        self.assertEqual(called, ["x"])


class _Sender:
    """Something that holds what was written until its turn ends."""

    def __init__(self, did: Callable[[], None]) -> None:
        self.flush = did


class LeanTestCase(SynchronousTestCase):
    """A lean reactor of its own."""

    def setUp(self) -> None:
        take_ways(self, plain=False)
        self.reactor: Any = EPollReactor()
        poll_leanly(self.reactor)
        self.addCleanup(self.reactor._poller.close)
        self.addCleanup(lambda: [each.connectionLost(None) for each in list(self.reactor._internalReaders)])


class SharedTurnTests(LeanTestCase):
    """Reads of one poll, whose writes go out together."""

    def setUp(self) -> None:
        super().setUp()
        self.now = 0.0
        self.reactor.seconds = lambda: self.now
        self.did: list[str] = []

    def poll(self, *reads: Callable[[_Reader], object]) -> list[str]:
        """Let the reactor read as many readers in one poll, and return what happened."""
        for read in reads:
            reader = _Reader(read)
            self.addCleanup(reader.close)
            self.reactor.addReader(reader)
            reader.peer.send(b"x")
        self.reactor.doIteration(0)
        return self.did

    def write(self, seconds: float = 0.0) -> Callable[[_Reader], object]:
        """Return a read that takes so long, and then writes."""

        def read(_: _Reader) -> None:
            self.now += seconds
            self.did.append("read")
            turn_of(self.reactor).add(_Sender(lambda: self.did.append("sent")))

        return read

    def test_together(self) -> None:
        """Everything is sent after the last read, without another turn."""
        self.assertEqual(self.poll(self.write(), self.write(), self.write()), ["read"] * 3 + ["sent"] * 3)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_raises(self) -> None:
        """A read that fails keeps nothing from being sent, in this turn and the next."""
        self.poll(self.write(), lambda _: 1 // 0, self.write())
        self.assertEqual(self.did, ["read", "read", "sent", "sent"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.poll(self.write())[4:], ["read", "sent"])

    def test_long_reads(self) -> None:
        """What was written does not wait for more than one long read."""
        self.poll(*[self.write(0.0006)] * 5)
        self.assertEqual(self.did, ["read", "read", "sent", "sent"] * 2 + ["read", "sent"])


class SameTurnTests(LeanTestCase):
    """TCP connections, to which reads of others write, and what comes behind these in the same poll."""

    def connect(self, read: Callable[[Any, bytes], object]) -> tuple[Any, socket.socket]:
        """Return the protocol of a connection, whose reads are handled by `read`, and its peer."""

        class Reading(Protocol):
            def connectionMade(self) -> None:
                send_promptly(self.transport)

            def dataReceived(self, data: bytes) -> None:
                read(self, data)

        protocol = Reading()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            peer = socket.create_connection(listener.getsockname())
            accepted, _ = listener.accept()
        peer.settimeout(5)
        self.addCleanup(peer.close)
        with accepted:
            factory = Factory.forProtocol(lambda: protocol)
            self.reactor.adoptStreamConnection(accepted.fileno(), socket.AF_INET, factory)
        transport: Any = protocol.transport
        self.addCleanup(lambda: transport.connected and transport.connectionLost(Failure(ConnectionDone())))
        return protocol, peer

    def test_end(self) -> None:
        """What was written is sent before the connection closes, because its peer has sent its end."""
        target, peer = self.connect(lambda *_: None)
        _, other = self.connect(lambda *_: target.transport.write(b"answer"))
        other.send(b"x")
        peer.shutdown(socket.SHUT_WR)
        self.reactor.doIteration(0)
        self.assertEqual((peer.recv(100), peer.recv(100)), (b"answer", b""))

    def test_unsent(self) -> None:
        """Nothing is unsent that the kernel takes, though the turn goes on; what it does not take is."""
        found: list[bool] = []

        def read(protocol: Any, data: bytes) -> None:
            for size in (6, 100_000_000):
                protocol.transport.write(b"answer"[:size] * (size // 6))
                found.append(has_unsent(protocol.transport))

        _, peer = self.connect(read)
        peer.send(b"x")
        self.reactor.doIteration(0)
        self.assertEqual(found, [False, True])
        self.assertEqual(peer.recv(6), b"answer")


class PlainTurnTests(LeanTurnTests):
    """The same on Twisted's turn."""

    plain = True

    def test_many(self) -> None:
        """Nobody starves, however many are ready at once."""
        readers = [self.reader() for _ in range(40)]
        for each in readers:
            each.peer.send(b"x" * 300)
        for _ in range(3):
            self.reactor.doIteration(0)
        self.assertEqual({len(b"".join(each.read)) for each in readers}, {300})
