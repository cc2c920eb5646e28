"""``twistd openai-stream-proxy`` as a process: configuration, log, stop."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol

from stream_proxy.service.listening import any_interface
from tests.support.loopback import Upstream, reactor
from tests.support.payloads import CHAT, CHAT_BODY, DONE, HELLO, chunk
from tests.support.twistd import ProcessTestCase, eventually, free_port
from tests.support.wire import (
    Message,
    Stream,
    event_stream_head,
    read_request,
    read_response,
    respond,
    send_request,
)

URL = "http://127.0.0.1:9"
RULE: dict[str, Any] = {"listenPort": 8080, "upstreamUrl": URL}


def rules(**changes: object) -> object:
    """Return a configuration with one rule that has these members."""
    return {"rules": [{**RULE, **changes}]}


class BadConfigTests(ProcessTestCase):
    """Invalid configurations: the process ends with lines that name file, field and problem."""

    async def refused(self, content: object, *expected: str) -> None:
        """Check the lines about the content, or the path, of a config file; each starts with its name."""
        path = content if isinstance(content, Path) else self.write_config(content)
        process = self.twistd("--config", str(path))
        self.assertEqual(await process.ended(), 1)
        self.assertEqual(process.output.splitlines(), [f"{path}: {line}" for line in expected])

    async def test_file(self) -> None:
        """A file that is missing, or is no JSON."""
        await self.refused(self.directory() / "none.json", "the config file does not exist")
        await self.refused("{'rules'", "line 1, column 2: JSON has texts in double quotes: \"…\", not '…'")

    async def test_mistakes(self) -> None:
        """All mistakes are told at once, a line each; an unknown key is one of them."""
        content = {
            "timeoutSecond": 5,
            "rules": [{**RULE, "listenPort": "8080"}, {**RULE, "upstreamUrl": "x"}],
        }
        await self.refused(
            content,
            "timeoutSecond: unknown key; did you mean timeoutSeconds?",
            'rules[0].listenPort: must be a number: 8080, not "8080"',
            "rules[1].upstreamUrl: must start with http:// or https://",
        )

    async def test_log_level(self) -> None:
        """An unknown LOG_LEVEL is an error that names the known ones."""
        process = self.twistd("-c", str(self.write_config(rules())), env={"LOG_LEVEL": "loud"})
        self.assertNotEqual(await process.ended(), 0)
        expected = "the environment's LOG_LEVEL must be one of debug, info, warn, error\n"
        self.assertEqual(process.output, expected)

    async def test_no_config(self) -> None:
        """Without any config file, the error says what to do."""
        process = self.twistd()
        self.assertNotEqual(await process.ended(), 0)
        expected = "config.json: the config file does not exist; name one with --config or an upstream with "
        self.assertEqual(process.output, expected + "--upstream, or try --demo\n")

    async def test_demo_and_config(self) -> None:
        """A config file together with --demo is refused, because it would have no effect."""
        process = self.twistd("--demo", "-c", str(self.write_config(rules())))
        self.assertNotEqual(await process.ended(), 0)
        self.assertEqual(process.output, "--demo takes no config file; leave out --demo or --config\n")

    async def test_port_in_use(self) -> None:
        """A port in use is an error of one line; as a daemon too, without a pid file left."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            directory = self.directory()
            for options in (["-n", "--pidfile="], ["--pidfile=pid", "--logfile=log"]):
                free = {**RULE, "listenPort": free_port()}
                path = self.write_config({"rules": [free, {**RULE, "listenPort": port}]})
                process = self.twistd("-c", str(path), path=directory, options=options)
                self.assertNotEqual(await process.ended(), 0)
                problem = f"cannot listen on port {port}: Address already in use"
                self.assertEqual(process.output, f"{path}: rules[1].listenPort: {problem}\n")
            self.assertEqual(os.listdir(directory), [])


