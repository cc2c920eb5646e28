"""Skeleton of a flow: the upstream is asked once or more, and the call ends once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from stream_proxy.downstream.response import respond_error
from stream_proxy.errors import APIError, internal_error, upstream_silent, without_frames
from stream_proxy.flows.content_clock import ContentClock
from stream_proxy.flows.exchange import Exchange
from stream_proxy.flows.retrying import retrying
from stream_proxy.http.headers import RawHeader
from stream_proxy.observe.record import Phase
from stream_proxy.request_log import Outcome
from stream_proxy.transport.idle_timer import IdleTimer
from stream_proxy.upstream.asking import Asking, Step
from stream_proxy.upstream.response import UpstreamResponse
from stream_proxy.upstream.upload import Outgoing


class UpstreamCall(ABC):
    """A flow that asks the upstream and owns all that it started until its one end.

    Subclasses begin in :meth:`begin`, go on in :meth:`responded` and end by :meth:`fail` or :meth:`close`.
    Nothing that they start refers to them once they have ended, so that they are free without the cycle
    collector.

    :param exchange: the request to answer.
    """

    #: The mode of its record, at first.
    mode = "passed"

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.record = exchange.record
        self.record.mode = self.mode
        self.request = exchange.request
        self.upstream = exchange.upstream
        self.limits = limits = exchange.limits
        #: The upstream's response, once its head is in and as long as its body is this call's to end.
        self.response: UpstreamResponse | None = None
        self.ended = False
        self._asking: Asking | None = None
        self._timer: IdleTimer | None = None
        clocked = limits.first_event_seconds or limits.stalled_seconds
        #: Limits on the content of a stream, if the rule has any.
        self.content = ContentClock(exchange.clock, limits, self.stalled) if clocked else None
        self._retrying = retrying(exchange) if limits.retries else None

    def start(self) -> None:
        """Begin, and watch for silence."""
        self.limit(self.limits.timeout_seconds, self.silent)
        try:
            self.begin()
        except APIError as error:
            self.fail(error)

    @abstractmethod
    def begin(self) -> None:
        """Ask for the first time."""

    @abstractmethod
    def responded(self, response: UpstreamResponse) -> None:
        """Go on with a response whose head is in."""

    @property
    @abstractmethod
    def sent(self) -> int:
        """The bytes of the body that the client was sent."""

    @property
    def silence(self) -> APIError:
        """The error for an upstream that does not respond."""
        return upstream_silent(self.limits.timeout_seconds)

    def limit(self, seconds: float, expired: Callable[[], None]) -> None:
        """Call `expired` after so many seconds without :meth:`touch`, in place of the limit before."""
        self.stop_waiting()
        self._timer = self.record.silence = IdleTimer(self.exchange.clock, seconds, expired)

    def stop_waiting(self) -> None:
        """Take silence for no error from now on."""
        timer, self._timer = self._timer, None
        if timer is not None:
            self.record.silence = None
            timer.stop()

    def touch(self) -> float | None:
        """Note that something moved, and return when; ``None`` where silence is no error."""
        return self._timer.touch() if self._timer is not None else None

    def stop_asking(self) -> None:
        """Give up the request that is being sent, or that waits for a slot.

        This comes before the error that ends the call: with the response the client's next request starts,
        which may need the slot.
        """
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()

    def ask(self, method: bytes, target: bytes, headers: Iterable[RawHeader], body: Outgoing | None) -> None:
        """Send a request upstream; see :meth:`~stream_proxy.upstream.client.Upstream.ask`."""
        record, now = self.record, self.touch()
        record.phase = Phase.HEAD
        if record.asked is None:
            record.asked = now
        if self._retrying is not None:
            method, target, headers, body = self._retrying.asked(method, target, headers, body)
        try:
            asking = self.upstream.ask(method, target, headers, body, self)
        except ValueError:
            self.bug(Failure())
            return
        if asking.active:
            self._asking = asking

    def drain(self) -> None:
        """Leave the rest of the response to the upstream's client, which may reuse the connection."""
        response, self.response = self.response, None
        if response is not None:
            self.upstream.drain(response)

    def cancel(self) -> None:
        """End because the client has gone."""
        self.close(Outcome.gone(self.sent))

    def broken(self, failure: Failure) -> None:
        """End with an error of the upstream's, or a bug of ours."""
        if isinstance(failure.value, APIError):
            self.fail(without_frames(failure.value))
        else:
            self.bug(failure)

    def bug(self, failure: Failure) -> None:
        """End with a failure that should not have been possible."""
        self.exchange.log.bug(failure)
        self.fail(internal_error())

    @property
    def waits_for_client(self) -> bool:
        """Whether the upstream is paused, because the client does not read."""
        return False

    def stalled(self, error: APIError) -> None:
        """End, because no content came for long, unless the upstream may not send."""
        if self.waits_for_client and self.content is not None:
            self.content.heard()
        else:
            self.fail(error)

    def silent(self) -> None:
        """End, because nothing moved for ``timeoutSeconds``."""
        seconds = self.limits.timeout_seconds
        self.fail(self.upstream.queue_error(self._asking, seconds) or self.silence)

    def fail(self, error: APIError, headers: Iterable[RawHeader] = ()) -> None:
        """Respond with an error before a byte of a response went out.

        :param headers: fields beside the error's own.
        """
        if self.ended:
            return
        self.stop_asking()
        if self.request.channel is not None:
            respond_error(self.request, error, headers)
        self.close(Outcome.failed(error, len(error.envelope())))

    def close(self, outcome: Outcome) -> None:
        """End the call; only the first end counts."""
        if self.ended:
            return
        self.ended = True
        self.release()
        response, self.response = self.response, None
        if response is not None:
            response.abort()
        self.exchange.finished(outcome)

    def release(self) -> None:
        """Stop everything but the response's body, which is aborted after this."""
        self.stop_waiting()
        self.stop_asking()
        if self.content is not None:
            self.content.stop()
            self.content = None
        if self._retrying is not None:
            self._retrying.stop()
            self._retrying = None

    # For the upstream

    def upstream_step(self, step: Step) -> None:
        """Note what happens before the request is on a connection."""
        self.record.note_step(step, self.exchange.clock.seconds())

    def upstream_responded(self, response: UpstreamResponse) -> None:
        """Take the response to what was asked."""
        self._asking = None
        self.response, record = response, self.record
        record.head, record.phase = self.touch(), Phase.FIRST_EVENT
        record.response_fields = response.headers
        if self._retrying is not None and self._retrying.after_response(self, response):
            self.drain()
            return
        self._retrying = None
        try:
            response.headers = self.exchange.local(response.headers)
            self.responded(response)
        except Exception:
            self.broken(Failure())

    def upstream_failed(self, failure: Failure) -> None:
        """Take the reason why there is no response."""
        self._asking = None
        if self.ended or failure.check(CancelledError):
            return
        if self._retrying is None or not self._retrying.after_failure(self, failure.value):
            self.broken(failure)
