"""Gauges of workers, as these told of them last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stream_proxy.observe.metrics.gauges import Gauge, LiveGauges, Values, merged
from stream_proxy.service.configuration.types import Config
from stream_proxy.service.metrics.collection import upstream_gauges, usual_modes
from stream_proxy.service.naming import rule_name


class ToldGauges:
    """Gauges of all workers together. They tell nothing of what is 0; when a process ends, its gauges go."""

    def __init__(self) -> None:
        #: What each worker told, and when.
        self._told: dict[int, tuple[Sequence[Gauge], float]] = {}
        self._zeros: Values = {}

    def watch(self, config: Config) -> None:
        """Have the gauges of all rules, whether workers tell of them or not."""
        live = LiveGauges()
        live.watch({rule_name(rule): usual_modes(adapted=rule.adapter is not None) for rule in config.rules})
        self._zeros = live.values
        for rule in map(rule_name, config.rules):
            self._zeros |= dict.fromkeys(upstream_gauges(rule), 0)

    def tell(self, worker: int, gauges: Sequence[Gauge], now: float) -> None:
        """Note what a worker's gauges are now."""
        self._told[worker] = (gauges, now)
        for each in gauges:
            self._zeros.setdefault((each.family, each.labels), 0)

    def forget(self, worker: int) -> None:
        """Note that a worker's process has ended."""
        self._told.pop(worker, None)

    def values(self, now: float) -> Values:
        """Return all gauges as they are now: what was the oldest has become older."""
        return {**self._zeros, **merged(self._aged(*told, now) for told in self._told.values())}

    @staticmethod
    def _aged(gauges: Sequence[Gauge], then: float, now: float) -> Iterator[Gauge]:
        for each in gauges:
            aged = each.family == "oldest_request_seconds" and each.value > 0
            yield Gauge(each.family, each.labels, each.value + now - then) if aged else each
