"""Figures of the last five minutes, in buckets that can be added. Sans-I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import accumulate

from stream_proxy.observe.record import Record
from stream_proxy.observe.rows import is_error

#: Seconds of a bucket, and how many there are.
BUCKET_SECONDS = 5
BUCKETS = 60
#: Times to the first event are counted in bins: bin ``i`` begins at ``BIN_SECONDS * BIN_GROWTH**i``.
BIN_SECONDS, BIN_GROWTH = 0.001, 1.05
_LOG_GROWTH = math.log(BIN_GROWTH)
#: A day: what takes longer counts as one.
_LAST_BIN = 374

#: Its number (seconds since the epoch over :data:`BUCKET_SECONDS`), requests that ended, those that failed,
#: output tokens, the most requests under way at once, and times to the first event as bins and counts.
Encoded = tuple[int, int, int, int, int, dict[int, int]]


class Bucket:
    """Five seconds."""

    __slots__ = ("bins", "ended", "errors", "flight", "tokens")

    def __init__(self) -> None:
        self.ended = self.errors = self.flight = 0
        self.tokens = 0.0
        self.bins: dict[int, int] = {}

    def encoded(self, number: int) -> Encoded:
        """Return it as JSON values."""
        return number, self.ended, self.errors, round(self.tokens), self.flight, self.bins


class Figures:
    """Buckets of one process, filled while somebody looks.

    :param records: those that ended before, as far as they are kept, and those that run.
    :param now: the time.
    """

    def __init__(self, records: Iterable[Record], now: float) -> None:
        self.buckets: dict[int, Bucket] = {}
        self._changed: set[int] = set()
        last = int(now // BUCKET_SECONDS)
        self._first = last - BUCKETS + 1
        steps = [0] * (BUCKETS + 1)
        for record in records:
            if record.ended is not None:
                self.add(record)
            begin = int(record.began // BUCKET_SECONDS) - self._first
            end = BUCKETS if record.ended is None else int(record.ended // BUCKET_SECONDS) - self._first + 1
            if end > 0:
                steps[max(0, begin)] += 1
                steps[min(end, BUCKETS)] -= 1
        for number, flight in enumerate(accumulate(steps[:BUCKETS]), self._first):
            if flight:
                self._bucket(number).flight = flight

    def add(self, record: Record) -> None:
        """Count a request that has ended."""
        ended = record.ended or record.began
        number = int(ended // BUCKET_SECONDS)
        if number < self._first:
            return
        bucket = self._bucket(number)
        bucket.ended += 1
        bucket.errors += is_error(record)
        if record.first_event is not None:
            index = bin_of(record.first_event - record.began)
            bucket.bins[index] = bucket.bins.get(index, 0) + 1
        tokens = record.usage.output if record.usage is not None else None
        if tokens:
            self._spread(tokens, record.first_event or record.began, record.last_event or ended)

    def _spread(self, tokens: int, begin: float, end: float) -> None:
        """Count tokens in the buckets in which they came, as if they had come evenly."""
        first, last = int(begin // BUCKET_SECONDS), int(end // BUCKET_SECONDS)
        each = tokens / (last - first + 1)
        for number in range(max(first, self._first), last + 1):
            self._bucket(number).tokens += each

    def tick(self, now: float, flight: int) -> None:
        """Note how many requests are under way, and forget what is older than five minutes."""
        number = int(now // BUCKET_SECONDS)
        first = number - BUCKETS + 1
        if first > self._first:
            self._first = first
            for old in [each for each in self.buckets if each < first]:
                del self.buckets[old]
                self._changed.discard(old)
        present = self.buckets.get(number)
        if flight > (0 if present is None else present.flight):
            self._bucket(number).flight = flight

    def changed(self) -> list[Encoded]:
        """Return the buckets that have changed since the last call."""
        changed, self._changed = sorted(self._changed), set()
        return [self.buckets[number].encoded(number) for number in changed]

    def _bucket(self, number: int) -> Bucket:
        self._changed.add(number)
        bucket = self.buckets.get(number)
        if bucket is None:
            bucket = self.buckets[number] = Bucket()
        return bucket


def bin_of(seconds: float) -> int:
    """Return the bin of a time."""
    return 0 if seconds <= BIN_SECONDS else min(_LAST_BIN, int(math.log(seconds / BIN_SECONDS) / _LOG_GROWTH))


class Sums:
    """Buckets of all processes, added.

    A bucket comes again whenever it has changed; the last one from a process counts.
    """

    def __init__(self) -> None:
        self._parts: dict[int, dict[str, Encoded]] = {}
        self._changed: set[int] = set()

    def put(self, process: str, buckets: Iterable[Encoded]) -> None:
        """Take buckets of a process."""
        for bucket in buckets:
            self._parts.setdefault(bucket[0], {})[process] = bucket
            self._changed.add(bucket[0])
        while len(self._parts) > BUCKETS:
            oldest = min(self._parts)
            del self._parts[oldest]
            self._changed.discard(oldest)

    def all(self) -> list[Encoded]:
        """Return the sums."""
        return [self._sum(number) for number in sorted(self._parts)]

    def changed(self) -> list[Encoded]:
        """Return those that have changed since the last call."""
        changed, self._changed = sorted(self._changed), set()
        return [self._sum(number) for number in changed]

    def _sum(self, number: int) -> Encoded:
        parts = list(self._parts[number].values())
        if len(parts) == 1:
            return parts[0]
        bins: dict[int, int] = {}
        for part in parts:
            for index, count in part[5].items():
                bins[index] = bins.get(index, 0) + count
        return (
            number,
            sum(part[1] for part in parts),
            sum(part[2] for part in parts),
            sum(part[3] for part in parts),
            sum(part[4] for part in parts),
            bins,
        )
