"""One timer that is pushed forward."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class IdleTimer:
    """Calls `expired` once, when `seconds` have passed without :meth:`touch`.

    :param reactor: where the time comes from.
    :param seconds: the longest silence.
    :param expired: called without arguments.
    """

    def __init__(self, reactor: IReactorTime, seconds: float, expired: Callable[[], None]) -> None:
        self._seconds = seconds
        self._expired = expired
        self._call: IDelayedCall | None = reactor.callLater(seconds, self._expire)

    def touch(self) -> None:
        """Something moved: the silence starts anew."""
        if self._call is not None:
            self._call.reset(self._seconds)

    def stop(self) -> None:
        """No longer wait."""
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()

    def _expire(self) -> None:
        self._call = None
        self._expired()
