"""Tests of the first bytes of a connection."""

from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from stream_proxy.http.first_bytes import ENOUGH, foreign_protocol, is_response

LENGTHS = st.integers(0, 0xFFFF).map(lambda length: b"\0" + length.to_bytes(2))


class FirstBytesTests(TestCase):
    """Responses of HTTP/1, and what other protocols begin with."""

    @given(st.binary(max_size=20), st.integers(1, 40))
    def test_response(self, rest: bytes, size: int) -> None:
        """A response may come in pieces of any size."""
        self.assertTrue(is_response((b"HTTP/1.1 200 OK" + rest)[:size]))

    @given(LENGTHS, st.sampled_from(b"\x04\x07"), st.integers(0, 255), st.booleans(), st.binary())
    def test_http2(self, length: bytes, kind: int, flags: int, reserved: bool, rest: bytes) -> None:
        """SETTINGS or GOAWAY for the connection itself is HTTP/2, once the frame's head is in."""
        stream = b"\x80\0\0\0" if reserved else bytes(4)
        data = length + bytes([kind, flags]) + stream + rest
        self.assertEqual((foreign_protocol(data), is_response(data)), ("HTTP/2", False))
        for size in range(1, 9):
            self.assertEqual((foreign_protocol(data[:size]), is_response(data[:size])), (None, None))

    @given(st.sampled_from((b"\x15\x03", b"\x16\x03")), st.binary())
    def test_tls(self, start: bytes, rest: bytes) -> None:
        """An alert and a handshake of any version are TLS."""
        self.assertEqual((foreign_protocol(start + rest), is_response(start + rest)), ("TLS", False))
        self.assertIsNone(is_response(start[:1]))

    @given(st.binary(min_size=ENOUGH))
    def test_certain(self, data: bytes) -> None:
        """So many bytes leave no doubt."""
        self.assertIsNotNone(is_response(data))

    def test_neither(self) -> None:
        """Other bytes have no name."""
        for data in (
            b"SSH-2.0",
            b"\x16\x02",
            bytes(16),
            b"\0\0\0\x00\0\0\0\0\1",
            b"\0\0\0\x04\0\0\0\0\1",
            b"P",
        ):
            self.assertIsNone(foreign_protocol(data))
