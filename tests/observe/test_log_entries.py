"""Entries of the log about requests."""

from __future__ import annotations

import json
from typing import Any

from twisted.logger import LogEvent
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.observe.log_entries import log_received, log_request
from stream_proxy.observe.record import Record, Usage
from stream_proxy.request_log import RequestLog

TRACE = "0af7651916cd43dd8448eb211c80319c"


def full() -> Record:
    """Return the record of a request of which everything is known."""
    record = Record(7, "main", 100.0)
    record.method, record.path, record.client = b"POST", b"/v1/chat/completions", "10.0.0.7"
    record.origin, record.status, record.mode = "https://up.example", 200, "passed"
    record.why, record.model, record.usage = "no stream came", "gpt-x", Usage(5, 41, 3, None)
    record.received, record.read, record.sent, record.events = 30, 700, 707, 9
    record.decided, record.connected, record.head = 100.001, 100.002, 100.01
    record.first_event, record.last_event, record.ended = 100.05, 100.8, 100.812
    record.attempts, record.code, record.problem = ("refused stream",), "upstream_cut", "it broke"
    record.request_fields = [
        (b"Authorization", b"Bearer secret"),
        (b"X-Request-Id", b"r 1"),
        (b"traceparent", f"00-{TRACE}-b7ad6b7169203331-01".encode()),
    ]
    return record


class EntriesTests(SynchronousTestCase):
    """:func:`log_request` and :func:`log_received`."""

    def logged(self, record: Record, level: str = "info", *, as_json: bool = False) -> list[LogEvent]:
        """Return the events of a request."""
        events: list[Any] = []
        log = RequestLog(level, observer=events.append)  # type: ignore[arg-type]
        log.configure(as_json=as_json)
        log_received(log, record)
        log_request(log, record)
        self.assertNotIn("secret", repr(events))
        return events

    def test_text(self) -> None:
        """A line begins with what happened; what else is known has names, in a fixed order."""
        (event,) = self.logged(full())
        self.assertEqual(
            event["line"],
            "POST /v1/chat/completions 200 passed https://up.example 707 bytes 812 ms: it broke | rule=main "
            "client=10.0.0.7 received=30 head=10 first=50 model=gpt-x input=5 output=41 "
            'why="no stream came" again="refused stream" id="r 1" '
            f"trace={TRACE} code=upstream_cut",
        )
        (event,) = self.logged(Record(1, "8080", 5.0))
        self.assertEqual(event["line"], "- - 0 passed - 0 bytes 0 ms | rule=8080 client=- received=0")

    def test_long_path(self) -> None:
        """Of a path that is longer than any real one only the beginning is logged."""
        record = full()
        record.path = b"/" + b"x" * 60_000
        for as_json in (False, True):
            for event in self.logged(record, "debug", as_json=as_json):
                self.assertLess(len(event["line"]), 3_000)

    def test_json(self) -> None:
        """An object has the same under names that stay, and nothing for what is not known."""
        (event,) = self.logged(full(), as_json=True)
        expected = {
            "event": "request",
            "number": 7,
            "method": "POST",
            "path": "/v1/chat/completions",
            "status": 200,
            "mode": "passed",
            "why": "no stream came",
            "rule": "main",
            "client": "10.0.0.7",
            "upstream": "https://up.example",
            "model": "gpt-x",
            "input_tokens": 5,
            "output_tokens": 41,
            "cached_tokens": 3,
            "received_bytes": 30,
            "upstream_bytes": 700,
            "sent_bytes": 707,
            "events": 9,
            "head_ms": 10.0,
            "first_event_ms": 50.0,
            "duration_ms": 812.0,
            "attempts": ["refused stream"],
            "request_id": "r 1",
            "trace_id": TRACE,
            "code": "upstream_cut",
            "problem": "it broke",
        }
        self.assertEqual(json.loads(event["line"]), expected)
        record = full()
        record.mode = "websocket"
        (event,) = self.logged(record, as_json=True)
        self.assertEqual(json.loads(event["line"])["messages_up"], 0)

    def test_levels(self) -> None:
        """At debug there are the head and the steps as well, at warn and above no requests."""
        received, _, steps = self.logged(full(), "debug")
        self.assertEqual(received["line"], "request 7 POST /v1/chat/completions received from 10.0.0.7")
        self.assertEqual(
            steps["line"],
            "request 7 steps in ms: received 0, decided 1, connected 2, head 10, first event 50, "
            "last event 800, answered 812",
        )
        received, _, steps = self.logged(full(), "debug", as_json=True)
        self.assertEqual(json.loads(received["line"])["client"], "10.0.0.7")
        self.assertEqual(json.loads(steps["line"])["first_event_ms"], 50.0)
        for level in ("warn", "warning", "WARN ", "error"):
            self.assertEqual(self.logged(full(), level), [])

    def test_identifiers(self) -> None:
        """Without the client's own identifier the upstream's counts; a broken trace is none."""
        record = Record(1, "main", 0.0)
        record.response_fields = [(b"x-request-id", b"req_up" * 100)]
        self.assertEqual(record.request_id, ("req_up" * 100)[:128])
        for value in (b"", b"00-short-b7ad6b7169203331-01", b"00-" + b"\n" * 32 + b"-x-01", TRACE.encode()):
            record.request_fields = [(b"traceparent", value)]
            self.assertIsNone(record.trace_id)
