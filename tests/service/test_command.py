"""The command ``openai-stream-proxy``."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from twisted.internet.defer import Deferred, gatherResults

import stream_proxy
from stream_proxy.errors import ConfigError
from stream_proxy.service.command.run import run
from stream_proxy.service.command.start import log_level
from stream_proxy.service.configuration.loading import parse_config
from stream_proxy.service.configuration.types import LogConfig
from tests.support.forks import TWISTD_MODULES
from tests.support.loopback import turns
from tests.support.payloads import CHAT_BODY
from tests.support.twistd import COMMAND, Process, ProcessTestCase, free_port

PROGRAM = "openai-stream-proxy"
URL = "https://api.openai.com"


class CommandTestCase(ProcessTestCase):
    """Runs the command, in this process where it serves nothing."""

    def run_here(self, *arguments: str) -> tuple[int, str, str]:
        """Return the status of the command, and what it prints."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = run(arguments)
            except SystemExit as end:
                status = int(end.code or 0)
        return status, out.getvalue(), err.getvalue()

    def command(
        self, *arguments: str, path: Path | None = None, program: Sequence[str] = (COMMAND,)
    ) -> Process:
        """Start the command."""
        process = Process(
            [*program, *arguments],
            path=str(path or self.directory()),
            modules=TWISTD_MODULES if program == (COMMAND,) else (),
        )
        self.addCleanup(process.kill)
        return process


