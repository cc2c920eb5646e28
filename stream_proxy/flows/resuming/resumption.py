"""Resumption: what is kept of lost calls for their retries, and what is told from them."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from stream_proxy.flows.exchange import Exchange
from stream_proxy.flows.resuming.joining import KnownResult, Source
from stream_proxy.flows.resuming.orphan import Orphan, Result
from stream_proxy.http.body_pieces import BodyPieces
from stream_proxy.limits import RESUME_MAX_BYTES, RESUME_MAX_CALLS
from stream_proxy.transport.timers import Timeout
from stream_proxy.waiting.identity import Identifier, Identity, says_retry
from stream_proxy.waiting.late_errors import MOST_ERROR_BYTES, MOST_LATE_ERRORS, is_lasting
from stream_proxy.waiting.orphans import Orphans
from stream_proxy.waiting.recent import Recent

#: Bytes of a body that are hashed in one turn of the reactor: some milliseconds.
_STEP_BYTES = 2**20


class LostCalls:
    """Orphans and late errors of a process.

    :param clock: the reactor.
    :param most: how many orphans there may be.
    :param most_bytes: how much they may hold together.
    """

    def __init__(
        self, clock: IReactorTime, most: int = RESUME_MAX_CALLS, most_bytes: int = RESUME_MAX_BYTES
    ) -> None:
        self.clock = clock
        self.orphans: Orphans[Orphan] = Orphans(most, most_bytes, clock.seconds)
        self.late_errors: Recent[Result] = Recent(clock.seconds, MOST_LATE_ERRORS)
        #: The sockets of other processes that keep a call, by its digest.
        self.elsewhere: dict[bytes, str] = {}
        self._hashing: set[_Hashing] = set()

    def forget(self) -> None:
        """End all orphans, and forget all errors."""
        self.orphans.end_all()
        self.late_errors.clear()
        for hashing in self._hashing:
            hashing.stop()
        self._hashing.clear()

    def reload(self, most: int, most_bytes: int) -> None:
        """Do the same, and keep so many, and so much, from now on."""
        self.forget()
        self.orphans.most, self.orphans.most_bytes = most, most_bytes

    def close(self) -> None:
        """Do the same, and keep nothing any more."""
        self.forget()
        self.orphans.close()

    def find(self, identity: Identity) -> Source | None:
        """Return where the answer to a retry comes from, if it is here."""
        error = self.late_errors.find(identity)
        return KnownResult(error) if error is not None else self.orphans.find(identity)

    def keep_error(self, identity: Identity | None, hash_: Callable[[], _Hashing], error: Result) -> None:
        """Keep an error that went out without its status, if it would only come again.

        :param identity: the call's, if it is known.
        :param hash_: begins to find it out else.
        """
        if not is_lasting(error.status) or error.size > MOST_ERROR_BYTES:
            return
        if identity is not None:
            self.late_errors.add(identity, error)
            return
        hashing = hash_()
        self._hashing.add(hashing)

        def done(found: Identity) -> None:
            self._hashing.discard(hashing)
            self.late_errors.add(found, error)

        hashing.start(done)


class _Hashing:
    """Identity of a call whose body is in memory, found step by step."""

    def __init__(self, clock: IReactorTime, identifier: Identifier, body: bytes | BodyPieces) -> None:
        self._identifier = identifier
        self._body: bytes | BodyPieces = body
        self._at = 0
        self._timeout = Timeout(clock)
        self._done: Callable[[Identity], None] | None = None

    def start(self, done: Callable[[Identity], None]) -> None:
        """Call `done` with the identity."""
        self._done = done
        self._step()

    def stop(self) -> None:
        """Do not."""
        self._timeout.stop()
        self._done = None
        self._body = b""

    def _step(self) -> None:
        body, at = self._body, self._at
        end = at + _STEP_BYTES
        self._identifier.update(body.read(at, end) if isinstance(body, BodyPieces) else body[at:end])
        self._at = end
        if end < len(body):
            self._timeout.start(0, self._step)
            return
        done, self._done = self._done, None
        if done is not None:
            done(self._identifier.identity())


class CallIdentity:
    """Identity of one call: hashed as its body comes where it is wanted from the start, else when it is.

    :param lost: what is kept of the process's calls.
    :param place: tells the rule from all others that share `lost`.
    :param exchange: the call.
    :param target: its target in origin form.
    """

    def __init__(self, lost: LostCalls, place: str, exchange: Exchange, target: bytes) -> None:
        self._lost = lost
        self._place = place
        self._exchange = exchange
        self._target = target
        self._identifier: Identifier | None = None
        #: The identity, once the body is in and if it was wanted from the start.
        self.known: Identity | None = None
        #: Whether the call repeats one whose answer nobody had fetched in time.
        self.has_expired = False
        if exchange.limits.resume_seconds or (lost.late_errors and says_retry(exchange.fields)):
            self._identifier = self._new()

    def _new(self) -> Identifier:
        exchange = self._exchange
        return Identifier(self._place, exchange.request.method, self._target, exchange.fields)

    @property
    def update(self) -> Callable[[bytes], None] | None:
        """What is called with the pieces of the body as they come, if anything."""
        return self._identifier.update if self._identifier is not None else None

    def settle(self) -> Source | None:
        """Note that the body is in; return where the answer comes from, if not from the upstream."""
        identifier, self._identifier = self._identifier, None
        if identifier is None:
            return None
        self.known = identifier.identity()
        self.has_expired = self._lost.orphans.has_expired(self.known)
        return self._lost.find(self.known)

    @property
    def elsewhere(self) -> str | None:
        """The socket of another process that keeps the answer, if this call says that it is a retry."""
        known = self.known
        if known is None or not self._lost.elsewhere:
            return None
        return self._lost.elsewhere.get(known.digest) if known.is_retry else None

    def leave(self, held: int, result: Result | None, give_up: Callable[[], None]) -> Orphan | None:
        """Return what a call without its client answers to; ``None`` if it is to end.

        :param held: the bytes that it holds.
        :param result: its result, if that is there.
        :param give_up: ends it.
        """
        register, resource = self._lost.orphans, self._exchange.resource
        seconds = resource.limits.resume_seconds
        held = held if result is None else result.size
        if self.known is None or not seconds or resource.closed or not register.admits(self.known, held):
            return None
        orphan = Orphan(self._lost.clock, self.known, register, seconds, held, give_up)
        if result is not None:
            orphan.keep(result)
        return orphan

    def keep_error(self, error: Result, body: bytes | BodyPieces = b"") -> None:
        """Keep an error that the client was sent without its status.

        :param body: the call's, needed where the identity is not known.
        """
        self._lost.keep_error(self.known, lambda: _Hashing(self._lost.clock, self._new(), body), error)
