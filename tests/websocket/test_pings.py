"""Pings of the proxy's own: to silent sides, between frames, and with pongs that end here."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from stream_proxy import Limits, ProxyResource
from stream_proxy.websocket.frames import FrameTracker
from tests.support.loopback import turns
from tests.support.movements import Movements
from tests.support.sessions import KEY, PING, PONG, TEXT, Frame, Pair, WebSocketTestCase, frame, read_frame
from tests.support.wire import Stream

SECONDS = 30


class PingTests(WebSocketTestCase):
    """A session in which nothing moves, under a clock that the test advances."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.movements = Movements(self)

    async def pair(self) -> Pair:
        """Open a session whose sides are pinged."""

        def make(*args: Any, **kwargs: Any) -> ProxyResource:
            resource = ProxyResource(*args, **kwargs)
            resource.clock = self.clock
            return resource

        return await self.open(resource=make, limits=Limits(web_socket_ping_seconds=SECONDS))

    async def end(self, pair: Pair) -> None:
        """Let both sides leave, and the session end."""
        pair.client.abort()
        pair.server.abort()
        for _ in range(20):
            await turns(2)
            self.clock.advance(30)

    async def sent(self, writer: Stream, reader: Stream, data: bytes) -> None:
        """Write a frame on one side, and wait until it has come out on the other."""
        writer.write(data)
        self.assertEqual(await reader.exactly(len(data)), data)

    async def test_silent(self) -> None:
        """Both silent sides get a ping of eight bytes; their pongs go no further, and the session stays."""
        pair = await self.pair()
        for _ in range(3):
            self.clock.advance(SECONDS)
            down, up = await read_frame(pair.client), await read_frame(pair.server)
            self.assertEqual((down.opcode, len(down.payload), down.masked), (PING, 8, False))
            self.assertEqual((up.opcode, len(up.payload), up.masked), (PING, 8, True))
            pair.client.write(frame(PONG, down.payload, key=KEY))
            pair.server.write(frame(PONG, up.payload))
            # What follows a pong comes through alone.
            await self.sent(pair.client, pair.server, frame(TEXT, b"up", key=KEY))
            await self.sent(pair.server, pair.client, frame(TEXT, b"down"))
        await self.end(pair)

    async def test_not_silent(self) -> None:
        """A side that sends something gets none."""
        pair = await self.pair()
        for _ in range(4):
            self.clock.advance(SECONDS / 2)
            await self.sent(pair.client, pair.server, frame(TEXT, b"up", key=KEY))
            await self.sent(pair.server, pair.client, frame(TEXT, b"down"))
        await self.end(pair)

    async def test_vanished(self) -> None:
        """A side that answers nothing has vanished, and the other side is told."""
        for vanishing, name in (("client", "client"), ("server", "upstream")):
            pair = await self.pair()
            self.clock.advance(SECONDS)
            other = pair.server if vanishing == "client" else pair.client
            ping = await read_frame(other)
            self.clock.advance(1)
            other.write(frame(PONG, ping.payload, key=KEY if other is pair.client else b""))
            await self.movements.now(self.clock)
            self.clock.advance(SECONDS - 1)
            await (pair.client if vanishing == "client" else pair.server).gone()
            await self.end(pair)
            await self.ended()
            problem = self.outcomes[-1].problem
            self.assertEqual(problem, f"the {name} did not answer a ping within {SECONDS} seconds")

    async def test_inside_frame(self) -> None:
        """No ping goes into a long frame of the other side's; it follows once that is whole."""
        pair = await self.pair()
        data = frame(TEXT, bytes(70_000))
        pair.server.write(data[:-1])
        self.assertEqual(await pair.client.exactly(len(data) - 1), data[:-1])
        self.clock.advance(SECONDS)
        await read_frame(pair.server)  # that side is pinged all the same
        pair.server.write(data[-1:])
        self.assertEqual(await pair.client.exactly(1), data[-1:])
        self.clock.advance(SECONDS)
        self.assertEqual((await read_frame(pair.client)).opcode, PING)
        await self.end(pair)

    async def test_relayed_ping(self) -> None:
        """A side with an unanswered ping of the other's gets none: a peer may answer only the latest."""
        pair = await self.pair()
        await self.sent(pair.server, pair.client, frame(PING, b"theirs"))
        self.clock.advance(SECONDS)
        await read_frame(pair.server)
        await turns()
        self.assertEqual(bytes(pair.client.buffer), b"")
        await self.sent(pair.client, pair.server, frame(PONG, b"theirs", key=KEY))
        self.clock.advance(SECONDS)
        self.assertEqual((await read_frame(pair.client)).opcode, PING)
        await self.end(pair)

    async def test_off(self) -> None:
        """By default nobody is pinged."""
        pair = await self.open()
        self.assertEqual(self.relays[0].limits.web_socket_ping_seconds, 0)
        await self.sent(pair.client, pair.server, frame(TEXT, b"up", key=KEY))


class AwaitedTests(WebSocketTestCase):
    """Pongs that answer pings of the proxy's are cut out of what is forwarded."""

    @given(
        st.lists(st.sampled_from([b"own", b"other", b"text"]), max_size=8),
        st.booleans(),
        st.lists(st.integers(0, 200)),
    )
    def test_cut_out(self, kinds: list[bytes], masks: bool, cuts: list[int]) -> None:
        """Wherever the bytes are split, exactly the other frames come out, in their order."""
        key = KEY if masks else b""
        frames = {
            b"own": frame(PONG, b"awaited!", key=key),
            b"other": frame(PONG, b"another", key=key),
            b"text": frame(TEXT, b"awaited!", key=key),
        }
        data = b"".join(frames[kind] for kind in kinds)
        edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
        tracker = FrameTracker()
        tracker.awaited = b"awaited!"
        out = b"".join(tracker.feed(data[a:b]) for a, b in itertools.pairwise(edges))
        self.assertEqual(out, b"".join(frames[kind] for kind in kinds if kind != b"own"))

    def test_frame(self) -> None:
        """The payload of a ping and of a pong are noted, unmasked."""
        tracker = FrameTracker()
        tracker.feed(frame(PING, b"a", key=KEY) + frame(PONG, b"b", key=KEY))
        self.assertEqual((tracker.ping, tracker.pong), (b"a", b"b"))
        self.assertEqual(Frame(PING, b"a").payload, tracker.ping)
