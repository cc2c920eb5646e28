"""Requests of this process, shown on a board."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain, islice

import msgspec
from twisted.internet.defer import Deferred, succeed

from stream_proxy.observe.board import MOST_ENDED, MOST_LIVE, Board
from stream_proxy.observe.capture.secrets import Secrets
from stream_proxy.observe.figures import Figures
from stream_proxy.observe.ledger import Ledger
from stream_proxy.observe.record import Record
from stream_proxy.observe.rows import details, ended, fixed, moving

#: The name of this process among those that a board shows.
_OWN = ""
_NUMBER = re.compile(r"[0-9]{1,19}")


class LocalSource:
    """The ledger of this process.

    :param known: returns the values that are secrets wherever they stand.
    """

    def __init__(self, ledger: Ledger, known: Callable[[], Secrets] = Secrets) -> None:
        self._ledger = ledger
        self._known = known
        self._board: Board | None = None
        self._figures: Figures | None = None
        #: Those on the board.
        self._shown: set[int] = set()
        self._done: deque[Record] = deque(maxlen=MOST_ENDED)

    def start(self, board: Board) -> None:
        """Begin to show requests on `board`."""
        ledger = self._ledger
        self._board = board
        self._figures = Figures([*ledger.recent, *ledger.live.values()], ledger.seconds())
        for record in ledger.recent:
            board.end(_ended(record))
        ledger.ended_hooks.append(self._has_ended)

    def stop(self) -> None:
        """Collect nothing more."""
        self._ledger.ended_hooks.remove(self._has_ended)
        self._board = self._figures = None
        self._shown.clear()
        self._done.clear()

    def poll(self) -> None:
        """Bring the board up to date."""
        board, figures, live = self._board, self._figures, self._ledger.live
        assert board is not None and figures is not None
        shown = set()
        for record in _chosen(live):
            number = record.number
            shown.add(number)
            fields = moving(record)
            board.put(str(number), fields if number in self._shown else fixed(record) | fields)
        for number in self._shown - shown:
            board.drop(str(number))
        self._shown = shown
        for record in self._done:
            board.end(_ended(record))
        self._done.clear()
        figures.tick(self._ledger.seconds(), len(live))
        board.count(_OWN, len(live))
        board.figures(_OWN, figures.changed())

    def details(self, name: str) -> Deferred[bytes | None]:
        """Return all about a request, as JSON; ``None`` if it is not known."""
        record = self._find(name)
        if record is None:
            return succeed(None)
        known = self._known()
        return succeed(known.blanked(msgspec.json.encode({"id": name, **details(record, known)})))

    def cancel(self, name: str) -> Deferred[bytes | None]:
        """Cancel a request, and return a word about that as JSON; ``None`` if it is not under way."""
        record = self._find(name)
        if record is None or record.cancel is None:
            return succeed(None)
        record.cancel()
        return succeed(b'{"cancelled":true}')

    def _has_ended(self, record: Record) -> None:
        assert self._figures is not None
        self._figures.add(record)
        self._done.append(record)

    def _find(self, name: str) -> Record | None:
        if not _NUMBER.fullmatch(name):
            return None
        number = int(name)
        live = self._ledger.live.get(number)
        return live or next((each for each in reversed(self._ledger.recent) if each.number == number), None)


def _ended(record: Record) -> dict[str, object]:
    return {"id": str(record.number), **ended(record)}


def _chosen(live: dict[int, Record]) -> Iterable[Record]:
    """Return the oldest and the newest, if there are too many to look at all."""
    if len(live) <= MOST_LIVE:
        return live.values()
    half = MOST_LIVE // 2
    return chain(islice(live.values(), half), islice(reversed(live.values()), MOST_LIVE - half))
