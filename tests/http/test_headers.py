"""Tests of the header fields that are forwarded."""

from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from stream_proxy.http.headers import (
    HOP_BY_HOP,
    RawHeader,
    connection_tokens,
    converted_response_headers,
    request_headers,
    response_headers,
    streaming_request_headers,
)

names = st.sampled_from([b"X-A", b"x-a", b"Cookie", b"Connection", b"TE", b"Host", b"Upgrade", b"Accept"])
values = st.sampled_from([b"x-a", b"close, X-A", b" , ,cookie", b"", b"\xff"])


class TokenTests(TestCase):
    """Options of ``Connection`` fields."""

    def test_tokens(self) -> None:
        """Options come from every field, without blanks and empty parts, in lower case."""
        got = connection_tokens([b"Close", b" keep-alive ,\tX-A,, ", b""])
        self.assertEqual(got, {b"close", b"keep-alive", b"x-a"})


class TravelTests(TestCase):
    """Fields in both directions."""

    def test_request(self) -> None:
        """Fields that the proxy writes itself, and those of the connection, do not go upstream."""
        own = [(name, b"x") for name in (*HOP_BY_HOP, b"host", b"content-length", b"expect")]
        kept = [(b"Authorization", b"a"), (b"X-A", b"1"), (b"x-a", b"2"), (b"Accept", b"*/*")]
        self.assertEqual(list(request_headers([*own, *kept])), kept)

    def test_streaming_request(self) -> None:
        """A converted request asks for an uncompressed event stream, once, whatever the client asked for."""
        given = [(b"accept", b"a/b"), (b"ACCEPT-ENCODING", b"gzip"), (b"Accept-Language", b"de")]
        self.assertEqual(
            list(streaming_request_headers(given)),
            [
                (b"Accept-Language", b"de"),
                (b"Accept", b"text/event-stream"),
                (b"Accept-Encoding", b"identity"),
            ],
        )

    def test_response(self) -> None:
        """The upstream's length is forwarded with a relayed response, its Connection options never are."""
        fields = [(b"Content-Length", b"1"), (b"X-B", b"1"), (b"X-C", b"1"), (b"Connection", b"x-b")]
        self.assertEqual(list(response_headers(fields, [b"X-C"])), [(b"Content-Length", b"1")])

    def test_converted_response(self) -> None:
        """A response that the proxy wrote has the proxy's own type, length and coding."""
        fields = [(b"Content-Type", b"a/b"), (b"content-length", b"1"), (b"Content-Encoding", b"gzip")]
        self.assertEqual(
            list(converted_response_headers([*fields, (b"x-request-id", b"1")])), [(b"x-request-id", b"1")]
        )

    @given(st.lists(st.tuples(names, values)))
    def test_any_fields(self, fields: list[RawHeader]) -> None:
        """Listed fields never get through, and all others keep their order and values."""
        for forward in (request_headers, response_headers, converted_response_headers):
            got = list(forward(fields))
            left = iter(fields)
            self.assertTrue(all(field in left for field in got))
            listed = connection_tokens(value for name, value in fields if name.lower() == b"connection")
            self.assertFalse({name.lower() for name, _ in got} & (listed | HOP_BY_HOP))
