"""Several processes behind the same ports: this process opens them, its workers serve them.

Each worker has sockets of its own, between which the system distributes the connections (``SO_REUSEPORT``).
They stay open here as well, although nothing is accepted here: when a worker dies, the connections that wait
for it are taken by its replacement, and none is refused meanwhile.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from stream_proxy.request_log import RequestLog
from stream_proxy.service.config import Config
from stream_proxy.service.listening import Listener, endpoint_of
from stream_proxy.service.workers.child import COMMANDS, PARENTS_SIGNALS, RECORDS
from stream_proxy.service.workers.messages import Abort, Command, CommandSender, Serve, Stop
from stream_proxy.service.workers.process import WorkerProcess

#: A worker that dies before it listens is started again after this long, then twice as long, up to the limit.
_RETRY_SECONDS, _RETRY_LIMIT = 0.25, 8.0
#: How long a worker may take to end when there is nothing left to wait for.
_KILL_SECONDS = 5.0
#: Limits that count what all processes have together.
_SHARED = ("max_connections", "max_upstream_connections", "max_upstream_waiting")


class WorkersService(Service):
    """The rules of a configuration, served by as many processes as it says.

    :param places: what is open, by description, with a socket for each worker.
    :param log: where the workers' fate is told; what they log themselves, with the same level, goes to
        Twisted's log as it is.
    """

    def __init__(
        self, reactor: Any, config: Config, places: Mapping[str, Listener], *, log: RequestLog
    ) -> None:
        self._reactor = reactor
        self._config = config
        self._places = _rules_places(config, places)
        self._log = log
        serve = self._serve(config, self._places)
        self._workers = [
            _Worker(reactor, f"worker {number + 1} of {config.workers}", serve, self._sockets(number), log)
            for number in range(config.workers)
        ]

    def _serve(self, config: Config, places: Iterable[str]) -> Serve:
        return Serve(_share(config), tuple(places), self._log.level)

    def _sockets(self, number: int) -> dict[str, socket.socket]:
        return {endpoint: place.sockets[number] for endpoint, place in self._places.items()}

    @property
    def ready(self) -> bool:
        """Whether there is a worker that takes requests."""
        return any(worker.ready for worker in self._workers)

    def startService(self) -> None:
        """Start the workers as soon as the reactor runs: before that it does not see them end."""
        super().startService()
        for worker in self._workers:
            self._reactor.callWhenRunning(worker.start)

    def reload(self, config: Config, places: Mapping[str, Listener]) -> None:
        """Have the workers serve another configuration.

        :param places: all that are open.
        """
        before, self._config = self._places, config
        self._places = _rules_places(config, places)
        serve = self._serve(config, self._places)
        for number, worker in enumerate(self._workers):
            worker.reload(serve, self._sockets(number))
        for endpoint, place in before.items():
            if endpoint not in self._places:
                place.close()

    def abort(self) -> None:
        """Wait no longer for requests under way."""
        for worker in self._workers:
            worker.abort()

    async def _stop(self) -> None:
        for place in self._places.values():
            place.close()
        ends = [worker.stop(self._config.shutdown_grace_seconds) for worker in self._workers]
        for end in ends:
            await end

    def stopService(self) -> Deferred[None]:
        """Close the ports, and wait until the workers have ended what they have begun."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())


def _rules_places(config: Config, places: Mapping[str, Listener]) -> dict[str, Listener]:
    return {endpoint: places[endpoint] for endpoint in map(endpoint_of, config.rules)}


def _share(config: Config) -> Config:
    """What one worker is told: its part of the connections."""

    def parts(limits: Any) -> dict[str, int]:
        values = {name: getattr(limits, name) for name in _SHARED}
        return {name: math.ceil(v / config.workers) for name, v in values.items() if v is not None}

    rules = [msgspec.structs.replace(rule, **parts(rule)) for rule in config.rules]
    return msgspec.structs.replace(config, rules=rules, **parts(config))


