"""A worker's process as its parent sees it: log records come out, and one day it ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import ILogObserver, LogLevel, globalLogPublisher
from twisted.python.failure import Failure

from stream_proxy.service.workers.child import RECORDS, Line, Ready

#: After each look at what a worker has logged its lines wait in the pipe for so long, because being woken up
#: for each of them would cost several times what the line itself costs.
_LOOK_SECONDS = 0.025

_records = msgspec.json.Decoder(Line | Ready)


class WorkerProcess(ProcessProtocol):
    """One process of a worker.

    :param reactor: for its timer.
    :param name: what the log calls the worker.
    :param ready: called when the process listens.
    :param ended: called when it is gone and all that it had to say is in the log, with how it ended.
    :param observer: where what it logs goes, each event with the time at which it was logged there.
    """

    transport: Any

    def __init__(
        self,
        reactor: Any,
        name: str,
        *,
        ready: Callable[[WorkerProcess], None],
        ended: Callable[[WorkerProcess, str], None],
        observer: ILogObserver = globalLogPublisher,
    ) -> None:
        #: Whether it has got so far as to listen.
        self.ready = False
        #: Its number, which it keeps when it is gone.
        self.pid: int | None = None
        self._reactor = reactor
        self._name = name
        self._on_ready = ready
        self._on_end = ended
        self._observer = observer
        #: The beginnings of lines, by descriptor.
        self._partial: dict[int, bytes] = {}
        self._paused: IDelayedCall | None = None
        self._exited = False

    def kill(self) -> None:
        """End it without its help."""
        with contextlib.suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def connectionMade(self) -> None:
        self.pid = self.transport.pid

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, rest = (self._partial.get(childFD, b"") + data).split(b"\n")
        self._partial[childFD] = rest
        for line in lines:
            self._line(childFD, line)
        if self._paused is None and not self._exited:
            self.transport.pauseProducing()
            self._paused = self._reactor.callLater(_LOOK_SECONDS, self._resume)

    def _resume(self) -> None:
        self._paused = None
        self.transport.resumeProducing()

    def _line(self, descriptor: int, line: bytes) -> None:
        if descriptor == RECORDS:
            try:
                record = _records.decode(line)
            except msgspec.DecodeError:
                pass
            else:
                self._record(record)
                return
        # Not what the worker logs, but what Python or a library has to say when something goes badly wrong.
        text = f"{self._name} (process {self.pid}) said: {line.decode('utf-8', 'replace')}"
        self._publish(Line(time.time(), LogLevel.error.name, "stream_proxy", None, text))

    def _record(self, record: Line | Ready) -> None:
        if isinstance(record, Line):
            self._publish(record)
        else:
            self.ready = True
            self._on_ready(self)

    def _publish(self, line: Line) -> None:
        self._observer(
            {
                "log_time": line.time,
                "log_level": LogLevel.lookupByName(line.level),
                "log_namespace": line.namespace,
                "log_system": line.system,
                "log_format": "{log_text}",
                "log_text": line.text,
            }
        )

    def processExited(self, reason: Failure) -> None:
        self._exited = True
        if self._paused is not None:
            self._paused.cancel()
            self._resume()

    def processEnded(self, reason: Failure) -> None:
        for descriptor, rest in self._partial.items():
            if rest and descriptor != RECORDS:
                self._line(descriptor, rest)
        value: Any = reason.value
        if value.signal is not None:
            how = f"was ended by signal {value.signal}"
        else:
            how = f"ended with status {value.exitCode}"
        self._on_end(self, how)
