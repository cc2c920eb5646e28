"""Heads of responses whose fields are given."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.http.headers import RawHeader
from stream_proxy.http.plain_response import plain_response_head

START = b"HTTP/1.1 200 OK"
LENGTH = (b"content-LENGTH", b"3")
CLOSE = b"\r\nConnection: close"
CHUNKS = b"\r\nTransfer-Encoding: chunked"


class PlainResponseTests(SynchronousTestCase):
    """``plain_response_head``."""

    def check(self, fields: list[RawHeader], added: bytes, chunked: bool, **how: bool) -> None:
        """Check a head with `fields`, to which `added` is added."""
        how = {"chunks": True, "bodiless": False, "last": False, **how}
        given = b"".join(b"\r\n%b: %b" % field for field in fields)
        expected = START + given + added + b"\r\n\r\n", chunked
        self.assertEqual(plain_response_head(START, fields, **how), expected)

    def test_verbatim(self) -> None:
        """Fields go out in the order and the spelling in which they are given, each as often."""
        self.check([(b"x-b", b"1"), LENGTH, (b"X-B", b"2"), (b"x-b", b"")], b"", False)

    def test_framing(self) -> None:
        """A body without a length goes in chunks to clients that know them."""
        self.check([(b"X", b"y")], CHUNKS, True)
        self.check([(b"X", b"y")], b"", False, chunks=False)
        self.check([(b"X", b"y")], b"", False, bodiless=True)

    def test_last(self) -> None:
        """``Connection: close`` is only there if the client sees the end of the response without it."""
        self.check([LENGTH], CLOSE, False, last=True)
        self.check([], CLOSE, False, last=True, bodiless=True)
        self.check([], CHUNKS, True, last=True)
        self.check([], b"", False, last=True, chunks=False)

    def test_left(self) -> None:
        """Line breaks, and fields that frame the message, are not sent."""
        for field in (
            (b"X", b"a\r\nb"),
            (b"X", b"a\nb"),
            (b"X", b"a\r"),
            (b"X\n", b"a"),
            (b"Connection", b"x"),
            (b"transfer-Encoding", b"gzip"),
        ):
            self.assertIsNone(plain_response_head(START, [field], chunks=True, bodiless=False, last=False))
        self.assertIsNone(plain_response_head(START + b"\n", [], chunks=True, bodiless=False, last=False))