class _Worker:
    """One worker, whichever process that is at the time.

    :param name: what the log calls it.
    :param serve: what each process is told first.
    :param sockets: where it listens, by description.
    """

    def __init__(
        self, reactor: Any, name: str, serve: Serve, sockets: dict[str, socket.socket], log: RequestLog
    ) -> None:
        self._reactor = reactor
        self._name = name
        self._serve = serve
        self._sockets = sockets
        self._log = log
        self._process: WorkerProcess | None = None
        self._commands: CommandSender | None = None
        self._failures = 0
        self._retry: IDelayedCall | None = None
        self._limit: IDelayedCall | None = None
        self._stopping = False
        self._end: Deferred[None] = Deferred()

    @property
    def ready(self) -> bool:
        """Whether its process takes requests."""
        return self._process is not None and self._process.ready and not self._stopping

    def start(self) -> None:
        """Start a process."""
        self._retry = None
        if self._stopping:
            return
        process = WorkerProcess(self._reactor, self._name, ready=self._ready, ended=self._ended)
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._spawn(process, theirs)
        except OSError as error:
            ours.close()
            self._log.warn(f"{self._name} cannot be started: {error}")
            self._retry_later()
        else:
            self._process = process
            self._commands = CommandSender(ours)
            self._tell(self._serve, self._sockets.values())

    def _spawn(self, process: WorkerProcess, commands: socket.socket) -> None:
        descriptors: dict[int, int | str] = {COMMANDS: commands.fileno(), 1: "r", 2: "r", RECORDS: "r"}
        # -P: what lies in the working directory is no module of ours. The process begins with the signals
        # blocked, because one that it is sent while Python starts would end it.
        module = type(self._reactor).__module__
        command = [sys.executable, "-P", "-m", "stream_proxy.service.workers.child", module]
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, PARENTS_SIGNALS)
        try:
            self._reactor.spawnProcess(process, command[0], command, dict(os.environ), childFDs=descriptors)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _tell(self, command: Command, sockets: Iterable[socket.socket] = ()) -> None:
        if self._commands is None or self._process is None:
            return
        try:
            self._commands.send(command, [each.fileno() for each in sockets])
        except OSError:
            self._process.kill()  # if it is not gone anyway

    def reload(self, serve: Serve, sockets: dict[str, socket.socket]) -> None:
        """Serve something else.

        :param serve: as for a new process, which would be told just that.
        """
        new = {endpoint: sockets[endpoint] for endpoint in serve.places if endpoint not in self._sockets}
        self._serve, self._sockets = serve, sockets
        self._tell(msgspec.structs.replace(serve, places=tuple(new)), new.values())

    def _ready(self, process: WorkerProcess) -> None:
        self._failures = 0
        self._log.info(f"{self._name} is process {process.pid}")

    def _ended(self, process: WorkerProcess, how: str) -> None:
        self._process = None
        if self._commands is not None:
            self._commands.close()
            self._commands = None
        if self._limit is not None and self._limit.active():
            self._limit.cancel()
        if self._stopping:
            self._end.callback(None)
            return
        self._log.warn(f"{self._name} (process {process.pid}) {how}; another process takes its place")
        if process.ready:
            self.start()
        else:
            self._retry_later()

    def _retry_later(self) -> None:
        delay = min(_RETRY_SECONDS * 2.0**self._failures, _RETRY_LIMIT)
        self._failures += 1
        self._retry = self._reactor.callLater(delay, self.start)

    def stop(self, grace: float) -> Deferred[None]:
        """Let running requests end for `grace` seconds, then end.

        :return: fires when the process is gone.
        """
        self._stopping = True
        if self._retry is not None:
            self._retry.cancel()
        if self._process is None:
            self._end.callback(None)
        else:
            self._tell(Stop())
            self._kill_after(grace + _KILL_SECONDS)
        return self._end

    def abort(self) -> None:
        """Wait no longer for its requests."""
        if self._process is not None:
            self._tell(Abort())
            self._kill_after(_KILL_SECONDS)

    def _kill_after(self, seconds: float) -> None:
        """A process that no longer does what it is told has to end all the same."""
        assert self._process is not None
        if self._limit is None or not self._limit.active():
            self._limit = self._reactor.callLater(seconds, self._process.kill)
        elif self._limit.getTime() > self._reactor.seconds() + seconds:
            self._limit.reset(seconds)
