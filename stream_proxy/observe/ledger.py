"""Ledger of a process: the requests under way, and the last that have ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import count
from typing import Protocol

from stream_proxy.http.headers import RawHeader
from stream_proxy.observe.capturing import ExchangeCapture
from stream_proxy.observe.record import Record

#: How many finished requests are kept.
RECENT = 500


class RequestCapture(Protocol):
    """Something that wants requests captured."""

    def begin(
        self, record: Record, target: bytes, version: bytes, fields: Iterable[RawHeader], origin: str
    ) -> ExchangeCapture:
        """Return the capture of a request whose head is in.

        :param target: of the request, as it came.
        :param version: of HTTP.
        :param fields: the header fields.
        :param origin: the upstream's.
        """


class Ledger:
    """Records of all rules of a process.

    :param seconds: the reactor's clock.
    :param watches: answers that are passed on are looked at for their tokens and their first content.
    :param keeps: there is somebody who may look at requests that have ended.
    """

    def __init__(self, seconds: Callable[[], float], *, watches: bool = True, keeps: bool = True) -> None:
        self.seconds = seconds
        self.watches = watches
        self.keeps = keeps
        #: The requests under way, by number.
        self.live: dict[int, Record] = {}
        #: The last that have ended, the latest at the end.
        self.recent: deque[Record] = deque(maxlen=RECENT)
        #: Called with each record that has ended.
        self.ended_hooks: list[Callable[[Record], None]] = []
        #: Whoever wants the next request captured.
        self.capture: RequestCapture | None = None
        #: Called with what :meth:`count` is.
        self.count_hooks: list[Callable[[str, str, str], None]] = []
        self._numbers = count(1)

    def begin(self, rule: str) -> Record:
        """Return the record of a request that begins."""
        number = next(self._numbers)
        record = self.live[number] = Record(number, rule, self.seconds())
        return record

    def count(self, family: str, rule: str, label: str) -> None:
        """Count something that happens outside of a request.

        :param family: the name of a counter among the metrics, whose labels are a rule and one other.
        """
        for hook in self.count_hooks:
            hook(family, rule, label)

    def end(self, record: Record) -> None:
        """Note the end of a request; what it held is let go."""
        record.ended = self.seconds()
        record.refresh()
        record.silence = record.upload = record.cancel = record.recount = None
        if record.capture is not None:
            record.capture.end()
            record.capture = None
        self.live.pop(record.number, None)
        if self.keeps:
            self.recent.append(record)
        for hook in self.ended_hooks:
            hook(record)
