"""What is counted of each flow, with the mock as the upstream."""

from __future__ import annotations

from typing import Any

from stream_proxy import Limits
from stream_proxy.observe.ledger import Ledger
from stream_proxy.observe.metrics.cells import Cells
from stream_proxy.observe.metrics.recorder import Recorder
from tests.support.loopback import LoopbackTestCase, reactor
from tests.support.metrics import Scraped, scraped
from tests.support.payloads import CHAT, CHAT_BODY, RESPONSES, RESPONSES_BODY
from tests.support.stage import eventually
from tests.support.wire import read_response, send_request

STREAM = {**CHAT_BODY, "stream": True, "stream_options": {"include_usage": True}}


class FlowsTests(LoopbackTestCase):
    """Records of real requests, counted."""

    async def start(self, **options: Any) -> int:
        """Start a proxy in front of the mock, and return its port."""
        self.ledger = Ledger(reactor.seconds)
        self.recorder = Recorder(Cells())
        self.ledger.ended_hooks.append(self.recorder.ended)
        return await self.proxy(await self.mock(), ledger=self.ledger, name="main", **options)

    async def ask(self, port: int, target: str, body: object, **controls: object) -> int:
        """Ask the mock, and return the status."""
        fields = [(f"X-Mock-{name}", str(value)) for name, value in controls.items()]
        return (await self.request(port, target=target, body=body, headers=fields)).status

    async def counted(self, count: int) -> Scraped:
        """Wait until so many requests have been counted, and return what a scrape has."""
        self.assertTrue(await eventually(lambda: len(self.ledger.recent) >= count))
        self.assertEqual(len(self.ledger.recent), count)
        return scraped(self.recorder.cells)

    async def test_tokens(self) -> None:
        """Tokens and first events are known of converted calls and of streams that are relayed."""
        port = await self.start()
        for target, body in ((CHAT, CHAT_BODY), (RESPONSES, RESPONSES_BODY), (CHAT, STREAM)):
            self.assertEqual(await self.ask(port, target, body, Words=5), 200)
        found = await self.counted(3)
        self.assertGreater(found.sum("tokens_total", model="m", type="input"), 0)
        self.assertGreater(found.sum("tokens_total", model="m", type="output"), 10)
        self.assertEqual(found.sum("time_to_first_event_seconds_count", model="m"), 3)
        self.assertEqual(found.sum("time_per_output_token_seconds_count", model="m"), 3)
        self.assertEqual(found.sum("calls_without_usage_total"), 0)
        self.assertEqual(found.sum("overhead_seconds_count", phase="before_upstream"), 3)
        self.assertEqual(found.sum("overhead_seconds_count", phase="after_last_byte"), 2)

    async def test_failures(self) -> None:
        """Each failure of the upstream has its reason, converted or not."""
        port = await self.start()
        for body, controls in (
            (CHAT_BODY, {"Fail": "error-chunk", "Code": "rate_limit_exceeded"}),
            (CHAT_BODY, {"Fail": "break"}),
            (CHAT_BODY, {"Fail": "not-json"}),
            (CHAT_BODY, {"Status": 429}),
            (CHAT_BODY, {"Status": 503}),
            (STREAM, {"Fail": "break"}),
            (STREAM, {"Fail": "error-chunk"}),
        ):
            await self.ask(port, CHAT, body, **controls)
        found = await self.counted(7)
        self.assertEqual(
            found.by("upstream_errors_total", "reason"),
            {"in_band": 2, "cut": 2, "malformed": 1, "status_4xx": 1, "status_5xx": 1},
        )
        self.assertEqual(found.sum("refused_requests_total"), 0)

    async def test_refused(self) -> None:
        """What the channel or the proxy refuses is counted as refused, by its reason."""
        port = await self.start(limits=Limits(max_request_bytes=100, max_header_count=20))
        await self.ask(port, CHAT, {**CHAT_BODY, "more": "x" * 200})
        await self.request(port, "CONNECT", "x:1")
        await self.request(port, "GET", "/", headers=[(f"x-{n}", "1") for n in range(30)])
        found = await self.counted(3)
        self.assertEqual(found.by("refused_requests_total", "reason"), {"too_large": 2, "malformed": 1})
        self.assertEqual(found.sum("upstream_errors_total"), 0)

    async def test_attempts(self) -> None:
        """A second attempt is counted by its reason."""
        port = await self.start()
        self.assertEqual(await self.ask(port, CHAT, CHAT_BODY, Refuse="stream_options"), 200)
        self.assertEqual(await self.ask(port, CHAT, CHAT_BODY, Refuse="stream"), 200)
        found = await self.counted(2)
        reasons = found.by("upstream_retries_total", "reason")
        self.assertEqual(reasons, {"refused_include_usage": 1, "refused_stream": 1})

    async def test_abandoned(self) -> None:
        """Events that came for a client that left are counted, of a converted call and of a stream."""
        port = await self.start()
        for number, body in enumerate((CHAT_BODY, STREAM)):
            client = await self.client(port)
            send_request(client, "POST", CHAT, body, [("X-Mock-Words", "50"), ("X-Mock-Pace", "0.01")])

            def some_came() -> bool:
                records = list(self.ledger.live.values())
                for record in records:
                    record.refresh()
                return any(record.events > 2 for record in records)

            self.assertTrue(await eventually(some_came))
            client.abort()
            await self.counted(number + 1)
        found = await self.counted(2)
        self.assertGreater(found.sum("abandoned_events_total"), 5)
        self.assertEqual(found.by("client_disconnects_total", "phase"), {"waiting": 1, "streaming": 1})

    async def test_kept_alive(self) -> None:
        """An answer whose head went out early is counted."""
        port = await self.start(limits=Limits(keep_alive_seconds=0.01))
        client = await self.client(port)
        send_request(client, "POST", CHAT, CHAT_BODY, [("X-Mock-Delay", "0.1")])
        self.assertEqual((await read_response(client)).status, 200)
        self.assertEqual((await self.counted(1)).sum("kept_alive_answers_total"), 1)
