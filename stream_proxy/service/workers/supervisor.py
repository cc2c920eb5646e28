"""Supervisor of the workers: this process opens the ports, several processes serve them.

Each worker has sockets of its own, and the system distributes the connections between them
(``SO_REUSEPORT``). They stay open here as well, although this process accepts nothing: when a worker dies,
its replacement accepts the connections that wait, and meanwhile none is refused.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
from collections.abc import Iterable, Mapping

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from stream_proxy.limits import Limits
from stream_proxy.request_log import RequestLog
from stream_proxy.service.admin.capture.workers import WorkersCapture
from stream_proxy.service.admin.remote import WorkersSource
from stream_proxy.service.configuration.types import Config, Rule
from stream_proxy.service.listening import Listener, endpoint_of
from stream_proxy.service.workers.messages import (
    COMMANDS,
    PARENTS_SIGNALS,
    RECORDS,
    Abort,
    Command,
    CommandSender,
    Serve,
    Stop,
)
from stream_proxy.service.workers.process import WorkerProcess
from stream_proxy.service.workers.sockets import SocketDirectory
from stream_proxy.transport.reactor import IReactor

#: A worker that dies before it listens is restarted after this long, then twice as long, up to the limit.
_RETRY_SECONDS, _RETRY_LIMIT = 0.25, 8.0
#: How long a worker may take to exit once its requests have ended.
_KILL_SECONDS = 5.0
#: Limits on what all processes have together.
_SHARED = ("max_connections", "max_upstream_connections", "max_upstream_waiting")


class WorkersService(Service):
    """The rules of a configuration, served by as many processes as it says.

    :param listeners: open listeners by endpoint, with a socket for each worker.
    :param log: logs the starts and ends of workers. Their own entries, of the same level, go to Twisted's log
        unchanged.
    """

    def __init__(
        self, reactor: IReactor, config: Config, listeners: Mapping[str, Listener], *, log: RequestLog
    ) -> None:
        self._reactor = reactor
        self._config = config
        self._listeners = _rules_listeners(config, listeners)
        self._log = log
        self._directory = SocketDirectory(log)
        #: The requests of all workers, for the admin port.
        self.source = WorkersSource(reactor, self._directory.socket, config.workers)
        #: Their whole exchanges.
        self.captures = WorkersCapture(self.source, config.workers)
        self._slots = [
            WorkerSlot(
                reactor,
                f"worker {number + 1} of {config.workers}",
                self._serve(number),
                self._sockets(number),
                log,
            )
            for number in range(config.workers)
        ]

    def _serve(self, number: int) -> Serve:
        observe = None if self._config.admin is None else self._directory.socket(number + 1)
        return Serve(_share(self._config), tuple(self._listeners), self._log.level, observe)

    def _sockets(self, number: int) -> dict[str, socket.socket]:
        return {endpoint: listener.sockets[number] for endpoint, listener in self._listeners.items()}

    @property
    def ready(self) -> bool:
        """Whether at least one worker accepts requests."""
        return any(slot.ready for slot in self._slots)

    @property
    def processes(self) -> tuple[int, int]:
        """How many processes accept requests, and how many should."""
        return sum(slot.ready for slot in self._slots), len(self._slots)

    def startService(self) -> None:
        """Start the workers as soon as the reactor runs; before that it does not notice when they end."""
        super().startService()
        self._make_directory()
        for number, slot in enumerate(self._slots):
            slot.serve = self._serve(number)
            self._reactor.callWhenRunning(slot.start)

    def _make_directory(self) -> None:
        # Not before the start: then it may belong to a user whose privileges are given up.
        if self._config.admin is not None:
            self._directory.make()

    def reload(self, config: Config, listeners: Mapping[str, Listener]) -> None:
        """Let the workers serve another configuration.

        :param listeners: all that are open.
        """
        before, self._config = self._listeners, config
        self._listeners = _rules_listeners(config, listeners)
        self._make_directory()
        for number, slot in enumerate(self._slots):
            slot.reload(self._serve(number), self._sockets(number))
        for endpoint, listener in before.items():
            if endpoint not in self._listeners:
                listener.close()

    def abort(self) -> None:
        """Abort the requests that are running."""
        for slot in self._slots:
            slot.abort()

    async def _stop(self) -> None:
        for listener in self._listeners.values():
            listener.close()
        ends = [slot.stop(self._config.shutdown_grace_seconds) for slot in self._slots]
        for end in ends:
            await end
        self._directory.remove()

    def stopService(self) -> Deferred[None]:
        """Close the ports, and wait until the workers have served their requests and exited."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())


