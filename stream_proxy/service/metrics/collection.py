"""Collection of the metrics of one process that serves rules."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.python.failure import Failure

from stream_proxy.adapter.resource import AdapterResource
from stream_proxy.observe.metrics.cells import Cells, Labels
from stream_proxy.observe.metrics.gauges import Gauge, LiveGauges, Values
from stream_proxy.observe.metrics.recorder import Recorder
from stream_proxy.observe.record import Record
from stream_proxy.service.configuration.types import Config
from stream_proxy.service.rules import ProxyService
from stream_proxy.transport.reactor import IReactor
from stream_proxy.transport.timers import Timeout

#: How often the reactor's lag is measured.
LAG_SECONDS = 0.5
#: How many requests are counted together: one by one they would take twice as long.
_BATCH = 50


class LagTimer:
    """Timer that measures how late the reactor is.

    :param cells: take what it measures.
    :param worker: the name of this process there.
    """

    def __init__(self, reactor: IReactor, cells: Cells, worker: str) -> None:
        self._reactor = reactor
        self._lags = cells.histogram("reactor_lag_seconds", worker)
        self._timeout = Timeout(reactor)
        self._due = 0.0

    def start(self) -> None:
        """Measure from now on."""
        if not self._timeout.running:
            self._wait()

    def stop(self) -> None:
        """Measure no more."""
        self._timeout.stop()

    def _wait(self) -> None:
        self._due = self._reactor.seconds() + LAG_SECONDS
        self._timeout.start(LAG_SECONDS, self._fire)

    def _fire(self) -> None:
        self._lags.observe(max(0.0, self._reactor.seconds() - self._due))
        self._wait()


class Collection:
    """Figures of the rules that this process serves, as long as there is an admin port.

    :param service: serves the rules.
    :param cells: take what is counted.
    :param worker: the name of this process there.
    """

    def __init__(self, reactor: IReactor, service: ProxyService, cells: Cells, worker: str) -> None:
        self._reactor = reactor
        self._service = service
        self._ledger = service.shared.ledger
        self._lag = LagTimer(reactor, cells, worker)
        self._live = LiveGauges()
        self._recorder = Recorder(cells)
        self._models: tuple[str, ...] | None = None
        #: Requests that have ended and are not counted yet.
        self._pending: list[Record] = []
        self._collects = False

    def apply(self, config: Config) -> None:
        """Collect what `config` says, from now on."""
        if config.admin is None:
            self.stop()
            return
        if config.metrics.models != self._models:
            self._models = config.metrics.models
            self._recorder.pin(self._models)
        resources = [each.served.resource for each in self._service.rules.values()]
        for each in resources:
            self._recorder.rule(each.name)
        self._live.watch(
            {each.name: usual_modes(adapted=isinstance(each, AdapterResource)) for each in resources}
        )
        if not self._collects:
            self._collects = True
            self._ledger.ended_hooks.append(self._ended)
            self._ledger.count_hooks.append(self._recorder.count)
            self._lag.start()

    def stop(self) -> None:
        """Collect no more; what has been counted stays."""
        if self._collects:
            self._collects = False
            self._count()
            self._ledger.ended_hooks.remove(self._ended)
            self._ledger.count_hooks.remove(self._recorder.count)
            self._lag.stop()

    def _ended(self, record: Record) -> None:
        self._pending.append(record)
        if len(self._pending) >= _BATCH:
            self._count()

    def _count(self) -> None:
        pending, self._pending = self._pending, []
        for record in pending:
            try:
                self._recorder.ended(record)
            except Exception:
                self._service.shared.log.bug(Failure())

    def look(self) -> Iterator[None]:
        """Look at the requests under way, and yield now and then, where other work may be done."""
        if not self._collects:
            return
        self._count()
        yield from self._recorder.count_open(self._ledger.live.values())
        yield from self._live.look(self._ledger.live.values(), self._reactor.seconds())

    def gauges(self) -> tuple[Gauge, ...]:
        """Return the gauges, those of requests as of the last look."""
        values: Values = dict(self._live.values)
        for each in self._service.rules.values():
            name, upstream = each.served.resource.name, each.served.resource.upstream
            figures = (upstream.active, upstream.idle, upstream.waiting)
            for key, value in zip(upstream_gauges(name), figures, strict=True):
                values[key] = values.get(key, 0) + value
        return tuple(Gauge(family, labels, value) for (family, labels), value in values.items())


def upstream_gauges(rule: str) -> tuple[tuple[str, Labels], ...]:
    """Return the gauges of connections in use, of idle ones, and of requests that wait for one."""
    return (
        ("upstream_connections", (rule, "active")),
        ("upstream_connections", (rule, "idle")),
        ("upstream_waiting", (rule,)),
    )


def usual_modes(*, adapted: bool) -> tuple[str, ...]:
    """Return the modes that requests to a rule usually have."""
    return ("adapted",) if adapted else ("converted", "passed", "websocket")
