"""Ends of sessions: close frames, and lost connections."""

from __future__ import annotations

from stream_proxy import ProxyResource, ProxySite
from stream_proxy.websocket import session
from stream_proxy.websocket.frames import Close
from tests.support.loopback import reactor, turns
from tests.support.sessions import (
    ABNORMAL,
    BINARY,
    CLOSE,
    GOING_AWAY,
    KEY,
    QUIET,
    TEXT,
    WebSocketTestCase,
    both,
    close_frame,
    frame,
    stuck,
)
from tests.support.wire import Stream


class CloseTests(WebSocketTestCase):
    """Sessions that end with close frames."""

    async def test_both_ways(self) -> None:
        """A close frame is forwarded with code and reason, so is the reply, and both connections end."""
        for payload in (b"", b"\x03\xe8", b"\x03\xe9bye", b"\x0b\xb8registered", b"\x10\xe1" + "ü".encode()):
            for first in (0, 1):
                pair = await self.open()
                directions = list(both(pair))
                source, target, key = directions[first]
                await self.assert_passes(source, target, frame(CLOSE, payload, key=key))
                source, target, key = directions[1 - first]
                await self.assert_passes(source, target, frame(CLOSE, payload[:2], key=key))
                pair.server.close()
                self.assertEqual((await pair.client.rest(), await pair.server.rest()), (b"", b""))
                outcome = await self.ended()
                code = int.from_bytes(payload[:2], "big") if payload else 1005
                self.assertRegex(str(outcome.detail), f"^close {code}, ")
                self.assertIsNone(outcome.problem)

    async def test_client_that_has_its_reply(self) -> None:
        """A client that has sent and got a close frame does not wait for the upstream's connection to end."""
        self.patch(session, "END_SECONDS", 1000.0)
        for first in (0, 1):
            pair = await self.open()
            for source, target, key in (list(both(pair)), list(both(pair))[::-1])[first]:
                await self.assert_passes(source, target, frame(CLOSE, b"\x03\xe8", key=key))
            self.assertEqual(await pair.client.rest(), b"")
            self.assertIsNone(pair.server.lost)
            pair.server.close()
            await self.ended()

    async def test_upstream_that_leaves_the_close_to_us(self) -> None:
        """After a close frame each way, the proxy closes the connection if the upstream does not."""
        self.patch(session, "END_SECONDS", 0.0)
        pair = await self.open()
        await self.assert_passes(pair.client, pair.server, close_frame(1000, client=True))
        await self.assert_passes(pair.server, pair.client, close_frame(1000))
        self.assertEqual(await pair.server.rest(), b"")
        self.assertEqual(await pair.client.rest(), b"")

    async def test_nothing_follows(self) -> None:
        """Nothing is forwarded that follows a side's close frame."""
        for first in (0, 1):
            pair = await self.open()
            source, target, key = list(both(pair))[first]
            bye = frame(CLOSE, b"\x03\xe8", key=key)
            source.write(bye + frame(TEXT, b"late", key=key))
            self.assertEqual(await target.exactly(len(bye)), bye)
            source.close()
            target.close()
            self.assertEqual(await target.rest(), b"")
            await self.ended()

    async def test_unanswered(self) -> None:
        """A close frame without a reply is returned to its sender in time, and the connections end."""
        self.patch(session, "CLOSE_SECONDS", 0.0)
        for first in (0, 1):
            pair = await self.open()
            source, target, key = list(both(pair))[first]
            await self.assert_passes(source, target, frame(CLOSE, b"\x10\xe1why", key=key))
            await self.assert_closed(source, Close(b"\x10\xe1why"), masked=first == 1)
            self.assertEqual((await source.rest(), await target.rest()), (b"", b""))
            await self.ended()

    async def test_connection_closed_instead_of_a_reply(self) -> None:
        """A peer that replies to a close frame by closing TCP agrees: the sender gets its own frame back."""
        for first in (0, 1):
            pair = await self.open()
            source, target, key = list(both(pair))[first]
            await self.assert_passes(source, target, frame(CLOSE, b"\x03\xe8ok", key=key))
            target.close()
            await self.assert_closed(source, Close(b"\x03\xe8ok"), masked=first == 1)
            source.close()
            outcome = await self.ended()
            self.assertEqual(outcome.problem, None)

    async def test_illegal_close_is_not_echoed(self) -> None:
        """A close frame with a forbidden code is forwarded, but not returned to its sender as a reply."""
        for first in (0, 1):
            pair = await self.open()
            source, target, key = list(both(pair))[first]
            await self.assert_passes(source, target, frame(CLOSE, b"\x03\xed", key=key))
            target.close()
            self.assertEqual(await source.rest(), b"")
            await self.ended()

    async def test_close_and_leave(self) -> None:
        """A peer's close frame is delivered if TCP closes right after it, and the reply is discarded."""
        for first in (0, 1):
            pair = await self.open()
            source, target, key = list(both(pair))[first]
            bye = frame(CLOSE, b"\x03\xe8", key=key)
            source.write(bye)
            source.close()
            self.assertEqual(await target.exactly(len(bye)), bye)
            target.write(frame(CLOSE, b"\x03\xe8", key=KEY if first else b""))
            target.close()
            self.assertEqual(await target.rest(), b"")
            outcome = await self.ended()
            self.assertRegex(str(outcome.detail), "^close 1000, ")

    async def test_messages_before_a_close(self) -> None:
        """Everything sent before the close frame arrives before it, however slow the reader."""
        self.patch(session, "CLOSE_SECONDS", 0.0)
        for first in (0, 1):
            pair = await self.open()
            source, target, key = list(both(pair))[first]
            target.transport.pauseProducing()
            data = b"".join(frame(BINARY, bytes((number,)) * 50_000, key=key) for number in range(100))
            bye = frame(CLOSE, b"\x03\xe8", key=key)
            source.write(data + bye)
            await turns(50)
            target.transport.resumeProducing()
            self.assertEqual(await target.rest(), data + bye)
            source.close()
            await self.ended()

    async def test_shutdown(self) -> None:
        """A draining site closes both sides with 1001, and all sessions end."""
        upstream, came = await self.accepting()
        proxy = ProxyResource(upstream.url, reactor=reactor, log=QUIET)
        site = ProxySite(proxy, reactor=reactor)
        port = await self.listen(site)
        pairs = [await self.join(port, came) for _ in range(3)]
        drained = site.drain(10)
        for pair in pairs:
            await self.assert_closed(pair.client, GOING_AWAY)
            await self.assert_closed(pair.server, GOING_AWAY, masked=True)
            pair.client.write(close_frame(1001, client=True))
            pair.server.write(close_frame(1001))
            pair.server.close()
            self.assertEqual(await pair.client.rest(), b"")
        await drained
        await self.ended()
        self.assertEqual([str(one.detail).split(",")[0] for one in self.outcomes], ["close 1001"] * 3)

    async def test_shutdown_of_the_deaf(self) -> None:
        """Peers that never reply do not keep a draining site from its end."""
        self.patch(session, "END_SECONDS", 0.0)
        upstream, came = await self.accepting()
        site = ProxySite(ProxyResource(upstream.url, reactor=reactor, log=QUIET), reactor=reactor)
        pair = await self.join(await self.listen(site), came)
        await site.drain(10)
        self.assertEqual(await pair.client.rest(), GOING_AWAY.frame(masked=False))
        self.assertEqual(len(await pair.server.rest()), 8)

    async def test_shutdown_in_a_long_frame(self) -> None:
        """Inside a long frame no close frame can be sent: the connection ends without one."""
        self.patch(session, "END_SECONDS", 0.0)
        upstream, came = await self.accepting()
        site = ProxySite(ProxyResource(upstream.url, reactor=reactor, log=QUIET), reactor=reactor)
        pair = await self.join(await self.listen(site), came)
        parts = []
        for source, target, key in both(pair):
            part = frame(BINARY, bytes(100_000), key=key)[:500]
            await self.assert_passes(source, target, part)
            parts.append(part)
        await site.drain(10)
        self.assertEqual((await pair.client.rest(), await pair.server.rest()), (b"", b""))


