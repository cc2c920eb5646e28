"""Worker process, as the supervisor starts it: ``python -m stream_proxy.service.workers.child``.

Its descriptors are all that it shares with its parent: what to do comes in on one, together with the sockets
that it accepts on, and what it logs goes out on another.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from twisted.logger import ILogObserver, LogEvent, Logger, eventAsText, globalLogBeginner
from twisted.python.reflect import namedModule
from zope.interface import implementer

from stream_proxy.service.listening import Listener
from stream_proxy.service.workers.messages import Abort, Command, CommandReceiver, Serve, Stop, receive

if TYPE_CHECKING:
    from stream_proxy.service.rules import ProxyService

#: The connection from the parent. Its end is the parent's.
COMMANDS = 0
#: The pipe to the parent: a line for each :class:`Line` and :class:`Ready`.
RECORDS = 3

#: These the parent is sent, and says what they mean. Terminals and service managers send them to all
#: processes of a service at once.
PARENTS_SIGNALS = frozenset((signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))


class Line(Struct, frozen=True, array_like=True, tag="line"):
    """A line of the log, which may have several lines of text."""

    time: float
    level: str
    namespace: str
    system: str | None
    text: str


class Ready(Struct, frozen=True, array_like=True, tag="ready"):
    """The worker listens."""


def main() -> None:
    """Run a worker until it is told to stop, or the parent is gone."""
    for number in PARENTS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PARENTS_SIGNALS)  # what came since the start is forgotten
    globalLogBeginner.beginLoggingTo([_Observer()])
    try:
        namedModule(sys.argv[1]).install()
        # The first import of the reactor would install another one.
        from twisted.internet import reactor

        worker = _Worker(reactor)
    except Exception:
        _cannot_start()
        sys.exit(1)
    sys.exit(worker.run())


def _cannot_start() -> None:
    Logger(namespace="stream_proxy").failure("the worker cannot start")


class _Worker:
    """Does what the parent says, and stops when it is gone."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._service: ProxyService | None = None
        self._status = 0
        self._stopping = False
        receive(reactor, COMMANDS, CommandReceiver(self._command, self._stop))
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), COMMANDS)  # the reactor has a duplicate

    def run(self) -> int:
        """Serve; the exit status is returned."""
        self._reactor.run(installSignalHandlers=False)
        return self._status

    def _command(self, command: Command, descriptors: list[int]) -> None:
        match command:
            case Serve():
                sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
                named = zip(command.places, sockets, strict=True)
                self._serve(command, {endpoint: Listener(endpoint, [each]) for endpoint, each in named})
            case Stop():
                self._stop()
            case Abort():
                if self._service is not None:
                    self._service.abort()

    def _serve(self, command: Serve, places: dict[str, Listener]) -> None:
        try:
            if self._service is None:
                self._start(command, places)
            else:
                self._service.reload(command.config, places)
        except Exception as error:
            if self._service is not None:
                Logger(namespace="stream_proxy").error(
                    "a worker goes on as before: {problem}", problem=str(error)
                )
                return
            _cannot_start()
            self._status = 1
            self._stop()

    def _start(self, command: Serve, places: dict[str, Listener]) -> None:
        from stream_proxy.request_log import RequestLog
        from stream_proxy.service.rules import ProxyService, settle

        log = RequestLog(command.log_level)
        self._service = service = ProxyService(self._reactor, command.config, places, log=log)
        service.startService()
        self._reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
        settle()
        _tell(Ready())

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._reactor.callWhenRunning(self._reactor.stop)


@implementer(ILogObserver)
class _Observer:
    """Sends what is logged to the parent, whose log it is."""

    def __call__(self, event: LogEvent) -> None:
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        if text:
            level = event.get("log_level")
            _tell(
                Line(
                    time=event["log_time"],
                    level="info" if level is None else level.name,
                    namespace=event.get("log_namespace") or "-",
                    system=event.get("log_system"),
                    text=text,
                )
            )


def _tell(record: Line | Ready) -> None:
    """Write to the parent at once and whole: what was logged is not lost, however the worker ends."""
    data = msgspec.json.encode(record) + b"\n"
    with contextlib.suppress(BrokenPipeError):  # then there is no log any more
        while data:
            data = data[os.write(RECORDS, data) :]


if __name__ == "__main__":
    main()
