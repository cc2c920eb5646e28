"""Timer for silence, which every movement restarts."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from stream_proxy.transport.timers import Timeout


class IdleTimer:
    """Timer that calls `expired` after `seconds` without :meth:`touch`, and not again before a further one.

    Every piece of every body is a movement, so that one is only noted. The delayed call stays where it is
    and, when it comes, waits for what is left.

    :param reactor: the clock.
    :param seconds: the longest silence.
    :param expired: called without arguments.
    :param total: seconds from now after which `expired` is called in any case.
    """

    __slots__ = ("_clock", "_end", "_expired", "_seconds", "_timeout", "_touched")

    def __init__(
        self,
        reactor: IReactorTime,
        seconds: float,
        expired: Callable[[], None],
        total: float | None = None,
    ) -> None:
        self._clock = reactor
        self._seconds = seconds
        # Given up when stopped: its owner most often owns this timer, too.
        self._expired: Callable[[], None] | None = expired
        self._touched = reactor.seconds()
        self._end = None if total is None else self._touched + total
        self._timeout = Timeout(reactor)
        self._wait(seconds)

    @property
    def late(self) -> bool:
        """Whether the total time is over, although there was no silence."""
        now = self._clock.seconds()
        return self._end is not None and now >= self._end and now < self._touched + self._seconds

    def touch(self) -> None:
        """Restart the silence."""
        self._touched = self._clock.seconds()
        if not self._timeout.running and self._expired is not None:
            self._wait(self._seconds)

    def stop(self) -> None:
        """Stop for good."""
        self._expired = None
        self._timeout.stop()

    def _wait(self, seconds: float) -> None:
        if self._end is not None:
            seconds = max(0.0, min(seconds, self._end - self._clock.seconds()))
        self._timeout.start(seconds, self._look)

    def _look(self) -> None:
        """Expire if nothing moved for so long, or if the total time is over."""
        now = self._clock.seconds()
        left = self._touched + self._seconds - now
        if left > 0 and (self._end is None or now < self._end):
            self._wait(left)
        elif self._expired is not None:
            self._expired()
