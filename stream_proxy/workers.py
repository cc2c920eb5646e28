"""Several processes behind the same ports: this process opens them, its workers serve them.

Each worker has sockets of its own, between which the system distributes the connections (``SO_REUSEPORT``).
They stay open here as well, although nothing is accepted here: when a worker dies, the connections that wait
for it are taken by its replacement, and none is refused meanwhile.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from stream_proxy.config import Config
from stream_proxy.outcome import RequestLog
from stream_proxy.service import BACKLOG, interface_of, listening
from stream_proxy.stopping import StoppableService
from stream_proxy.worker import ABORT, COMMANDS, FIRST_SOCKET, PARENTS_SIGNALS, RECORDS, STOP, Handover
from stream_proxy.workerprocess import WorkerProcess

#: A worker that dies before it listens is started again after this long, then twice as long, up to the limit.
_RETRY_SECONDS, _RETRY_LIMIT = 0.25, 8.0
#: How long a worker may take to end when there is nothing left to wait for.
_KILL_SECONDS = 5.0


class WorkersService(StoppableService):
    """The rules of a configuration, served by as many processes as it says.

    :param log: where the workers' fate is told; what they log themselves, with the same level, goes to
        Twisted's log as it is.
    """

    def __init__(self, reactor: Any, config: Config, *, log: RequestLog) -> None:
        super().__init__(reactor, handle_signals=True)
        self._config = config
        self._log = log
        handover = Handover(config, log.level, type(reactor).__module__).packed()
        self._workers = [
            _Worker(reactor, f"worker {number} of {config.workers}", handover, log)
            for number in range(1, config.workers + 1)
        ]

    def privilegedStartService(self) -> None:
        """Open the ports, while there may be privileges that some of them need."""
        super().privilegedStartService()
        for rule in self._config.rules:
            interface = interface_of(rule)
            for worker in self._workers:
                worker.sockets.append(_listen(interface, rule.listen_port or 0))

    def startService(self) -> None:
        """Start the workers as soon as the reactor runs: before that it does not see them end."""
        super().startService()
        for rule in self._config.rules:
            self._log.info(listening(rule))
        for worker in self._workers:
            self._reactor.callWhenRunning(worker.start)

    def abort(self) -> None:
        """Wait no longer for requests under way."""
        for worker in self._workers:
            worker.abort()

    async def _stop(self) -> None:
        for end in [worker.stop(self._config.shutdown_grace_seconds) for worker in self._workers]:
            await end

    def stopService(self) -> Deferred[None]:
        """Close the ports, and wait until the workers have ended what they have begun."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())


class _Worker:
    """One worker, whichever process that is at the time.

    :param name: what the log calls it.
    :param handover: what each process is told first.
    """

    def __init__(self, reactor: Any, name: str, handover: bytes, log: RequestLog) -> None:
        #: Its listening sockets, in the order of the rules.
        self.sockets: list[socket.socket] = []
        self._reactor = reactor
        self._name = name
        self._handover = handover
        self._log = log
        self._process: WorkerProcess | None = None
        self._failures = 0
        self._retry: IDelayedCall | None = None
        self._limit: IDelayedCall | None = None
        self._stopping = False
        self._end: Deferred[None] = Deferred()

    def start(self) -> None:
        """Start a process."""
        self._retry = None
        if self._stopping:
            return
        process = WorkerProcess(self._reactor, self._name, ready=self._ready, ended=self._ended)
        try:
            self._spawn(process)
        except OSError as error:
            self._log.warn(f"{self._name} cannot be started: {error}")
            self._retry_later()
        else:
            self._process = process
            process.send(self._handover)

    def _spawn(self, process: WorkerProcess) -> None:
        descriptors: dict[int, int | str] = {COMMANDS: "w", 1: "r", 2: "r", RECORDS: "r"}
        for index, listener in enumerate(self.sockets):
            descriptors[FIRST_SOCKET + index] = listener.fileno()
        # -P: what lies in the working directory is no module of ours. The process begins with the signals
        # blocked, because one that it is sent while Python starts would end it.
        command = [sys.executable, "-P", "-m", "stream_proxy.worker"]
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, PARENTS_SIGNALS)
        try:
            self._reactor.spawnProcess(process, command[0], command, dict(os.environ), childFDs=descriptors)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _ready(self, process: WorkerProcess) -> None:
        self._failures = 0
        self._log.info(f"{self._name} is process {process.pid}")

    def _ended(self, process: WorkerProcess, how: str) -> None:
        self._process = None
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
        """Close the sockets, let running requests end for `grace` seconds, then end.

        :return: fires when the process is gone.
        """
        self._stopping = True
        for listener in self.sockets:
            listener.close()
        if self._retry is not None:
            self._retry.cancel()
        if self._process is None:
            self._end.callback(None)
        else:
            self._process.send(STOP)
            self._kill_after(grace + _KILL_SECONDS)
        return self._end

    def abort(self) -> None:
        """Wait no longer for its requests."""
        if self._process is not None:
            self._process.send(ABORT)
            self._kill_after(_KILL_SECONDS)

    def _kill_after(self, seconds: float) -> None:
        """A process that no longer does what it is told has to end all the same."""
        assert self._process is not None
        if self._limit is None or not self._limit.active():
            self._limit = self._reactor.callLater(seconds, self._process.kill)
        elif self._limit.getTime() > self._reactor.seconds() + seconds:
            self._limit.reset(seconds)


def _listen(interface: str, port: int) -> socket.socket:
    """A socket that listens on a port together with others of ours."""
    listener = socket.socket(socket.AF_INET6 if ":" in interface else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((interface, port))
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener
