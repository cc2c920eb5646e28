"""Timer for silence, which every movement restarts."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from stream_proxy.transport.timers import Timeout


class IdleTimer:
    """Timer that calls `expired` after `seconds` without :meth:`touch`, and not again before a further one.

    :param reactor: the clock.
    :param seconds: the longest silence.
    :param expired: called without arguments.
    :param total: seconds from now after which `expired` is called in any case.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        seconds: float,
        expired: Callable[[], None],
        total: float | None = None,
    ) -> None:
        self._reactor = reactor
        self._seconds = seconds
        # Given up when stopped: its owner most often owns this timer, too.
        self._expired: Callable[[], None] | None = expired
        self._end = None if total is None else reactor.seconds() + total
        self._touched = reactor.seconds()
        self._timeout = Timeout(reactor)
        self._timeout.start(self._wait(), expired)

    @property
    def late(self) -> bool:
        """Whether the total time is over, although there was no silence."""
        now = self._reactor.seconds()
        return self._end is not None and now >= self._end and now < self._touched + self._seconds

    def touch(self) -> None:
        """Restart the silence."""
        if self._end is not None:
            self._touched = self._reactor.seconds()
        if self._timeout.running:
            self._timeout.postpone(self._wait())
        elif self._expired is not None:
            self._timeout.start(self._wait(), self._expired)

    def stop(self) -> None:
        """Stop for good."""
        self._expired = None
        self._timeout.stop()

    def _wait(self) -> float:
        if self._end is None:
            return self._seconds
        return max(0.0, min(self._seconds, self._end - self._reactor.seconds()))
