"""Clock of content: limits on the time to the first event with content, and between two of them.

Comments and pings keep a connection alive, and `timeoutSeconds` with it; these limits see through them.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, proxy_error
from stream_proxy.limits import Limits
from stream_proxy.transport.idle_timer import IdleTimer
from stream_proxy.transport.timers import Timeout


class ContentClock:
    """Limits of one call.

    :param clock: the reactor.
    :param limits: those of the rule, at least one of which is set.
    :param expired: called with the error when a limit is exceeded.
    """

    def __init__(self, clock: IReactorTime, limits: Limits, expired: Callable[[APIError], None]) -> None:
        self._clock = clock
        self._first, self._between = limits.first_event_seconds, limits.stalled_seconds
        self._expired: Callable[[APIError], None] | None = expired
        self._until_first = Timeout(clock)
        self._idle: IdleTimer | None = None
        self._events = 0

    def start(self, elapsed: float = 0.0) -> None:
        """Wait for the first event of a request that was sent so many seconds ago."""
        self._stop()
        self._events = 0
        if self._first:
            self._until_first.start(max(self._first - elapsed, 0.0), self._nothing)

    def count(self, events: int) -> None:
        """Note a number that rises with the events that have content."""
        if events > self._events:
            self._events = events
            self.heard()

    def heard(self) -> None:
        """Note an event with content, or whatever else the upstream may not be blamed for."""
        self._until_first.stop()
        if self._idle is not None:
            self._idle.touch()
        elif self._between:
            self._idle = IdleTimer(self._clock, self._between, self._stalled)

    def stop(self) -> None:
        """Stop for good."""
        self._stop()
        self._expired = None

    def _stop(self) -> None:
        self._until_first.stop()
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.stop()

    def _nothing(self) -> None:
        self._tell(f"The upstream sent no content within {self._first:g} seconds", "firstEventSeconds")

    def _stalled(self) -> None:
        self._tell(f"The upstream sent no more content for {self._between:g} seconds", "stalledSeconds")

    def _tell(self, what: str, setting: str) -> None:
        expired = self._expired
        if expired is not None:
            expired(proxy_error(ErrorCode.UPSTREAM_STALLED, f"{what}; try again, or raise {setting}."))
