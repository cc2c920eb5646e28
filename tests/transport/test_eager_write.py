"""Tests of writes that go out when their turn ends, or after a poll where there is no room."""

from __future__ import annotations

import gc
import os
import shutil
import socket
import tempfile
from collections.abc import Callable

from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, connectProtocol
from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.internet.protocol import Factory
from zope.interface import implementer

from stream_proxy.transport.eager_write import allow_reads, send_promptly, unsent
from stream_proxy.transport.turn import turn_of
from tests.support.loopback import LoopbackTestCase, Upstream, reactor, turns
from tests.support.ways import take_ways
from tests.support.wire import Stream, all_gone


class _Pairs(LoopbackTestCase):
    """Pairs of connections, the first of which writes eagerly."""

    plain = False

    def setUp(self) -> None:
        take_ways(self, plain=self.plain)

    async def pair(self) -> tuple[Stream, Stream]:
        """Return both ends of a connection."""
        arrived: Deferred[Stream] = Deferred()

        async def script(stream: Stream) -> None:
            arrived.callback(stream)

        service: Upstream = await self.upstream(script)
        client = await self.client(service.port)
        send_promptly(client.transport)
        return client, await arrived


class WritingTests(_Pairs):
    """What holds on every way."""

    async def test_no_room(self) -> None:
        """Data that does not fit waits for room, and arrives whole and in order."""
        near, far = await self.pair()
        near.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        far.transport.pauseProducing()
        data = b"".join(b"%07d\n" % number for number in range(150_000))
        for at in range(0, len(data), 300_000):
            near.write(data[at : at + 300_000])
        await turns(5)
        near.transport.writeSequence([b"the ", b"end"])
        far.transport.resumeProducing()
        self.assertTrue(await far.until(b"end") == data + b"the end")

    async def test_close(self) -> None:
        """A close comes after what was written before it."""
        near, far = await self.pair()
        near.write(b"last words")
        near.close()
        self.assertEqual(await far.rest(), b"last words")

    async def test_close_backlog(self) -> None:
        """A close comes after a backlog, and after what was written with it."""
        near, far = await self.pair()
        far.transport.pauseProducing()
        near.write(b"x" * 8_000_000)
        await turns(3)
        self.assertGreater(unsent(near.transport), 0)
        near.write(b"last words")
        near.close()
        far.transport.resumeProducing()
        self.assertEqual(len(await far.rest()), 8_000_010)

    async def test_half_close(self) -> None:
        """A half-close comes after what was written, and the other half still works."""
        near, far = await self.pair()
        near.write(b"question")
        near.transport.loseWriteConnection()
        self.assertEqual(await far.rest(), b"question")

    async def test_forgotten(self) -> None:
        """A pending write keeps its connection, which the reactor no longer watches once it is closing."""
        gc.freeze()  # not to search the modules of the whole suite
        self.addCleanup(gc.unfreeze)
        arrived: Deferred[Stream] = Deferred()

        async def script(stream: Stream) -> None:
            arrived.callback(stream)

        service = await self.upstream(script)
        near = await connectProtocol(HostnameEndpoint(reactor, "127.0.0.1", service.port), Stream())
        far = await arrived
        await turns(1)
        send_promptly(near.transport)
        near.write(b"last words")
        near.close()
        del near
        gc.collect()
        self.assertEqual(await far.rest(), b"last words")

    async def test_gone(self) -> None:
        """Nothing is sent on a connection that is aborted before its turn ends, however much was written."""
        near, far = await self.pair()
        near.write(b"never mind")
        near.abort()
        near.write(b"x" * 100_000)
        await near.gone()
        self.assertEqual(await far.rest(), b"")

    async def test_reset(self) -> None:
        """A connection that turns out to be broken ends as usual, but never within a write."""
        near, far = await self.pair()
        near.transport.pauseProducing()
        far.abort()
        await far.gone()
        for _ in range(3):
            near.write(b"x" * 100_000)
            self.assertIsNone(near.lost)
        await near.gone()

    async def test_producer(self) -> None:
        """A producer is paused when the buffer is full, and resumed once everything is sent."""
        near, far = await self.pair()
        producer = _Producer()
        near.transport.registerProducer(producer, True)
        far.transport.pauseProducing()
        near.write(b"x" * 8_000_000)
        self.assertEqual(producer.calls, ["pause"])
        far.transport.resumeProducing()
        await far.exactly(8_000_000)
        await producer.resumed
        self.assertEqual(producer.calls, ["pause", "resume"])
        near.transport.unregisterProducer()

    async def test_pull_producer(self) -> None:
        """A pull producer is asked for more whenever everything is sent, however much it writes at once."""
        for size in (10, 100_000):
            near, far = await self.pair()
            near.transport.registerProducer(_Pulled(near, size), False)
            self.assertEqual(await far.rest(), b"x" * size * 5)

    async def test_no_bytes(self) -> None:
        """What is no bytes is refused by the write, and nothing at all is no write."""
        near, far = await self.pair()
        self.assertRaises(TypeError, near.transport.write, "text")
        near.write(b"")
        near.write(b"x")
        self.assertEqual(await far.some(), b"x")

    def test_no_tcp(self) -> None:
        """A transport that is no connection of Twisted's is left as it is."""
        send_promptly(object())
        allow_reads(object(), 2**20)


