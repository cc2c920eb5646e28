"""``config.json``: its values, and the one-line errors of a wrong one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase as TestCase

from stream_proxy.errors import ConfigError
from stream_proxy.http.url import UpstreamURL, parse_upstream_url
from stream_proxy.service.configuration.loading import _field_message, load_config, parse_config
from stream_proxy.service.configuration.types import (
    Admin,
    CaptureConfig,
    Config,
    LogConfig,
    MetricsConfig,
    Rule,
)
from stream_proxy.service.keys import KeySource

URL = "https://api.openai.com"


def config_of(**keys: Any) -> tuple[Config, list[str]]:
    """Parse a config with one rule, or with these keys."""
    return parse_config(json.dumps({"rules": [{"listenPort": 1, "upstreamUrl": URL}], **keys}).encode(), "c")


class DefaultTests(TestCase):
    """Defaults."""

    def test_defaults(self) -> None:
        """The defaults are those of the documentation."""
        config, warnings = config_of()
        self.assertEqual(warnings, [])
        self.assertEqual(config.rules, [Rule(listen_port=1, upstream_url=URL)])
        self.assertEqual(
            (
                config.timeout_seconds,
                config.client_idle_seconds,
                config.connect_seconds,
                config.shutdown_grace_seconds,
                config.max_request_bytes,
                config.max_response_bytes,
                config.rules[0].include_usage,
            ),
            (600, 650, 10, 25, 100 * 2**20, 256 * 2**20, "auto"),
        )

    def test_everything(self) -> None:
        """Every key has an effect."""
        config, warnings = config_of(
            timeoutSeconds=1,
            clientIdleSeconds=2.5,
            connectSeconds=3,
            shutdownGraceSeconds=0,
            maxRequestBytes=4,
            maxResponseBytes=5,
            rules=[{"listenPort": 65535, "upstreamUrl": URL, "includeUsage": "never"}],
        )
        self.assertEqual(warnings, [])
        self.assertEqual((config.timeout_seconds, config.client_idle_seconds), (1, 2.5))
        self.assertEqual((config.connect_seconds, config.shutdown_grace_seconds), (3, 0))
        self.assertEqual((config.max_request_bytes, config.max_response_bytes), (4, 5))
        self.assertEqual(config.rules[0].include_usage, "never")


class SectionTests(TestCase):
    """``log``, ``metrics``, ``capture`` and ``admin``, and the names of rules."""

    def error(self, **keys: Any) -> str:
        """Return the error for a config with one rule, or with these keys."""
        with self.assertRaises(ConfigError) as caught:
            config_of(**keys)
        return str(caught.exception)

    def test_defaults(self) -> None:
        """Without a section its defaults hold; capture and admin are off."""
        config, _ = config_of()
        self.assertEqual((config.log, config.metrics), (LogConfig(), MetricsConfig()))
        self.assertEqual((config.capture, config.admin), (None, None))
        self.assertEqual((LogConfig().format, LogConfig().level), ("text", None))
        self.assertEqual((MetricsConfig().models, MetricsConfig().streams), (None, True))
        self.assertEqual(
            (config.drain_delay_seconds, config.max_connection_age_seconds, config.retry_after_max_seconds),
            (0, 0, 20),
        )

    def test_sections(self) -> None:
        """Each key of a section has an effect."""
        config, warnings = config_of(
            log={"format": "json", "level": "warning"},
            metrics={"models": ["a"], "streams": False},
            capture={"megabytes": 1, "bodies": False},
            admin={"listenPort": 2, "key": {"environment": "PATH"}, "hosts": ["a.b"], "openMetrics": True},
        )
        self.assertEqual(warnings, [])
        self.assertEqual(config.log, LogConfig(format="json", level="warning"))
        self.assertEqual(config.metrics, MetricsConfig(models=("a",), streams=False))
        self.assertEqual(config.capture, CaptureConfig(megabytes=1, bodies=False))
        key = KeySource(environment="PATH")
        self.assertEqual(config.admin, Admin(listen_port=2, key=key, hosts=("a.b",), open_metrics=True))

    def test_limits_of_a_rule(self) -> None:
        """A rule's own limits stand in place of those at the top."""
        rule = {
            "listenPort": 1,
            "upstreamUrl": URL,
            "retries": 2,
            "stalledSeconds": 3,
            "webSocketPingSeconds": 4,
        }
        config, _ = config_of(rules=[rule], retries=1, firstEventSeconds=5, resumeMaxCalls=0)
        limits = config.limits_of(config.rules[0])
        self.assertEqual((limits.retries, limits.stalled_seconds, limits.web_socket_ping_seconds), (2, 3, 4))
        self.assertEqual((limits.first_event_seconds, limits.resume_max_calls), (5, 0))

    def test_names(self) -> None:
        """Names of rules are unique and printable, and not longer than 64 characters."""
        rule = {"listenPort": 1, "upstreamUrl": URL, "name": "\u00e4 b"}
        self.assertEqual(config_of(rules=[rule])[0].rules[0].name, "\u00e4 b")
        self.assertEqual(
            self.error(rules=[rule, {**rule, "listenPort": 2}]),
            "c: rules[1].name: \u00e4 b is already the name of rules[0]",
        )
        self.assertEqual(
            self.error(rules=[{**rule, "name": "a\nb"}]),
            "c: rules[0].name: must hold printable characters alone",
        )
        for name in ("", "a" * 65):
            self.assertIn("c: rules[0].name: ", self.error(rules=[{**rule, "name": name}]))

    def test_admin_key(self) -> None:
        """The admin port needs a key where others can connect, and wherever there is a capture."""
        away = {"listenPort": 2, "listenAddress": "0.0.0.0"}
        self.assertEqual(
            self.error(admin=away),
            "c: admin.key: is required where other machines can connect; or leave listenAddress out",
        )
        key = {"environment": "PATH"}
        self.assertEqual(config_of(admin={**away, "key": key})[1], [])
        for address in ("127.0.0.2", "::1"):
            self.assertEqual(config_of(admin={**away, "listenAddress": address})[1], [])
        self.assertEqual(
            self.error(admin={"listenPort": 2}, capture={}),
            "c: admin.key: is required where there is a capture: it shows what other users sent",
        )
        self.assertEqual(config_of(admin={"listenPort": 2, "key": key}, capture={})[1], [])
        self.assertEqual(
            self.error(admin={"listenPort": 2, "key": {"environment": "NONE_SUCH"}}),
            "c: admin.key: the environment has no NONE_SUCH",
        )
        self.assertIn("c: admin.hosts: a:1 must be", self.error(admin={"listenPort": 2, "hosts": ["a:1"]}))

    def test_unknown_keys(self) -> None:
        """Unknown keys are found in each section."""
        sections = {name: {"x": 1} for name in ("log", "metrics", "capture")}
        _, warnings = config_of(**sections)
        self.assertEqual(
            sorted(warnings), [f"c: {name}.x: unknown key, ignored" for name in sorted(sections)]
        )