class CheckTests(CommandTestCase):
    """``--check`` and ``--print-config``."""

    def check(self, content: object, *options: str) -> tuple[int, list[str]]:
        """Return the status for a config file, and the lines about it without its name."""
        path = self.write_config(content)
        status, out, err = self.run_here("--check", "-c", str(path), *options)
        return status, [line.removeprefix(f"{path}: ") for line in (out + err).splitlines()]

    def test_right(self) -> None:
        """A configuration without mistakes is one line and status 0, while its ports are in use."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            rules = [
                {"listenPort": port, "listenAddress": "127.0.0.1", "upstreamUrl": URL},
                {"listen": "unix:/none/such.sock", "upstreamUrl": URL},
                {"listen": "systemd:domain=INET:index=0", "upstreamUrl": URL},
            ]
            self.assertEqual(self.check({"rules": rules}), (0, ["3 rules, no mistake"]))

    def test_mistakes(self) -> None:
        """All mistakes of keys and values are told on standard error, with status 1."""
        rules = [{"listenPort": "1", "upstreamUrl": URL}, {"listenPort": 2, "upstreamUrl": "x"}]
        path = self.write_config({"rules": rules})
        self.assertEqual(
            self.run_here("--check", "-c", str(path)),
            (
                1,
                "",
                f'{path}: rules[0].listenPort: must be a number: 1, not "1"\n'
                f"{path}: rules[1].upstreamUrl: must start with http:// or https://\n",
            ),
        )

    def test_places(self) -> None:
        """Once keys and values are right, so are the endpoints, which lead nowhere twice, nor in a circle."""
        key = {"upstreamKey": {"environment": "PATH"}}
        rules = [
            {"listenPort": 1, "upstreamUrl": "http://127.0.0.1:1"},
            {"listen": "tcp:1", "upstreamUrl": URL},
            {"listen": "tcp:x", "upstreamUrl": URL},
            {"listen": "ssl:2:privateKey=/none.pem", "upstreamUrl": URL},
            {"listenPort": 3, "upstreamUrl": URL, **key},
            {"listenPort": 4, "upstreamUrl": URL, "listenAddress": "127.0.0.1", **key},
            {"listenPort": 5, "upstreamUrl": URL, "requestHeaders": {"set": {"X": "${HOME}"}}},
            {"listenPort": 6, "upstreamUrl": URL, "requestHeaders": {"set": {"X": "y"}}},
        ]
        status, lines = self.check({"rules": rules})
        self.assertEqual(status, 1)
        for line, expected in zip(
            lines,
            (
                "rules[1].listen: port 1 is used already",
                "rules[2].listen: tcp:x is no Twisted endpoint description: ",
                "rules[3].listen: ssl:2:privateKey=/none.pem cannot be used: No such file",
                "rules[4].clientKeys: is required where a rule with a key of its own can be reached from",
                "rules[6].clientKeys: is required where a rule with a key of its own can be reached from",
                "rules[0].upstreamUrl: leads back to this rule, so each request would come again",
            ),
            strict=True,
        ):
            self.assertIn(expected, line)

    def test_warning(self) -> None:
        """A warning is no mistake."""
        keys = self.directory() / "keys"
        keys.write_text("key")
        keys.chmod(0o644)
        rule = {"listenPort": 1, "upstreamUrl": URL, "clientKeys": {"file": str(keys)}}
        path = self.write_config({"rules": [rule]})
        warning = f"warning: {path}: rules[0].clientKeys: everyone on this machine can read {keys}\n"
        self.assertEqual(
            self.run_here("--check", "-c", str(path)), (0, f"{path}: 1 rule, no mistake\n", warning)
        )

    def test_command_line(self) -> None:
        """What stands in the options alone is checked, too; they are named in the mistakes."""
        self.assertEqual(
            self.run_here("--check", "--upstream", URL), (0, "--upstream: 1 rule, no mistake\n", "")
        )
        self.assertEqual(
            self.run_here("--check", "--upstream", "api.openai.com", "--port", "80a", "--host", "localhost"),
            (
                1,
                "",
                '--port: must be a number, not "80a"\n'
                "--host: must be an IPv4 or IPv6 address, such as 127.0.0.1\n"
                "--upstream: must start with http:// or https://\n",
            ),
        )

    def test_print_config(self) -> None:
        """All keys are printed with their values, those of limits in each rule; it is a config file again."""
        rules = [
            {"listenPort": 1, "upstreamUrl": URL, "retries": 2},
            {"listen": "tcp:2", "upstreamUrl": URL, "adapter": {}},
        ]
        path = self.write_config({"rules": rules, "timeoutSeconds": 5, "$schema": "x", "capture": None})
        status, out, err = self.run_here("--print-config", "-c", str(path))
        self.assertEqual((status, err), (0, ""))
        printed = json.loads(out)
        self.assertNotIn("$schema", printed)
        self.assertEqual((printed["timeoutSeconds"], printed["connectSeconds"]), (5, 10))
        self.assertEqual([rule["timeoutSeconds"] for rule in printed["rules"]], [5, 5])
        self.assertEqual([rule["retries"] for rule in printed["rules"]], [2, 0])
        self.assertEqual(printed["rules"][1]["adapter"]["mode"], "auto")
        before, after = (parse_config(text.encode(), "c")[0] for text in (path.read_text(), out))
        for one, other in zip(before.rules, after.rules, strict=True):
            self.assertEqual(before.limits_of(one), after.limits_of(other))
            self.assertEqual((one.listen, one.adapter), (other.listen, other.adapter))

    def test_secrets(self) -> None:
        """Secrets in the configuration are blanked, references to the environment are not."""
        adapter = {
            "headers": {"Authorization": "Bearer s3cret", "X-Api-Key": "${PATH}", "X-Trace": "on"},
            "request": {
                "auth": {"token": "s3cret", "pin": ["s3cret"]},
                "q": "{{last_user_message}}",
                "apiKey": "{{model}}",
            },
        }
        place = {"listenPort": 1, "listenAddress": "127.0.0.1"}
        fields = {"set": {"X-Token": "s3cret", "X-Gateway-Key": "${PATH}"}}
        url = "http://h/x?token=s3cret&a=b"
        rule = {**place, "upstreamUrl": url, "adapter": adapter, "requestHeaders": fields}
        proxied = {"listenPort": 2, "upstreamUrl": URL, "proxy": "http://u:s3cret@h"}
        with mock.patch.dict(os.environ, {"PASSWORD": "x"}):
            named = {"listenPort": 3, "upstreamUrl": URL, "proxy": "http://u:${PASSWORD}@h"}
            user = {"listenPort": 4, "upstreamUrl": URL, "proxy": "http://s3cret@h"}
            path = self.write_config({"rules": [rule, proxied, named, user]})
            status, out, _ = self.run_here("--print-config", "-c", str(path))
        self.assertEqual(status, 0)
        self.assertNotIn("s3cret", out)
        first, *others = json.loads(out)["rules"]
        shown = {"set": {"X-Token": "***", "X-Gateway-Key": "${PATH}"}, "remove": []}
        self.assertEqual(first["requestHeaders"], shown)
        self.assertEqual(first["upstreamUrl"], "http://h/x?token=***&a=b")
        proxies = [each["proxy"] for each in others]
        self.assertEqual(proxies, ["http://u:***@h", "http://u:${PASSWORD}@h", "http://***@h"])
        self.assertEqual(
            first["adapter"]["headers"], {"Authorization": "***", "X-Api-Key": "${PATH}", "X-Trace": "on"}
        )
        self.assertEqual(
            first["adapter"]["request"],
            {"auth": {"token": "***", "pin": ["***"]}, "q": "{{last_user_message}}", "apiKey": "{{model}}"},
        )


class OptionTests(CommandTestCase):
    """Options that are wrong, or serve nothing."""

    def test_wrong(self) -> None:
        """A wrong option is one line with status 2; options that do not go together are one with status 1."""
        for arguments, status, line in (
            (["--confg", "x"], 2, f"{PROGRAM}: option --confg not recognized; see {PROGRAM} --help"),
            (["serve"], 2, f"{PROGRAM}: there is no serve; see {PROGRAM} --help"),
            (
                ["mock", "--conf"],
                2,
                f"{PROGRAM} mock: option --conf not recognized; see {PROGRAM} mock --help",
            ),
            (
                ["--check", "--upstream", URL, "-c", "c"],
                1,
                "--upstream takes no config file; leave out --upstream or --config",
            ),
            (
                ["--check", "--port", "80"],
                1,
                "--port goes with --upstream; a config file says where each rule listens",
            ),
            (["--check", "--demo"], 1, "--demo has no config that could be looked at"),
        ):
            self.assertEqual(self.run_here(*arguments), (status, "", line + "\n"))

    def test_version(self) -> None:
        """--version is that of the package."""
        wanted = f"openai-stream-proxy {stream_proxy.__version__}\n"
        self.assertEqual(self.run_here("--version"), (0, wanted, ""))

    def test_help(self) -> None:
        """--help shows how to call it, and that of another command its own options."""
        status, out, _ = self.run_here("--help")
        self.assertEqual(status, 0)
        self.assertTrue(out.startswith("Usage: openai-stream-proxy [-c FILE]\n"), out)
        for option in ("check", "schema", "print-config", "upstream=", "port=", "host=", "demo"):
            self.assertIn(f" --{option}", out)
        status, out, _ = self.run_here("mock", "--help")
        self.assertEqual(status, 0)
        self.assertTrue(out.startswith("Usage: openai-stream-proxy mock [options]\n"), out)

    def test_schema(self) -> None:
        """--schema prints a JSON Schema."""
        status, out, _ = self.run_here("--schema")
        self.assertEqual((status, json.loads(out)["type"]), (0, "object"))


class LevelTests(CommandTestCase):
    """The level of the log."""

    def test_level(self) -> None:
        """The config's is first, then LOG_LEVEL in any case, then info; warning is warn."""
        for level, variable, wanted in (
            ("debug", "error", "debug"),
            ("warning", None, "warn"),
            (None, "WARNING", "warn"),
            (None, "error ", "error"),
            (None, "", "info"),
            (None, None, "info"),
        ):
            environ = {} if variable is None else {"LOG_LEVEL": variable}
            self.assertEqual(log_level(LogConfig(level=level), environ), wanted)  # type: ignore[arg-type]
        with self.assertRaises(ConfigError) as caught:
            log_level(LogConfig(), {"LOG_LEVEL": "loud"})
        problem = "the environment's LOG_LEVEL must be one of debug, info, warn, error"
        self.assertEqual(str(caught.exception), problem)


