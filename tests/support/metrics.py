"""Records to count, and scrapes to read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open_metrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from stream_proxy.observe.metrics.cells import Cells
from stream_proxy.observe.metrics.exposition import exposition
from stream_proxy.observe.metrics.families import FAMILIES, PREFIX
from stream_proxy.observe.metrics.series import Series
from stream_proxy.observe.record import Record


def ended(number: int = 1, rule: str = "main", **fields: Any) -> Record:
    """Return the record of a converted chat call that took 2 s, with other values for `fields`."""
    record = Record(number, rule, 100.0)
    values = {
        "method": b"POST",
        "path": b"/v1/chat/completions",
        "mode": "converted",
        "status": 200,
        "asked": 100.001,
        "head": 100.5,
        "ended": 102.0,
    }
    for name, value in {**values, **fields}.items():
        setattr(record, name, value)
    return record


def failed(status: int, code: str | None = None, **fields: Any) -> Record:
    """Return the record of a call that failed before the upstream's head came."""
    return ended(**{"status": status, "code": code, "head": None, **fields})


class Scraped:
    """Values of a scrape.

    :param text: as it was sent.
    :param open_metrics: it is OpenMetrics.
    :raises ValueError: it is not what it should be.
    """

    def __init__(self, text: str, *, open_metrics: bool = False) -> None:
        self.families = list((read_open_metrics if open_metrics else read_text)(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def values(self, name: str, **labels: str) -> list[float]:
        """Return the values of all samples of that name, the prefix left out, that have these labels."""
        return [
            sample.value
            for sample in self.samples
            if sample.name.removeprefix(PREFIX) == name and labels.items() <= sample.labels.items()
        ]

    def sum(self, name: str, **labels: str) -> float:
        """Return their sum."""
        return sum(self.values(name, **labels))

    def by(self, name: str, *labels: str) -> dict[Any, float]:
        """Return sums by the values of these labels, those that are 0 left out."""
        found: dict[Any, float] = {}
        for sample in self.samples:
            if sample.name.removeprefix(PREFIX) == name and sample.value:
                key = tuple(sample.labels[label] for label in labels)
                found[key if len(key) > 1 else key[0]] = found.get(key if len(key) > 1 else key[0], 0) + (
                    sample.value
                )
        return found


def series(cells: Cells) -> Iterable[Series]:
    """Yield all that cells have."""
    for name, family in FAMILIES.items():
        found = cells.counters.get(name) or cells.histograms.get(name)
        if found:
            yield family, list(found.items())


def scraped(cells: Cells) -> Scraped:
    """Return what a scrape of cells has."""
    return Scraped(b"".join(exposition(series(cells), open_metrics=False)).decode())
