"""Collection of a whole request body, within limits of size, silence and time."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, Protocol, TypeAlias, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request

from stream_proxy.downstream.request_body import BodyTooLargeError, RequestBody
from stream_proxy.errors import APIError, body_too_large, body_too_slow, upload_stalled
from stream_proxy.http.body_pieces import BodyPieces
from stream_proxy.http.json_scan import STEP_BYTES, ObjectScan
from stream_proxy.json_bounds import request_too_many_values
from stream_proxy.limits import Limits
from stream_proxy.transport.idle_timer import IdleTimer
from stream_proxy.transport.timers import Timeout

#: What is called with a body: bytes, or if they are many its pieces, and their scan if one is wanted.
Collected: TypeAlias = Callable[[bytes | BodyPieces, ObjectScan | None], None]


class Collection(Protocol):
    """One body on its way into memory."""

    def start(self) -> None:
        """Collect; the body may be whole already."""

    def stop(self) -> None:
        """Collect no more."""


def collection_of(
    request: Request,
    clock: IReactorTime,
    limits: Limits,
    collected: Collected,
    failed: Callable[[Failure], None],
    *,
    scanned: bool,
    update: Callable[[bytes], None] | None,
) -> Collection:
    """Return the collection of the body of `request`; see :class:`BodyCollection`."""
    most = limits.max_request_bytes
    body = getattr(request, "body", None)
    if not isinstance(body, RequestBody):
        spool = cast(BinaryIO, request.content)  # of a foreign site
        return _AtOnce(lambda take: take(spool.read(most + 1)), most, collected, failed, update)
    if body.arrived and body.received <= most:
        return _AtOnce(body.hand_over, most, collected, failed, update)
    return BodyCollection(clock, body, limits, collected, failed, scanned=scanned, update=update)


class _AtOnce:
    """A body that nobody has to wait for: it has come with its head, or somebody else has collected it.

    :param read: calls with it what it is called with, now or in this turn of the reactor.
    :param most: how large it may be.
    """

    __slots__ = ("_collected", "_failed", "_most", "_read", "_update")

    def __init__(
        self,
        read: Callable[[Callable[[bytes], None]], None],
        most: int,
        collected: Collected,
        failed: Callable[[Failure], None],
        update: Callable[[bytes], None] | None,
    ) -> None:
        self._read = read
        self._most = most
        self._collected: Collected | None = collected
        self._failed = failed
        self._update = update

    def start(self) -> None:
        """Take it."""
        self._read(self._whole)

    def stop(self) -> None:
        """Forget it."""
        self._collected = None

    def _whole(self, data: bytes) -> None:
        collected, self._collected = self._collected, None
        if collected is None:
            return
        try:
            if len(data) > self._most:
                raise body_too_large(self._most)
            if self._update is not None:
                self._update(data)
            collected(data, None)
        except Exception:
            self._failed(Failure())


class BodyCollection:
    """One body on its way into memory, looked at as it comes if it is large.

    :param body: the body.
    :param limits: those of the rule.
    :param collected: called with the whole body.
    :param failed: called with an :class:`APIError` for a body beyond a limit, or with a bug of `collected`.
    :param scanned: scan a large body.
    :param update: called with all parts of the body in their order, step by step if it is large and scanned.
    """

    def __init__(
        self,
        clock: IReactorTime,
        body: RequestBody,
        limits: Limits,
        collected: Collected,
        failed: Callable[[Failure], None],
        *,
        scanned: bool,
        update: Callable[[bytes], None] | None = None,
    ) -> None:
        self._update = update
        self._body = body
        self._limits = limits
        self._collected = collected
        self._failed = failed
        self._timer = IdleTimer(clock, limits.timeout_seconds, self._stalled, limits.request_body_seconds)
        self._collecting: Deferred[bytes | BodyPieces] | None = None
        self._clock = clock
        self._is_scanned = scanned
        self._scan: PacedScan | None = None  # small bodies need none

    def start(self) -> None:
        """Collect; the body may be whole already."""
        self._body.touched = self._timer.touch
        came = self._came if self._is_scanned else None
        collecting = self._collecting = self._body.collect(self._limits.max_request_bytes, came)
        collecting.addCallbacks(self._whole, self._not_collected)

    def stop(self) -> None:
        """Collect no more."""
        self._timer.stop()
        self._body.touched = None
        scan, self._scan = self._scan, None
        if scan is not None:
            scan.stop()
        collecting, self._collecting = self._collecting, None
        if collecting is not None:
            collecting.cancel()

    def _came(self, pieces: BodyPieces) -> None:
        self._begun_scan().came(pieces)

    def _whole(self, data: bytes | BodyPieces) -> None:
        try:
            if isinstance(data, bytes) or not self._is_scanned:
                self.stop()
                if self._update is not None:
                    self._update(bytes(data))
                self._collected(data, None)
            else:
                self._timer.stop()
                self._begun_scan().end(data, self._scanned)
        except Exception:
            self._failed(Failure())

    def _begun_scan(self) -> PacedScan:
        if self._scan is None:
            scan = ObjectScan(self._limits.max_request_values)
            self._scan = PacedScan(self._clock, self._body, scan, self._too_many, self._update)
        return self._scan

    def _scanned(self, body: BodyPieces, scan: ObjectScan) -> None:
        self.stop()
        try:
            self._collected(body, scan)
        except Exception:
            self._failed(Failure())

    def _too_many(self) -> None:
        self._failed(Failure(request_too_many_values(self._limits.max_request_values)))

    def _not_collected(self, failure: Failure) -> None:
        if failure.check(BodyTooLargeError):
            self._failed(Failure(body_too_large(self._limits.max_request_bytes)))
        elif not failure.check(CancelledError):
            self._failed(failure)

    def _stalled(self) -> None:
        limits = self._limits
        late = self._timer.late
        error: APIError = (
            body_too_slow(limits.request_body_seconds) if late else upload_stalled(limits.timeout_seconds)
        )
        self._failed(Failure(error))


class PacedScan:
    """Scan of a body while it is collected, a step a turn; the upload waits while the scan is behind.

    :param scan: the scan.
    :param too_many: called when it has found too many values, and goes no further.
    :param update: called with each part that was scanned.
    """

    def __init__(
        self,
        clock: IReactorTime,
        body: RequestBody,
        scan: ObjectScan,
        too_many: Callable[[], None],
        update: Callable[[bytes], None] | None = None,
    ) -> None:
        self._update = update
        self._body = body
        self._scan = scan
        self._too_many = too_many
        self._pieces = BodyPieces()
        self._at = 0
        self._next_turn = Timeout(clock)
        self._paused = False
        self._done: Callable[[BodyPieces, ObjectScan], None] | None = None

    def came(self, pieces: BodyPieces) -> None:
        """Go on with the body so far."""
        self._pieces = pieces
        if not self._next_turn.running:
            self._step()

    def end(self, pieces: BodyPieces, done: Callable[[BodyPieces, ObjectScan], None]) -> None:
        """Go on with the whole body, and call `done` when the scan is complete."""
        self._done = done
        self.came(pieces)

    def stop(self) -> None:
        """Scan no more."""
        self._next_turn.stop()
        self._done = None

    def _step(self) -> None:
        piece = self._pieces.read(self._at, self._at + STEP_BYTES)
        self._at += len(piece)
        self._scan.feed(piece)
        if self._update is not None:
            self._update(piece)
        if self._scan.too_many:
            self._too_many()
        elif self._at < len(self._pieces):
            self._pause(True)
            self._next_turn.start(0, self._step)
        elif self._done is not None:
            self._scan.end()
            self._done(self._pieces, self._scan)
        else:
            self._pause(False)

    def _pause(self, paused: bool) -> None:
        if paused is not self._paused:
            self._paused = paused
            (self._body.pauseProducing if paused else self._body.resumeProducing)()
