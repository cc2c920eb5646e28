"""Cells, and what a process tells another of them."""

from __future__ import annotations

from random import Random

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.observe.metrics.cells import Cells, Deltas, Histogram, Labels


def same(family: str, labels: Labels) -> Labels:
    """Return the labels as they are."""
    return labels


def ship(source: Cells, target: Cells, most: int = 100) -> int:
    """Carry what a process tells through JSON, and return the number of messages."""
    count = 0
    for deltas in source.take(most):
        target.add(msgspec.json.decode(msgspec.json.encode(deltas), type=Deltas), same)
        count += 1
    return count


class HistogramTests(SynchronousTestCase):
    """Histograms."""

    def test_edges(self) -> None:
        """A value that equals a bound is in the bucket of that bound; what is above all is in the last."""
        histogram = Histogram((0.01, 0.02))
        for value in (0.0, 0.01, 0.0101, 0.02, 0.03):
            histogram.observe(value)
        self.assertEqual(histogram.counts, [2, 2, 1])
        self.assertAlmostEqual(histogram.total, 0.0701)


class DeltasTests(SynchronousTestCase):
    """What cells have grown by."""

    def test_sums(self) -> None:
        """However often it is told, the sums are those of one process that counts all."""
        for seed in range(50):
            self.check(Random(seed))

    def check(self, random: Random) -> None:
        """Count and tell in some order."""
        source, target, alone = Cells(), Cells(), Cells()
        for _ in range(40):
            if random.random() < 0.2:
                ship(source, target, random.choice((1, 2, 100)))
            rule, value = random.choice("ab"), random.uniform(0, 20)
            for cells in (source, alone):
                cells.counter("requests_total", rule, "chat", "converted", "200").value += 1
                cells.histogram("upstream_connect_seconds", rule).observe(value)
        ship(source, target)
        for family, wanted in alone.counters.items():
            found = target.counters[family]
            self.assertEqual({k: v.value for k, v in found.items()}, {k: v.value for k, v in wanted.items()})
        for family, histograms in alone.histograms.items():
            for labels, histogram in histograms.items():
                other = target.histograms[family][labels]
                self.assertEqual(other.counts, histogram.counts)
                self.assertAlmostEqual(other.total, histogram.total)

    def test_nothing(self) -> None:
        """Nothing is told of what has not grown."""
        source, target = Cells(), Cells()
        source.counter("requests_total", "main", "chat", "converted", "200").value += 2
        self.assertEqual([ship(source, target), ship(source, target)], [1, 0])

    def test_bound(self) -> None:
        """A message has no more cells than it should, and what is counted meanwhile comes later."""
        source, target = Cells(), Cells()
        for number in range(250):
            source.counter("refused_requests_total", "main", str(number)).value += 1
            source.histogram("time_to_first_event_seconds", "main", str(number)).observe(1)
        messages = source.take(100)
        first = next(messages)
        source.counter("refused_requests_total", "main", "0").value += 1
        rest = list(messages)
        sizes = [len(each.counters) + len(each.histograms) for each in (first, *rest)]
        self.assertEqual((sum(sizes), max(sizes)), (500, 100))
        for deltas in (first, *rest, *source.take(100)):
            target.add(deltas, same)
        self.assertEqual(target.counter("refused_requests_total", "main", "0").value, 2)
