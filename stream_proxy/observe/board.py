"""Board of what viewers see: a snapshot for who comes, then batches of what has changed. Sans-I/O.

A batch has the rows that appeared (whole) or changed (their ``id`` and what changed), the ids of those that
are gone, and the requests that have ended since. All of it is bounded, whatever there is to show.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

import msgspec

from stream_proxy.observe.figures import Encoded, Sums
from stream_proxy.observe.ledger import RECENT
from stream_proxy.observe.rows import Row

#: The most requests under way that are shown: half of them the oldest, half the newest.
MOST_LIVE = 200
#: The most ended requests in one batch, the latest.
MOST_ENDED = 100


class Board:
    """Rows of one process, or of several whose ids differ."""

    def __init__(self, most_live: int = MOST_LIVE) -> None:
        self.live: dict[str, Row] = {}
        self.recent: deque[Row] = deque(maxlen=RECENT)
        self.sums = Sums()
        #: The state of the service, if whoever shows the board tells it.
        self.state: Row | None = None
        #: Viewers need a new snapshot.
        self.renewed = False
        self._most_live = most_live
        self._patches: dict[str, Row] = {}
        self._ended: deque[Row] = deque(maxlen=MOST_ENDED)
        self._shown: Collection[str] = frozenset()
        #: How many requests are under way, by process.
        self._counts: dict[str, int] = {}
        self._last: tuple[int, Row | None] = (0, None)

    def put(self, name: str, fields: Row) -> None:
        """Show a request, or what of it may have changed."""
        row = self.live.get(name)
        if row is None:
            self.live[name] = {
                "id": name,
                **{key: value for key, value in fields.items() if value is not None},
            }
            return
        patch = {key: value for key, value in fields.items() if row.get(key) != value}
        if patch:
            row.update(patch)
            self._patches.setdefault(name, {}).update(patch)

    def drop(self, name: str) -> None:
        """Show a request no longer."""
        self.live.pop(name, None)
        self._patches.pop(name, None)

    def end(self, row: Row) -> None:
        """Show a request that has ended."""
        self.recent.append(row)
        self._ended.append(row)

    def merge(self, rows: list[Row]) -> None:
        """Show further requests that ended before, for which viewers need a new snapshot."""
        known = {row["id"] for row in self.recent}
        new = [row for row in rows if row["id"] not in known]
        if new:
            self.recent = deque(sorted([*self.recent, *new], key=lambda row: row["ended"]), maxlen=RECENT)
            self.renewed = True

    def count(self, process: str, flight: int | None) -> None:
        """Note how many requests are under way in a process; ``None`` if it is gone."""
        if flight is None:
            self._counts.pop(process, None)
        else:
            self._counts[process] = flight

    def figures(self, process: str, buckets: Iterable[Encoded]) -> None:
        """Take the figures of a process that have changed."""
        self.sums.put(process, buckets)

    @property
    def flight(self) -> int:
        """How many requests are under way."""
        return sum(self._counts.values())

    def batch(self, now: float) -> bytes | None:
        """Return what has changed since the last batch, as JSON; ``None`` if nothing has."""
        chosen = self._chosen()
        patches, self._patches = self._patches, {}
        upsert = []
        for name in chosen:
            if name not in self._shown:
                upsert.append(self.live[name])
            elif name in patches:
                upsert.append({"id": name, **patches[name]})
        remove = [name for name in self._shown if name not in chosen]
        self._shown = chosen
        ended, self._ended = list(self._ended), deque(maxlen=MOST_ENDED)
        figures = self.sums.changed()
        last, self._last = self._last, (self.flight, self.state)
        if not (upsert or remove or ended or figures) and last == self._last:
            return None
        batch: Row = {"time": now, "flight": self.flight, "state": self.state}
        for name, value in (("upsert", upsert), ("remove", remove), ("ended", ended), ("figures", figures)):
            if value:
                batch[name] = value
        return msgspec.json.encode(batch)

    def snapshot(self, now: float) -> bytes:
        """Return all that is shown since the last batch, as JSON."""
        return msgspec.json.encode(
            {
                "time": now,
                "flight": self.flight,
                "state": self.state,
                "live": [self.live[name] for name in self._shown if name in self.live],
                "recent": list(self.recent),
                "figures": self.sums.all(),
            }
        )

    def _chosen(self) -> Collection[str]:
        if len(self.live) <= self._most_live:
            return dict.fromkeys(self.live)
        by_age = sorted(self.live, key=lambda name: self.live[name]["began"])
        half = self._most_live // 2
        return dict.fromkeys([*by_age[:half], *by_age[half - self._most_live :]])
