"""Config files: what their values become, and files that cannot be read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase as TestCase

from stream_proxy.errors import ConfigError
from stream_proxy.service.access import access_of
from stream_proxy.service.admin.capture.options import known_secrets
from stream_proxy.service.configuration.loading import load_config, parse_config
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


class RequestHeaderTests(TestCase):
    """``requestHeaders``."""

    def test_changes(self) -> None:
        """Requests get the fields, with what the environment holds, and no capture shows that."""
        changes = {"set": {"X-Gateway": "token ${GATEWAY_TOKEN}", "X-Team": " a "}, "remove": ["X-Old"]}
        rule = {"listenPort": 1, "upstreamUrl": URL, "requestHeaders": changes}
        with mock.patch.dict(os.environ, {"GATEWAY_TOKEN": "s3cret-token"}):
            config, _ = config_of(rules=[rule])
            access = access_of(config.rules[0])
            secrets = known_secrets(config)
        fields = access.headers(b"GET", [(b"x-old", b"1"), (b"x-team", b"b"), (b"X", b"y")])
        own = [(b"X-Team", b"a"), (b"X-Gateway", b"token s3cret-token")]
        self.assertEqual(fields, [(b"X", b"y"), *own])
        self.assertEqual((access.injects, secrets), (True, [b"s3cret-token"]))


class NumberTests(TestCase):
    """Numbers in other spellings."""

    def test_whole(self) -> None:
        """A whole number may be written with a point or an exponent, and a time without."""
        rule = {"listenPort": 8080.0, "upstreamUrl": URL}
        config, _ = parse_config(f'{{"rules": [{json.dumps(rule)}], "maxRequestBytes": 1e6}}'.encode(), "c")
        self.assertEqual((config.rules[0].listen_port, config.max_request_bytes), (8080, 1_000_000))
        self.assertIsInstance(config.max_request_bytes, int)
        self.assertIsInstance(config_of(timeoutSeconds=5)[0].timeout_seconds, float)


class NoteTests(TestCase):
    """Keys that are the operator's own."""

    def test_notes(self) -> None:
        """Keys that begin with $ or _ are ignored in every object, also beside a key that is required."""
        rule = {
            "listenPort": 1,
            "upstreamUrl": URL,
            "_why": ["x"],
            "clientKeys": {"environment": "PATH", "_": 1},
        }
        config, warnings = config_of(rules=[rule], **{"$schema": "https://x", "_note": None})
        self.assertEqual(warnings, [])
        self.assertEqual(config.rules[0].client_keys, KeySource(environment="PATH"))

    def test_data(self) -> None:
        """Where keys are data, they are kept."""
        rule = {
            "listenPort": 1,
            "upstreamUrl": URL,
            "adapter": {"headers": {"_x": "1"}, "request": {"$a": 1}},
        }
        adapter = config_of(rules=[rule])[0].rules[0].adapter
        assert adapter is not None
        self.assertEqual((adapter.headers, adapter.request), ({"_x": "1"}, {"$a": 1}))


class FileTests(TestCase):
    """The file itself."""

    def test_missing(self) -> None:
        """A missing file is an error."""
        path = Path(self.mktemp())
        with self.assertRaises(ConfigError) as caught:
            load_config(path)
        self.assertEqual(str(caught.exception), f"{path}: the config file does not exist")

    def test_pipe(self) -> None:
        """A named pipe that nobody writes to is empty, and holds up nothing."""
        path = Path(self.mktemp())
        os.mkfifo(path)
        with self.assertRaises(ConfigError) as caught:
            load_config(path)
        self.assertIn("the config file is empty", str(caught.exception))

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
        keys = path.with_name("keys")
        keys.write_text("key")
        keys.chmod(0o644)
        source = json.dumps({"file": str(keys)})
        path.write_text(
            f'\ufeff{{"rules": [{{"listenPort": 1, "upstreamUrl": "http://h", "clientKeys": {source}}}]}}'
        )
        config, warnings = load_config(path)
        self.assertEqual(config.rules[0].upstream_url, "http://h")
        self.assertEqual(warnings, [f"{path}: rules[0].clientKeys: everyone on this machine can read {keys}"])
