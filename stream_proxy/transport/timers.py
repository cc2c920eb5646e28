"""Delayed calls that can be restarted and stopped at any time."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Timeout:
    """At most one delayed call, which holds no reference to anything once it has been made or stopped.

    :param clock: the reactor.
    """

    __slots__ = ("_call", "_clock")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._call: IDelayedCall | None = None

    @property
    def running(self) -> bool:
        """Whether the call is still to come."""
        return self._call is not None

    def start(self, seconds: float, function: Callable[[], object]) -> None:
        """Call `function` after so many seconds; a call that was still to come is replaced."""
        self.stop()
        self._call = self._clock.callLater(seconds, self._fire, function)

    def stop(self) -> None:
        """Do not make the call."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _fire(self, function: Callable[[], object]) -> None:
        self._call = None
        function()
