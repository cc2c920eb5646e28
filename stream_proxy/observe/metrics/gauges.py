"""Gauges: what the requests under way amount to, looked at when it is asked for. Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from stream_proxy.observe.metrics.cells import Labels
from stream_proxy.observe.record import Phase, Record

Values = dict[tuple[str, Labels], float]

#: How many records are looked at in one turn.
_STEP = 2000
#: What each rule has, whether there are requests or not.
_OF_RULES = ("oldest_request_seconds", "buffered_bytes", "websocket_sessions")


class Gauge(Struct, frozen=True, array_like=True):
    """One gauge."""

    family: str
    labels: Labels
    value: float


class LiveGauges:
    """Gauges of the requests under way. What has been above 0 once is 0 afterwards, not absent."""

    def __init__(self) -> None:
        #: By family and labels.
        self.values: Values = {}

    def watch(self, rules: Mapping[str, Iterable[str]]) -> None:
        """Have the gauges of these rules with these modes, and of no others that have no requests."""
        self.values = {key: value for key, value in self.values.items() if key[1][0] in rules or value}
        for rule, modes in rules.items():
            for family in _OF_RULES:
                self.values.setdefault((family, (rule,)), 0)
            for mode in modes:
                self.values.setdefault(("requests_in_flight", (rule, mode)), 0)

    def look(self, records: Iterable[Record], now: float) -> Iterator[None]:
        """Look at the requests under way, and yield now and then, where other work may be done.

        :param now: the reactor's time.
        """
        found = dict.fromkeys(self.values, 0.0)
        for number, record in enumerate(list(records), 1):
            _add(found, record, now)
            if number % _STEP == 0:
                yield
        self.values = found


def _add(found: Values, record: Record, now: float) -> None:
    rule, mode = (record.rule,), record.mode
    _grow(found, "requests_in_flight", (record.rule, mode), 1)
    if mode == "websocket" and record.phase is Phase.STREAMING:
        _grow(found, "websocket_sessions", rule, 1)
        return  # a session may last for days: it is not what hangs
    oldest = "oldest_request_seconds", rule
    found[oldest] = max(found.get(oldest, 0), now - record.began)
    held = record.read if mode == "converted" else 0
    if record.phase is Phase.READING and record.upload is not None:
        held += record.upload.received
    if held:
        _grow(found, "buffered_bytes", rule, held)


def _grow(found: Values, family: str, labels: Labels, value: float) -> None:
    found[family, labels] = found.get((family, labels), 0) + value


def merged(gauges: Iterable[Iterable[Gauge]]) -> Values:
    """Return the gauges of several processes together: sums, but of ages the highest."""
    found: Values = {}
    for gauge in (each for of_one in gauges for each in of_one):
        key = gauge.family, gauge.labels
        before = found.get(key, 0)
        if gauge.family == "oldest_request_seconds":
            found[key] = max(before, gauge.value)
        else:
            found[key] = before + gauge.value
    return found
