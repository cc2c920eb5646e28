"""What is counted of a request when it ends."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.observe.metrics.cells import Cells
from stream_proxy.observe.metrics.names import MOST_NAMES
from stream_proxy.observe.metrics.recorder import Recorder
from stream_proxy.observe.record import Record, Usage
from tests.support.metrics import Scraped, ended, failed, scraped

USAGE = Usage(input=7, output=101, cached=3, reasoning=5)
#: A converted call with all that a call may have.
FULL: dict[str, Any] = {
    "model": "gpt-5",
    "usage": USAGE,
    "collected": 100.0005,
    "connecting": 100.002,
    "connected": 100.042,
    "first_event": 101.0,
    "last_event": 101.9,
}


class RecorderTestCase(SynchronousTestCase):
    """Counts records."""

    def setUp(self) -> None:
        self.recorder = Recorder(Cells())

    def counted(self, *records: Record) -> Scraped:
        """Return what a scrape has when these have ended."""
        for record in records:
            self.recorder.ended(record)
        return scraped(self.recorder.cells)


class SuccessTests(RecorderTestCase):
    """Calls that succeed."""

    def test_request(self) -> None:
        """Each request is counted once, by rule, kind, mode and code, and its time in seconds."""
        found = self.counted(ended(), ended(2), ended(3, path=b"/v1/models", method=b"GET", mode="passed"))
        labels = ("rule", "kind", "mode", "code")
        self.assertEqual(
            found.by("requests_total", *labels),
            {("main", "chat", "converted", "200"): 2, ("main", "other", "passed", "200"): 1},
        )
        self.assertEqual(found.by("request_duration_seconds_sum", "mode"), {"converted": 4, "passed": 2})
        bucket = {"kind": "chat", "mode": "converted"}
        self.assertEqual(found.values("request_duration_seconds_bucket", le="1.28", **bucket), [0])
        self.assertEqual(found.values("request_duration_seconds_bucket", le="2.56", **bucket), [2])

    def test_times(self) -> None:
        """Overhead, connecting, first event and time per token are those of the record."""
        found = self.counted(ended(**FULL))
        for name, labels, seconds in (
            ("overhead_seconds", {"phase": "before_upstream"}, 0.0005),
            ("overhead_seconds", {"phase": "after_last_byte"}, 0.1),
            ("upstream_connect_seconds", {}, 0.04),
            ("time_to_first_event_seconds", {"model": "gpt-5"}, 1.0),
            ("time_per_output_token_seconds", {"model": "gpt-5"}, 0.009),
        ):
            self.assertAlmostEqual(found.sum(f"{name}_sum", **labels), seconds)
            self.assertEqual(found.sum(f"{name}_count", **labels), 1)

    def test_tokens(self) -> None:
        """Tokens are counted by type; a call that tells none is counted as such."""
        found = self.counted(ended(**FULL), ended(2, **{**FULL, "usage": None}), ended(3))
        self.assertEqual(
            found.by("tokens_total", "type"), {"input": 7, "output": 101, "cached": 3, "reasoning": 5}
        )
        self.assertEqual(found.values("calls_without_usage_total", rule="main"), [2])

    def test_partial_usage(self) -> None:
        """Counts that are not known, or make no sense, are left out."""
        found = self.counted(
            ended(**{**FULL, "usage": Usage(input=-5)}), ended(2, **{**FULL, "usage": Usage(output=1)})
        )
        self.assertEqual(found.by("tokens_total", "type"), {"output": 1})
        self.assertEqual(found.sum("time_per_output_token_seconds_count"), 0)

    def test_not_a_call(self) -> None:
        """Requests that ask no model have no usage to miss."""
        found = self.counted(ended(path=b"/v1/files"), ended(2, method=b"GET"))
        self.assertEqual(found.values("calls_without_usage_total"), [0])

    def test_attempts(self) -> None:
        """Further attempts are counted by their reasons, of which there are few."""
        many = tuple(f"reason {number}" for number in range(100))
        found = self.counted(
            ended(attempts=("stale connection", "stale connection")), ended(2, attempts=many)
        )
        reasons = found.by("upstream_retries_total", "reason")
        self.assertEqual((reasons["stale_connection"], len(reasons), sum(reasons.values())), (2, 21, 102))

    def test_kept_alive(self) -> None:
        """Answers whose head went out early are counted."""
        self.assertEqual(self.counted(ended(kept_alive=True), ended(2)).sum("kept_alive_answers_total"), 1)


class ModelsTests(RecorderTestCase):
    """Models as labels."""

    def test_bound(self) -> None:
        """A client that makes names up makes no more than 101 labels, each of them printable."""
        for number in range(1000):
            self.recorder.ended(ended(number, **{**FULL, "model": f"\x00{'y' * 50}{number}\n" + "x" * 1000}))
        found = scraped(self.recorder.cells).by("tokens_total", "model")
        self.assertEqual(len(found), MOST_NAMES + 1)
        self.assertTrue(all(name.isprintable() and len(name) <= 64 for name in found))

    def test_failures(self) -> None:
        """A model that only errors or calls without output name is no label."""
        self.recorder.ended(failed(404, "model_not_found", model="made-up"))
        self.recorder.ended(ended(status=404, model="made-up"))
        self.recorder.ended(ended(model="made-up"))
        self.assertNotIn("made-up", str(scraped(self.recorder.cells).samples))

    def test_pinned(self) -> None:
        """Pinned models are the only labels."""
        self.recorder = Recorder(Cells(), ["gpt-5"])
        found = self.counted(ended(**FULL), ended(2, **{**FULL, "model": "gpt-4"}))
        self.assertEqual(set(found.by("tokens_total", "model")), {"gpt-5", "other"})

    def test_rules(self) -> None:
        """Each rule has its own models."""
        found = self.counted(ended(**FULL), ended(2, "second", **{**FULL, "model": "b"}))
        self.assertEqual(set(found.by("tokens_total", "rule", "model")), {("main", "gpt-5"), ("second", "b")})

    def test_codes(self) -> None:
        """An upstream that makes statuses up makes no more than sixty-one labels."""
        found = self.counted(*(ended(number, status=number) for number in range(100, 600)))
        codes = found.by("requests_total", "code")
        self.assertEqual((len(codes), sum(codes.values())), (61, 500))


class FailureTests(RecorderTestCase):
    """Calls that fail."""

    def test_left(self) -> None:
        """A client that leaves is counted by how far its request was, with the events that came in vain."""
        left: dict[str, Any] = {"status": 499, "left": True}
        found = self.counted(
            ended(**left, head=None),
            ended(2, **left, events=30),
            ended(3, **left, events=12, mode="passed", sent=500),
            ended(4, **left, mode="passed"),
        )
        self.assertEqual(
            found.by("client_disconnects_total", "phase"), {"before_head": 1, "waiting": 2, "streaming": 1}
        )
        self.assertEqual(found.values("abandoned_events_total"), [42])
        self.assertEqual(found.by("upstream_errors_total", "reason"), {})
        self.assertEqual(found.by("requests_total", "code"), {"499": 4})

    def test_kept(self) -> None:
        """Events that came for a call that waits for its retry are not thrown away; retries are counted."""
        left: dict[str, Any] = {"status": 499, "left": True}
        found = self.counted(
            ended(**left, events=9, kept=True),
            ended(2, mode="resumed", head=None),
            ended(3, **left, mode="resumed", head=None),
        )
        self.assertEqual(found.by("resumed_total", "outcome"), {"kept": 1, "joined": 1, "left": 1})
        self.assertEqual(found.values("abandoned_events_total"), [0])
        self.assertEqual(found.sum("client_disconnects_total"), 2)

    def test_cancelled(self) -> None:
        """What an operator cancelled is nobody's failure."""
        found = self.counted(
            failed(503, "cancelled"), ended(2, status=499, problem="an operator cancelled it")
        )
        for family in ("client_disconnects_total", "refused_requests_total"):
            self.assertEqual(found.sum(family), 0)

    def test_reasons(self) -> None:
        """Refusals and failures of the upstream are counted apart."""
        found = self.counted(
            failed(401, "invalid_api_key"), failed(502, "upstream_dns"), ended(3, status=429, mode="passed")
        )
        self.assertEqual(found.by("refused_requests_total", "reason"), {"key": 1})
        self.assertEqual(found.by("upstream_errors_total", "reason"), {"dns": 1, "status_4xx": 1})

    def test_broken_off(self) -> None:
        """A relayed answer that broke off counts as the upstream's failure, and its tokens as well."""
        broken = {**FULL, "mode": "passed", "problem": "broken off"}
        found = self.counted(
            ended(**broken),
            ended(2, **broken, code="upstream_timeout"),
            ended(3, **broken, code="overloaded"),
        )
        self.assertEqual(found.by("upstream_errors_total", "reason"), {"cut": 1, "stalled": 1, "in_band": 1})
        self.assertEqual(found.sum("tokens_total", type="output"), 303)
        self.assertEqual(found.sum("overhead_seconds_count", phase="after_last_byte"), 0)

    def test_told(self) -> None:
        """What happens outside of a request is counted when it is told."""
        self.recorder.count("resumed_total", "main", "expired")
        self.assertEqual(
            scraped(self.recorder.cells).by("resumed_total", "rule", "outcome"), {("main", "expired"): 1}
        )


class WebSocketTests(RecorderTestCase):
    """Messages of WebSockets."""

    def test_open(self) -> None:
        """Messages are counted while the session is open, each once, and the rest when it ends."""
        record = ended(mode="websocket", status=101, ended=None, path=b"/v1/realtime")
        counts = iter([(3, 10), (3, 11), (5, 20)])

        def recount() -> None:
            record.messages_up, record.messages_down = next(counts)

        record.recount = recount
        for up, down in ((3, 10), (3, 11)):
            list(self.recorder.count_open([record]))
            found = scraped(self.recorder.cells).by("websocket_messages_total", "direction")
            self.assertEqual(found, {"up": up, "down": down})
        record.refresh()
        record.ended = 500.0
        found = self.counted(record).by("websocket_messages_total", "direction")
        self.assertEqual(found, {"up": 5, "down": 20})
        self.assertEqual(self.recorder._messages, {})
        list(self.recorder.count_open([record]))  # it ended while others were looked at
        found = scraped(self.recorder.cells).by("websocket_messages_total", "direction")
        self.assertEqual(found, {"up": 5, "down": 20})
        self.assertEqual(self.recorder._messages, {})