class ErrorTests(TestCase):
    """One line that names file, field and problem."""

    def assert_line(self, data: bytes | dict[str, Any], line: str) -> None:
        """Check the error for `data`."""
        raw = data if isinstance(data, bytes) else json.dumps(data).encode()
        with self.assertRaises(ConfigError) as caught:
            parse_config(raw, "config.json")
        self.assertEqual(str(caught.exception), f"config.json: {line}")

    def test_no_json(self) -> None:
        """Only a JSON object is accepted."""
        self.assert_line(b"", "the config file is empty; it must hold a JSON object with rules")
        self.assert_line(b" \n", "the config file is empty; it must hold a JSON object with rules")
        self.assert_line(b"[]", "must hold a JSON object with rules, not an array")
        self.assert_line(b"null", "must hold a JSON object with rules, not null")
        self.assert_line(b"true", "must hold a JSON object with rules, not a boolean")
        self.assert_line(b"1.5", "must hold a JSON object with rules, not a number")
        self.assert_line(b'"x"', "must hold a JSON object with rules, not a string")
        self.assert_line(
            b'{\n  "rules": [,]}', "is not valid JSON: Expecting value: line 2 column 13 (char 14)"
        )
        for data in (b"\xff\xfe{", b"[" * 100_000, b'{"a"'):
            with self.assertRaises(ConfigError) as caught:
                parse_config(data, "config.json")
            self.assertRegex(str(caught.exception), r"\Aconfig\.json: is not valid JSON: [^\n]+\Z")

    def test_rules(self) -> None:
        """At least one rule is required."""
        self.assert_line({}, "rules: is required")
        self.assert_line({"rules": []}, "rules: expected array of length >= 1")
        self.assert_line({"rules": {}}, "rules: expected array, got object")
        self.assert_line({"rules": None}, "rules: expected array, got null")
        self.assert_line({"rules": ["x"]}, "rules[0]: expected object, got str")

    def test_types(self) -> None:
        """Wrong types and values out of range are errors."""
        rule: dict[str, Any] = {"listenPort": 8080, "upstreamUrl": URL}
        for keys, line in (
            ({"listenPort": "8080"}, "rules[1].listenPort: expected int, got str"),
            ({"listenPort": 80.5}, "rules[1].listenPort: expected int, got float"),
            ({"listenPort": True}, "rules[1].listenPort: expected int, got bool"),
            ({"listenPort": 0}, "rules[1].listenPort: expected int >= 1"),
            ({"listenPort": 65536}, "rules[1].listenPort: expected int <= 65535"),
            ({"upstreamUrl": None}, "rules[1].upstreamUrl: expected str, got null"),
            ({"includeUsage": "yes"}, "rules[1].includeUsage: invalid enum value 'yes'"),
        ):
            self.assert_line({"rules": [{**rule, "listenPort": 1}, {**rule, **keys}]}, line)
        for keys, line in (
            ({"timeoutSeconds": "600"}, "timeoutSeconds: expected float, got str"),
            ({"timeoutSeconds": 0}, "timeoutSeconds: expected float > 0.0"),
            ({"timeoutSeconds": None}, "timeoutSeconds: expected float, got null"),
            ({"connectSeconds": -1}, "connectSeconds: expected float > 0.0"),
            ({"clientIdleSeconds": 0}, "clientIdleSeconds: expected float > 0.0"),
            ({"shutdownGraceSeconds": -1}, "shutdownGraceSeconds: expected float >= 0.0"),
            ({"maxRequestBytes": 0}, "maxRequestBytes: expected int >= 1"),
            ({"maxResponseBytes": 1.5}, "maxResponseBytes: expected int, got float"),
        ):
            self.assert_line({**keys, "rules": [rule]}, line)

    def test_unusable_times(self) -> None:
        """NaN is not a time."""
        data = f'{{"timeoutSeconds": NaN, "rules": [{{"listenPort": 1, "upstreamUrl": "{URL}"}}]}}'
        self.assert_line(data.encode(), "timeoutSeconds: expected float > 0.0")

    def test_one_line(self) -> None:
        """Line breaks in values do not get into the message."""
        rule = {"listenPort": 1, "upstreamUrl": URL, "includeUsage": "a\nb"}
        self.assert_line({"rules": [rule]}, r"rules[0].includeUsage: invalid enum value 'a\nb'")

    def test_no_text(self) -> None:
        """Half of a surrogate pair gives an error that can be written to a log."""
        rule = {"listenPort": 1, "upstreamUrl": URL}
        line = "a key holds half of a surrogate pair, which is no text"
        self.assert_line({"rules": [rule], "\ud800": 1}, line)
        self.assert_line({"rules": [{**rule, "x\ud800": 1}]}, line)
        line = "rules[0].adapter.headers.\\ud800: is no name of a header field"
        self.assert_line({"rules": [{**rule, "adapter": {"headers": {"\ud800": "a"}}}]}, line)

    def test_missing(self) -> None:
        """A rule has required keys."""
        self.assert_line({"rules": [{"upstreamUrl": URL}]}, "rules[0].listenPort: is required")
        self.assert_line({"rules": [{"listenPort": 1}]}, "rules[0].upstreamUrl: is required")

    def test_address(self) -> None:
        """A rule may listen on one address, which must be numeric."""
        rule = {"listenPort": 1, "upstreamUrl": URL, "listenAddress": "::1"}
        config, warnings = config_of(rules=[rule])
        self.assertEqual((config.rules[0].listen_address, warnings), ("::1", []))
        for address in ("localhost", "", "127.0.0.1:80", "[::1]", "1.2.3"):
            self.assert_line(
                {"rules": [{**rule, "listenAddress": address}]},
                "rules[0].listenAddress: must be an IPv4 or IPv6 address, such as 127.0.0.1",
            )

    def test_port_twice(self) -> None:
        """Two rules cannot share a port."""
        rule = {"listenPort": 8080, "upstreamUrl": URL}
        other = {"listenPort": 8081, "upstreamUrl": URL}
        self.assert_line(
            {"rules": [rule, other, rule]},
            "rules[2].listenPort: port 8080 is already used by rules[0]",
        )

    def test_urls(self) -> None:
        """Invalid base URLs are errors."""
        for url, problem in (
            ("", "must start with http:// or https://"),
            ("api.openai.com", "must start with http:// or https://"),
            ("ftp://h", "must start with http:// or https://"),
            ("https://", "names no host"),
            ("https:///v1", "names no host"),
            ("https://:443", "names no host"),
            ("https://u:p@h", "must not hold a user name or password; clients send their own Authorization"),
            ("https://h?x", "must not have a query or a fragment"),
            ("https://h/v1?", "must not have a query or a fragment"),
            ("https://h/#f", "must not have a query or a fragment"),
            ("https://h/v1#", "must not have a query or a fragment"),
            ("https://h/\u00e9", "has a path with characters that must be percent-encoded"),
            ("https://h/a b", "must not hold blanks or control characters"),
            ("https://h/\x7f", "must not hold blanks or control characters"),
            ("https://h\r\ny", "must not hold blanks or control characters"),
            ("//h", "must start with http:// or https://"),
            ("http://u@h", "must not hold a user name or password; clients send their own Authorization"),
            ("https://h:0", "has the port 0"),
            ("https://a b", "must not hold blanks or control characters"),
            ("https://a%0Ab^", "names a host that is no valid host name"),
            ("https://a..b", "names a host that is no valid host name"),
            ("https://" + "a" * 64 + ".example", "names a host that is no valid host name"),
        ):
            self.assert_line(
                {"rules": [{"listenPort": 1, "upstreamUrl": url}]}, f"rules[0].upstreamUrl: {problem}"
            )
        for url in ("https://h:99999", "https://h:x", "https://[::1"):
            with self.assertRaises(ConfigError) as caught:
                parse_config(json.dumps({"rules": [{"listenPort": 1, "upstreamUrl": url}]}).encode(), "c")
            self.assertRegex(str(caught.exception), r"\Ac: rules\[0\]\.upstreamUrl: is not a valid URL: .+\Z")


