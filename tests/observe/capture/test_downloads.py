"""Downloads of a capture: HAR, JSON lines and commands, whatever was captured."""

from __future__ import annotations

import json
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from stream_proxy.http.headers import RawHeader
from stream_proxy.observe.capture import curl, har, lines
from stream_proxy.observe.capture.bodies import PIECE_BYTES
from stream_proxy.observe.capture.capture import Capture
from stream_proxy.observe.capture.events import timed_events
from stream_proxy.observe.capture.exchange import CapturedExchange
from stream_proxy.observe.ledger import Ledger
from tests.support.captures import as_curl, as_har, as_lines
from tests.support.har_schema import check_har

JSON_FIELD = (b"Content-Type", b"application/json")
EVENTS_FIELD = (b"Content-Type", b"text/event-stream; charset=utf-8")
_SHELL = 'curl() { for each; do printf "%s\\0" "$each"; done; printf "END\\0"; cat; }; '


class DownloadTestCase(TestCase):
    """Exchanges that a test makes by hand."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.ledger = Ledger(self.clock.seconds)
        self.capture = Capture(self.ledger, megabytes=30, always=True, wall=lambda: 1_800_000_000.25)

    def one(
        self,
        body: bytes = b"",
        *,
        method: bytes = b"POST",
        target: bytes = b"/v1/x",
        fields: list[RawHeader] | None = None,
        answer: bytes | None = b"{}",
        answer_fields: list[RawHeader] | None = None,
        status: int = 200,
    ) -> CapturedExchange:
        """Capture an exchange whose answer comes in pieces of 64 KiB, a second apart."""
        record = self.ledger.begin("main")
        record.method, record.asked = method, self.clock.seconds()
        given = [(b"Host", b"api.test:8080"), JSON_FIELD] if fields is None else fields
        exchange = self.capture.begin(record, target, b"HTTP/1.1", given, "https://up.test")
        record.capture = exchange
        exchange.request_part(body)
        if answer is not None:
            exchange.response_head(status, b"OK", [JSON_FIELD] if answer_fields is None else answer_fields)
            for at in range(0, len(answer), PIECE_BYTES):
                self.clock.advance(1)
                exchange.response_part(answer[at : at + PIECE_BYTES])
        record.status = status
        self.ledger.end(record)
        return exchange


class HARTests(DownloadTestCase):
    """HAR 1.2, which importers take."""

    def test_valid(self) -> None:
        """Whatever was captured, the file is valid: odd hosts, targets, bytes, and no answer at all."""
        self.one(b'{"a": "\xc3\xa9\\ud800"}', target=b"/v1/x?a=1&b=%zz&c=|^<>\"'[]{}&d")
        self.one(b"\xff\x00\xfe", fields=[(b"Host", b"no host/at all")], answer=b"\x80", answer_fields=[])
        self.one(method=b"GET", target=b"*", fields=[(b"X-\xc3\xa9", b"\xe9")], answer=None, status=499)
        self.one(method=b"HEAD", target=b"http://other.test/v1/a", answer=b"unsent")
        self.one(
            method=b"CONNECT", target=b"other.test:443", status=501, answer_fields=[(b"Location", b"/n\xe4")]
        )
        entries = check_har(as_har(self.capture))
        self.assertEqual(len(entries), 5)
        self.assertEqual(entries[0]["request"]["url"].partition("?")[0], "http://api.test:8080/v1/x")
        self.assertEqual(entries[0]["request"]["postData"]["text"], '{"a": "é\\ud800"}')
        self.assertEqual(entries[0]["startedDateTime"], "2027-01-15T08:00:00.250Z")
        self.assertEqual(entries[1]["request"]["postData"]["_encoding"], "base64")
        self.assertEqual(entries[2]["response"]["status"], 0)
        self.assertNotIn("text", entries[3]["response"]["content"])

    def test_empty(self) -> None:
        """A capture without exchanges is a valid file, too."""
        self.assertEqual(check_har(as_har(self.capture)), [])

    def test_cut_within_a_character(self) -> None:
        """Text whose pieces end within a character is put together again."""
        text = "é" * (PIECE_BYTES // 2) + "x" + "漢" * 30_000
        self.one(answer=text.encode())
        (entry,) = check_har(as_har(self.capture))
        self.assertEqual(entry["response"]["content"]["text"], text)
        pieces = entry["response"]["content"]["_pieces"]
        self.assertEqual(sum(length for _, length in pieces), len(text.encode()))
        self.assertEqual([at for at, _ in pieces], [1000.0, 2000.0, 3000.0])
        (line,) = as_lines(self.capture)
        self.assertEqual("".join(piece for _, piece in line["response"]["body"]), text)

    def test_stream_behind_a_call(self) -> None:
        """The stream behind a converted call is an entry of its own: importers show no other's events."""
        record = self.ledger.begin("main")
        record.method, record.mode = b"POST", "converted"
        exchange = record.capture = self.capture.begin(
            record, b"/v1/x", b"HTTP/1.1", [JSON_FIELD], "https://up"
        )

        def read(data: bytes) -> Iterator[int]:
            return iter(())

        reading = exchange.reading(200, [EVENTS_FIELD], read)
        for piece in (
            b"\xef\xbb\xbfid: 7\r",
            b"\nevent: a\r\ndata: 1\r\n\r",
            b"\ndata\rdata:2\r\r: no\n\n",
            b"data: last",
        ):
            self.clock.advance(1)
            reading(piece)
        exchange.response_head(200, b"OK", [JSON_FIELD])
        exchange.response_part(b"{}")
        self.ledger.end(record)
        call, stream = check_har(as_har(self.capture))
        self.assertEqual((call["_leg"], stream["_leg"], call["_id"]), ("client", "upstream", stream["_id"]))
        self.assertEqual(stream["request"]["url"], "https://up/v1/x")
        self.assertNotIn("_eventSourceMessages", call)
        events = [
            (each["time"], each["eventName"], each["eventId"], each["data"])
            for each in stream["_eventSourceMessages"]
        ]
        start = 1_800_000_000.25
        self.assertEqual(
            events,
            [
                (start + 2, "a", "7", "1"),
                (start + 3, "message", "7", "\n2"),
                (start + 4, "message", "7", "last"),
            ],
        )

    def test_steps(self) -> None:
        """Each step of a large download is small, and none holds much of the exchange."""
        self.one(b"y" * 2_000_000, answer=b"x" * 2_000_000)
        self.one(answer=b"data: x\n\n" * 100_000, answer_fields=[EVENTS_FIELD])
        self.one(answer=b"\xff" * 2_000_000)
        exchanges = [self.capture.ring.at(place) for place in range(3)]
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for exchange in exchanges:
            assert exchange is not None
            for steps in (
                har.entries(exchange, "1", 0.0),
                lines.line(exchange, "1", 0.0),
                curl.command(exchange),
            ):
                before = tracemalloc.get_traced_memory()[0]
                tracemalloc.reset_peak()
                self.assertLess(max(map(len, steps)), 6 * PIECE_BYTES)
                self.assertLess(tracemalloc.get_traced_memory()[1] - before, 1_000_000)

    def test_large_event(self) -> None:
        """An event without an end is not held whole."""
        pieces = [(0.0, b"data: ")] + [(1.0, b"x" * PIECE_BYTES)] * 100
        (event,) = [each for each in timed_events(pieces) if each is not None]
        self.assertLess(len(event.data), 2_000_000)


