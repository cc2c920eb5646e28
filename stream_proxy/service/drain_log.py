"""Progress of a drain in the log: how many requests a process that stops still has."""

from __future__ import annotations

import os

from twisted.internet.interfaces import IReactorTime

from stream_proxy.observe.record import Record
from stream_proxy.request_log import RequestLog
from stream_proxy.transport.timers import Timeout

#: Seconds between two entries.
PROGRESS_SECONDS = 5.0


class DrainLog:
    """Context of a drain, with entries about the requests that are open, from its begin to its end.

    :param live: the requests, which go as they end.
    """

    def __init__(self, clock: IReactorTime, log: RequestLog, live: dict[int, Record]) -> None:
        self._clock = clock
        self._log = log
        self._live = live
        self._timeout = Timeout(clock)

    def __enter__(self) -> None:
        self._log.info(f"process {os.getpid()} stops; open: {self._open()}")
        self._timeout.start(PROGRESS_SECONDS, self._tell)

    def __exit__(self, *exception: object) -> None:
        self._timeout.stop()

    def _tell(self) -> None:
        self._timeout.start(PROGRESS_SECONDS, self._tell)
        if self._live:
            age = self._clock.seconds() - min(record.began for record in self._live.values())
            self._log.info(f"process {os.getpid()} stops; open: {self._open()}, the oldest for {age:.0f} s")

    def _open(self) -> str:
        sessions = sum(record.mode == "websocket" for record in self._live.values())
        requests = len(self._live) - sessions
        words = "1 request" if requests == 1 else f"{requests} requests"
        if not sessions:
            return words
        return f"{words}, {sessions} WebSocket{'s' if sessions > 1 else ''}"
