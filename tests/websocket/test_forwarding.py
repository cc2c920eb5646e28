"""Forwarding of frames: verbatim, and with backpressure."""

from __future__ import annotations

import os
import socket
from itertools import accumulate
from typing import Any

from twisted.internet.defer import Deferred

from stream_proxy.websocket.session import Session
from stream_proxy.websocket.side import Side
from tests.support.loopback import turns
from tests.support.sessions import (
    BINARY,
    CLOSE,
    CONTINUATION,
    KEY,
    PING,
    PONG,
    TEXT,
    WebSocketTestCase,
    accepted,
    both,
    close_frame,
    frame,
    handshake,
    queued,
    read_frame,
    stuck,
)
from tests.support.ways import take_ways
from tests.support.wire import Message, Stream, read_head


class FrameTests(WebSocketTestCase):
    """After the handshakes, each side receives exactly the other's bytes."""

    async def test_verbatim(self) -> None:
        """Masks, fragments, control frames between them, reserved bits and odd lengths are left alone."""
        pair = await self.open()
        for source, target, key in both(pair):
            await self.assert_passes(
                source,
                target,
                frame(TEXT, b"Hel", fin=False, key=key),
                frame(PING, b"?", key=key),
                frame(CONTINUATION, b"", fin=False, key=key),
                frame(PONG, b"!", key=key),
                frame(CONTINUATION, b"lo", key=key),
                frame(BINARY, b"x", key=key, width=8),
                frame(TEXT, b"not utf-8 \xff", key=key),
                frame(0x40 | 3, b"reserved", key=key),
                frame(BINARY, bytes(65_536), key=key),
                frame(BINARY, bytes(65_537), key=key),
            )

    async def test_single_bytes(self) -> None:
        """A frame that arrives byte by byte is forwarded in the end."""
        pair = await self.open()
        for source, target, key in both(pair):
            data = frame(TEXT, b"one by one", key=key)
            for place in range(len(data)):
                source.write(data[place : place + 1])
                await turns(1)
            self.assertEqual(await target.exactly(len(data)), data)

    async def test_long_frame_flows(self) -> None:
        """The beginning of a frame of more than 64 KiB is forwarded before its end has arrived."""
        pair = await self.open()
        for source, target, key in both(pair):
            data = frame(BINARY, os.urandom(200_000), key=key)
            source.write(data[:1000])
            self.assertEqual(await target.exactly(1000), data[:1000])
            source.write(data[1000:])
            self.assertEqual(await target.exactly(len(data) - 1000), data[1000:])

    async def test_short_frame_that_never_ends(self) -> None:
        """No byte of a frame of up to 64 KiB is forwarded until the frame is complete."""
        for size in (20, 65_536):
            for client_sends in (True, False):
                pair = await self.open()
                source, target, key = next(
                    one for one in both(pair) if (one[0] is pair.client) is client_sends
                )
                whole = frame(TEXT, b"whole", key=key)
                source.write(whole + frame(BINARY, bytes(size), key=key)[:-1])
                self.assertEqual(await target.exactly(len(whole)), whole)
                source.close()
                got = await read_frame(target)
                self.assertEqual(
                    (got.opcode, got.payload[:2]), (CLOSE, b"\x03\xe9" if client_sends else b"\x03\xf3")
                )
                target.close()
                await self.ended()

    async def test_early_frames(self) -> None:
        """Frames in the same packet as a handshake, on either side, are not lost."""
        first, second = frame(TEXT, b"from the client", key=KEY), frame(TEXT, b"from upstream")
        pair = await self.open(answer=lambda request: accepted(request) + second, pipelined=first)
        self.assertEqual(await pair.server.exactly(len(first)), first)
        self.assertEqual(await pair.client.exactly(len(second)), second)
        await self.assert_passes(pair.client, pair.server, frame(TEXT, b"more", key=KEY))
        await self.assert_passes(pair.server, pair.client, frame(TEXT, b"more"))

    async def test_frames_while_dialling(self) -> None:
        """Frames that the client sends before the upstream has responded are kept, whatever their size."""
        asked: Deferred[tuple[Message, Stream]] = Deferred()

        async def script(stream: Stream) -> None:
            asked.callback((await read_head(stream), stream))

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        data = b"".join(frame(BINARY, bytes((number,)) * 30_000, key=KEY) for number in range(20))
        client.write(handshake() + data[:10_000])
        request, server = await asked
        client.write(data[10_000:])
        await turns()
        server.write(accepted(request))
        self.assertEqual((await read_head(client)).status, 101)
        self.assertEqual(await server.exactly(len(data)), data)

    async def test_close_with_the_handshake(self) -> None:
        """If the upstream accepts and closes at once, the client gets the 101, the frame and the end."""
        bye = close_frame(4001, "expired")
        pair = await self.open(answer=lambda request: accepted(request) + bye)
        self.assertEqual(await pair.client.exactly(len(bye)), bye)
        pair.client.write(close_frame(4001, client=True))
        self.assertEqual(await pair.client.rest(), b"")


class ReadTests(WebSocketTestCase):
    """How much is read at once."""

    def setUp(self) -> None:
        super().setUp()
        take_ways(self, plain=False)

    async def test_long_frame(self) -> None:
        """Of a long frame more is read at once, but never beyond its end."""
        sizes: list[int] = []
        relay = Session._relay

        def note(session: Session, source: Side[Any], target: Side[Any], data: bytes) -> None:
            sizes.append(len(data))
            relay(session, source, target, data)

        self.patch(Session, "_relay", note)
        pair = await self.open()
        for source, target, key in both(pair):
            for count, width in ((1_000_000, 8), (10, 0)):
                sizes.clear()
                transport = self.transport_of(first=key != b"")
                transport.pauseProducing()
                data = frame(BINARY, bytes(count), key=key) + frame(TEXT, b"x", key=key) * 60_000
                source.write(data)
                await turns(5)
                transport.resumeProducing()
                self.assertTrue(await target.exactly(len(data)) == data)
                self.assertEqual(max(sizes) > 2**16, width == 8)
                ends = zip(sizes, accumulate(sizes), strict=True)
                self.assertLessEqual(max(size for size, end in ends if end > count + 14), 2**16)

    def transport_of(self, *, first: bool) -> Any:
        """Return our transport of the client, or of the upstream."""
        session: Any = self.relays[-1]._session
        return (session._client if first else session._upstream).connection.transport


class BackpressureTests(WebSocketTestCase):
    """A peer that does not read pauses the one that sends."""

    async def test_stops_and_goes_on(self) -> None:
        """Of 16 MiB for a peer that does not read, little is buffered; all arrives once it reads."""
        pieces = [number.to_bytes(4, "big") * 8_192 for number in range(512)]
        for first in (0, 1):
            pair = await self.open()
            source, target, key = list(both(pair))[first]
            target.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            source.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
            target.transport.pauseProducing()
            data = b"".join(frame(BINARY, piece, key=key) for piece in pieces)
            source.write(data)
            self.assertGreater(await stuck(source), 1 << 20)
            current: Any = self.relays[-1]._session
            ours = (current._upstream, current._client)[first].connection.transport
            self.assertGreater(queued(ours), 0)
            self.assertLess(queued(ours), 1 << 18)
            target.transport.resumeProducing()
            self.assertTrue(await target.exactly(len(data)) == data)
            await self.assert_passes(target, source, frame(TEXT, b"got it", key=b"" if key else KEY))
