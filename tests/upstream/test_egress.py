"""Tests of the choice of an egress proxy, and of the errors about its settings."""

from __future__ import annotations

import base64
import json
import os
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase as TestCase

from stream_proxy.errors import ConfigError
from stream_proxy.http.url import parse_upstream_url
from stream_proxy.service.configuration.loading import parse_config
from stream_proxy.upstream.egress import EgressProxy, egress_proxy, is_excepted, is_loopback

HTTPS, HTTP = "https://api.example", "http://api.example:8000"
SECRET = "s3cr3t-Passw0rd"


def chosen(url: str = HTTPS, setting: str | None = None, **environ: str) -> EgressProxy | None:
    """Return the proxy for an upstream."""
    return egress_proxy(parse_upstream_url(url), setting, environ)


def origin(*args: Any, **environ: str) -> str | None:
    """Return the proxy's origin."""
    proxy = chosen(*args, **environ)
    return None if proxy is None else proxy.url.origin


def credentials(proxy: EgressProxy | None) -> str:
    """Return the proxy's credentials, decoded."""
    assert proxy is not None and proxy.authorization is not None
    kind, _, value = proxy.authorization.partition(b" ")
    assert kind == b"Basic"
    return base64.b64decode(value).decode()


class SettingTests(TestCase):
    """A rule's own ``proxy``."""

    def test_url(self) -> None:
        """A URL has a scheme, host and port; a missing port is the scheme's default."""
        for text, expected in (
            ("http://proxy.example:3128", "http://proxy.example:3128"),
            (" http://proxy.example:3128/ ", "http://proxy.example:3128"),
            ("HTTP://proxy.example", "http://proxy.example"),
            ("https://proxy.example:443", "https://proxy.example"),
            ("http://[2001:db8::1]:3128", "http://[2001:db8::1]:3128"),
        ):
            self.assertEqual(origin(HTTPS, text), expected)

    def test_no_credentials(self) -> None:
        """Without a user there are no credentials."""
        proxy = chosen(HTTPS, "http://proxy.example:3128")
        assert proxy is not None
        self.assertIsNone(proxy.authorization)

    def test_credentials(self) -> None:
        """User and password are decoded, and either may be empty."""
        for text, expected in (
            ("user:pass", "user:pass"),
            ("user", "user:"),
            ("us%40er:p%3Aa%2Fss%25", "us@er:p:a/ss%"),
            ("üser:päss", "üser:päss"),
            ("user:a:b", "user:a:b"),
        ):
            self.assertEqual(credentials(chosen(HTTPS, f"http://{text}@proxy.example:3128")), expected)

    def test_variable(self) -> None:
        """A variable may be the whole URL, a host, or a password, which then need not be encoded."""
        whole = f"http://user:{SECRET}@proxy.example:3128"
        self.assertEqual(credentials(chosen(HTTPS, "${P}", P=whole)), f"user:{SECRET}")
        self.assertEqual(origin(HTTPS, "http://${H}:1", H="proxy.example"), "http://proxy.example:1")
        proxy = chosen(HTTPS, "http://${U}:${P}@proxy.example", U="me@home", P="a/b%25?#:@")
        self.assertEqual(credentials(proxy), "me@home:a/b%25?#:@")

    def test_direct(self) -> None:
        """``direct`` means no proxy, whatever the environment says."""
        self.assertIsNone(chosen(HTTPS, "direct", https_proxy="http://proxy.example"))

    def test_over_the_environment(self) -> None:
        """A rule's proxy overrides the environment's, and ``NO_PROXY`` does not apply to it."""
        environ = {"https_proxy": "http://other.example", "no_proxy": "*"}
        self.assertEqual(origin(HTTPS, "http://proxy.example", **environ), "http://proxy.example")

    def test_loopback(self) -> None:
        """This machine is reached directly all the same."""
        for host in ("localhost", "api.localhost", "LOCALHOST.", "127.0.0.1", "127.1", "127.9.9.9", "[::1]"):
            url = f"https://{host}:8443"
            self.assertIsNone(chosen(url, "http://proxy.example"), host)
            self.assertIsNone(chosen(url, https_proxy="http://proxy.example"), host)

    def test_not_loopback(self) -> None:
        """A host that only looks like this machine is reached through the proxy."""
        for host in ("localhost.example", "mylocalhost", "10.0.0.1", "128.0.0.1", "::2", "0x7f.example"):
            self.assertFalse(is_loopback(host), host)
        for host in ("::ffff:127.0.0.1", "0x7f000001"):
            self.assertTrue(is_loopback(host), host)

    def test_secret(self) -> None:
        """A proxy's repr holds no credentials."""
        proxy = chosen(HTTPS, f"http://user:{SECRET}@proxy.example")
        encoded = base64.b64encode(f"user:{SECRET}".encode()).decode()
        assert proxy is not None
        for text in (repr(proxy), str(proxy), proxy.name):
            self.assertNotIn(SECRET, text)
            self.assertNotIn(encoded, text)


