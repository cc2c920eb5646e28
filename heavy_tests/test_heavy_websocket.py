"""WebSockets through the proxy, in sizes and numbers that take their time."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from heavy_tests.memory import peak_memory
from tests.support.sessions import (
    BINARY,
    CONTINUATION,
    KEY,
    PING,
    TEXT,
    WebSocketTestCase,
    accepted,
    both,
    close_frame,
    frame,
    handshake,
    read_frame,
)
from tests.support.twistd import ProcessTestCase, eventually
from tests.support.wire import Stream, read_head

MIB = 1 << 20
#: A mask that changes nothing, so that a test need not spend its time on masking.
CLEAR = b"\0\0\0\0"


@implementer(IPushProducer)
class Pump:
    """A producer that writes pieces to a connection no faster than they are read."""

    def __init__(self, stream: Stream, pieces: Iterator[bytes]) -> None:
        self.sent = 0
        self.digest = hashlib.sha256()
        self.done: Deferred[None] = Deferred()
        self._transport = stream.transport
        self._pieces = pieces
        self._paused = False
        self._transport.registerProducer(self, True)
        self.resumeProducing()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        while not self._paused:
            piece = next(self._pieces, None)
            if piece is None:
                self._transport.unregisterProducer()
                self.done.callback(None)
                return
            self.digest.update(piece)
            self.sent += len(piece)
            self._transport.write(piece)

    def stopProducing(self) -> None:
        self._paused = True


async def taken(stream: Stream, count: int) -> str:
    """Read `count` bytes and return their digest."""
    digest = hashlib.sha256()
    while count:
        piece = await stream.some()
        count -= len(piece)
        if count < 0:
            raise AssertionError(f"{-count} bytes too many")
        digest.update(piece)
    return digest.hexdigest()


class SizeTests(WebSocketTestCase):
    """Large messages, and many of them."""

    timeout = 120

    async def assert_all_passes(self, pieces: list[bytes], source: Stream, target: Stream) -> None:
        """Check that all pieces arrive in order, byte for byte."""
        pump = Pump(source, iter(pieces))
        got = await taken(target, sum(len(piece) for piece in pieces))
        self.assertEqual(got, pump.digest.hexdigest())

    async def test_one_frame(self) -> None:
        """64 MiB in one frame, in each direction."""
        pair = await self.open()
        for source, target, key in both(pair):
            data = frame(BINARY, b"0123456789abcdef" * (4 * MIB), key=key and CLEAR)
            await self.assert_all_passes(
                [data[at : at + MIB] for at in range(0, len(data), MIB)], source, target
            )
        pair.client.close()
        pair.server.close()
        self.assertRegex(str((await self.ended()).detail), "1 messages 6.* up, 1 messages 6.* down")

    async def test_fragments(self) -> None:
        """64 MiB in 10,000 fragments with pings between them, in each direction."""
        pair = await self.open()
        for source, target, key in both(pair):
            pieces = []
            for number in range(10_000):
                opcode = CONTINUATION if number else BINARY
                payload = number.to_bytes(4, "big") * 1678
                pieces.append(frame(opcode, payload, fin=number == 9999, key=key and CLEAR))
                if number % 100 == 0:
                    pieces.append(frame(PING, b"%d" % number, key=key))
            await self.assert_all_passes(pieces, source, target)
        pair.client.close()
        pair.server.close()
        self.assertRegex(str((await self.ended()).detail), "1 messages 6.* up, 1 messages 6.* down")

    async def test_small_messages(self) -> None:
        """100,000 small messages each way, at the same time, in order."""
        pair = await self.open()
        work = [
            self.assert_all_passes(
                [frame(TEXT, b"%d" % number, key=key) for number in range(100_000)], source, target
            )
            for source, target, key in both(pair)
        ]
        await gatherResults([Deferred.fromCoroutine(one) for one in work], consumeErrors=True)
        pair.client.close()
        pair.server.close()
        self.assertRegex(str((await self.ended()).detail), "100000 messages .* up, 100000 messages .* down")

    async def test_two_hundred_sessions(self) -> None:
        """200 sessions at once stay separate, and each ends with its own close code."""
        upstream, came = await self.accepting()
        port = await self.proxy(upstream.url)

        async def one(number: int) -> None:
            client = await self.client(port)
            client.write(handshake(target=f"/session/{number}"))
            self.assertEqual((await read_head(client)).status, 101)
            for turn in range(20):
                client.write(frame(TEXT, b"%d %d" % (number, turn), key=KEY))
                self.assertEqual((await read_frame(client)).payload, b"%d %d" % (number, turn))
            client.write(close_frame(4000 + number, client=True))
            self.assertEqual(await client.rest(), close_frame(4000 + number))

        async def response() -> None:
            request, stream = await came.get()
            number = request.target.rpartition("/")[2].encode()
            for turn in range(20):
                got = await read_frame(stream)
                self.assertEqual(got.payload, b"%s %d" % (number, turn))
                stream.write(frame(TEXT, got.payload))
            stream.write(frame(8, (await read_frame(stream)).payload))
            stream.close()

        work = [one(number) for number in range(200)] + [response() for _ in range(200)]
        await gatherResults([Deferred.fromCoroutine(part) for part in work], consumeErrors=True)
        await self.ended()
        codes = sorted(re.findall(r"close (\d+)", str(self.outcomes)))
        self.assertEqual(codes, [str(4000 + number) for number in range(200)])


class MemoryTests(ProcessTestCase, WebSocketTestCase):
    """The real process between a sender and a peer that does not read."""

    timeout = 180

    async def test_nothing_piles_up(self) -> None:
        """Only a part of 256 MiB can be sent until the reader wakes up, and the process does not grow."""
        upstream, came = await self.accepting(accepted)
        process, (port,) = await self.serve(upstream.url)
        for first in (0, 1):
            for size in (50_000, 256 * MIB):
                pair = await self.join(port, came)
                source, target, key = list(both(pair))[first]
                await self.assert_passes(source, target, frame(BINARY, bytes(100_000), key=key))
                before = peak_memory(process.pid)
                target.transport.pauseProducing()
                pump = Pump(source, stream_of(size, key and CLEAR))
                seen: list[int] = []

                async def stopped(pump: Pump = pump, seen: list[int] = seen) -> bool:
                    seen.append(pump.sent)
                    return len(seen) > 20 and len(set(seen[-20:])) == 1

                await eventually(stopped)
                self.assertLess(pump.sent, 64 * MIB)
                total = sum(len(piece) for piece in stream_of(size, key and CLEAR))
                target.transport.resumeProducing()
                got = await taken(target, total)
                self.assertEqual((got, pump.sent), (pump.digest.hexdigest(), total))
                self.assertLess(peak_memory(process.pid) - before, 16 * MIB)
                source.abort()
                await target.gone()


def stream_of(size: int, key: bytes) -> Iterator[bytes]:
    """Return 256 MiB in frames of `size`, in pieces that all differ."""
    header = frame(BINARY, bytes(size), key=key)[:-size]
    for number in range(256 * MIB // size):
        yield header
        for start in range(0, size, 50_000):
            yield (b"%d %d " % (number, start) * 12_500)[: min(50_000, size - start)]
