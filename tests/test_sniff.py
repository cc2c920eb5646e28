"""What a body is, by its first bytes."""

from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from stream_proxy.sniff import Sniffed, media_type, sniff

CASES = [
    (b'data: {"a": 1}\n\n', Sniffed.EVENTS),
    (b"data:x", Sniffed.EVENTS),
    (b"event: message\n", Sniffed.EVENTS),
    (b"id: 1\n", Sniffed.EVENTS),
    (b"retry: 1\n", Sniffed.EVENTS),
    (b": keep-alive\n\n", Sniffed.EVENTS),
    (b"\xef\xbb\xbf\r\n\r\ndata: x", Sniffed.EVENTS),
    (b'{"a": 1}', Sniffed.JSON),
    (b" \t\r\n{}", Sniffed.JSON),
    (b"\xef\xbb\xbf {}", Sniffed.JSON),
    (b"<html>", Sniffed.OTHER),
    (b"[1]", Sniffed.OTHER),
    (b"database", Sniffed.OTHER),
    (b"\x1f\x8b", Sniffed.OTHER),
    (b"\xef\xbbx", Sniffed.OTHER),
]


class SniffTests(TestCase):
    """Events, JSON, or neither."""

    def test_whole(self) -> None:
        """The first bytes that are no blanks decide."""
        for body, expected in CASES:
            self.assertIs(sniff(body, ended=True), expected, body)
            self.assertIs(sniff(body, ended=False), expected, body)

    def test_every_start(self) -> None:
        """As long as more could make a difference, it stays open; then it does not change any more."""
        for body, expected in CASES:
            for length in range(len(body)):
                got = sniff(body[:length], ended=False)
                self.assertIn(got, (Sniffed.UNDECIDED, expected), body[:length])

    def test_ended(self) -> None:
        """At the end nothing stays open."""
        for body in (b"", b"   ", b"\xef\xbb", b"dat", b"even"):
            self.assertIs(sniff(body, ended=False), Sniffed.UNDECIDED)
            self.assertIs(sniff(body, ended=True), Sniffed.OTHER)

    @given(st.binary(max_size=40), st.integers(0, 40))
    def test_stable(self, body: bytes, length: int) -> None:
        """What was decided on the start of a body holds for all of it."""
        early = sniff(body[:length], ended=False)
        if early is not Sniffed.UNDECIDED:
            self.assertIs(sniff(body, ended=True), early)


class MediaTypeTests(TestCase):
    """``Content-Type`` fields."""

    def test_media_type(self) -> None:
        """Without parameters, in lower case; empty where there is none."""
        self.assertEqual(media_type([b" Text/Event-Stream ; charset=utf-8"]), b"text/event-stream")
        self.assertEqual(media_type([b"application/json"]), b"application/json")
        self.assertEqual(media_type([]), b"")