class EnvironmentTests(TestCase):
    """The environment's proxy, for rules without one."""

    def test_none(self) -> None:
        """An empty environment means no proxy."""
        self.assertIsNone(chosen())
        self.assertIsNone(chosen(https_proxy=""))

    def test_scheme(self) -> None:
        """The upstream's scheme decides which variable counts."""
        environ = {"HTTPS_PROXY": "http://s.example", "HTTP_PROXY": "http://p.example"}
        self.assertEqual(origin(HTTPS, **environ), "http://s.example")
        self.assertEqual(origin(HTTP, **environ), "http://p.example")
        self.assertIsNone(chosen(HTTP, HTTPS_PROXY="http://s.example"))

    def test_case(self) -> None:
        """The variable in lower case wins, even if it is empty."""
        for lower, expected in (("http://low.example", "http://low.example"), ("", None)):
            self.assertEqual(origin(HTTPS, https_proxy=lower, HTTPS_PROXY="http://up.example"), expected)

    def test_all(self) -> None:
        """``ALL_PROXY`` is for schemes without a variable of their own."""
        environ = {"ALL_PROXY": "http://all.example", "https_proxy": "http://s.example"}
        self.assertEqual(origin(HTTPS, **environ), "http://s.example")
        self.assertEqual(origin(HTTP, **environ), "http://all.example")

    def test_without_scheme(self) -> None:
        """The environment's URL may have no scheme, as curl allows."""
        proxy = chosen(https_proxy="user:pass@proxy.example:3128")
        assert proxy is not None
        self.assertEqual(proxy.url.origin, "http://proxy.example:3128")
        self.assertEqual(credentials(proxy), "user:pass")
        self.assertEqual(proxy.setting, "https_proxy")

    def test_no_proxy(self) -> None:
        """The list holds names with their subdomains, suffixes, ports, addresses, networks, or ``*``."""
        for entry, host, expected in (
            ("api.example", "api.example", True),
            ("API.example", "api.EXAMPLE", True),
            ("example", "api.example", True),
            (".example", "api.example", True),
            ("*.example", "api.example", True),
            (".api.example", "api.example", True),
            ("pi.example", "api.example", False),
            ("other.example, api.example", "api.example", True),
            ("api.example:443", "api.example", True),
            ("api.example:444", "api.example", False),
            ("api.example:444", "api.example:444", True),
            ("*", "api.example", True),
            ("x.example,*", "api.example", True),
            ("", "api.example", False),
            (",.,", "api.example", False),
            ("10.1.2.3", "10.1.2.3", True),
            ("10.1.2.3:443", "10.1.2.3", True),
            ("10.0.0.0/8", "10.1.2.3", True),
            ("10.1.2.3/8", "10.1.2.3", True),
            ("10.0.0.0/8", "11.1.2.3", False),
            ("10.0.0.0/8", "api.example", False),
            ("2001:db8::/32", "[2001:db8::1]", True),
            ("[2001:db8::1]", "[2001:db8::1]", True),
            ("[2001:db8::1]:443", "[2001:db8::1]", True),
            ("::/0", "10.1.2.3", False),
        ):
            excepted = is_excepted(parse_upstream_url(f"https://{host}"), entry)
            self.assertEqual(excepted, expected, (entry, host))

    def test_no_proxy_variable(self) -> None:
        """The list is ``no_proxy``, or ``NO_PROXY``."""
        for name in ("no_proxy", "NO_PROXY"):
            environ = {"HTTPS_PROXY": "http://proxy.example", name: "api.example"}
            self.assertIsNone(chosen(**environ))
            self.assertIsNotNone(chosen("https://other.test", **environ))