class StartTests(ProcessTestCase):
    """Sources of the configuration, and a service that starts."""

    async def test_config_file(self) -> None:
        """The file is named by -c, --config or --config-file, else CONFIG_PATH, else it is config.json."""

        async def one(*arguments: str, env: dict[str, str] | None = None, path: Path | None = None) -> None:
            process = self.twistd(*arguments, env=env, path=path)
            await process.line("listening on port")
            process.signal("TERM")
            await process.ended()
            self.assert_ended_by(signal.SIGTERM, process)

        def written() -> Path:
            return self.write_config(rules(listenPort=free_port()))

        wrong = {"CONFIG_PATH": str(self.directory() / "wrong.json")}
        starts = [
            one("-c", str(written()), env=wrong),
            one("--config", str(written()), env=wrong),
            one("--config-file", str(written()), env=wrong),
            one(env={"CONFIG_PATH": str(written())}),
            one(path=written().parent),
        ]
        await gatherResults([Deferred.fromCoroutine(start) for start in starts], consumeErrors=True)

    async def test_help(self) -> None:
        """--help names the options."""
        process = self.twistd("--help", options=[])
        self.assertEqual(await process.ended(), 0)
        for option in ("--config=", "--config-file=", "--upstream=", "--demo"):
            self.assertIn(option, process.output)

    async def ask(self, host: str, port: int, target: str = "/v1/models") -> Message:
        """Make a GET request to an address."""
        stream = Stream()
        await connectProtocol(HostnameEndpoint(reactor, host, port), stream)
        send_request(stream, "GET", target, headers=[("Connection", "close")])
        answer = await read_response(stream, "GET")
        await stream.gone()
        return answer

    async def test_rules(self) -> None:
        """Each rule listens on IPv4 and IPv6 for its own upstream, whose path comes before each target."""

        def named(name: bytes) -> Any:
            async def script(stream: Stream) -> None:
                while True:
                    request = await read_request(stream)
                    respond(stream, 200, name + b" " + request.target.encode())

            return script

        first, second = await self.upstream(named(b"first")), await self.upstream(named(b"second"))
        process, ports = await self.serve(first.url, f"{second.url}/base/")
        hosts = ["127.0.0.1", "::1"] if any_interface() == "::" else ["127.0.0.1"]
        for host in hosts:
            answers = [(await self.ask(host, port)).body for port in ports]
            self.assertEqual(answers, [b"first /v1/models", b"second /base/v1/models"])
        process.signal("TERM")
        await process.ended()
        self.assert_ended_by(signal.SIGTERM, process)

    async def test_log(self) -> None:
        """Each request is one line, without query, headers and body; LOG_LEVEL=error omits it."""
        upstream = await self.mock()
        loud, (port,) = await self.serve(upstream)
        quiet_port = free_port()
        config = {"rules": [{"listenPort": quiet_port, "upstreamUrl": upstream}]}
        quiet = self.twistd("-c", str(self.write_config(config)), env={"LOG_LEVEL": "error"})
        await self.assert_accepts(quiet_port)
        for each in (port, quiet_port):
            for target, body in (
                (f"{CHAT}?api-version=query-secret", CHAT_BODY),
                ("/v1/none", {"model": "body-secret"}),
            ):
                key = [("Authorization", "Bearer header-secret")]
                await self.request(each, target=target, body=body, headers=key)
        await loud.line("POST /v1/none")
        for process in (loud, quiet):
            process.signal("TERM")
            await process.ended()
            self.assertNotIn("secret", process.output)
        lines = [line.partition("] ")[2] for line in loud.output.splitlines() if "POST" in line]
        host = re.escape(upstream)
        self.assertEqual(len(lines), 2)
        self.assertRegex(lines[0], rf"\APOST {CHAT} 200 converted {host} \d+ bytes \d+ ms \| ")
        self.assertRegex(lines[1], rf"\APOST /v1/none 404 passed {host} \d+ bytes \d+ ms \| ")
        self.assertEqual(quiet.output, "")

    async def test_log_failures(self) -> None:
        """The line of a failed request says why."""
        process, (port,) = await self.serve(f"http://127.0.0.1:{free_port()}")
        self.assertEqual((await self.request(port, body=CHAT_BODY)).status, 502)
        await process.line(rf"POST {CHAT} 502 \w+ \S+ \d+ bytes \d+ ms: \S+ refused the connection")


