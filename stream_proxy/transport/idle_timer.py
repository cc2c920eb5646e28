"""One timer that is pushed forward."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class IdleTimer:
    """Calls `expired` when `seconds` have passed without :meth:`touch`, and only once without another.

    :param reactor: where the time comes from.
    :param seconds: the longest silence.
    :param expired: called without arguments.
    :param total: so many seconds from now it is called in any case.
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
        self._expired: Callable[[], None] | None = expired
        self._end = None if total is None else reactor.seconds() + total
        self._touched = reactor.seconds()
        self._call: IDelayedCall | None = reactor.callLater(self._wait(), self._expire)

    @property
    def late(self) -> bool:
        """Whether the total time is over, although there was no silence."""
        now = self._reactor.seconds()
        return self._end is not None and now >= self._end and now < self._touched + self._seconds

    def touch(self) -> None:
        """Something moved: the silence starts anew."""
        if self._end is not None:
            self._touched = self._reactor.seconds()
        if self._call is not None:
            self._call.reset(self._wait())
        elif self._expired is not None:
            self._call = self._reactor.callLater(self._wait(), self._expire)

    def stop(self) -> None:
        """No longer wait."""
        self._expired = None  # whoever waits may hold this timer
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()

    def _wait(self) -> float:
        if self._end is None:
            return self._seconds
        return max(0.0, min(self._seconds, self._end - self._reactor.seconds()))

    def _expire(self) -> None:
        self._call = None
        if self._expired is not None:
            self._expired()