class CurlTests(DownloadTestCase):
    """Commands that a shell takes word by word."""

    def words(self, exchange: CapturedExchange) -> tuple[list[str], bytes]:
        """Return the words that curl would get from a shell, and its standard input."""
        script = Path(self.mktemp())
        script.write_text(_SHELL + as_curl(exchange))
        done = subprocess.run(
            ["sh", script],
            env={"API_KEY": "the key", "PATH": "/usr/bin:/bin"},
            input=b"",
            capture_output=True,
            check=True,
        )
        self.assertEqual(done.stderr, b"")
        words, rest = done.stdout.split(b"\0END\0")
        return words.decode().split("\0"), rest

    def test_words(self) -> None:
        """Quotes, dollars and line breaks stay data; the key is a variable; secrets and framing go."""
        body = json.dumps({"a": 'it\'s $HOME `id` \\ \n "x" !'}).encode() + b"\n'"
        fields = [
            (b"Host", b"api.test"),
            (b"Authorization", b"Bearer secret-secret"),
            (b"Cookie", b"a=b"),
            (b"Content-Length", b"5"),
            (b"X-Odd", b"$(id) 'q' \"d\""),
            (b"X-Empty", b""),
            JSON_FIELD,
        ]
        words, _ = self.words(self.one(body, target=b"/v1/x?key=secret&a=[1]'", fields=fields))
        self.assertEqual(
            words,
            [
                *("-g", "http://api.test/v1/x?key=the key&a=%5B1%5D'"),
                *("-H", "Authorization: Bearer the key"),
                *("-H", "X-Odd: $(id) 'q' \"d\""),
                *("-H", "X-Empty;"),
                *("-H", "Content-Type: application/json"),
                *("--data-raw", body.decode()),
            ],
        )

    def test_methods(self) -> None:
        """The method is named where curl would choose another."""
        self.assertEqual(self.words(self.one(method=b"GET", fields=[]))[0], ["-g", "http://localhost/v1/x"])
        words, _ = self.words(self.one(b"x", method=b"PUT", fields=[]))
        self.assertEqual(words[2:], ["-X", "PUT", "-H", "Content-Type:", "--data-raw", "x"])
        self.assertEqual(self.words(self.one(method=b"HEAD", fields=[]))[0][2:], ["-I"])

    def test_large_and_binary(self) -> None:
        """A body that is no argument comes through a pipe."""
        for body in (b"x" * 300_000, b"\xff\x00'", b"a\0b"):
            words, piped = self.words(self.one(body, fields=[]))
            self.assertEqual((words[-2:], piped), (["--data-binary", "@-"], body))
