"""Collection of a whole request body, within limits of size, silence and time."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from stream_proxy.downstream.request_body import BodyTooLargeError, RequestBody
from stream_proxy.errors import APIError, body_too_large, body_too_slow, upload_stalled
from stream_proxy.limits import Limits
from stream_proxy.transport.idle_timer import IdleTimer


class BodyCollection:
    """One body on its way into memory.

    :param body: the body.
    :param limits: those of the rule.
    :param collected: called with the whole body.
    :param failed: called with an :class:`APIError` for a body beyond a limit, or with a bug of `collected`.
    """

    def __init__(
        self,
        clock: IReactorTime,
        body: RequestBody,
        limits: Limits,
        collected: Callable[[bytes], None],
        failed: Callable[[Failure], None],
    ) -> None:
        self._body = body
        self._limits = limits
        self._collected = collected
        self._failed = failed
        self._timer = IdleTimer(clock, limits.timeout_seconds, self._stalled, limits.request_body_seconds)
        self._collecting: Deferred[bytes] | None = None

    def start(self) -> None:
        """Collect; the body may be whole already."""
        self._body.touched = self._timer.touch
        collecting = self._collecting = self._body.collect(self._limits.max_request_bytes)
        collecting.addCallback(self._whole).addErrback(self._not_collected)

    def stop(self) -> None:
        """Collect no more."""
        self._timer.stop()
        self._body.touched = None
        collecting, self._collecting = self._collecting, None
        if collecting is not None:
            collecting.cancel()

    def _whole(self, data: bytes) -> None:
        self.stop()
        self._collected(data)

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