def _rules_listeners(config: Config, listeners: Mapping[str, Listener]) -> dict[str, Listener]:
    return {endpoint: listeners[endpoint] for endpoint in map(endpoint_of, config.rules)}


def _share(config: Config) -> Config:
    """Return the configuration of one worker, with its share of the limits on connections."""

    def parts(limits: Limits | Rule) -> dict[str, int]:
        values = {name: getattr(limits, name) for name in _SHARED}
        return {name: math.ceil(v / config.workers) for name, v in values.items() if v is not None}

    rules = [msgspec.structs.replace(rule, **parts(rule)) for rule in config.rules]
    return msgspec.structs.replace(config, rules=rules, **parts(config))


class WorkerSlot:
    """One worker through all its processes: a process that dies is replaced.

    :param name: the worker's name in the log.
    :param serve: the first command to each process.
    :param sockets: the sockets that it accepts on, by endpoint.
    """

    def __init__(
        self, reactor: IReactor, name: str, serve: Serve, sockets: dict[str, socket.socket], log: RequestLog
    ) -> None:
        self._reactor = reactor
        self._name = name
        #: The first command to each process.
        self.serve = serve
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
        """Whether its process accepts requests."""
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
            self._send(self.serve, self._sockets.values())

    def _spawn(self, process: WorkerProcess, commands: socket.socket) -> None:
        descriptors: dict[int, int | str] = {COMMANDS: commands.fileno(), 1: "r", 2: "r", RECORDS: "r"}
        # -P: modules in the working directory must not be imported. The process starts with the signals
        # blocked, because one that arrives while Python starts would kill it.
        module = _installer(self._reactor)
        command = [sys.executable, "-P", "-m", "stream_proxy.service.workers.child", module]
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, PARENTS_SIGNALS)
        try:
            self._reactor.spawnProcess(process, command[0], command, dict(os.environ), childFDs=descriptors)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _send(self, command: Command, sockets: Iterable[socket.socket] = ()) -> None:
        if self._commands is None or self._process is None:
            return
        try:
            self._commands.send(command, [each.fileno() for each in sockets])
        except OSError:
            self._process.kill()  # if it is not gone anyway

    def reload(self, serve: Serve, sockets: dict[str, socket.socket]) -> None:
        """Serve another configuration.

        :param serve: the first command to a new process; the running one gets only the sockets it lacks.
        :param sockets: the sockets of all its endpoints.
        """
        new = {endpoint: sockets[endpoint] for endpoint in serve.endpoints if endpoint not in self._sockets}
        self.serve, self._sockets = serve, sockets
        self._send(msgspec.structs.replace(serve, endpoints=tuple(new)), new.values())

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
        """Give running requests `grace` seconds to end, and let the process exit.

        :return: fires when the process has ended.
        """
        self._stopping = True
        if self._retry is not None:
            self._retry.cancel()
        if self._process is None:
            self._end.callback(None)
        else:
            self._send(Stop())
            self._kill_after(grace + _KILL_SECONDS)
        return self._end

    def abort(self) -> None:
        """Abort its requests."""
        if self._process is not None:
            self._send(Abort())
            self._kill_after(_KILL_SECONDS)

    def _kill_after(self, seconds: float) -> None:
        """Kill the process if it still runs then: it may be broken, and ignore commands."""
        assert self._process is not None
        if self._limit is None or not self._limit.active():
            self._limit = self._reactor.callLater(seconds, self._process.kill)
        elif self._limit.getTime() > self._reactor.seconds() + seconds:
            self._limit.reset(seconds)


def _installer(reactor: object) -> str:
    """Return the module that installs a reactor like this one; a lean one is made of Twisted's."""
    names = [kind.__module__ for kind in type(reactor).__mro__]
    return next((name for name in names if hasattr(sys.modules[name], "install")), names[0])