class AddressTests(ProcessTestCase):
    """``listenAddress``."""

    async def reach(self, **config: object) -> None:
        """Check that a rule on one address is served there, and nowhere else."""
        mock = await self.mock()
        port = free_port()
        rule = {"listenPort": port, "upstreamUrl": mock, "listenAddress": "127.0.0.2"}
        process = self.twistd("-c", str(self.write_config({"rules": [rule], **config})))
        await process.line(rf"listening on port {port} of 127\.0\.0\.2 for {mock}\n")
        stream = Stream()
        await connectProtocol(HostnameEndpoint(reactor, "127.0.0.2", port), stream)
        send_request(stream, "GET", "/v1/models", headers=[("Connection", "close")])
        self.assertEqual((await read_response(stream)).status, 200)
        await stream.gone()
        await self.assert_refused(port)

    async def test_one_process(self) -> None:
        """One process listens on the address alone."""
        await self.reach()

    async def test_workers(self) -> None:
        """Two workers listen on the address alone."""
        await self.reach(workers=2)


class StopTests(ProcessTestCase):
    """SIGTERM and SIGINT. Every wait here is far shorter than the default grace of 25 seconds."""

    async def held(self) -> tuple[Upstream, Deferred[None], Deferred[None]]:
        """Start a streaming upstream; return it, a Deferred for two begun streams, and one to end them."""
        begun: Deferred[None] = Deferred()
        go_on: Deferred[None] = Deferred()
        waiting: list[Deferred[None]] = []

        def release(_: None) -> None:
            for waiter in waiting:
                waiter.callback(None)

        go_on.addCallback(release)

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            stream.chunk(chunk({"role": "assistant", "content": "Hel"}))
            waiter: Deferred[None] = Deferred()
            waiting.append(waiter)
            if len(waiting) == 2:
                begun.callback(None)
            await waiter
            stream.chunk(chunk({"content": "lo"}, "stop") + DONE)
            stream.chunk(b"")

        return await self.upstream(script), begun, go_on

    async def asking(self, port: int, body: object) -> Stream:
        """Connect a client, and send a chat call."""
        client = await self.client(port)
        send_request(client, "POST", CHAT, body)
        return client

    async def test_idle(self) -> None:
        """Idle connections do not delay the stop at either signal."""
        for name, number in (("TERM", signal.SIGTERM), ("INT", signal.SIGINT)):
            process, (port,) = await self.serve(await self.mock())
            client = await self.asking(port, CHAT_BODY)
            await read_response(client)
            process.signal(name)
            await process.ended()
            await client.gone()
            self.assert_ended_by(number, process)

    async def test_running_requests_finish(self) -> None:
        """A running conversion and a running stream end whole; meanwhile no connection is accepted."""
        upstream, begun, go_on = await self.held()
        process, (port,) = await self.serve(upstream.url)
        converted = await self.asking(port, CHAT_BODY)
        streamed = await self.asking(port, {**CHAT_BODY, "stream": True})
        idle = await self.client(port)
        await begun
        process.signal("TERM")
        await self.closed(process, port)
        await idle.gone()
        await self.assert_refused(port)
        go_on.callback(None)
        answer = await read_response(converted)
        self.assertEqual(answer.json()["choices"][0]["message"]["content"], "Hello")
        stream = await read_response(streamed)
        self.assertTrue(stream.complete)
        self.assertEqual(stream.body.count(b"data:"), HELLO.count(b"data:"))
        await process.ended()
        self.assert_ended_by(signal.SIGTERM, process)

    async def test_second_signal(self) -> None:
        """A second signal aborts the requests that are running, and the process ends."""
        for name, number in (("TERM", signal.SIGTERM), ("INT", signal.SIGINT)):
            upstream, begun, _ = await self.held()
            process, (port,) = await self.serve(upstream.url)
            clients = [await self.asking(port, CHAT_BODY) for _ in range(2)]
            await begun
            process.signal(name)
            await self.closed(process, port)
            process.signal(name)
            await process.ended()
            for client in clients:
                await client.gone()
                self.assertEqual(client.received, 0)
            # A process that is killed, because it ignores a command, says nothing of its requests.
            self.assertEqual(process.output.count(f"POST {CHAT} 499"), 2)
            self.assert_ended_by(number, process)

    async def test_grace(self) -> None:
        """Requests that do not end within shutdownGraceSeconds are aborted."""
        upstream, begun, _ = await self.held()
        process, (port,) = await self.serve(upstream.url, shutdownGraceSeconds=0.2)
        clients = [await self.asking(port, CHAT_BODY) for _ in range(2)]
        await begun
        process.signal("TERM")
        await process.ended()
        for client in clients:
            await client.gone()
        self.assert_ended_by(signal.SIGTERM, process)

    async def test_delay(self) -> None:
        """During drainDelaySeconds everything is answered; a second signal ends it, a third the grace."""
        upstream, begun, _ = await self.held()
        admin = free_port()
        config = {"drainDelaySeconds": 600, "shutdownGraceSeconds": 600, "admin": {"listenPort": admin}}
        process, (port, plain) = await self.serve(upstream.url, await self.mock(), **config)
        clients = [await self.asking(port, CHAT_BODY) for _ in range(2)]
        kept = await self.asking(plain, CHAT_BODY)
        self.assertIsNone((await read_response(kept)).get("connection"))
        await begun
        process.signal("TERM")
        await process.line("stopping: /readyz is 503 now, and the ports close in 600 s")
        ready = await self.request(admin, "GET", "/readyz")
        self.assertEqual((ready.status, ready.json()), (503, {"status": "draining"}))
        for client in (kept, await self.client(plain)):
            closes = None
            while closes is None:  # a worker may not have been told yet
                send_request(client, "GET", "/v1/models")
                answer = await read_response(client)
                self.assertEqual(answer.status, 200)
                closes = answer.get("connection")
            self.assertEqual(closes, "close")
            await client.gone()
        self.assertNotIn("Closed", process.output)
        process.signal("TERM")
        await self.closed(process, port)
        await self.assert_refused(port)
        self.assertIsNone(process.status)
        process.signal("TERM")
        await process.ended()
        for client in clients:
            await client.gone()
        self.assert_ended_by(signal.SIGTERM, process)

    async def test_nothing_is_lost(self) -> None:
        """On kept connections each call and stream is answered, until a response says that it is the last."""
        process, (port,) = await self.serve(await self.mock(), drainDelaySeconds=0.2)

        async def calls() -> None:
            client, last, streams = await self.client(port), None, False
            while last is None:
                send_request(client, "POST", CHAT, {**CHAT_BODY, "stream": streams})
                answer = await read_response(client)
                self.assertEqual((answer.status, answer.complete), (200, True))
                last, streams = answer.get("connection"), not streams
            self.assertEqual((last, streams), ("close", True))
            await client.gone()

        running = [Deferred.fromCoroutine(calls()) for _ in range(4)]
        await process.times("POST", 20)
        process.signal("TERM")
        await gatherResults(running)
        await process.ended()
        self.assert_ended_by(signal.SIGTERM, process)

    async def test_delay_ends(self) -> None:
        """After drainDelaySeconds the process stops."""
        process, _ = await self.serve("http://127.0.0.1:9", drainDelaySeconds=0.1)
        process.signal("TERM")
        await process.ended()
        self.assert_ended_by(signal.SIGTERM, process)


class DaemonTests(ProcessTestCase):
    """twistd without -n."""

    async def test_daemon(self) -> None:
        """It listens when twistd returns, writes pid file and log, and removes the pid file at its end."""
        port = free_port()
        directory = self.directory()
        rule = {"listenPort": port, "upstreamUrl": await self.mock()}
        path = self.write_config({"workers": self.workers, "rules": [rule]}, directory)
        pidfile, logfile = directory / "proxy.pid", directory / "proxy.log"
        options = [f"--pidfile={pidfile}", f"--logfile={logfile}"]
        start = self.twistd("-c", str(path), options=options)
        self.assertEqual((await start.ended(), start.output), (0, ""))
        pid = int(pidfile.read_text())
        self.addCleanup(_kill, pid)
        answer = await self.request(port, body=CHAT_BODY)
        self.assertEqual(answer.json()["object"], "chat.completion")
        os.kill(pid, signal.SIGTERM)

        async def gone() -> bool:
            return not pidfile.exists()

        await eventually(gone)
        log = logfile.read_text()
        self.assertRegex(log, rf"POST {CHAT} 200 converted")
        self.assertNotIn("Traceback", log)
        await self.assert_refused(port)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
