"""Configuration under ``"adapter"``, and the one-line errors for what is wrong in it."""

from __future__ import annotations

import json
import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase as TestCase

from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.adapter.dialect import Dialect, DialectError
from stream_proxy.adapter.resource import AdapterResource
from stream_proxy.errors import ConfigError
from stream_proxy.lenient_json import JSONObject
from stream_proxy.limits import Limits
from stream_proxy.request_log import RequestLog
from stream_proxy.service import adapter_tap as tap
from stream_proxy.service import main
from stream_proxy.service.configuration.loading import parse_config
from stream_proxy.service.listening import Listener, endpoint_of
from stream_proxy.service.main import MainService
from stream_proxy.service.rules import ProxyService
from tests.support.loopback import reactor

URL = "http://service/stream"


def parse(adapter: object, url: str = URL) -> tuple[Any, list[str]]:
    """Return the adapter of a configuration with one rule, and the warnings."""
    rule = {"listenPort": 1, "upstreamUrl": url, "adapter": adapter}
    config, warnings = parse_config(json.dumps({"rules": [rule]}).encode(), "c")
    return config.rules[0].adapter, warnings


class ConfigTests(TestCase):
    """The keys of an adapter."""

    def place(self) -> Listener:
        """Return a listener whose socket does not listen."""
        self.addCleanup((place := Listener("tcp:0", [socket.socket()])).close)
        return place

    def test_defaults(self) -> None:
        """An empty object is a whole configuration, with the documented model."""
        self.assertEqual(parse({}), (AdapterConfig(), []))
        self.assertEqual(AdapterConfig().models, ("gpt-3.5-turbo",))

    def test_unknown_key(self) -> None:
        """An unknown key is an error that names the nearest known one."""
        line = "adapter.finishreason: unknown key; did you mean finishReason?"
        self.assert_line({"finishreason": "x"}, line)

    def assert_line(self, adapter: object, line: str, url: str = URL) -> None:
        """Assert that the configuration is refused with that line."""
        with self.assertRaises(ConfigError) as caught:
            parse(adapter, url)
        self.assertEqual(str(caught.exception), f"c: rules[0].{line}")

    def test_types(self) -> None:
        """Values of the wrong type are refused."""
        for adapter, line in (
            (True, "adapter: must be an object: {…}, not true"),
            ({"models": []}, "adapter.models: must have at least one entry"),
            ({"models": [""]}, "adapter.models[0]: must not be empty"),
            ({"models": "m"}, 'adapter.models: must be a list: ["m"], not "m"'),
            ({"mode": "all"}, 'adapter.mode: must be "auto", "cumulative" or "delta", not "all"'),
            ({"method": "PUT"}, 'adapter.method: must be "GET" or "POST", not "PUT"'),
            ({"format": "xml"}, 'adapter.format: must be "auto", "json", "ndjson" or "sse", not "xml"'),
            ({"headers": {"X": 1}}, 'adapter.headers.X: must be text in quotes: "1", not 1'),
            ({"request": "x"}, 'adapter.request: must be an object, not "x"'),
            ({"content": 1}, 'adapter.content: must be text in quotes: "1", not 1'),
        ):
            self.assert_line(adapter, line)

    def test_expressions(self) -> None:
        """Expressions that do not parse are reported with key and column."""
        for key in ("content", "reasoning", "toolCalls", "finishReason", "usage", "error", "done"):
            self.assert_line({key: "data.["}, f"adapter.{key}: column 7: it ends too early, in data.[")
        self.assert_line({"content": ""}, "adapter.content: is empty; it must be a JMESPath expression")

    def test_one_line(self) -> None:
        """Line breaks in the configuration do not reach the message, and deep nesting causes no traceback."""
        for adapter in (
            {"content": "a\n.b["},
            {"request": {"a\nb": "{{ model\n ++ }}"}},
            {"headers": {"X\nY": "1"}},
            {"headers": {"X": "${A\nB}"}},
        ):
            with self.assertRaises(ConfigError) as caught:
                parse(adapter)
            self.assertEqual(len(str(caught.exception).splitlines()), 1)
        deep: Any = "x"
        for _ in range(200):
            deep = [deep]
        self.assert_line({"request": {"a": deep}}, "adapter.request: is nested deeper than 100")

    def test_templates(self) -> None:
        """Templates that refer to unknown fields are reported with their position."""
        self.assert_line(
            {"request": {"a": [{"b": "{{last_user_mesage}}"}]}},
            "adapter.request.a[0].b: {{last_user_mesage}} refers to last_user_mesage, which no chat "
            "completion request has; did you mean last_user_message?",
        )
        self.assert_line(
            {"headers": {"X-A": "{{who}}"}},
            "adapter.headers.X-A: {{who}} refers to who, which no chat completion request has; for a field "
            "of your clients' own write @.who",
        )
        self.assert_line({}, "upstreamUrl: column 2: {{ without its }}", "http://service/{{model")

    def test_headers(self) -> None:
        """Headers that cannot be sent, and variables that are not set, are refused."""
        for headers, line in (
            ({"X A": "1"}, "adapter.headers.X A: is no name of a header field"),
            ({"Host": "x"}, "adapter.headers.Host: is set by the proxy itself"),
            ({"content-length": "1"}, "adapter.headers.content-length: is set by the proxy itself"),
            ({"X": "a\nb"}, "adapter.headers.X: has characters that no header may hold"),
            (
                {"X": "{{ '${HOME}' }}"},
                "adapter.headers.X: a variable of the environment cannot stand inside of {{ }}",
            ),
            ({"X": "${NO_SUCH_KEY}"}, "adapter.headers.X: the environment has no NO_SUCH_KEY"),
        ):
            self.assert_line({"headers": headers}, line)

    def test_variables_are_checked(self) -> None:
        """The value of a variable must fit into a header; the error does not quote it."""
        config = AdapterConfig(headers={"X": "${KEY}"})
        with self.assertRaises(DialectError) as caught:
            Dialect(URL, config, {"KEY": "secret\n"})
        self.assertNotIn("secret", str(caught.exception))

    def test_urls(self) -> None:
        """An adapter's URL is the exact URL that is called: it may have a query, but no fragment."""
        for url, target in (
            ("http://service", b"/"),
            ("http://service/", b"/"),
            ("http://service/a/", b"/a/"),
            ("http://service?x=1", b"/?x=1"),
            ("http://service/a?x=1&y={{model}}", b"/a?x=1&y=m%2Fn"),
        ):
            dialect = Dialect(url, AdapterConfig())
            call: JSONObject = {"model": "m/n", "messages": []}
            self.assertEqual(dialect.request(call, []).target, target)
            self.assertEqual(dialect.url.origin, "http://service")
        for url, line in (
            ("ftp://service", "upstreamUrl: must start with http:// or https://"),
            (
                "http://u:p@service/a",
                "upstreamUrl: must not hold a user name or password; clients send their own Authorization",
            ),
            ("http://service/a#b", "upstreamUrl: must not have a fragment"),
            ("http://service/a b", "upstreamUrl: has characters that must be percent-encoded"),
            ("http://{{model}}/", "upstreamUrl: names a host that is no valid host name"),
        ):
            self.assert_line({}, line, url)


class TapTests(TestCase):
    """``twistd openai-stream-adapter`` without a configuration."""

    def place(self) -> Listener:
        """Return a listener whose socket does not listen."""
        self.addCleanup((place := Listener("tcp:0", [socket.socket()])).close)
        return place

    def test_defaults(self) -> None:
        """One rule, on the documented port, for the documented service and model."""
        self.patch(main, "open_listeners", lambda config, _: {endpoint_of(config.rules[0]): self.place()})
        service = tap.Defaults().service(reactor, RequestLog())
        assert isinstance(service, MainService) and isinstance(service.serving, ProxyService)
        ((endpoint, rule),) = service.serving.rules.items()
        adapter = rule.served.resource
        assert isinstance(adapter, AdapterResource)
        request = adapter.dialect.request({"model": "m", "messages": []}, [])
        self.assertEqual(
            adapter.upstream.url.origin + request.target.decode(), "http://127.0.0.1:28080/stream"
        )
        self.assertEqual(adapter.dialect.models, ("gpt-3.5-turbo",))
        self.assertIn("tcp:28081", endpoint)
        self.assertEqual(adapter.limits.timeout_seconds, Limits().timeout_seconds)
