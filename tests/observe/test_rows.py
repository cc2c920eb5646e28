"""Tests of what the admin port shows of a record."""

from __future__ import annotations

import json

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.observe.capture.secrets import Secrets
from stream_proxy.observe.heads import shown_head
from stream_proxy.observe.record import Record, Usage
from stream_proxy.observe.rows import details, ended, fixed, moving

HOSTILE = "<img src=x onerror=alert(1)>\x1b[2J\u202e\ud83d\x00"


def hostile() -> Record:
    """Return a record in which everything that comes from outside is hostile, and long."""
    record = Record(1, "8080", 1.0)
    record.method, record.path = b"G\x1bET", b"/<script>\xff" + b"x" * 100_000
    record.model = HOSTILE + "m" * 100_000
    record.client = HOSTILE
    record.problem = record.detail = HOSTILE + "p" * 100_000
    record.request_fields = [(b"X-\x07", b"\x1b[31m" + b"y" * 100_000)] * 500
    record.response_fields = [(b"Server", HOSTILE.encode("utf-8", "surrogatepass"))]
    record.usage = Usage(3, 4)
    record.status = 200
    record.ended = 2.0
    return record


class RowTests(SynchronousTestCase):
    """Rows."""

    def test_bounded(self) -> None:
        """Whatever comes from outside, rows and details are small, printable JSON."""
        record = hostile()
        for row, most in (
            (fixed(record) | moving(record), 3_000),
            (ended(record), 3_000),
            (details(record), 40_000),
        ):
            data = msgspec.json.encode(row)
            self.assertLess(len(data), most)
            self.assertTrue(all(text.isprintable() for text in _texts(json.loads(data))))

    def test_nothing(self) -> None:
        """A record that has only begun is shown, too."""
        record = Record(7, "8080", 1.0)
        for row in (fixed(record) | moving(record), ended(record), details(record)):
            msgspec.json.encode(row)
        self.assertTrue(details(record)["live"])


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for part in parts for text in _texts(part)]


class HeadTests(SynchronousTestCase):
    """Heads."""

    def test_blanked(self) -> None:
        """A field whose name tells of a secret is blank, in any case."""
        for name in (
            b"Authorization",
            b"proxy-authorization",
            b"X-Api-Key",
            b"COOKIE",
            b"Set-Cookie",
            b"X-Amz-Security-Token",
            b"X-Client-Secret",
            b"OpenAI-Session",
            b"x-goog-api-key",
        ):
            self.assertEqual(shown_head([(name, b"sk-1")])[0][1], "***", name)

    def test_shown(self) -> None:
        """Other fields are shown, without the queries of URLs and the keys of browsers."""
        self.assertEqual(
            shown_head(
                [
                    (b"Content-Type", b"text/plain; q=1"),
                    (b"Referer", b"https://a.example/x?key=1#y"),
                    (b"Location", b"/x?token=1"),
                    (b"Sec-WebSocket-Protocol", b"realtime, openai-insecure-api-key.sk-1, beta"),
                    (b"Sec-WebSocket-Version", b"13"),
                ]
            ),
            [
                ("Content-Type", "text/plain; q=1"),
                ("Referer", "https://a.example/x?***"),
                ("Location", "/x?***"),
                ("Sec-WebSocket-Protocol", "realtime, openai-insecure-api-key.***, beta"),
                ("Sec-WebSocket-Version", "13"),
            ],
        )

    def test_known(self) -> None:
        """A value that is known to be a secret is shown nowhere."""
        self.assertEqual(
            shown_head([(b"X-A", b"a sk-operator b"), (b"X-B", b"b")], Secrets([b"sk-operator"])),
            [("X-A", "a *** b"), ("X-B", "b")],
        )

    def test_cut(self) -> None:
        """A head is cut at its bound."""
        head = shown_head([(b"A", b"1" * 3000), (b"B", b"2" * 3000), (b"C", b"3")])
        self.assertEqual([name for name, _ in head], ["A", "B"])
        self.assertTrue(head[1][1].endswith("…"))
        self.assertLess(sum(len(name) + len(value) for name, value in head), 4_100)
