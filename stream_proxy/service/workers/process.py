"""Process of a worker, seen from its parent: it sends records, and ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import msgspec
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.process import Process
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import ILogObserver, LogLevel, globalLogPublisher
from twisted.python.failure import Failure

from stream_proxy.request_log import ready
from stream_proxy.service.metrics.figures import Figures
from stream_proxy.service.workers.messages import RECORDS, KeptHere, Line, decode_record

#: After each read the records wait in the pipe for this long: being woken up for each single one would cost
#: several times as much as the record itself.
_PAUSE_SECONDS = 0.025
#: The largest read. Where there was one, no other waits, so that no worker does that has much to tell.
_READ_BYTES = 8192


class WorkerProcess(ProcessProtocol):
    """One process of a worker.

    :param name: the worker's name in the log.
    :param ready: called when the process listens.
    :param ended: called when it has ended and all its output is in the log, with how it ended.
    :param told: called with what it tells beside its log.
    :param observer: receives what the process logs, with the times at which it did.
    """

    transport: Process

    def __init__(
        self,
        reactor: IReactorTime,
        name: str,
        *,
        ready: Callable[[WorkerProcess], None],
        ended: Callable[[WorkerProcess, str], None],
        told: Callable[[Figures | KeptHere], None] = lambda record: None,
        observer: ILogObserver = globalLogPublisher,
    ) -> None:
        #: Whether it has begun to listen.
        self.ready = False
        #: Its process id, kept after its end.
        self.pid: int | None = None
        self._reactor = reactor
        self._name = name
        self._on_ready = ready
        self._on_end = ended
        self._told = told
        self._observer = observer
        #: Beginnings of lines whose ends have not come, by descriptor.
        self._partial: dict[int, bytes] = {}
        self._paused: IDelayedCall | None = None
        self._exited = False
        #: The last read was as large as can be.
        self._full = False

    def kill(self) -> None:
        """Kill it, if it still runs."""
        with contextlib.suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def connectionMade(self) -> None:
        self.pid = self.transport.pid

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, rest = (self._partial.get(childFD, b"") + data).split(b"\n")
        self._partial[childFD] = rest
        for line in lines:
            self._line(childFD, line)
        was_full, self._full = self._full, len(data) >= _READ_BYTES
        if self._paused is None and not (self._exited or self._full or was_full):
            self.transport.pauseProducing()
            self._paused = self._reactor.callLater(_PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        self._paused = None
        self.transport.resumeProducing()

    def _line(self, descriptor: int, line: bytes) -> None:
        try:
            record = decode_record(line) if descriptor == RECORDS else None
        except msgspec.DecodeError:
            record = None
        if record is None:
            # Output of Python or a library itself, when something goes badly wrong.
            text = f"{self._name} (process {self.pid}) said: {line.decode('utf-8', 'replace')}"
            record = Line(time.time(), LogLevel.error.name, "stream_proxy", None, text)
        if isinstance(record, Line):
            self._publish(record)
        elif isinstance(record, Figures | KeptHere):
            self._told(record)
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
                **ready(line.text, as_json=line.as_json),
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
        value = reason.value
        assert isinstance(value, ProcessDone | ProcessTerminated)
        if value.signal is not None:
            how = f"was ended by signal {value.signal}"
        else:
            how = f"ended with status {value.exitCode}"
        self._on_end(self, how)