class ServeTests(CommandTestCase):
    """Processes that serve."""

    async def test_upstream(self) -> None:
        """--upstream and --port serve without any file, on this machine alone; nothing is written."""
        port, path = free_port(), self.directory()
        process = self.command("--upstream", await self.mock(), "--port", str(port), path=path)
        await process.line(rf"listening on port {port} of 127\.0\.0\.1")
        answer = await self.request(port, body=CHAT_BODY)
        self.assertEqual((answer.status, answer.json()["object"]), (200, "chat.completion"))
        self.assertEqual(os.listdir(path), [])
        process.signal("INT")
        await process.ended()
        self.assert_ended_by(signal.SIGINT, process)

    async def test_config(self) -> None:
        """-c serves a file; ``python -m stream_proxy`` is the same command."""
        port = free_port()
        path = self.write_config({"rules": [{"listenPort": port, "upstreamUrl": URL}]})
        process = self.command("-c", str(path), program=(sys.executable, "-m", "stream_proxy"))
        await process.line(rf"listening on port {port} ")
        process.signal("TERM")
        await process.ended()
        self.assert_ended_by(signal.SIGTERM, process)

    async def test_refused(self) -> None:
        """A taken port is one line that names the option, with status 1."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]

            async def one(expected: str, *arguments: str) -> None:
                process = self.command(*arguments, "--port", str(port))
                self.assertEqual(await process.ended(), 1)
                problem = f"cannot listen on port {port}: Address already in use"
                self.assertEqual(process.output, f"{expected}: {problem}\n")

            starts = [one("--port", "--upstream", URL), one("--demo --port", "--demo")]
            await gatherResults(map(Deferred.fromCoroutine, starts), consumeErrors=True)

    async def test_others(self) -> None:
        """The mock is a command of it, with its own options."""
        port = free_port()
        process = self.command("mock", "--port", str(port))
        await process.line(rf"the mock is at http://127\.0\.0\.1:{port}/v1")
        self.assertEqual((await self.request(port, "GET", "/v1/models")).status, 200)

    async def test_demo(self) -> None:
        """--demo shows two calls: the upstream refuses the first, the proxy answers the second."""
        process = self.command("--demo", "--port", str(free_port()))
        await process.line("Ctrl-C ends the demo")
        calls = re.findall(r"(?m)^  curl -s (.*)$", process.output)
        answers = []
        for call in calls:
            url, _, header, _, body = shlex.split(call)
            origin, _, target = url.partition("/v1")
            name, _, value = header.partition(": ")
            port, headers = int(origin.rpartition(":")[2]), [(name, value)]
            answer = await self.request(port, target="/v1" + target, body=body.encode(), headers=headers)
            answers.append(answer)
        self.assertEqual([answer.status for answer in answers], [400, 200])
        self.assertEqual(answers[0].json()["error"]["param"], "stream")
        self.assertEqual(answers[1].json()["object"], "chat.completion")
        admin = int((await process.line(r"What happens: http://127\.0\.0\.1:(\d+)/"))[1])
        self.assertEqual((await self.request(admin, "GET", "/readyz")).status, 200)
        await turns()
        process.signal("INT")
        await process.ended()
        self.assert_ended_by(signal.SIGINT, process)
