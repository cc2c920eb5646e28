"""Timer for silence, which every movement restarts."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class IdleTimer:
    """Timer that calls `expired` after `seconds` without :meth:`touch`, and not again before a further one.

    Every piece of every body is a movement, so that one is only noted. The delayed call stays where it is
    and, when it comes, waits for what is left.

    :param reactor: the clock.
    :param seconds: the longest silence.
    :param expired: called without arguments.
    :param total: seconds from now after which `expired` is called in any case.
    """

    __slots__ = ("_call", "_clock", "_end", "_expired", "seconds", "touched")

    def __init__(
        self,
        reactor: IReactorTime,
        seconds: float,
        expired: Callable[[], None],
        total: float | None = None,
    ) -> None:
        self._clock = reactor
        #: The longest silence.
        self.seconds = seconds
        # Given up when stopped: its owner most often owns this timer, too.
        self._expired: Callable[[], None] | None = expired
        #: When something moved last.
        self.touched = reactor.seconds()
        self._end = None if total is None else self.touched + total
        # Without a Timeout: each request has such a timer, and each piece of a body touches it.
        self._call: IDelayedCall | None = None
        self._wait(seconds)

    @property
    def late(self) -> bool:
        """Whether the total time is over, although there was no silence."""
        now = self._clock.seconds()
        return self._end is not None and now >= self._end and now < self.touched + self.seconds

    def touch(self) -> float:
        """Restart the silence, and return the present time."""
        now = self.touched = self._clock.seconds()
        if self._call is None and self._expired is not None:
            self._wait(self.seconds)
        return now

    def stop(self) -> None:
        """Stop for good."""
        self._expired = None
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _wait(self, seconds: float) -> None:
        if self._end is not None:
            seconds = max(0.0, min(seconds, self._end - self._clock.seconds()))
        self._call = self._clock.callLater(seconds, self._look)

    def _look(self) -> None:
        """Expire if nothing moved for so long, or if the total time is over."""
        self._call = None
        now = self._clock.seconds()
        left = self.touched + self.seconds - now
        if left > 0 and (self._end is None or now < self._end):
            self._wait(left)
        elif self._expired is not None:
            self._expired()
