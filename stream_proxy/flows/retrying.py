"""Retrying of a request that the upstream did not take, before a byte went to the client."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError
from stream_proxy.flows.exchange import Exchange
from stream_proxy.http.body_pieces import BodyPieces
from stream_proxy.http.headers import RawHeader
from stream_proxy.limits import Limits
from stream_proxy.observe.record import Phase, Record
from stream_proxy.transport.timers import Timeout
from stream_proxy.upstream.response import UpstreamResponse
from stream_proxy.upstream.upload import Outgoing
from stream_proxy.waiting.deadlines import announced_timeout
from stream_proxy.waiting.retrying import Retries

#: Method, target, fields and body of a request.
Asked = tuple[bytes, bytes, list[RawHeader], Outgoing | None]


class RetriedCall(Protocol):
    """Call whose request is sent again."""

    record: Record
    request: Request

    def ask(self, method: bytes, target: bytes, headers: Iterable[RawHeader], body: Outgoing | None) -> None:
        """Send a request."""

    limits: Limits

    def limit(self, seconds: float, expired: Callable[[], None]) -> None:
        """Call `expired` after so many seconds of silence."""

    def silent(self) -> None:
        """End because of silence."""

    def stop_waiting(self) -> None:
        """Take silence for no error from now on."""


class Retrying:
    """Wait for a further attempt, and the request that it will send.

    :param clock: the reactor.
    :param retries: says whether there is a further attempt, and when.
    """

    def __init__(self, clock: IReactorTime, retries: Retries) -> None:
        self._clock = clock
        self._retries = retries
        self._asked: Asked | None = None
        self._timeout = Timeout(clock)

    def asked(
        self, method: bytes, target: bytes, headers: Iterable[RawHeader], body: Outgoing | None
    ) -> Asked:
        """Hold a request that is being sent, and return it."""
        self._asked = method, target, list(headers), body
        return self._asked

    def after_failure(self, call: RetriedCall, error: object) -> bool:
        """Ask again later if no connection could be made, and report that."""
        record = call.record
        # Where a connection was, the upstream may have seen the request.
        if record.phase is not Phase.CONNECTING or not isinstance(error, APIError):
            return False
        # So this is `connectSeconds`, which has the code of a response that does not come.
        timed_out = error.code == ErrorCode.UPSTREAM_TIMEOUT.code
        code = ErrorCode.UPSTREAM_UNREACHABLE.code if timed_out else error.code
        wait = self._retries.after_failure(code, self._elapsed(record))
        return self._wait(call, wait, str(error.code))

    def after_response(self, call: RetriedCall, response: UpstreamResponse) -> bool:
        """Ask again later if the upstream wants that, and report it; the caller drains its response."""
        asked = self._asked
        if asked is None or not isinstance(asked[3], bytes | BodyPieces | None):
            return False  # the body has gone up, and is not here any more
        elapsed = self._elapsed(call.record)
        wait = self._retries.after_status(response.status, response.headers, elapsed)
        return self._wait(call, wait, f"status {response.status}")

    def stop(self) -> None:
        """Ask no more, and let go of the request."""
        self._timeout.stop()
        self._asked = None

    def _elapsed(self, record: Record) -> float:
        return self._clock.seconds() - record.began

    def _wait(self, call: RetriedCall, seconds: float | None, reason: str) -> bool:
        if seconds is None or self._asked is None or call.request.startedWriting:
            return False
        call.record.attempts += (reason,)
        call.record.phase = Phase.RETRYING
        call.stop_waiting()
        self._timeout.start(seconds, lambda: self._again(call))
        return True

    def _again(self, call: RetriedCall) -> None:
        asked = self._asked
        if asked is not None:
            call.limit(call.limits.timeout_seconds, call.silent)
            call.ask(*asked)


def retrying(exchange: Exchange) -> Retrying:
    """Return the further attempts that the limits allow a request."""
    limits = exchange.limits
    announced = announced_timeout(exchange.fields)
    return Retrying(exchange.clock, Retries(limits.retries, limits.retry_after_max_seconds, announced))
