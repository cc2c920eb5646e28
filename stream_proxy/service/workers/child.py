"""Worker process, as the supervisor starts it: ``python -m stream_proxy.service.workers.child``.

It shares nothing but descriptors with its parent: commands come in on one, together with the sockets that the
worker accepts on, and log records go out on another.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import msgspec
from twisted.internet.error import CannotListenError
from twisted.logger import ILogObserver, LogEvent, Logger, eventAsText, globalLogBeginner
from twisted.python.reflect import namedModule
from zope.interface import implementer

from stream_proxy.request_log import RequestLog, ready_text
from stream_proxy.service.listening import Listener
from stream_proxy.service.workers import messages
from stream_proxy.transport.reactor import IReactor, installed_reactor

if TYPE_CHECKING:
    from stream_proxy.request_log import RequestLog
    from stream_proxy.service.admin.worker import ObservationPort
    from stream_proxy.service.metrics.shipping import Shipping
    from stream_proxy.service.rules import ProxyService
    from stream_proxy.service.workers.offer import OfferPort


def main() -> None:
    """Run a worker until its parent stops it or is gone."""
    for number in messages.PARENTS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # Signals that came since the start, while they were blocked, are discarded.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, messages.PARENTS_SIGNALS)
    globalLogBeginner.beginLoggingTo([_Observer()])
    try:
        namedModule(sys.argv[1]).install()
        worker = Worker(installed_reactor())
    except Exception:
        _cannot_start()
        sys.exit(1)
    sys.exit(worker.run())


def _cannot_start() -> None:
    Logger(namespace="stream_proxy").failure("the worker cannot start")


class Worker:
    """The service of a worker process: obeys the parent's commands, and stops when the parent is gone."""

    _log: RequestLog | None = None

    def __init__(self, reactor: IReactor) -> None:
        self._reactor = reactor
        self._service: ProxyService | None = None
        self._observation: ObservationPort | None = None
        self._offer: OfferPort | None = None
        self._shipping: Shipping | None = None
        self._status = 0
        #: Listeners that came with a reload that failed; they do not come again.
        self._unused: dict[str, Listener] = {}
        self._stopping = False
        messages.receive(reactor, messages.COMMANDS, messages.CommandReceiver(self._command, self._stop))
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), messages.COMMANDS)  # the reactor has a duplicate

    def run(self) -> int:
        """Serve, and return the exit status."""
        self._reactor.run(installSignalHandlers=False)
        return self._status

    def _command(self, command: messages.Command, descriptors: list[int]) -> None:
        match command:
            case messages.Serve():
                sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
                named = zip(command.endpoints, sockets, strict=True)
                self._serve(command, {endpoint: Listener(endpoint, [each]) for endpoint, each in named})
            case messages.Kept():
                if self._offer is not None:
                    self._offer.note(command)
            case messages.Stop():
                self._stop()
            case messages.Abort():
                if self._service is not None:
                    self._service.abort()
                if self._offer is not None:
                    self._offer.abort()

    def _serve(self, command: messages.Serve, listeners: dict[str, Listener]) -> None:
        try:
            if self._service is None:
                self._start(command, listeners)
            elif command.leaving:
                self._service.leave()
            else:
                self._unused |= listeners
                self._service.reload(command.config, self._unused)
                self._unused = {}
                if self._log is not None:
                    self._log.configure(command.log_level, as_json=command.config.log.format == "json")
                self._show(command, self._service)
                if self._shipping is not None:
                    self._shipping.apply(command.config)
        except Exception as error:
            if self._service is not None:
                Logger(namespace="stream_proxy").error(
                    "a worker goes on as before: {problem}", problem=str(error)
                )
                return
            _cannot_start()
            self._status = 1
            self._stop()

    def _start(self, command: messages.Serve, listeners: dict[str, Listener]) -> None:
        # Imported late, so that an import that fails is logged like every other failure to start.
        from stream_proxy.service.memory import settle
        from stream_proxy.service.metrics.shipping import Shipping
        from stream_proxy.service.rules import ProxyService

        log = self._log = RequestLog(command.log_level)
        log.configure(as_json=command.config.log.format == "json")
        self._service = service = ProxyService(self._reactor, command.config, listeners, log=log)
        service.startService()
        if command.leaving:
            service.leave()
        self._shipping = shipping = Shipping(self._reactor, service, _send)
        shipping.apply(command.config)
        self._reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
        self._show(command, service)
        self._reactor.addSystemEventTrigger("after", "shutdown", shipping.stop)
        settle()
        _send(messages.Ready())

    def _show(self, command: messages.Serve, service: ProxyService) -> None:
        """Show the parent the requests, and offer kept answers, from the first time on that it wants that."""
        if command.offer is not None and self._offer is None:
            from stream_proxy.service.workers.offer import OfferPort

            self._offer = OfferPort(self._reactor, command.offer, service.shared.lost, _send)
            grace = command.config.shutdown_grace_seconds
            self._reactor.addSystemEventTrigger("before", "shutdown", self._offer.close, grace)
        if command.observe is None or self._observation is not None:
            return
        from stream_proxy.service.admin.access import Guard
        from stream_proxy.service.admin.capture.routes import serve_capture
        from stream_proxy.service.admin.worker import ObservationPort

        try:
            self._observation = ObservationPort(
                self._reactor, command.observe, service.source, RequestLog(command.log_level)
            )
        except (OSError, CannotListenError) as error:
            Logger(namespace="stream_proxy").warn(
                "the admin port does not show the requests of a worker: {problem}", problem=str(error)
            )
            return
        # Nobody else can enter the socket's directory.
        serve_capture(self._observation.resource, service.captures, Guard.KEY)

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._reactor.callWhenRunning(self._reactor.stop)


@implementer(ILogObserver)
class _Observer:
    """A log observer that sends everything to the parent, which writes the log."""

    def __call__(self, event: LogEvent) -> None:
        text = ready_text(event) or eventAsText(event, includeTimestamp=False, includeSystem=False)
        if text:
            level = event.get("log_level")
            _send(
                messages.Line(
                    time=event["log_time"],
                    level="info" if level is None else level.name,
                    namespace=event.get("log_namespace") or "-",
                    system=event.get("log_system"),
                    text=text,
                    as_json=bool(event.get("as_json")),
                )
            )


def _send(record: messages.Record) -> None:
    """Write a record at once and whole: nothing that was logged is lost, however the worker ends."""
    data = msgspec.json.encode(record) + b"\n"
    with contextlib.suppress(BrokenPipeError):  # the parent is gone, and the log with it
        while data:
            data = data[os.write(messages.RECORDS, data) :]


if __name__ == "__main__":
    main()
