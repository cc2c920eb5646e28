"""Gathering: the figures of all processes together, in the one that is scraped."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from stream_proxy.observe.metrics.cells import Cells, Counter, Histogram, Labels
from stream_proxy.observe.metrics.families import FAMILIES
from stream_proxy.observe.metrics.gauges import merged
from stream_proxy.observe.metrics.names import Names
from stream_proxy.observe.metrics.recorder import MOST_CODES, Recorder
from stream_proxy.observe.metrics.series import Series
from stream_proxy.service.configuration.types import Config
from stream_proxy.service.metrics.collection import Collection, LagTimer
from stream_proxy.service.metrics.figures import Figures
from stream_proxy.service.metrics.told import ToldGauges
from stream_proxy.service.naming import rule_name
from stream_proxy.service.rules import ProxyService
from stream_proxy.transport.reactor import IReactor

#: The name of the process that was started; those of workers are their numbers.
MAIN = "main"


class WorkerFigures:
    """What one worker and its processes tell.

    :param gathering: takes it.
    :param number: the worker's.
    """

    def __init__(self, gathering: Gathering, number: int) -> None:
        self._gathering = gathering
        self._number = number

    def started(self, pid: int) -> None:
        """Note a process of the worker."""
        self._gathering.worker_started(self._number, pid)

    def ended(self, *, replaced: bool) -> None:
        """Note that it has ended; all that it told has been taken."""
        self._gathering.worker_ended(self._number, replaced=replaced)

    def take(self, figures: Figures) -> None:
        """Take figures."""
        self._gathering.take(self._number, figures)


class Gathering:
    """All metrics of the service. What a process has counted stays when it is gone; its gauges go with it."""

    def __init__(self, reactor: IReactor) -> None:
        self._reactor = reactor
        self._cells = Cells()
        self._lag = LagTimer(reactor, self._cells, MAIN)
        self._reloads = self._cells.counter("config_reloads_total")
        self._restarts = self._cells.counter("worker_restarts_total")
        self._reload_succeeded = True
        self._certificates: dict[str, float] = {}
        #: By rule and label.
        self._names: dict[tuple[str, str], Names] = {}
        self._config: Config | None = None
        #: The collection of rules that this process serves itself.
        self._own: Collection | None = None
        #: The gauges of workers.
        self._told = ToldGauges()
        self._pids: dict[int, int] = {}

    def serves(self, service: ProxyService) -> None:
        """Collect from rules that this process serves itself."""
        self._own = Collection(self._reactor, service, self._cells, MAIN)

    def apply(self, config: Config, certificates: dict[str, float]) -> None:
        """Collect what `config` says, from now on.

        :param certificates: when the certificates that rules show expire, since the epoch.
        """
        if self._config is None or config.metrics.models != self._config.metrics.models:
            self._names = {key: names for key, names in self._names.items() if key[1] == "code"}
        self._config, self._certificates = config, certificates
        if self._own is not None:
            self._own.apply(config)  # with a timer of its own
        elif config.admin is not None:
            self._told.watch(config)
            begun = Recorder(self._cells)
            for rule in config.rules:
                begun.rule(rule_name(rule))  # workers tell nothing of what is 0
            self._lag.start()
        else:
            self._lag.stop()

    def stop(self) -> None:
        """Collect no more."""
        self._lag.stop()
        if self._own is not None:
            self._own.stop()

    def reloaded(self, *, succeeded: bool) -> None:
        """Count a reload that was asked for."""
        self._reloads.value += 1
        self._reload_succeeded = succeeded

    # For the workers

    def worker_started(self, worker: int, pid: int) -> None:
        """Note a worker's process."""
        self._pids[worker] = pid

    def worker_ended(self, worker: int, *, replaced: bool) -> None:
        """Let go of what is true of a worker's process no more."""
        self._told.forget(worker)
        self._pids.pop(worker, None)
        self._restarts.value += replaced

    def take(self, worker: int, figures: Figures) -> None:
        """Take in what a worker tells."""
        self._cells.add(figures.deltas, lambda family, labels: self._labels(worker, family, labels))
        if figures.gauges is not None:
            self._told.tell(worker, figures.gauges, self._reactor.seconds())

    def _labels(self, worker: int, family: str, labels: Labels) -> Labels:
        """Return the labels for what a worker calls so: names have the bounds of one process."""
        named = FAMILIES[family].labels
        if "worker" in named:
            return (str(worker),)
        if "code" in named:
            return (*labels[:-1], self._named(labels[0], "code").label(labels[-1]))
        if "model" not in named:
            return labels
        rule, model, *rest = labels
        return (rule, self._named(rule, "model").label(model), *rest)

    def _named(self, rule: str, label: str) -> Names:
        """Return the names of a rule that a label has."""
        found = self._names.get((rule, label))
        if found is None:
            assert self._config is not None
            models = self._config.metrics.models
            found = Names(most=MOST_CODES) if label == "code" else Names(models)
            self._names[rule, label] = found
        return found

    # For the scrape

    @property
    def processes(self) -> dict[str, int]:
        """The ids of all processes, by their names."""
        return {MAIN: os.getpid(), **{str(worker): pid for worker, pid in self._pids.items()}}

    def look(self) -> Iterator[None]:
        """Look at the requests under way, and yield now and then, where other work may be done."""
        if self._own is not None:
            yield from self._own.look()

    def series(self) -> Iterator[Series]:
        """Yield all families with what they have; the gauges of requests are those of the last look."""
        gauges = self._gauges()
        cells: dict[str, dict[Labels, Counter] | dict[Labels, Histogram]]
        cells = {**self._cells.counters, **self._cells.histograms}
        for name, family in FAMILIES.items():
            samples = cells.get(name) or gauges.get(name)
            if samples:
                yield family, list(samples.items())

    def _gauges(self) -> dict[str, dict[Labels, float]]:
        values = self._told.values(self._reactor.seconds())
        if self._own is not None:
            values |= merged([self._own.gauges()])
        found: dict[str, dict[Labels, float]] = {}
        for (family, labels), value in values.items():
            found.setdefault(family, {})[labels] = value
        found["config_last_reload_success"] = {(): float(self._reload_succeeded)}
        found["certificate_not_after_seconds"] = {(rule,): at for rule, at in self._certificates.items()}
        found["build_info"] = {
            (_version("openai-stream-proxy"), platform.python_version(), _version("twisted")): 1
        }
        return found


@cache
def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
