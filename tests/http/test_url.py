"""Tests of what is below an upstream's URL, and of paths that stand twice in one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.http.url import UpstreamURL, doubled_path, local_locations, parse_upstream_url


class BelowTests(SynchronousTestCase):
    """URLs that begin with the upstream's."""

    def test_below(self) -> None:
        """Origin and prefix are lost, in whatever spelling the origin came; the rest stays byte for byte."""
        for base, location, expected in (
            ("http://up.example", b"http://up.example/v1/models/", b"/v1/models/"),
            ("http://up.example/", b"HTTP://UP.example./v1", b"/v1"),
            ("http://up.example", b"http://up.example:80/v1", b"/v1"),
            ("https://up.example", b"https://up.example:443/v1", b"/v1"),
            ("http://up.example:8000", b"http://up.example:8000/v1?a=%2F#b", b"/v1?a=%2F#b"),
            ("http://up.example", b"http://up.example", b"/"),
            ("http://up.example/api", b"http://up.example/api", b"/"),
            ("http://up.example/api/", b"http://up.example/api/", b"/"),
            ("http://up.example/api", b"http://up.example/api?x=1", b"/?x=1"),
            ("http://up.example/api", b"http://up.example/api#x", b"/#x"),
            ("http://up.example/api/v1", b"http://up.example/api/v1/models", b"/models"),
            ("http://[2001:db8::1]:8000", b"http://[2001:DB8:0::1]:8000/x", b"/x"),
            ("http://up.example", b"http://up.example/v1\xe9", b"/v1\xe9"),
        ):
            self.assertEqual(parse_upstream_url(base).below(location), expected, location)

    def test_elsewhere(self) -> None:
        """All other URLs stay, and so does one that would lead to another host without its origin."""
        for base, location in (
            ("http://up.example", b"https://up.example/v1"),
            ("http://up.example", b"http://up.example:8000/v1"),
            ("http://up.example:8000", b"http://up.example/v1"),
            ("http://up.example", b"http://up.example.evil/v1"),
            ("http://up.example", b"http://up.example@evil/v1"),
            ("http://up.example", b"http://user@up.example/v1"),
            ("http://up.example", b"http://up.example\\@evil/v1"),
            ("http://up.example", b"http://up.example//evil.example/x"),
            ("http://up.example/api", b"http://up.example/api//evil.example/x"),
            ("http://up.example/api", b"http://up.example/api/\\evil.example/x"),
            ("http://up.example/api", b"http://up.example/apis/x"),
            ("http://up.example/api", b"http://up.example/v1"),
            ("http://up.example/api", b"http://up.example/API/v1"),
            ("http://up.example", b"/v1/models"),
            ("http://up.example", b"//up.example/v1"),
            ("http://up.example", b"v1/models"),
            ("http://up.example", b""),
            ("http://up.example", b"http:/up.example/v1"),
            ("http://up.example", b" http://up.example/v1"),
        ):
            self.assertIsNone(parse_upstream_url(base).below(location), location)

    @given(st.binary(max_size=30))
    def test_never_another_host(self, rest: bytes) -> None:
        """Whatever follows the URL, the result is a path on the proxy or nothing."""
        found = parse_upstream_url("http://up.example/api").below(b"http://up.example/api" + rest)
        if found is not None:
            self.assertRegex(found, rb"\A/(?![/\\])")

    def test_fields(self) -> None:
        """Only the two fields that hold such URLs are touched, each as often as it came."""
        url = parse_upstream_url("http://up.example/api")
        own, other = b"http://up.example/api/x", b"http://other.example/x"
        fields = [(b"Link", own), (b"location", own), (b"Location", other), (b"CONTENT-LOCATION", own)]
        self.assertEqual(
            local_locations(url, fields, b"/ai"),
            [(b"Link", own), (b"location", b"/ai/x"), (b"Location", other), (b"CONTENT-LOCATION", b"/ai/x")],
        )
        without = [(b"Link", own)]
        self.assertIs(local_locations(url, without), without)


class DoubledTests(SynchronousTestCase):
    """Paths in which two base URLs meet."""

    def test_doubled(self) -> None:
        """The end of the upstream's path at the start of the client's, or a version twice in a row."""
        for prefix, path, expected in (
            (b"/v1", b"/v1/models", b"/v1"),
            (b"/v1", b"/v1", b"/v1"),
            (b"/api/v1", b"/v1/models", b"/v1"),
            (b"/api/v1", b"/api/v1/models", b"/api/v1"),
            (b"/compatible-mode/v1", b"/v1/chat/completions", b"/v1"),
            (b"/openai", b"/openai/v1/models", b"/openai"),
            (b"/v1beta", b"/v1beta/models", b"/v1beta"),
            (b"", b"/v1/v1/models", b"/v1"),
            (b"/api", b"/x/v1/v1/models", b"/v1"),
        ):
            self.assertEqual(doubled_path(prefix, path), expected, (prefix, path))

    def test_not_doubled(self) -> None:
        """Anything else says nothing about base URLs."""
        for prefix, path in (
            (b"", b"/v1/models"),
            (b"/v1", b"/models"),
            (b"/v1", b"/v10/models"),
            (b"/v1", b"/v1beta/models"),
            (b"", b"/v1/v10"),
            (b"", b"/v1/files/files"),
            (b"/api/v1", b"/api/v2"),
            (b"", b"/"),
            (b"", b""),
        ):
            self.assertIsNone(doubled_path(prefix, path), (prefix, path))


class PartsTests(SynchronousTestCase):
    """Base URLs and their parts."""

    def test_parts(self) -> None:
        """A URL is split into scheme, host, port and prefix."""
        for url, parts in (
            ("https://api.openai.com", UpstreamURL("https", "api.openai.com", 443, b"")),
            ("http://h", UpstreamURL("http", "h", 80, b"")),
            ("http://h:8080/", UpstreamURL("http", "h", 8080, b"")),
            ("HTTPS://Api.Example/v1/", UpstreamURL("https", "api.example", 443, b"/v1")),
            (" https://h/a%20b//c ", UpstreamURL("https", "h", 443, b"/a%20b//c")),
            ("http://[::1]:99/x", UpstreamURL("http", "::1", 99, b"/x")),
            ("https://b\u00fccher.example", UpstreamURL("https", "xn--bcher-kva.example", 443, b"")),
            ("http://my_service:1", UpstreamURL("http", "my_service", 1, b"")),
        ):
            self.assertEqual(parse_upstream_url(url), parts)

    def test_netloc(self) -> None:
        """The port is omitted if it is the scheme's default; IPv6 addresses get brackets."""
        for url, netloc in (
            ("https://h:443", b"h"),
            ("http://h:80", b"h"),
            ("http://h:443", b"h:443"),
            ("https://[::1]", b"[::1]"),
            ("https://[::1]:8", b"[::1]:8"),
        ):
            self.assertEqual(parse_upstream_url(url).netloc, netloc)
        self.assertEqual(parse_upstream_url("http://h:8/p").origin, "http://h:8")

    @given(st.text(max_size=20))
    def test_any_url(self, rest: str) -> None:
        """Any text gives either a one-line error or parts that can go on the wire."""
        try:
            url = parse_upstream_url("http://h" + rest)
        except ValueError as error:
            self.assertNotIn("\n", str(error))
        else:
            self.assertRegex(url.netloc, rb"\A[!-~]+\Z")
            self.assertRegex(url.prefix, rb"\A(/[!-~]*)?\Z")
