"""Tests of rules that lead back to themselves."""

from __future__ import annotations

import os
import socket
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.errors import ConfigError
from stream_proxy.service.configuration.types import Rule
from stream_proxy.service.listening import any_interface
from stream_proxy.service.loops import check_loops, plain
from tests.support.twistd import ProcessTestCase, free_port

#: An address of this machine that is not a loopback one, if there is one.
OWN = "10.77.0.1"


class LoopTests(SynchronousTestCase):
    """:func:`check_loops`."""

    def setUp(self) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        patched = mock.patch.dict(os.environ, clean, clear=True)
        patched.start()
        self.addCleanup(patched.stop)

    def loop(self, *rules: tuple[str, int, str], **options: str) -> str | None:
        """Return the error for rules, each an address, a port and an upstream; `options` are the first's."""
        made = [
            Rule(listen_port=port, upstream_url=url, **(options if index == 0 else {}))  # type: ignore[arg-type]
            for index, (_, port, url) in enumerate(rules)
        ]
        places = {index: (plain(address), port) for index, (address, port, _) in enumerate(rules)}
        try:
            check_loops(made, places, "c: {}".format)
        except ConfigError as error:
            return str(error)
        return None

    def test_itself(self) -> None:
        """Every spelling of an own address is found."""
        for address, host in (
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1", "127.1"),
            ("127.0.0.1", "localhost"),
            ("127.0.0.1", "LocalHost."),
            ("127.0.0.1", "api.localhost"),
            ("127.0.0.1", "0.0.0.0"),
            ("127.0.0.1", "[::ffff:127.0.0.1]"),
            ("::1", "[::1]"),
            ("::1", "localhost"),
            ("::1", "[::]"),
            ("::", "127.0.0.1"),
            ("::", "127.0.0.9"),
            ("::", "[::1]"),
            ("::", "0.0.0.0"),
            ("0.0.0.0", "127.0.0.1"),
            ("::", socket.gethostname()),
        ):
            for path in ("", "/v1"):
                self.assertEqual(
                    self.loop((address, 8080, f"http://{host}:8080{path}")),
                    "c: rules[0].upstreamUrl: leads back to this rule, so each request would come again",
                    (address, host),
                )

    def test_default_port(self) -> None:
        """A URL without a port has its scheme's."""
        self.assertIsNotNone(self.loop(("::", 80, "http://localhost")))
        self.assertIsNotNone(self.loop(("::", 443, "https://localhost/v1")))
        self.assertIsNone(self.loop(("::", 80, "https://localhost")))

    def test_elsewhere(self) -> None:
        """Other ports, other addresses, other machines and names that nobody was asked about are no loops."""
        for address, host, port in (
            ("127.0.0.1", "127.0.0.1", 8081),
            ("127.0.0.1", "127.0.0.2", 8080),
            ("127.0.0.1", "[::1]", 8080),
            ("0.0.0.0", "[::1]", 8080),
            ("::", "192.0.2.1", 8080),
            ("::", "[2001:db8::1]", 8080),
            ("::", "api.example", 8080),
            ("192.0.2.1", "localhost", 8080),
        ):
            self.assertIsNone(self.loop((address, 8080, f"http://{host}:{port}")), (address, host, port))

    def test_own_address(self) -> None:
        """An address of one of this machine's networks is its own, for a rule that listens on all."""

        class Probe(socket.socket):
            def connect(self, address: object) -> None:
                """Choose the source address as the system does for its own addresses."""

            def getsockname(self) -> tuple[str, int]:
                return OWN, 5

        self.patch(socket, "socket", Probe)
        self.assertIsNotNone(self.loop(("0.0.0.0", 8080, f"http://{OWN}:8080")))
        self.assertIsNone(self.loop(("0.0.0.0", 8080, "http://10.77.0.2:8080")))
        self.assertIsNone(self.loop(("127.0.0.1", 8080, f"http://{OWN}:8080")))

    def test_through_others(self) -> None:
        """A circle of rules is an error; a chain is not."""
        first = ("::", 8080, "http://localhost:8081")
        second = ("127.0.0.1", 8081, "http://localhost:8082")
        self.assertEqual(
            self.loop(first, second, ("::1", 8082, "http://127.0.0.1:8080")),
            "c: rules[0].upstreamUrl: leads back to this rule through rules[1], rules[2], so each request "
            "would come again",
        )
        self.assertIsNone(self.loop(first, second, ("::1", 8082, "https://api.example")))
        # The rule that only leads to a circle is not the one to change.
        error = self.loop(first, ("::", 8081, "http://localhost:8081"))
        self.assertIn("rules[1].upstreamUrl: leads back", str(error))

    def test_egress(self) -> None:
        """An egress proxy that is a rule of this process is a loop as well, wherever it is configured."""
        place = ("127.0.0.1", 8080, "http://api.example")
        self.assertEqual(
            self.loop(place, proxy="http://127.0.0.1:8080"),
            "c: rules[0].proxy: leads back to this rule, so each request would come again",
        )
        with mock.patch.dict(os.environ, {"HTTP_PROXY": "http://localhost:8080"}):
            self.assertIn("the environment's HTTP_PROXY leads back to this rule", str(self.loop(place)))
            self.assertIsNone(self.loop(place, proxy="direct"))

    def test_adapter(self) -> None:
        """The service of an adapter is an upstream, too."""
        rule = Rule(listen_port=1, upstream_url="http://localhost:8080/{{model}}", adapter=AdapterConfig())
        places = {0: (plain("127.0.0.1"), 8080)}
        self.assertRaises(ConfigError, check_loops, [rule], places, str)


class ProcessTests(ProcessTestCase):
    """The start of the process."""

    async def test_refused(self) -> None:
        """One line names the file and the rule, with every kind of listener."""
        port = free_port()
        interface = any_interface().replace(":", r"\:")
        for host in ("127.0.0.1", "[::1]") if interface else ("127.0.0.1",):
            for place in ({"listenPort": port}, {"listen": f"tcp:{port}:interface={interface}"}):
                path = self.write_config({"rules": [{**place, "upstreamUrl": f"http://{host}:{port}"}]})
                process = self.twistd("-c", str(path))
                self.assertEqual(await process.ended(), 1)
                words = "upstreamUrl: leads back to this rule, so each request would come again"
                self.assertEqual(process.output, f"{path}: rules[0].{words}\n")
