"""One passed-through request, with a producer on either side of the proxy."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from twisted.web.server import Request

from stream_proxy.downstream.request_body import RequestBody
from stream_proxy.downstream.response import respond_error
from stream_proxy.errors import APIError, internal_error, upload_stalled, upstream_timeout
from stream_proxy.flows.response_relay import ResponseRelay
from stream_proxy.http.headers import RawHeader
from stream_proxy.request_log import Outcome, RequestLog
from stream_proxy.transport.idle_timer import IdleTimer
from stream_proxy.upstream.client import Upstream
from stream_proxy.upstream.response import UpstreamResponse


class Relay:
    """One request that passes through.

    :param request: the client's.
    :param upstream: where it goes.
    :param target: in origin form.
    :param headers: what goes upstream.
    :param body: the body if it is at hand, or as it comes in; ``None`` for none.
    :param timeout_seconds: the longest silence.
    """

    def __init__(
        self,
        clock: IReactorTime,
        request: Request,
        upstream: Upstream,
        target: bytes,
        headers: Iterable[RawHeader],
        body: bytes | IBodyProducer | None,
        timeout_seconds: float,
        log: RequestLog,
    ) -> None:
        #: Fires once with how it ended.
        self.done: Deferred[Outcome] = Deferred()
        self.how = "passed"
        self._clock = clock
        self._request = request
        self._upstream = upstream
        self._target = target
        self._headers = headers
        self._body = body
        self._seconds = timeout_seconds
        self._log = log
        self._timer: IdleTimer | None = None
        self._asking: Deferred[UpstreamResponse] | None = None
        self._relay: ResponseRelay | None = None
        self._response: UpstreamResponse | None = None

    def start(self) -> None:
        """Send the request."""
        self._timer = IdleTimer(self._clock, self._seconds, self._silent)
        if isinstance(self._body, RequestBody):
            self._body.touched = self._timer.touch
        asking = self._asking = self._upstream.request(
            self._request.method, self._target, self._headers, self._body
        )
        asking.addCallbacks(self._answered, self._failed)
        asking.addErrback(self._bug)

    def cancel(self) -> None:
        """The client has gone: so goes the request to the upstream."""
        if self._timer is None:
            return
        self._close(Outcome.gone(self._sent))

    @property
    def _sent(self) -> int:
        return self._relay.sent if self._relay is not None else 0

    def _answered(self, response: UpstreamResponse) -> None:
        assert self._timer is not None
        self._asking = None
        self._timer.touch()
        self._response = response
        self._relay = ResponseRelay(self._request, response, self._timer.touch, self._ended)
        self._relay.start(response.headers)

    def _failed(self, failure: Failure) -> None:
        self._asking = None
        if failure.check(CancelledError) or self._timer is None:
            return
        if isinstance(failure.value, APIError):
            self._refuse(failure.value)
        else:
            self._bug(failure)

    def _bug(self, failure: Failure) -> None:
        self._log.bug(failure)
        if self._relay is not None:
            self._relay.stop(internal_error())
        elif self._timer is not None:
            self._refuse(internal_error())

    def _silent(self) -> None:
        if self._relay is None:
            uploading = isinstance(self._body, RequestBody) and not self._body.ended
            queued = self._upstream.queue_error(self._asking, self._seconds)
            self._refuse(queued or _silence(uploading, self._seconds))
        else:
            self._relay.silent(self._seconds)

    def _refuse(self, error: APIError) -> None:
        if self._asking is not None:
            self._asking.cancel()
        if self._request.channel is not None:
            respond_error(self._request, error)
        self._close(Outcome.failed(error, len(error.envelope())))

    def _ended(self, error: APIError | None) -> None:
        if error is not None:
            self._close(Outcome(self._request.code, self._sent, error.message))
        else:
            self._close(Outcome(self._request.code, self._sent))

    def _close(self, outcome: Outcome) -> None:
        timer, self._timer = self._timer, None
        if timer is None:
            return
        timer.stop()
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
        response = self._response
        if response is not None:
            response.abort()
        if isinstance(self._body, RequestBody):
            self._body.touched = lambda: None
            if not self._body.ended:
                self._body.stopProducing()
                if response is not None:
                    response.hang_up()
        self.done.callback(outcome)


def _silence(uploading: bool, seconds: float) -> APIError:
    if uploading:
        return upload_stalled(seconds)
    return upstream_timeout(
        f"The upstream did not answer within {seconds:g} seconds; ask for less, or raise timeoutSeconds."
    )