class PlainWritingTests(WritingTests):
    """The same on the plain way."""

    plain = True

    async def test_plain(self) -> None:
        """The plain way leaves Twisted's connection as it is."""
        near, _ = await self.pair()
        self.assertIs(type(near.transport), tcp.Client)


class UNIXWritingTests(WritingTests):
    """The same on UNIX sockets."""

    async def pair(self) -> tuple[Stream, Stream]:
        path = f"{tempfile.mkdtemp()}/socket"
        self.addCleanup(shutil.rmtree, os.path.dirname(path))
        arrived: Deferred[Stream] = Deferred()
        near, far = Stream(), Stream()
        far.connectionMade = lambda: arrived.callback(far)  # type: ignore[method-assign]
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda _: far  # type: ignore
        port = reactor.listenUNIX(path, factory)
        self.addCleanup(port.stopListening)
        await connectProtocol(UNIXClientEndpoint(reactor, path), near)
        await arrived
        for stream in (near, far):
            send_promptly(stream.transport)
            self.addCleanup(self._drop, stream)
        return near, far

    def _drop(self, stream: Stream) -> Deferred[object]:
        stream.transport.abortConnection()
        return Deferred.fromCoroutine(all_gone([stream]))

    async def test_read(self) -> None:
        """What a read leads to is sent when it has been handled."""
        near, far = await self.pair()
        unsent_then: list[int] = []

        def received(data: bytes) -> None:
            near.write(data)
            unsent_then.append(unsent(near.transport))

        near.dataReceived = received  # type: ignore[method-assign]
        self.patch(reactor, "addWriter", lambda writer: self.fail("polled for room"))
        far.write(b"x")
        self.assertEqual(await far.some(), b"x")
        self.assertEqual(unsent_then, [1])


