"""Plain heads: what the one expression takes, and what it leaves to the reader that knows every rule."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.http.plain_head import PlainHead, plain_head
from stream_proxy.http.strictness import is_doubtful, is_folded

MOST = 65_536, 500


def head(*lines: bytes, line: bytes = b"GET /v1/x?a HTTP/1.1", end: bytes = b"\r\n") -> bytes:
    """Return a head with these lines."""
    return b"".join(each + end for each in (line, *lines, b""))


class PlainHeadTests(SynchronousTestCase):
    """``plain_head``."""

    def test_parts(self) -> None:
        """Names keep their spelling and order, values lose the blanks before them; no more is looked at."""
        data = head(b"x-B: 1", b"Host:\t h:80", b"X-b:", b"content-length: 003", b"x-B: a\t b\xff:")
        fields = [(b"x-B", b"1"), (b"Host", b"h:80"), (b"X-b", b""), (b"content-length", b"003")]
        fields.append((b"x-B", b"a\t b\xff:"))
        expected = PlainHead(b"GET", b"/v1/x?a", fields, 3, len(data))
        self.assertEqual(plain_head(data + b"\0rest\r\n", *MOST), expected)

    def test_no_body(self) -> None:
        """A head without a length, or with one of 0, is plain, whatever the method."""
        for line in (b"POST / HTTP/1.1", b"get x HTTP/1.1", b"M! * HTTP/1.1"):
            for fields, length in (([], None), ([b"Content-Length: 0"], 0)):
                found = plain_head(head(b"Host: h", *fields, line=line), *MOST)
                assert found is not None
                self.assertEqual(found.length, length)

    def test_limits(self) -> None:
        """A head may have exactly as many bytes and fields as the limits say."""
        data = head(b"Host: h", b"X: y")
        self.assertIsNotNone(plain_head(data, len(data), 2))
        self.assertIsNone(plain_head(data, len(data) - 1, 2))
        self.assertIsNone(plain_head(data, len(data), 1))

    def test_left(self) -> None:
        """A head that is not whole, or that holds anything of these, is left."""
        whole = head(b"Host: h")
        left = [
            *(whole[:end] for end in range(len(whole))),
            head(),
            head(b"Host: h", end=b"\n"),
            *(
                head(b"Host: h", line=line)
                for line in (
                    b"GET / HTTP/1.0",
                    b"GET / HTTP/2.0",
                    b"GET / http/1.1",
                    b"GET / HTTP/1.1 ",
                    b"GET  / HTTP/1.1",
                    b"GET /\x7f HTTP/1.1",
                    b"GET /\xe9 HTTP/1.1",
                    b"G@T / HTTP/1.1",
                    b" / HTTP/1.1",
                    b"\r\nGET / HTTP/1.1",
                    b"PRI * HTTP/2.0",
                )
            ),
            *(
                head(b"Host: h", field)
                for field in (
                    b"Host: h",
                    b"Content-Length: 1\r\nContent-Length: 1",
                    b"Content-Length: 1, 1",
                    b"Content-Length: +1",
                    b"Content-Length: \xb2",
                    b"Content-Length:",
                    b"Content-Length: " + b"1" * 19,
                    b"Transfer-Encoding: chunked",
                    b"transfer-encoding: identity",
                    b"Connection: close",
                    b"Connection: keep-alive, close",
                    b"Upgrade: websocket",
                    b"EXPECT: 100-continue",
                    b"X : y",
                    b" X: y",
                    b"X: a\r\n b",
                    b"X: \0",
                    b"X: a\rb",
                    b"X: a\nb",
                    b"X: y ",
                    b": y",
                    b"no colon",
                    b"\xe9: y",
                )
            ),
            *(
                head(b"Host: " + host)
                for host in (b"", b"a,b", b"a b", b"h:65536", b"[::g]", b"h:x", b"h/", b"@")
            ),
        ]
        for data in left:
            self.assertIsNone(plain_head(data, *MOST), data)

    @given(
        st.lists(
            st.one_of(
                st.sampled_from([b"Host: h", b"X: y", b"Content-Length: 3", b"Connection: keep-alive"]),
                st.binary(max_size=6),
                st.builds(
                    lambda name, value: name + b": " + value, st.binary(max_size=3), st.binary(max_size=3)
                ),
            ),
            max_size=4,
        )
    )
    def test_undoubtful(self, lines: list[bytes]) -> None:
        """Whatever is plain holds no line that the rules against smuggling refuse."""
        data = head(b"Host: h", *lines)
        found = plain_head(data, *MOST)
        if found is not None:
            for line in data[: found.size - 4].split(b"\r\n")[1:]:
                self.assertFalse(is_doubtful(line, b"HTTP/1.1") or is_folded(line), line)
