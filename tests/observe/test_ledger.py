"""The ledger of requests, filled through real sockets."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from stream_proxy.observe.ledger import Ledger
from stream_proxy.observe.record import Phase, Record
from tests.support.conversion import EVENTS, START, ConversionTestCase
from tests.support.loopback import reactor
from tests.support.payloads import CHAT, CHAT_BODY, HELLO
from tests.support.stage import eventually
from tests.support.wire import Stream, event_stream_head, read_request, respond


class LedgerTests(ConversionTestCase):
    """Each request is listed from its head to its end, with what it does."""

    def setUp(self) -> None:
        super().setUp()
        self.ledger = Ledger(reactor.seconds)

    def record(self) -> Record:
        """Return the one request that has ended."""
        self.assertEqual(self.ledger.live, {})
        (record,) = self.ledger.recent
        return record

    async def test_converted(self) -> None:
        """A converted call has its steps in their order, and nothing that would keep its flow."""
        response = await self.asked(
            lambda stream: respond(stream, 200, HELLO, [EVENTS]), ledger=self.ledger, name="main"
        )
        self.assert_hello(response)
        self.assertTrue(await eventually(lambda: not self.ledger.live))
        record = self.record()
        self.assertEqual((record.rule, record.mode, record.kind), ("main", "converted", "chat"))
        self.assertEqual((record.status, record.sent), (200, len(response.body)))
        steps = (record.began, record.decided, record.asked, record.connected, record.head, record.ended)
        known = [step for step in steps if step is not None]
        self.assertEqual(len(known), len(steps))
        self.assertEqual(known, sorted(known))
        self.assertEqual((record.silence, record.upload, record.cancel), (None, None, None))

    async def test_cancelled(self) -> None:
        """A request that an operator cancels ends with an error of that name, on both sides."""
        gone: Deferred[None] = Deferred()

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            stream.chunk(START)
            await stream.gone()
            gone.callback(None)

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url, ledger=self.ledger)
        asked = Deferred.fromCoroutine(self.request(port, target=CHAT, body=CHAT_BODY))
        phases = (Phase.FIRST_EVENT, Phase.STREAMING)
        self.assertTrue(await eventually(lambda: any(r.phase in phases for r in self.ledger.live.values())))
        (record,) = self.ledger.live.values()
        cancel = record.cancel
        assert cancel is not None
        cancel()
        response = await asked
        await gone
        self.assertEqual((response.status, response.json()["error"]["code"]), (503, "cancelled"))
        self.assertEqual((self.record().code, record.problem), ("cancelled", "an operator cancelled it"))
