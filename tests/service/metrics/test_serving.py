"""Metrics of a process, and of workers, under traffic of all kinds."""

from __future__ import annotations

from collections import Counter

from tests.support.metrics import Scraped
from tests.support.payloads import CHAT, CHAT_BODY
from tests.support.scraping import ScrapingTestCase
from tests.support.traffic import ACTS, Traffic
from tests.support.wire import read_response, send_request


class ServingTests(ScrapingTestCase):
    """One process."""

    async def test_all_kinds(self) -> None:
        """Requests are counted as their clients saw them, also across a reload; none is in flight after."""
        process = await self.start()
        traffic = Traffic(self, self.port)
        await traffic.run(5 * len(ACTS))
        await self.reload(process, {**self.rule, "timeoutSeconds": 500}, **self.config)
        await traffic.run(5 * len(ACTS))
        found = await self.settled(traffic)
        self.assertEqual(Counter(found.by("requests_total", "code")), traffic.seen)
        self.assertEqual(found.sum("request_duration_seconds_count"), sum(traffic.seen.values()))
        self.assertEqual(found.sum("client_disconnects_total"), traffic.seen["499"])
        self.assertEqual(set(found.by("requests_total", "mode")), {"converted", "passed", "websocket"})
        self.assertEqual(found.values("config_reloads_total"), [1])
        self.assertNotIn("Traceback", process.output)


class WorkersTests(ServingTests):
    """Two workers."""

    workers = 2


class FormatTests(ScrapingTestCase):
    """The response to a scrape."""

    async def test_formats(self) -> None:
        """It is text, or OpenMetrics if that is asked for, with a length."""
        await self.start()
        await self.request(self.port, target=CHAT, body=CHAT_BODY)
        for accept, kind in (
            ("*/*", "text/plain"),
            ("application/openmetrics-text", "application/openmetrics-text"),
        ):
            answer = await self.metrics(accept)
            self.assertEqual((answer.status, answer.complete), (200, True))
            self.assertTrue((answer.get("content-type") or "").startswith(f"{kind}; version="))
            found = Scraped(answer.body.decode(), open_metrics=kind != "text/plain")
            self.assertEqual(found.values("requests_total", kind="chat", mode="converted"), [1])
            self.assertEqual(found.values("build_info"), [1])
            self.assertGreater(found.sum("process_resident_memory_bytes", worker="main"), 2**20)
        head = await self.metrics(method="HEAD")
        self.assertEqual((head.status, head.body), (200, b""))

    async def test_in_flight(self) -> None:
        """A request under way is in flight, with its age and a connection; one that has ended is not."""
        await self.start()
        client = await self.client(self.port)
        send_request(client, "POST", CHAT, CHAT_BODY, [("X-Mock-Delay", "0.3")])
        before = Scraped((await self.metrics()).body.decode())
        self.assertEqual(before.values("requests_in_flight", mode="converted"), [1])
        self.assertGreater(before.sum("oldest_request_seconds"), 0)
        self.assertEqual(before.values("upstream_connections", state="active"), [1])
        await read_response(client)
        after = await self.scrape()
        self.assertEqual(after.values("requests_in_flight", mode="converted"), [0])
        self.assertEqual(after.values("oldest_request_seconds"), [0])
        self.assertEqual(after.values("upstream_connections", state="idle"), [1])
