"""Real processes for tests: started on the reactor, read line by line, gone when the test is."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import sysconfig
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tests.support.loopback import LoopbackTestCase, reactor
from tests.support.payloads import chunk
from tests.support.wire import Stream, event_stream_head, read_request

TWISTD = str(Path(sysconfig.get_path("scripts"), "twistd"))
#: How long to wait for what has no event: the time between two looks, and how many of them.
_LOOK_SECONDS, _LOOKS = 0.02, 500


class Process(ProcessProtocol):
    """One process, started at once.

    :param command: its arguments, the program first.
    :param path: its working directory.
    :param env: what its environment has besides ours, without our ``CONFIG_PATH`` and ``LOG_LEVEL``.
    """

    def __init__(
        self, command: Sequence[str], *, path: str | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        #: What it wrote, on both of its outputs.
        self.output = ""
        #: The exit status once it has ended; of a signal, negative.
        self.status: int | None = None
        self._waiting: list[Deferred[None]] = []
        environment = {
            name: value for name, value in os.environ.items() if name not in ("CONFIG_PATH", "LOG_LEVEL")
        }
        environment.update(env or {}, PYTHONUNBUFFERED="1")
        reactor.spawnProcess(self, command[0], command, environment, path)
        assert self.transport is not None and self.transport.pid is not None
        self.pid: int = self.transport.pid

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.output += data.decode("utf-8", "replace")
        self._wake()

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        self.status = value.exitCode if value.signal is None else -value.signal
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    async def _news(self) -> None:
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        await waiter

    async def line(self, pattern: str) -> re.Match[str]:
        """Wait until it has written what matches.

        :raises AssertionError: it ended before.
        """
        while (found := re.search(pattern, self.output)) is None:
            if self.status is not None:
                raise AssertionError(f"ended with {self.status} before {pattern!r}:\n{self.output}")
            await self._news()
        return found

    async def times(self, pattern: str, count: int) -> None:
        """Wait until it has written what matches that often."""
        while len(re.findall(pattern, self.output)) < count:
            if self.status is not None:
                raise AssertionError(f"ended with {self.status} before {count} {pattern!r}:\n{self.output}")
            await self._news()

    async def ended(self) -> int:
        """Wait for its end; the exit status is returned."""
        while self.status is None:
            await self._news()
        return self.status

    def signal(self, name: str) -> None:
        """Send ``SIG`+ name``."""
        if self.transport is not None:
            self.transport.signalProcess(name)

    async def _kill(self) -> None:
        with contextlib.suppress(ProcessExitedAlready):
            self.signal("KILL")
        await self.ended()

    def kill(self) -> Deferred[None]:
        """End it if it still runs."""
        return Deferred.fromCoroutine(self._kill())


class ProcessTestCase(LoopbackTestCase):
    """Starts ``twistd openai-stream-proxy``, or another `plugin`."""

    plugin = "openai-stream-proxy"

    #: What stands between ``twistd`` and its other options in every test of the class.
    twistd_options: Sequence[str] = ()
    #: How many processes serve in every test of the class.
    workers = 1

    def directory(self) -> Path:
        """A new directory."""
        path = Path(self.mktemp()).absolute()
        path.mkdir(parents=True)
        return path

    def write_config(self, content: object, directory: Path | None = None) -> Path:
        """A ``config.json``; content that is no text is encoded."""
        path = (directory or self.directory()) / "config.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def twistd(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        path: Path | None = None,
        options: Sequence[str] = ("-n", "--pidfile="),
    ) -> Process:
        """Start it with `arguments`, in a directory of its own unless there is a `path`."""
        process = Process(
            [TWISTD, *self.twistd_options, *options, self.plugin, *arguments],
            path=str(path or self.directory()),
            env=env,
        )
        self.addCleanup(process.kill)
        return process

    async def serve(self, *upstream_urls: str, **config: object) -> tuple[Process, list[int]]:
        """Start it with a rule for each upstream and wait until it listens; the ports are returned too."""
        ports = [free_port() for _ in upstream_urls]
        rules = [
            {"listenPort": port, "upstreamUrl": url} for port, url in zip(ports, upstream_urls, strict=True)
        ]
        config = {"workers": self.workers, **config, "rules": rules}
        process = self.twistd("-c", str(self.write_config(config)))
        for port in ports:
            await process.line(rf"listening on port {port}\b")
        return process, ports

    async def streaming(self) -> tuple[str, Deferred[None]]:
        """An upstream that begins a stream and ends it when told."""
        go_on: Deferred[None] = Deferred()

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            stream.chunk(chunk({"content": "Hel"}))
            await go_on
            stream.chunk(chunk({"content": "lo"}))
            stream.chunk(b"")

        return (await self.upstream(script)).url, go_on

    async def closed(self, process: Process, port: int) -> None:
        """It no longer listens."""
        await process.times(f"TCP Port {port} Closed", self.workers)

    async def assert_refused(self, port: int) -> None:
        """Nothing listens there."""
        with self.assertRaises(ConnectionRefusedError):
            await self.client(port)

    def assert_ended_by(self, number: signal.Signals, process: Process) -> None:
        """It has ended in order, by that signal."""
        self.assertEqual(process.status, -number, process.output)
        self.assertNotIn("Traceback", process.output)


def free_port() -> int:
    """A port that nothing listens on, out of the range from which the system gives ports to others."""
    while True:
        port = random.randrange(10_240, 32_000)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port


async def eventually(call: Callable[[], Awaitable[bool]]) -> None:
    """Wait until `call` says yes, for what tells nobody when it happens.

    :raises AssertionError: it never did.
    """
    for _ in range(_LOOKS):
        if await call():
            return
        await deferLater(reactor, _LOOK_SECONDS)
    raise AssertionError("it did not happen")
