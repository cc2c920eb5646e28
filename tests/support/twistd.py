"""Processes for tests: started on the reactor, read line by line, and killed after the test."""

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

from tests.support.forks import TWISTD_MODULES, Fork
from tests.support.loopback import LoopbackTestCase, reactor
from tests.support.payloads import chunk
from tests.support.wire import Stream, event_stream_head, read_request

TWISTD = str(Path(sysconfig.get_path("scripts"), "twistd"))
COMMAND = str(Path(sysconfig.get_path("scripts"), "openai-stream-proxy"))
#: Polling for conditions that have no event: the interval, and the number of tries.
_POLL_SECONDS, _POLLS = 0.02, 5000


class Process(ProcessProtocol):
    """One process, started at once.

    :param command: its arguments, the program first.
    :param path: its working directory.
    :param env: added to our environment, which is passed on without ``CONFIG_PATH`` and ``LOG_LEVEL``.
    :param modules: what it need not import itself: the program is a Python script, run by a fork of a
        template that has imported these.
    :param workers: its workers, too, are forks.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        path: str | None = None,
        env: Mapping[str, str] | None = None,
        modules: Sequence[str] = (),
        workers: bool = False,
    ) -> None:
        #: Its output, standard error included.
        self.output = ""
        #: Standard output and standard error alone, by their descriptors.
        self.outputs = {1: "", 2: ""}
        #: The exit status once it has ended, or the negative number of the signal.
        self.status: int | None = None
        self._waiting: list[Deferred[None]] = []
        environment = {
            name: value for name, value in os.environ.items() if name not in ("CONFIG_PATH", "LOG_LEVEL")
        }
        environment.update(env or {}, PYTHONUNBUFFERED="1")
        if modules:
            Fork(self, command, environment, path or os.getcwd(), modules, workers)
        else:
            reactor.spawnProcess(self, command[0], command, environment, path)
        assert self.transport is not None and self.transport.pid is not None
        self.pid: int = self.transport.pid

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        self.output += text
        self.outputs[childFD] += text
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
        """Wait until its output matches, and return the match.

        :raises AssertionError: it ended before.
        """
        while (found := re.search(pattern, self.output)) is None:
            if self.status is not None:
                raise AssertionError(f"ended with {self.status} before {pattern!r}:\n{self.output}")
            await self._news()
        return found

    async def times(self, pattern: str, count: int) -> None:
        """Wait until its output matches `count` times."""
        while len(re.findall(pattern, self.output)) < count:
            if self.status is not None:
                raise AssertionError(f"ended with {self.status} before {count} {pattern!r}:\n{self.output}")
            await self._news()

    async def ended(self) -> int:
        """Wait for its end, and return the exit status."""
        while self.status is None:
            await self._news()
        return self.status

    def signal(self, name: str) -> None:
        """Send ``SIG`` + `name`."""
        if self.transport is not None:
            self.transport.signalProcess(name)

    async def _kill(self) -> None:
        with contextlib.suppress(ProcessExitedAlready):
            self.signal("KILL")
        await self.ended()

    def kill(self) -> Deferred[None]:
        """Kill it if it still runs."""
        return Deferred.fromCoroutine(self._kill())


class ProcessTestCase(LoopbackTestCase):
    """Starts ``twistd openai-stream-proxy``, or another `plugin`."""

    plugin = "openai-stream-proxy"

    #: The first options of ``twistd`` in every test of the class.
    twistd_options: Sequence[str] = ()
    #: The number of workers in every test of the class.
    workers = 1
    #: Whether a worker on the usual reactor is a fork of its parent, which saves the time of its imports.
    workers_forked = True

    def directory(self) -> Path:
        """Make a new directory."""
        path = Path(self.mktemp()).absolute()
        path.mkdir(parents=True)
        return path

    def write_config(self, content: object, directory: Path | None = None) -> Path:
        """Write a ``config.json``; content that is not text is encoded."""
        path = (directory or self.directory()) / "config.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def twistd(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        path: Path | None = None,
        options: Sequence[str] = ("-n", "--pidfile="),
        forked: bool = True,
    ) -> Process:
        """Start it with `arguments`, in `path` or a directory of its own.

        :param forked: save the time of its imports; see :mod:`tests.support.forks`.
        """
        process = Process(
            [TWISTD, *self.twistd_options, *options, self.plugin, *arguments],
            path=str(path or self.directory()),
            env=env,
            modules=TWISTD_MODULES if forked else (),
            workers=self.workers_forked,
        )
        self.addCleanup(process.kill)
        return process

    async def serve(self, *upstream_urls: str, **config: object) -> tuple[Process, list[int]]:
        """Start it with a rule for each upstream, wait until it listens, and return the ports too."""
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
        """Start an upstream that begins a stream, and ends it when the Deferred fires."""
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
        """Wait until it no longer listens on a port."""
        await process.times(f"TCP Port {port} Closed", self.workers)

    async def assert_accepts(self, port: int) -> None:
        """Check that something listens on a port, soon at the latest."""

        async def accepts() -> bool:
            try:
                await self.client(port)
            except ConnectionRefusedError:
                return False
            return True

        await eventually(accepts)

    async def assert_refused(self, port: int) -> None:
        """Check that nothing listens on a port, soon at the latest: Twisted logs it before it closes."""

        async def refused() -> bool:
            try:
                await self.client(port)
            except ConnectionRefusedError:
                return True
            return False

        await eventually(refused)

    def assert_ended_by(self, number: signal.Signals, process: Process) -> None:
        """Check that it has stopped properly, by that signal."""
        self.assertEqual(process.status, -number, process.output)
        self.assertNotIn("Traceback", process.output)


def free_port() -> int:
    """Return a port that nothing listens on, outside the system's range of ephemeral ports."""
    while True:
        port = random.randrange(10_240, 32_000)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port


async def eventually(call: Callable[[], Awaitable[bool]]) -> None:
    """Wait until `call` returns true, for conditions that have no event.

    :raises AssertionError: it never did.
    """
    for _ in range(_POLLS):
        if await call():
            return
        await deferLater(reactor, _POLL_SECONDS)
    raise AssertionError("it did not happen")
