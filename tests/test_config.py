"""``config.json`` and its URLs, without a process."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.config import Config, ConfigError, Rule, parse_config, parse_upstream_url


class UpstreamURLTests(SynchronousTestCase):
    """`parse_upstream_url`."""

    def test_parts(self) -> None:
        """Scheme, host, port, and the path before every target; the scheme's own port is not named."""
        for url, netloc, port, prefix in (
            ("http://a.example", b"a.example", 80, b""),
            ("https://a.example/", b"a.example", 443, b""),
            ("HTTPS://A.example:443/v1/", b"a.example", 443, b"/v1"),
            ("http://a.example:443", b"a.example:443", 443, b""),
            ("http://[::1]:8080/a/b%20c", b"[::1]:8080", 8080, b"/a/b%20c"),
            ("https://bücher.example", b"xn--bcher-kva.example", 443, b""),
            (" http://127.0.0.1:9 ", b"127.0.0.1:9", 9, b""),
        ):
            parsed = parse_upstream_url(url)
            self.assertEqual((parsed.netloc, parsed.port, parsed.prefix), (netloc, port, prefix), url)

    def test_refused(self) -> None:
        """Whatever leaves open where a request goes, or what it would carry there."""
        for url in (
            *("", "x", "//x", "ftp://x", "http://", "http:///v1", "http://:80"),
            *("http://x:0", "http://x:65536", "http://x:y", "http://[::1", "http://x y", "http://x\r\ny"),
            *("http://u@x", "http://u:p@x", "http://x?", "http://x/?a=b", "http://x#f"),
            *("http://x/a b", "http://x/é", "http://x/\x7f"),
        ):
            self.assertRaises(ValueError, parse_upstream_url, url)


class ParseTests(SynchronousTestCase):
    """`parse_config`."""

    def test_defaults(self) -> None:
        """A port and a URL are enough."""
        config, warnings = parse_config(b'{"rules": [{"listenPort": 1, "upstreamUrl": "http://x"}]}', "c")
        self.assertEqual(config, Config(rules=[Rule(listen_port=1, upstream_url="http://x")]))
        numbers = (config.timeout_seconds, config.connect_seconds, config.client_idle_seconds)
        self.assertEqual(numbers, (600, 10, 650))
        sizes = (config.max_request_bytes, config.max_response_bytes)
        self.assertEqual(sizes, (100 * 2**20, 256 * 2**20))
        self.assertEqual(config.shutdown_grace_seconds, 25)
        self.assertEqual(config.rules[0].include_usage, "auto")
        self.assertEqual(warnings, [])

    def test_all_keys(self) -> None:
        """Every key that the reference names is known."""
        rule = {"listenPort": 1, "upstreamUrl": "http://x", "includeUsage": "never"}
        numbers = ("timeoutSeconds", "connectSeconds", "clientIdleSeconds", "shutdownGraceSeconds")
        sizes = ("maxRequestBytes", "maxResponseBytes")
        content = {"rules": [rule], **dict.fromkeys(numbers, 1.5), **dict.fromkeys(sizes, 7)}
        _, warnings = parse_config(json.dumps(content).encode(), "c")
        self.assertEqual(warnings, [])

    def test_top_level(self) -> None:
        """What is no object is called by its name."""
        for text, name in (("[]", "an array"), ("5", "a number"), ('"x"', "a string"), ("true", "a boolean")):
            error = self.assertRaises(ConfigError, parse_config, text.encode(), "c")
            self.assertEqual(str(error), f"c: must hold a JSON object with rules, not {name}")

    def test_one_line(self) -> None:
        """Line ends in what the file says do not get into the message."""
        key = b'{"a\\nb": 1, "rules": [{"listenPort": 1, "upstreamUrl": "http://x"}]}'
        _, warnings = parse_config(key, "c")
        self.assertEqual(warnings, ["c: a b: unknown key, ignored"])
        bad = b'{"rules": [{"listenPort": 1, "upstreamUrl": "http://x", "includeUsage": "a\\nb"}]}'
        error = self.assertRaises(ConfigError, parse_config, bad, "c")
        self.assertNotIn("\n", str(error))
