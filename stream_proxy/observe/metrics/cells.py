"""Cells: plain counters and histograms, by family and labels, and what is sent of them. Sans-I/O."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import TypeVar

from msgspec import Struct

from stream_proxy.observe.metrics.families import FAMILIES

Labels = tuple[str, ...]
Cell = TypeVar("Cell")


class Counter:
    """One counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Histogram:
    """One histogram.

    :param bounds: the upper bounds of all buckets but the last one's, which is infinite.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        #: How many values each bucket has, alone.
        self.counts = [0] * (len(bounds) + 1)
        #: The sum of the values.
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class CounterDelta(Struct, frozen=True, array_like=True):
    """What a counter has grown by."""

    family: str
    labels: Labels
    value: float


class HistogramDelta(Struct, frozen=True, array_like=True):
    """What a histogram has grown by; `counts` are the buckets that did, each with its position."""

    family: str
    labels: Labels
    total: float
    counts: tuple[tuple[int, int], ...]


class Deltas(Struct, frozen=True, array_like=True):
    """What cells have grown by."""

    counters: tuple[CounterDelta, ...] = ()
    histograms: tuple[HistogramDelta, ...] = ()


class Cells:
    """All counters and histograms of a process, or those of several together."""

    def __init__(self) -> None:
        #: By family and labels.
        self.counters: dict[str, dict[Labels, Counter]] = {}
        self.histograms: dict[str, dict[Labels, Histogram]] = {}
        for name, family in FAMILIES.items():
            if family.kind == "counter":
                self.counters[name] = {}
            elif family.kind == "histogram":
                self.histograms[name] = {}

    def counter(self, family: str, *labels: str) -> Counter:
        """Return a counter, which is made if need be."""
        cells = self.counters[family]
        found = cells.get(labels)
        if found is None:
            found = cells[labels] = Counter()
        return found

    def histogram(self, family: str, *labels: str) -> Histogram:
        """Return a histogram, which is made if need be."""
        cells = self.histograms[family]
        found = cells.get(labels)
        if found is None:
            found = cells[labels] = Histogram(FAMILIES[family].bounds)
        return found

    def take(self, most: int) -> Iterator[Deltas]:
        """Yield what the cells have grown by since the last time, and set them to 0.

        :param most: how many cells are yielded at once.
        """
        counters: list[CounterDelta] = []
        for family, labels, counter in _listed(self.counters):
            if counter.value:
                counters.append(CounterDelta(family, labels, counter.value))
                counter.value = 0
                if len(counters) >= most:
                    yield Deltas(tuple(counters))
                    counters = []
        histograms: list[HistogramDelta] = []
        for family, labels, histogram in _listed(self.histograms):
            counts = tuple((place, count) for place, count in enumerate(histogram.counts) if count)
            if counts:
                histograms.append(HistogramDelta(family, labels, histogram.total, counts))
                histogram.counts = [0] * len(histogram.counts)
                histogram.total = 0.0
                if len(counters) + len(histograms) >= most:
                    yield Deltas(tuple(counters), tuple(histograms))
                    counters, histograms = [], []
        if counters or histograms:
            yield Deltas(tuple(counters), tuple(histograms))

    def add(self, deltas: Deltas, labelled: Callable[[str, Labels], Labels]) -> None:
        """Add what cells of another process have grown by.

        :param labelled: returns the labels here for a family and its labels there.
        """
        for each in deltas.counters:
            self.counter(each.family, *labelled(each.family, each.labels)).value += each.value
        for grown in deltas.histograms:
            histogram = self.histogram(grown.family, *labelled(grown.family, grown.labels))
            histogram.total += grown.total
            for place, count in grown.counts:
                histogram.counts[place] += count


def _listed(families: dict[str, dict[Labels, Cell]]) -> list[tuple[str, Labels, Cell]]:
    """Return all cells as they are now: others may be made before the last one is looked at."""
    return [(family, labels, cell) for family, cells in families.items() for labels, cell in cells.items()]