class MsgspecTests(TestCase):
    """The messages of msgspec that are reworded. A version that words them otherwise fails here first."""

    def test_messages(self) -> None:
        """Each kind as it comes, and as it is logged."""
        for keys, message, line in (
            (
                {"rules": None, "workers": 1},
                "Expected `array`, got `null` - at `$.rules`",
                "rules: expected array, got null",
            ),
            (
                {"admin": 5},
                "Expected `object | null`, got `int` - at `$.admin`",
                "admin: expected object, got int",
            ),
            (
                {"timeoutSeconds": 0},
                "Expected `float` > 0.0 - at `$.timeoutSeconds`",
                "timeoutSeconds: expected float > 0.0",
            ),
            (
                {"rules": [{}]},
                "Object missing required field `upstreamUrl` - at `$.rules[0]`",
                "rules[0].upstreamUrl: is required",
            ),
            (
                {"rules": [{"upstreamUrl": URL, "includeUsage": "`$"}]},
                "Invalid enum value '`$' - at `$.rules[0].includeUsage`",
                "rules[0].includeUsage: invalid enum value '$'",
            ),
            (
                {"rules": [{"upstreamUrl": URL, "clientKeys": "key"}]},
                "Expected `object | null`, got `str` - at `$.rules[0].clientKeys`",
                'rules[0].clientKeys: keys do not stand in the config; use {"file": PATH} or '
                '{"environment": NAME}',
            ),
            (
                {"rules": [{"upstreamUrl": URL, "clientKeys": {}}]},
                'must be {"file": PATH} or {"environment": NAME} - at `$.rules[0].clientKeys`',
                'rules[0].clientKeys: must be {"file": PATH} or {"environment": NAME}',
            ),
        ):
            data: dict[str, Any] = {"rules": [{"listenPort": 1, "upstreamUrl": URL}], **keys}
            error = self.assertRaises(msgspec.ValidationError, msgspec.convert, data, Config)
            self.assertEqual((str(error), _field_message(str(error))), (message, line))
        error = self.assertRaises(msgspec.ValidationError, msgspec.convert, {}, Config)
        self.assertEqual(str(error), "Object missing required field `rules`")
        self.assertEqual(_field_message(str(error)), "rules: is required")


