"""``python -m stream_proxy.worker``: one worker process, as :mod:`stream_proxy.workers` starts it.

Its descriptors are all that it shares with its parent: what to do comes in on one, what it logs goes out on
another, and the sockets that it accepts on are open already.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import msgspec
from msgspec import Struct
from twisted.internet.protocol import Protocol
from twisted.logger import ILogObserver, LogEvent, Logger, eventAsText, globalLogBeginner
from twisted.python.reflect import namedModule
from zope.interface import implementer

from stream_proxy.config import Config

#: The pipe from the parent: a :class:`Handover`, then commands. Its end is the parent's.
COMMANDS = 0
#: The pipe to the parent: a line for each :class:`Line` and :class:`Ready`.
RECORDS = 3
#: The socket of the first rule; those of the others follow.
FIRST_SOCKET = 4
STOP = b"s"
ABORT = b"a"

#: These the parent is sent, and says what they mean. Terminals and service managers send them to all
#: processes of a service at once.
PARENTS_SIGNALS = frozenset((signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))


class Handover(Struct, frozen=True):
    """What a worker is told when it starts.

    ``reactor``: the module whose ``install`` makes the reactor. ``log_level``: see :class:`RequestLog`.
    """

    config: Config
    log_level: str
    reactor: str

    #: How many bytes say how many follow.
    HEAD: ClassVar[int] = 4

    def packed(self) -> bytes:
        """As it goes through the pipe; MessagePack can say what JSON cannot, such as infinity."""
        data = msgspec.msgpack.encode(self)
        return len(data).to_bytes(self.HEAD) + data

    @classmethod
    def unpacked(cls, data: bytes) -> Handover:
        """From what follows the head."""
        return msgspec.msgpack.decode(data, type=cls)


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
    try:
        size = int.from_bytes(_read(COMMANDS, Handover.HEAD))
        handover = Handover.unpacked(_read(COMMANDS, size))
    except EOFError:
        return
    globalLogBeginner.beginLoggingTo([_Observer()])
    try:
        namedModule(handover.reactor).install()
        _serve(handover)
    except Exception:
        Logger(namespace="stream_proxy").failure("the worker cannot start")
        sys.exit(1)


def _read(descriptor: int, size: int) -> bytes:
    """That many bytes.

    :raises EOFError: there are fewer.
    """
    data = b""
    while len(data) < size:
        more = os.read(descriptor, size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _serve(handover: Handover) -> None:
    # The first import of the reactor would install another one.
    from twisted.internet import reactor as _reactor
    from twisted.internet.stdio import StandardIO

    from stream_proxy.outcome import RequestLog
    from stream_proxy.service import ProxyService, settle

    reactor: Any = _reactor
    log = RequestLog(handover.log_level)
    service = ProxyService(reactor, handover.config, log=log, ports=_Inherited(reactor, handover.config))

    # Before the reactor runs, so that a worker that cannot listen ends and does not linger on, deaf.
    service.startService()
    StandardIO(_Commands(stop=reactor.stop, abort=service.abort), reactor=reactor)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    settle()
    _tell(Ready())
    reactor.run(installSignalHandlers=False)


class _Inherited:
    """Opens the rules' ports out of the sockets that the parent has opened."""

    def __init__(self, reactor: Any, config: Config) -> None:
        self._reactor = reactor
        self._descriptors = {rule.listen_port: FIRST_SOCKET + i for i, rule in enumerate(config.rules)}

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """The reactor's method of this name; the parent has seen to `backlog` and `interface`."""
        # The reactor listens on a duplicate. Were both left open, the port could not be closed.
        with socket.socket(fileno=self._descriptors.pop(port)) as inherited:
            return self._reactor.adoptStreamPort(inherited.fileno(), inherited.family, factory)


class _Commands(Protocol):
    """Does what the parent says, and stops when it is gone."""

    def __init__(self, *, stop: Callable[[], None], abort: Callable[[], None]) -> None:
        self._stop = stop
        self._abort = abort
        self._stopping = False

    def dataReceived(self, data: bytes) -> None:
        if STOP in data:
            self._stop_once()
        if ABORT in data:
            self._abort()

    def connectionLost(self, reason: object = None) -> None:
        self._stop_once()

    def _stop_once(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._stop()


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