class ErrorTests(TestCase):
    """Mistakes, each a line at start-up that never quotes what may be a password."""

    def line(self, environ: dict[str, str] | None = None, url: str = HTTPS, **rule: Any) -> str:
        """Return the error about a rule, without the file's name."""
        config = {"rules": [{"listenPort": 1, "upstreamUrl": url, **rule}]}
        with (
            mock.patch.dict(os.environ, environ or {}),
            self.assertRaises(ConfigError) as caught,
        ):
            parse_config(json.dumps(config).encode(), "c")
        text = str(caught.exception)
        self.assertNotIn(SECRET, text)
        self.assertNotIn("\n", text)
        return text.removeprefix("c: rules[0].")

    def test_setting(self) -> None:
        """Mistakes in a rule."""
        for text, words in (
            ("", "must start with http:// or https://"),
            ("proxy.example:3128", "must start with http:// or https://"),
            (f"socks5://user:{SECRET}@proxy.example", "must start with http:// or https://"),
            (f"http://user:{SECRET}@", "names no host"),
            (f"http://user:{SECRET}@proxy.example:x", "is not a valid URL"),
            (f"http://user:{SECRET}", "is not a valid URL"),
            (f"http://user:{SECRET}@proxy.example:0", "has the port 0"),
            (f"http://user:{SECRET}@proxy.example/path", "must not have a path"),
            (f"http://user:{SECRET}@proxy.example?q", "must not have a query or a fragment"),
            (
                f"http://user:a/{SECRET}@proxy.example",
                "has a user or password with characters that must be percent-encoded",
            ),
            (f"http://user:{SECRET}@proxy\nexample", "must not hold blanks or control characters"),
            ("http://user:${NO_SUCH_NAME}@proxy.example", "the environment has no NO_SUCH_NAME"),
        ):
            self.assertEqual(self.line(proxy=text), f"proxy: {words}", text)

    def test_of_a_loopback_upstream(self) -> None:
        """A mistake is an error even if the proxy would not be used."""
        self.assertEqual(self.line(url="http://localhost", proxy="x")[:6], "proxy:")

    def test_adapter(self) -> None:
        """Mistakes in an adapter's rule are errors, too."""
        self.assertEqual(self.line(proxy="x", adapter={})[:6], "proxy:")

    def test_environment(self) -> None:
        """A mistake in the environment names the variable, and counts only if the proxy would be used."""
        bad = {"HTTPS_PROXY": f"socks5://user:{SECRET}@proxy.example"}
        expected = "proxy: the environment's HTTPS_PROXY must start with http:// or https://"
        self.assertEqual(self.line(bad), expected)
        with mock.patch.dict(os.environ, bad):
            for rule in ({"proxy": "direct"}, {"upstreamUrl": HTTP}, {"upstreamUrl": "https://localhost"}):
                fields = {"listenPort": 1, "upstreamUrl": HTTPS, **rule}
                parse_config(json.dumps({"rules": [fields]}).encode(), "c")