class WarningTests(TestCase):
    """Unknown keys."""

    def test_unknown_keys(self) -> None:
        """Each is named with its path, and with the key that was probably meant."""
        rule = {"listenPort": 1, "upstreamUrl": URL, "include_usage": "auto", "xyz": 1}
        _, warnings = config_of(timeoutSecond=1, maxrequestbytes=1, **{"a\nb": 1}, rules=[rule])
        self.assertEqual(
            warnings,
            [
                "c: timeoutSecond: unknown key, ignored; did you mean timeoutSeconds?",
                "c: maxrequestbytes: unknown key, ignored; did you mean maxRequestBytes?",
                "c: a b: unknown key, ignored",
                "c: rules[0].include_usage: unknown key, ignored; did you mean includeUsage?",
                "c: rules[0].xyz: unknown key, ignored",
            ],
        )

    def test_fields_names(self) -> None:
        """The fields' names in the code are not keys."""
        config, warnings = config_of(timeout_seconds=1)
        self.assertEqual(config.timeout_seconds, 600)
        self.assertEqual(warnings, ["c: timeout_seconds: unknown key, ignored; did you mean timeoutSeconds?"])


class FileTests(TestCase):
    """The file itself."""

    def test_missing(self) -> None:
        """A missing file is an error."""
        path = Path(self.mktemp())
        with self.assertRaises(ConfigError) as caught:
            load_config(path)
        self.assertEqual(str(caught.exception), f"{path}: the config file does not exist")

    def test_directory(self) -> None:
        """A directory is an error, and so is a path below a file."""
        path = Path(self.mktemp())
        path.mkdir()
        with self.assertRaises(ConfigError) as caught:
            load_config(path)
        self.assertEqual(str(caught.exception), f"{path}: is a directory, not a config file")
        file = path / "file"
        file.write_bytes(b"")
        with self.assertRaises(ConfigError) as caught:
            load_config(file / "config.json")
        self.assertEqual(
            str(caught.exception), f"{file}/config.json: the config file cannot be read: Not a directory"
        )

    def test_good(self) -> None:
        """A valid file is read; warnings name it."""
        path = Path(self.mktemp())
        path.write_text('\ufeff{"x": 1, "rules": [{"listenPort": 1, "upstreamUrl": "http://h"}]}')
        config, warnings = load_config(path)
        self.assertEqual(config.rules[0].upstream_url, "http://h")
        self.assertEqual(warnings, [f"{os.fspath(path)}: x: unknown key, ignored"])


class URLTests(TestCase):
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
