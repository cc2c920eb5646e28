"""Time limits of a client connection: how long it may be idle, and how long a head may take."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from stream_proxy.transport.timers import Timeout
from stream_proxy.transport.tuning import handshake_done, has_handshake

#: Time that is no longer worth waiting for: sums of seconds are not exact.
_NOTHING_SECONDS = 0.001


class IdleLimit:
    """Limit of the time without a byte from the client.

    It changes with each request, so its delayed call is left as it is and finds out when it comes whether it
    is still due.

    :param clock: the reactor.
    :param expired: called when the time is over.
    """

    __slots__ = ("_clock", "_due", "_expired", "_look_later", "_seconds", "_since")

    def __init__(self, clock: IReactorTime, expired: Callable[[], None]) -> None:
        self._clock = clock
        self._expired: Callable[[], None] | None = expired
        self._seconds: float | None = None
        self._since = 0.0
        self._look_later = Timeout(clock)
        self._due = 0.0

    def set(self, seconds: float | None) -> None:
        """Begin to count anew; ``None``: there is no limit for now."""
        self._seconds = seconds
        if seconds is None or self._expired is None:
            return
        self._since = self._clock.seconds()
        if not self._look_later.running or self._due > self._since + seconds:
            self._wait(seconds)

    def touch(self) -> None:
        """Note that something came."""
        self._since = self._clock.seconds()

    def stop(self) -> None:
        """Stop for good."""
        self._expired = None
        self._look_later.stop()

    def _wait(self, seconds: float) -> None:
        self._due = self._clock.seconds() + seconds
        self._look_later.start(seconds, self._look)

    def _look(self) -> None:
        if self._seconds is None or self._expired is None:
            return
        left = self._since + self._seconds - self._clock.seconds()
        if left > _NOTHING_SECONDS:
            self._wait(left)
        else:
            self._expired()


class HeadLimit:
    """Limits of the time of a head that has begun, and of the TLS handshake before the first one.

    A head that comes in one piece needs no delayed call.

    :param clock: the reactor.
    """

    __slots__ = ("_handshake", "_head")

    def __init__(self, clock: IReactorTime) -> None:
        self._head = Timeout(clock)
        self._handshake = Timeout(clock)

    def handshake(self, transport: object, seconds: float, late: Callable[[], None]) -> None:
        """Call `late` if the handshake of `transport`, if it has one, takes longer than `seconds`."""
        if has_handshake(transport):
            self._handshake.start(seconds, lambda: None if handshake_done(transport) else late())

    def begin(self, seconds: float, late: Callable[[], None]) -> None:
        """Call `late` if the head that has begun, if no call has told yet, takes longer than `seconds`."""
        if not self._head.running:
            self._head.start(seconds, late)

    def end(self) -> None:
        """Note that the head is over."""
        self._head.stop()

    def stop(self) -> None:
        """Stop for good."""
        self._head.stop()
        self._handshake.stop()
