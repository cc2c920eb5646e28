"""Slot of one worker: its processes, one after the other."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterable

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from stream_proxy.request_log import RequestLog
from stream_proxy.service.workers.kept import WorkerNews
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
from stream_proxy.transport.reactor import IReactor

#: A worker that dies before it listens is restarted after this long, then twice as long, up to the limit.
_RETRY_SECONDS, _RETRY_LIMIT = 0.25, 8.0
#: How long a worker may take to exit once its requests have ended.
_KILL_SECONDS = 5.0


class WorkerSlot:
    """One worker through all its processes: a process that dies is replaced.

    :param name: the worker's name in the log.
    :param serve: the first command to each process.
    :param sockets: the sockets that it accepts on, by endpoint.
    :param news: takes what its processes tell beside their log.
    """

    def __init__(
        self,
        reactor: IReactor,
        name: str,
        serve: Serve,
        sockets: dict[str, socket.socket],
        log: RequestLog,
        news: WorkerNews,
    ) -> None:
        self._reactor = reactor
        self._name = name
        #: The first command to each process.
        self.serve = serve
        self._sockets = sockets
        self._log = log
        self._news = news
        self._process: WorkerProcess | None = None
        self._commands: CommandSender | None = None
        self._failures = 0
        self._retry: IDelayedCall | None = None
        self._limit: IDelayedCall | None = None
        self._end: Deferred[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether its process accepts requests."""
        return self._process is not None and self._process.ready and self._end is None

    def start(self) -> None:
        """Start a process."""
        self._retry = None
        if self._end is not None:
            return
        process = WorkerProcess(
            self._reactor, self._name, ready=self._ready, ended=self._ended, told=self._news.take
        )
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
            if process.pid is not None:
                self._news.started(process.pid)
            self._commands = CommandSender(ours)
            self.send(self.serve, self._sockets.values())

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

    def send(self, command: Command, sockets: Iterable[socket.socket] = ()) -> None:
        """Send its process a command, if there is one."""
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
        self.send(msgspec.structs.replace(serve, endpoints=tuple(new)), new.values())

    def _ready(self, process: WorkerProcess) -> None:
        self._failures = 0
        self._log.info(f"{self._name} is process {process.pid}")
        self._news.ready()

    def _ended(self, process: WorkerProcess, how: str) -> None:
        self._process = None
        self._news.ended(replaced=self._end is None)
        if self._commands is not None:
            self._commands.close()
            self._commands = None
        if self._limit is not None and self._limit.active():
            self._limit.cancel()
        if self._end is not None:
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
        end = self._end = Deferred[None]()
        if self._retry is not None:
            self._retry.cancel()
        if self._process is None:
            end.callback(None)
        else:
            self.send(Stop())
            self._kill_after(grace + _KILL_SECONDS)
        return end

    def abort(self) -> None:
        """Abort its requests."""
        if self._process is not None:
            self.send(Abort())
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