class LossTests(WebSocketTestCase):
    """Sessions that end with the loss of a connection."""

    async def test_upstream_vanishes(self) -> None:
        """If the upstream vanishes without a close frame, orderly or not, the client is sent a 1011."""
        for vanish in (Stream.close, Stream.abort):
            pair = await self.open()
            await self.assert_passes(pair.server, pair.client, frame(TEXT, b"last words"))
            vanish(pair.server)
            await self.assert_closed(pair.client, ABNORMAL)
            pair.client.write(close_frame(1011, client=True))
            self.assertEqual(await pair.client.rest(), b"")
            outcome = await self.ended()
            self.assertEqual(outcome.problem, "the upstream went away without a close frame")
            self.assertRegex(str(outcome.detail), "^close 1011, ")

    async def test_client_that_ignores_it(self) -> None:
        """The proxy closes the connection of a client that does not reply to the 1011."""
        self.patch(session, "END_SECONDS", 0.0)
        pair = await self.open()
        pair.server.abort()
        self.assertEqual(await pair.client.rest(), ABNORMAL.frame(masked=False))

    async def test_client_vanishes(self) -> None:
        """If the client vanishes, by closing, half-closing or a reset, the upstream is sent a masked 1001."""
        for vanish in (Stream.close, Stream.abort, lambda stream: stream.transport.loseWriteConnection()):
            pair = await self.open()
            await self.assert_passes(pair.client, pair.server, frame(TEXT, b"last words", key=KEY))
            vanish(pair.client)
            await self.assert_closed(pair.server, GOING_AWAY, masked=True)
            pair.server.write(close_frame(1001))
            pair.server.close()
            self.assertEqual(await pair.server.rest(), b"")
            outcome = await self.ended()
            self.assertEqual(outcome.problem, "the client went away without a close frame")
            self.assertRegex(
                str(outcome.detail), "^close 1006, 1 messages 16 bytes up, 0 messages 0 bytes down$"
            )

    async def test_upstream_that_ignores_it(self) -> None:
        """The proxy closes the connection of an upstream that does not reply to the 1001."""
        self.patch(session, "END_SECONDS", 0.0)
        pair = await self.open()
        pair.client.abort()
        await self.assert_closed(pair.server, GOING_AWAY, masked=True)
        self.assertEqual(await pair.server.rest(), b"")

    async def test_in_the_middle_of_a_long_frame(self) -> None:
        """After half of a long frame the other connection ends, without a close frame inside that frame."""
        for first in (0, 1):
            pair = await self.open()
            source, target, key = list(both(pair))[first]
            whole, part = frame(TEXT, b"whole", key=key), frame(BINARY, bytes(100_000), key=key)[:50_000]
            source.write(whole + part)
            self.assertEqual(await target.exactly(len(whole + part)), whole + part)
            source.abort()
            self.assertEqual(await target.rest(), b"")
            await self.ended()

    async def test_queue_before_half_a_frame(self) -> None:
        """Everything before half a frame still arrives, although the reader was slow."""
        pair = await self.open()
        pair.client.transport.pauseProducing()
        whole = b"".join(frame(BINARY, bytes((number,)) * 50_000) for number in range(20))
        part = frame(BINARY, bytes(100_000))[:50_000]
        pair.server.write(whole + part)
        pair.server.close()
        await pair.server.gone()
        pair.client.transport.resumeProducing()
        self.assertEqual(await pair.client.rest(), whole + part)

    async def test_between_fragments(self) -> None:
        """Between the fragments of a message a close frame can be sent, and is."""
        for first, close in ((0, GOING_AWAY), (1, ABNORMAL)):
            pair = await self.open()
            source, target, key = list(both(pair))[first]
            await self.assert_passes(source, target, frame(TEXT, b"begun", fin=False, key=key))
            source.close()
            await self.assert_closed(target, close, masked=first == 0)
            target.close()
            await self.ended()

    async def test_upstream_that_was_held_back(self) -> None:
        """An upstream that is paused, because the client does not read, is still sent the close frame."""
        self.patch(session, "END_SECONDS", 1000.0)
        pair = await self.open()
        pair.client.transport.pauseProducing()
        pair.server.write(frame(BINARY, bytes(60_000)) * 300)
        self.assertGreater(await stuck(pair.server), 0)
        pair.client.abort()
        await self.assert_closed(pair.server, GOING_AWAY, masked=True)
        pair.server.close()
        await self.ended()
