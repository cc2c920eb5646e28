"""Orphan: a converted call that goes on without its client, and waits for a retry with its result."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from stream_proxy.errors import APIError
from stream_proxy.http.headers import RawHeader
from stream_proxy.request_log import Outcome
from stream_proxy.transport.timers import Timeout
from stream_proxy.waiting.identity import Identity
from stream_proxy.waiting.orphans import Orphans


@dataclass(frozen=True)
class Result:
    """What a call came to: a response in pieces, or an error of ours with the upstream's fields."""

    status: int
    reason: bytes | None
    headers: list[RawHeader]
    pieces: list[bytes]
    error: APIError | None = None

    @property
    def size(self) -> int:
        """Bytes of the fields and the body."""
        body = sum(map(len, self.pieces)) if self.error is None else len(self.error.envelope())
        return body + sum(len(name) + len(value) for name, value in self.headers)


class Joiner(Protocol):
    """Retry that waits for an orphan's result."""

    def resumed(self, result: Result) -> None:
        """Take the result."""


class Orphan:
    """Answer of a converted call to nobody, in the place of a heartbeat.

    It ends when a retry has its result, when it expires, or when it is too large. While a retry waits for it,
    it is a running call like any other, and goes on even if nothing is to be kept any more.

    :param identity: what a retry has to repeat.
    :param register: counts it.
    :param seconds: how long it waits for a retry.
    :param held: the bytes that the call holds already.
    :param give_up: ends the call.
    """

    #: There is no head to relay a response with: it is collected, whatever it is.
    begun = True
    sent = 0

    def __init__(
        self,
        clock: IReactorTime,
        identity: Identity,
        register: Orphans[Orphan],
        seconds: float,
        held: int,
        give_up: Callable[[], None],
    ) -> None:
        self.identity = identity
        self._register = register
        self._seconds = seconds
        self._give_up: Callable[[], None] | None = give_up
        self._held = 0
        self._result: Result | None = None
        self._joiner: Joiner | None = None
        self._timeout = Timeout(clock)
        register.add(self)
        self._timeout.start(seconds, self._expire)
        self.grew(held)

    @property
    def free(self) -> bool:
        """Whether no retry has joined it."""
        return self._joiner is None

    @property
    def failed(self) -> bool:
        """Whether an error is all that it has come to."""
        return self._result is not None and self._result.status >= 400

    # For the retry

    def join(self, joiner: Joiner) -> None:
        """Give `joiner` the result as soon as there is one, which may be before this returns."""
        self._register.grew(-self._held)
        self._joiner = joiner
        self._timeout.stop()
        if self._result is not None:
            joiner.resumed(self._result)

    def part(self) -> None:
        """Wait for the next retry: the one that had joined has left, too."""
        self._joiner = None
        if self not in self._register:
            self._register.grew(self._held)
            self.end()
        elif self._register.grew(self._held):
            self._timeout.start(self._seconds, self._expire)
        else:
            self._expire()

    def end(self) -> None:
        """End without a trace: its result was taken, or is not wanted any more."""
        self._timeout.stop()
        self._register.remove(self)
        if self.free:
            self._register.grew(-self._held)
        self._held = 0
        self._result = self._joiner = None
        give_up, self._give_up = self._give_up, None
        if give_up is not None:
            give_up()

    def _expire(self) -> None:
        self._register.note_expired(self.identity)
        self.end()

    # For the call

    def grew(self, count: int) -> None:
        """Count what the call holds, and end it if that is too much."""
        if self._give_up is None:
            return
        self._held += count
        if self.free and not self._register.grew(count):
            self._expire()

    def respond(self, status: int, reason: bytes | None, headers: Iterable[RawHeader], body: bytes) -> None:
        """Keep a response."""
        self.keep(Result(status, reason, list(headers), [body]))

    def respond_in_pieces(
        self,
        status: int,
        reason: bytes | None,
        headers: Iterable[RawHeader],
        pieces: list[bytes],
        whole: Callable[[], None],
    ) -> None:
        """Keep a large response."""
        self.keep(Result(status, reason, list(headers), pieces))
        whole()

    def fail(self, error: APIError, headers: Iterable[RawHeader]) -> None:
        """Keep an error."""
        self.keep(Result(error.status, None, list(headers), [], error))

    def stop(self) -> None:
        """Do nothing: what is kept outlives the call."""

    def amended(self, outcome: Outcome) -> Outcome:
        """Return `outcome` as it is."""
        return outcome

    def keep(self, result: Result) -> None:
        """Keep what the call came to."""
        if self._give_up is None:
            return
        self._give_up = None  # the call ends by itself
        self._result = result
        size = result.size
        more, self._held = size - self._held, size
        if self._joiner is not None:
            self._joiner.resumed(result)
        elif not self._register.grew(more):
            self._expire()
