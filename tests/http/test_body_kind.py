"""Tests of the kind of a body, by its first bytes."""

from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from stream_proxy.http.body_kind import BodyKind, media_type, sniff

CASES = [
    (b'data: {"a": 1}\n\n', BodyKind.EVENTS),
    (b"data:x", BodyKind.EVENTS),
    (b"event: message\n", BodyKind.EVENTS),
    (b"id: 1\n", BodyKind.EVENTS),
    (b"retry: 1\n", BodyKind.EVENTS),
    (b": keep-alive\n\n", BodyKind.EVENTS),
    (b"\xef\xbb\xbf\r\n\r\ndata: x", BodyKind.EVENTS),
    (b'{"a": 1}', BodyKind.JSON),
    (b" \t\r\n{}", BodyKind.JSON),
    (b"\xef\xbb\xbf {}", BodyKind.JSON),
    (b"<html>", BodyKind.OTHER),
    (b"[1]", BodyKind.OTHER),
    (b"database", BodyKind.OTHER),
    (b"\x1f\x8b", BodyKind.OTHER),
    (b"\xef\xbbx", BodyKind.OTHER),
]


class SniffTests(TestCase):
    """Bodies that are events, JSON, or neither."""

    def test_whole(self) -> None:
        """The first bytes that are not blank decide."""
        for body, expected in CASES:
            self.assertIs(sniff(body, ended=True), expected, body)
            self.assertIs(sniff(body, ended=False), expected, body)

    def test_every_start(self) -> None:
        """The kind is open as long as more bytes could matter, and then never changes."""
        for body, expected in CASES:
            for length in range(len(body)):
                got = sniff(body[:length], ended=False)
                self.assertIn(got, (BodyKind.UNDECIDED, expected), body[:length])

    def test_ended(self) -> None:
        """At the end of a body the kind is never open."""
        for body in (b"", b"   ", b"\xef\xbb", b"dat", b"even"):
            self.assertIs(sniff(body, ended=False), BodyKind.UNDECIDED)
            self.assertIs(sniff(body, ended=True), BodyKind.OTHER)

    @given(st.binary(max_size=40), st.integers(0, 40))
    def test_stable(self, body: bytes, length: int) -> None:
        """The kind of a body's start is the kind of the whole body."""
        early = sniff(body[:length], ended=False)
        if early is not BodyKind.UNDECIDED:
            self.assertIs(sniff(body, ended=True), early)


class MediaTypeTests(TestCase):
    """``Content-Type`` fields."""

    def test_media_type(self) -> None:
        """The media type has no parameters and is in lower case; without a field it is empty."""
        self.assertEqual(media_type([b" Text/Event-Stream ; charset=utf-8"]), b"text/event-stream")
        self.assertEqual(media_type([b"application/json"]), b"application/json")
        self.assertEqual(media_type([]), b"")