class EagerTests(_Pairs):
    """What only the fast way does."""

    def count_polls(self, stream: Stream) -> list[object]:
        """Return the list of connections that ask the reactor for room from now on."""
        watched: list[object] = []
        self.patch(stream.transport.reactor, "addWriter", watched.append)
        return watched

    async def test_protocol(self) -> None:
        """A connection calls its protocol itself, without what its endpoint put in between."""
        near, _ = await self.pair()
        self.assertIs(near.transport.protocol, near)

    async def test_together(self) -> None:
        """The writes of one turn make one segment, and the reactor never polls for room."""
        near, far = await self.pair()
        watched = self.count_polls(near)
        near.write(b"a")
        near.transport.writeSequence([b"b", b"c"])
        self.assertEqual(unsent(near.transport), 3)
        self.assertEqual(await far.some(), b"abc")
        self.assertEqual(watched, [])

    async def test_read(self) -> None:
        """What a read leads to is sent when it has been handled, without a delayed call."""
        near, far = await self.pair()
        sent: list[int] = []

        def received(data: bytes) -> None:
            near.write(data)
            near.write(data)
            sent.append(unsent(near.transport))

        near.dataReceived = received  # type: ignore[method-assign]
        calls = self._record_calls()
        read = near.transport.doRead

        def handled() -> object:
            why = read()
            sent.append(unsent(near.transport))
            return why

        near.transport.doRead = handled
        far.write(b"x")
        self.assertEqual(await far.some(), b"xx")
        self.assertEqual(sent, [2, 0])
        self.assertEqual(calls, [])

    def _record_calls(self) -> list[object]:
        calls: list[object] = []
        call_later = reactor.callLater

        def recorded(seconds: float, function: Callable[..., object], *args: object) -> object:
            calls.append(function)
            return call_later(seconds, function, *args)

        self.patch(reactor, "callLater", recorded)
        return calls

    async def test_brackets(self) -> None:
        """Brackets nest: the outermost one sends."""
        near, far = await self.pair()
        turn = turn_of(reactor)
        turn.begin()
        turn.begin()
        near.write(b"x")
        turn.end()
        self.assertEqual(unsent(near.transport), 1)
        turn.end()
        self.assertEqual(unsent(near.transport), 0)
        self.assertEqual(await far.some(), b"x")

    async def test_raises(self) -> None:
        """A read that raises has its writes sent, and drops only its own connection."""
        near, far = await self.pair()
        other, others_far = await self.pair()

        def received(data: bytes) -> None:
            other.write(data)
            raise ZeroDivisionError

        near.dataReceived = received  # type: ignore[method-assign]
        far.write(b"x")
        await near.gone()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(await others_far.some(), b"x")
        self.assertIsNone(other.lost)

    async def test_fault(self) -> None:
        """A connection that cannot be flushed does not keep others from sending."""
        near, far = await self.pair()
        other, others_far = await self.pair()
        self.patch(near.transport, "_send", lambda: 1 // 0)
        near.write(b"x")
        other.write(b"y")
        self.assertEqual(await others_far.some(), b"y")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(far.received, 0)

    async def test_much(self) -> None:
        """More than a buffer's worth is sent at once: where the kernel takes it, no producer is paused."""
        near, far = await self.pair()
        producer = _Producer()
        near.transport.registerProducer(producer, True)
        watched = self.count_polls(near)
        turn = turn_of(reactor)
        turn.begin()
        near.write(b"a")
        near.write(b"b" * 100_000)
        self.assertEqual(unsent(near.transport), 0)
        turn.end()
        self.assertEqual(len(await far.exactly(100_001)), 100_001)
        self.assertEqual((producer.calls, watched), ([], []))
        near.transport.unregisterProducer()

    async def test_large_reads(self) -> None:
        """Reads are as large as was allowed, within bounds, while they are full, and 64 KiB otherwise."""
        near, far = await self.pair()
        sizes: list[int] = []
        done: Deferred[None] = Deferred()

        def received(data: bytes) -> None:
            sizes.append(len(data))
            if data.endswith(b"."):
                done.callback(None)

        near.dataReceived = received  # type: ignore[method-assign]
        for allowed, expected in ((2**30, 2**18), (100_000, 100_000), (0, 2**16)):
            sizes.clear()
            done = Deferred()
            allow_reads(near.transport, allowed)
            near.transport.pauseProducing()
            far.write(b"x" * 1_000_000 + b".")
            await turns(5)
            near.transport.resumeProducing()
            await done
            self.assertEqual(max(sizes), expected)
            self.assertEqual(near.transport._read_bytes, 2**16)


@implementer(IPullProducer)
class _Pulled:
    """Producer of five pieces, and the close after them."""

    def __init__(self, stream: Stream, size: int) -> None:
        self._stream = stream
        self._size = size
        self._left = 5

    def resumeProducing(self) -> None:
        if self._left:
            self._left -= 1
            self._stream.write(b"x" * self._size)
        else:
            self._stream.transport.unregisterProducer()
            self._stream.close()

    def stopProducing(self) -> None:
        """Do nothing."""


@implementer(IPushProducer)
class _Producer:
    """Producer that notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.resumed: Deferred[None] = Deferred()

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")
        self.resumed.callback(None)

    def stopProducing(self) -> None:
        """Do nothing."""
