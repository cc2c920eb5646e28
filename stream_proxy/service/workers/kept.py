"""Calls that workers keep without their clients: which worker has which, as the others are told."""

from __future__ import annotations

from collections.abc import Callable

from stream_proxy.service.metrics.figures import Figures
from stream_proxy.service.metrics.gathering import WorkerFigures
from stream_proxy.service.workers.messages import Command, Kept, KeptHere


class KeptCalls:
    """Table of the parent: the calls that each worker keeps, by digest.

    :param path: returns the socket on which a worker gives answers away, by its number from 1 on.
    """

    def __init__(self, path: Callable[[int], str | None]) -> None:
        self._path = path
        self._kept: dict[int, set[bytes]] = {}
        #: Sends a command to each worker, by number.
        self.workers: dict[int, Callable[[Command], None]] = {}

    def told(self, number: int, news: KeptHere) -> None:
        """Note what a worker keeps now, or does not any more, and tell the others."""
        digests = self._kept.setdefault(number, set())
        (digests.add if news.there else digests.discard)(news.digest)
        self._tell(number, Kept(self._path(number) or "", (news.digest,), news.there))

    def ready(self, number: int) -> None:
        """Tell a new process what the others keep."""
        for other, digests in self._kept.items():
            if other != number and digests:
                self.workers[number](Kept(self._path(other) or "", tuple(digests), True))

    def ended(self, number: int) -> None:
        """Tell the others that what a process kept is gone with it."""
        digests = self._kept.pop(number, set())
        if digests:
            self._tell(number, Kept(self._path(number) or "", tuple(digests), False))

    def _tell(self, number: int, news: Kept) -> None:
        for other, send in self.workers.items():
            if other != number:
                send(news)


class WorkerNews:
    """What a worker's processes tell beside their log.

    :param number: the worker's, from 1 on.
    """

    def __init__(self, number: int, figures: WorkerFigures, kept: KeptCalls) -> None:
        self._number = number
        self._figures = figures
        self._kept = kept

    def take(self, record: Figures | KeptHere) -> None:
        """Take a record."""
        if isinstance(record, KeptHere):
            self._kept.told(self._number, record)
        else:
            self._figures.take(record)

    def started(self, pid: int) -> None:
        """Note a new process."""
        self._figures.started(pid)

    def ready(self) -> None:
        """Note that it serves."""
        self._kept.ready(self._number)

    def ended(self, *, replaced: bool) -> None:
        """Note that it has ended."""
        self._figures.ended(replaced=replaced)
        self._kept.ended(self._number)
