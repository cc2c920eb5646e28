"""Tests of the figures of the last five minutes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.observe.figures import BIN_GROWTH, BIN_SECONDS, BUCKETS, Figures, Sums, bin_of
from stream_proxy.observe.record import Record, Usage

NOW = 1_000_000.0


def record(began: float, ended: float | None, *, status: int = 200, first: float | None = None) -> Record:
    """Return a record that began and ended so many seconds before now."""
    made = Record(1, "8080", NOW - began)
    made.ended = None if ended is None else NOW - ended
    made.status = status
    made.first_event = None if first is None else NOW - began + first
    return made


class FiguresTests(SynchronousTestCase):
    """Figures of one process."""

    def test_before(self) -> None:
        """What the ledger has already counts: ends, errors, and how many were under way."""
        figures = Figures(
            [record(12, 7), record(9, 1, status=502), record(9, 1, status=499), record(13, None)], NOW
        )
        number = int(NOW // 5)
        self.assertEqual(
            figures.changed(),
            [
                (number - 3, 0, 0, 0, 2, {}),
                (number - 2, 1, 0, 0, 4, {}),
                (number - 1, 2, 1, 0, 3, {}),
                (number, 0, 0, 0, 1, {}),
            ],
        )
        self.assertEqual(figures.changed(), [])

    def test_problem(self) -> None:
        """A response that broke off is an error, whatever its status was."""
        broken = record(2, 1)
        broken.problem = "upstream cut"
        self.assertEqual(Figures([broken], NOW).changed()[0][2], 1)

    def test_old(self) -> None:
        """What is older than five minutes does not count, and is forgotten."""
        figures = Figures([record(1000, 400)], NOW)
        self.assertEqual(figures.changed(), [])
        figures.add(record(3, 1))
        figures.tick(NOW + 294, 0)
        self.assertEqual(len(figures.buckets), 1)
        figures.tick(NOW + 295, 0)
        self.assertEqual((figures.buckets, figures.changed()), ({}, []))

    def test_bounded(self) -> None:
        """There are never more buckets than those of five minutes."""
        figures = Figures([], NOW)
        for second in range(1000):
            figures.tick(NOW + second, 1)
        self.assertEqual(len(figures.buckets), BUCKETS)

    def test_tokens(self) -> None:
        """Tokens count when they came."""
        stream = record(21, 1, first=4.0)
        stream.last_event = NOW - 3
        stream.usage = Usage(output=40)
        tokens = {bucket[0] - int(NOW // 5): bucket[3] for bucket in Figures([stream], NOW).changed()}
        self.assertEqual(
            {at: count for at, count in tokens.items() if count}, {-4: 10, -3: 10, -2: 10, -1: 10}
        )

    def test_flight(self) -> None:
        """A bucket knows the most that were under way at once."""
        figures = Figures([], NOW)
        for flight in (2, 5, 3):
            figures.tick(NOW, flight)
        self.assertEqual(figures.changed(), [(int(NOW // 5), 0, 0, 0, 5, {})])

    @given(st.floats(min_value=0.002, max_value=80_000))
    def test_bins(self, seconds: float) -> None:
        """A bin says a time to within five percent."""
        index = bin_of(seconds)
        begin = BIN_SECONDS * BIN_GROWTH**index
        self.assertTrue(begin * 0.999 <= seconds <= begin * BIN_GROWTH * 1.001, (seconds, index))

    def test_bin_ends(self) -> None:
        """Times beyond either end have a bin, too."""
        self.assertEqual([bin_of(-1.0), bin_of(0.0), bin_of(0.001), bin_of(1e9)], [0, 0, 0, 374])

    def test_first_event(self) -> None:
        """Times to the first event are counted."""
        figures = Figures([record(3, 1, first=0.5), record(3, 1, first=0.5), record(3, 1)], NOW)
        self.assertEqual(figures.changed()[0][5], {bin_of(0.5): 2})


class SumsTests(SynchronousTestCase):
    """Figures of several processes."""

    def test_added(self) -> None:
        """The last of each process are added."""
        sums = Sums()
        sums.put("1", [(7, 1, 0, 5, 1, {3: 1})])
        sums.put("2", [(7, 2, 1, 5, 1, {3: 1, 4: 2})])
        sums.put("1", [(7, 3, 0, 6, 2, {3: 2})])
        self.assertEqual(sums.changed(), [(7, 5, 1, 11, 3, {3: 3, 4: 2})])
        self.assertEqual((sums.changed(), sums.all()), ([], [(7, 5, 1, 11, 3, {3: 3, 4: 2})]))

    def test_bounded(self) -> None:
        """Old ones go."""
        sums = Sums()
        for number in range(100):
            sums.put("1", [(number, 1, 0, 0, 0, {})])
        self.assertEqual([each[0] for each in sums.all()], list(range(100 - BUCKETS, 100)))
        self.assertEqual(len(sums.changed()), BUCKETS)
