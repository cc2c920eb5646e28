"""Lifetime of the objects of a call whose client left: free once its answer is in, or nobody waits for it."""

from __future__ import annotations

import gc

from stream_proxy.flows.conversion.convert import Conversion
from stream_proxy.flows.conversion.fallbacks import Fallbacks
from stream_proxy.flows.exchange import Exchange
from stream_proxy.flows.resuming.joining import Joining
from stream_proxy.flows.resuming.orphan import Orphan
from stream_proxy.http.body_pieces import BodyPieces
from tests.support.loopback import turns
from tests.support.payloads import CHAT_BODY, HELLO
from tests.support.resuming import KEY, SECONDS, ResumingTestCase, again
from tests.support.stage import eventually
from tests.support.wire import event_stream_head, read_response, respond

EVENTS = ("Content-Type", "text/event-stream")


class LifetimeTests(ResumingTestCase):
    """Weak references, with the cycle collector off."""

    def setUp(self) -> None:
        gc.disable()
        self.addCleanup(gc.enable)
        gc.freeze()
        self.addCleanup(gc.unfreeze)

    def living(self, *kinds: type) -> list[str]:
        """Return the names of what is alive of these kinds."""
        return sorted(type(each).__name__ for each in gc.get_objects() if isinstance(each, kinds))

    async def assert_free(self, *kinds: type) -> None:
        """Fail if anything of these kinds is alive."""
        await turns(4)
        self.assertEqual(self.living(*kinds), [])

    async def test_answered(self) -> None:
        """Once its answer is in, the answer alone is left of a call; once it was fetched, nothing."""
        port = await self.start()
        client = await self.call(port, KEY, body={**CHAT_BODY, "user": "x" * 300_000})
        self.assertTrue(await eventually(lambda: self.due() or len(self.asked) == 1))
        await self.leave(client, 1)
        self.assertGreater(self.lost.orphans.held, 300_000)
        respond(self.asked[0], 200, HELLO, [EVENTS])
        self.assertTrue(await eventually(lambda: 0 < self.lost.orphans.held < 1000))
        await self.assert_free(Conversion, Exchange, Fallbacks, BodyPieces)
        retry = await self.call(port, KEY, again(1), body={**CHAT_BODY, "user": "x" * 300_000})
        self.assertTrue(await eventually(lambda: self.due() or retry.received > 0))
        await read_response(retry)
        await self.assert_free(Conversion, Exchange, Joining, Orphan)

    async def test_joined(self) -> None:
        """While a retry waits its body is not held, but that of the call before."""
        port, body = await self.start(), {**CHAT_BODY, "user": "x" * 300_000}
        client = await self.call(port, KEY, body=body)
        self.assertTrue(await eventually(lambda: self.due() or len(self.asked) == 1))
        await self.leave(client, 1)
        bodies = self.living(BodyPieces)
        await self.call(port, KEY, again(1), body=body)
        self.assertTrue(await eventually(lambda: self.due() or bool(self.living(Joining))))
        await turns(4)
        self.assertEqual(self.living(BodyPieces), bodies)

    async def test_ends(self) -> None:
        """Nothing is left of a call that expires, is forgotten, or whose retry leaves after that."""
        for joined in (False, True):
            for forgotten in (False, True):
                port = await self.start()
                client = await self.call(port, KEY)
                stream = await self.arrived(1)
                stream.write(event_stream_head())
                await self.leave(client, 1)
                if joined:
                    retry = await self.call(port, KEY, again(1))
                    await self.joined()
                if forgotten:
                    self.lost.forget()
                if joined:
                    retry.abort()
                    self.assertTrue(await eventually(lambda: not self.ledger.live))
                self.clock.advance(SECONDS)
                await self.gone(stream)
                await self.assert_free(Conversion, Exchange, Joining, Orphan)
                await self.nothing_left()
