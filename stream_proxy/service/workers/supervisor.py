"""Supervisor of the workers: this process opens the ports, several processes serve them.

Each worker has sockets of its own, and the system distributes the connections between them
(``SO_REUSEPORT``). They stay open here as well, although this process accepts nothing: when a worker dies,
its replacement accepts the connections that wait, and meanwhile none is refused.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred

from stream_proxy.limits import Limits
from stream_proxy.request_log import RequestLog
from stream_proxy.service.admin.capture.workers import WorkersCapture
from stream_proxy.service.admin.remote import WorkersSource
from stream_proxy.service.configuration.types import Config, Rule
from stream_proxy.service.listening import Listener, endpoint_of
from stream_proxy.service.metrics.gathering import Gathering, WorkerFigures
from stream_proxy.service.workers.kept import KeptCalls, WorkerNews
from stream_proxy.service.workers.messages import Serve
from stream_proxy.service.workers.slot import WorkerSlot
from stream_proxy.service.workers.sockets import SocketDirectory
from stream_proxy.transport.reactor import IReactor

#: Limits on what all processes have together.
_SHARED = (
    "max_connections",
    "max_upstream_connections",
    "max_upstream_waiting",
    "resume_max_calls",
    "resume_max_bytes",
)


class WorkersService(Service):
    """The rules of a configuration, served by as many processes as it says.

    :param listeners: open listeners by endpoint, with a socket for each worker.
    :param log: logs the starts and ends of workers. Their own entries, of the same level, go to Twisted's log
        unchanged.
    :param gathering: takes the workers' figures.
    """

    def __init__(
        self,
        reactor: IReactor,
        config: Config,
        listeners: Mapping[str, Listener],
        *,
        log: RequestLog,
        gathering: Gathering | None = None,
    ) -> None:
        gathering = gathering or Gathering(reactor)
        self._reactor = reactor
        self._config = config
        self._listeners = _rules_listeners(config, listeners)
        self._log = log
        self._directory = SocketDirectory(log)
        #: The requests of all workers, for the admin port.
        self.source = WorkersSource(reactor, self._directory.socket, config.workers)
        #: Their whole exchanges.
        self.captures = WorkersCapture(self.source, config.workers)
        kept = KeptCalls(self._directory.offer)
        self._slots = [
            WorkerSlot(
                reactor,
                f"worker {number + 1} of {config.workers}",
                self._serve(number),
                self._sockets(number),
                log,
                WorkerNews(number + 1, WorkerFigures(gathering, number + 1), kept),
            )
            for number in range(config.workers)
        ]
        kept.workers = {number: slot.send for number, slot in enumerate(self._slots, 1)}

    def _serve(self, number: int) -> Serve:
        config, directory = self._config, self._directory
        observe = None if config.admin is None else directory.socket(number + 1)
        offer = directory.offer(number + 1) if _resumes(config) else None
        return Serve(_share(config), tuple(self._listeners), self._log.level, observe, offer)

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
        if self._config.admin is not None or _resumes(self._config):
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

    def leave(self) -> None:
        """Let the workers, and those that replace them, announce the end of connections."""
        for number, slot in enumerate(self._slots):
            slot.reload(msgspec.structs.replace(slot.serve, leaving=True), self._sockets(number))

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


def _resumes(config: Config) -> bool:
    """Report whether a rule keeps calls without their clients."""
    return any(config.limits_of(rule).resume_seconds for rule in config.rules)


def _share(config: Config) -> Config:
    """Return the configuration of one worker, with its share of the limits on connections."""

    def parts(limits: Limits | Rule) -> dict[str, int]:
        values = {name: getattr(limits, name, None) for name in _SHARED}
        return {name: math.ceil(v / config.workers) for name, v in values.items() if v is not None}

    rules = [msgspec.structs.replace(rule, **parts(rule)) for rule in config.rules]
    return msgspec.structs.replace(config, rules=rules, **parts(config))
