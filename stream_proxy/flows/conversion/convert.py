"""Conversion: an ordinary call made as a stream, and answered with one JSON when the stream is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from msgspec.structs import replace
from twisted.python.failure import Failure

from stream_proxy.downstream.closing import service_stopping
from stream_proxy.downstream.heartbeat import Heartbeat
from stream_proxy.downstream.request import has_left
from stream_proxy.errors import APIError
from stream_proxy.flows.conversion.aggregation import Aggregation, StreamAggregation
from stream_proxy.flows.conversion.call import FALLBACK_STATUSES
from stream_proxy.flows.conversion.fallbacks import Fallbacks
from stream_proxy.flows.conversion.staged_body import StagedBody
from stream_proxy.flows.exchange import Exchange, heartbeat_for
from stream_proxy.flows.relaying_call import RelayingCall
from stream_proxy.flows.resuming.orphan import Orphan, Result
from stream_proxy.flows.resuming.resumption import CallIdentity
from stream_proxy.http.headers import RawHeader, converted_response_headers
from stream_proxy.observe.record import Record
from stream_proxy.request_log import Outcome
from stream_proxy.upstream.response import UpstreamResponse


class Conversion(RelayingCall):
    """One converted request.

    A response is aggregated, relayed, or drained in favour of a fallback.

    :param exchange: the request.
    :param target: its target in origin form.
    :param fallbacks: the ways to make the call.
    :param identity: tells retries of this call from others.
    """

    mode = "converted"

    def __init__(
        self, exchange: Exchange, target: bytes, fallbacks: Fallbacks, identity: CallIdentity
    ) -> None:
        super().__init__(exchange)
        self._identity = identity
        self._target = target
        self._fallbacks = fallbacks
        #: Where the result goes: to the client, or once that has left to a retry.
        self._answer: Heartbeat | Orphan = heartbeat_for(exchange, self._head_due, self._stopped)
        self._body: StagedBody | None = None
        self._result: Result | None = None  # a large one on its way to the client
        self._expanded = 0

    def begin(self) -> None:
        if not isinstance(self._answer, Orphan):
            self._answer.start()
        self._ask()

    @property
    def sent(self) -> int:
        return super().sent if self.relaying else self._answer.sent

    def responded(self, response: UpstreamResponse) -> None:
        thorough = self._fallbacks.suspect is not None
        if not (self._fallbacks.streams or self._answer.begun or thorough):
            self.relay_body(response.headers, ())
            return
        call, clock = self._fallbacks.call, self.exchange.clock
        body = self._body = StagedBody(self, response, call, self.limits, clock, thorough=thorough)
        body.start()

    def fail(self, error: APIError, headers: Iterable[RawHeader] = ()) -> None:
        if self.ended:
            return
        self.stop_asking()
        if self._identity.has_expired:
            error.should_retry = False  # the upstream was paid twice already
        headers = converted_response_headers(self.response.headers if self.response is not None else ())
        self._answer.fail(error, headers)
        if self._is_late:
            self._identity.keep_error(Result(error.status, None, headers, [], error), self._fallbacks.body)
        self.close(Outcome.failed(error, self.sent))

    def cancel(self) -> None:
        asked = self.response is not None or (self._asking is not None and not self._asking.queued)
        result, self._result = self._result, None
        held = len(self._fallbacks.body) + self.record.read + self._expanded
        left = (asked or result is not None) and has_left(self.request) and not self.relaying
        end = partial(self.close, Outcome.gone(0))
        if not left or (orphan := self._identity.leave(held, result, end)) is None:
            super().cancel()
            return
        outcome = replace(Outcome.gone(self.sent), detail="its answer waits for a retry")
        self.record.kept = True
        self._answer.stop()
        self._answer = orphan
        self.exchange.finished(outcome)
        self.record = Record(0, self.record.rule, self.record.began)
        if result is not None:
            self.close(outcome)

    @property
    def _is_late(self) -> bool:
        """Whether a head is out, so that an error is kept for the retry that follows."""
        return not isinstance(self._answer, Orphan) and self._answer.begun

    def close(self, outcome: Outcome) -> None:
        super().close(self._answer.amended(outcome))

    def release(self) -> None:
        super().release()
        self._result = None
        self._answer.stop()
        self._stop_reading()

    def _ask(self) -> None:
        self.record.note_mode(None if self._fallbacks.streams else "upstream refuses streams")
        if self.content is not None and self._fallbacks.streams:
            self.content.start()
        elif self.content is not None:
            self.content.stop()
        self.ask(b"POST", self._target, *self._fallbacks.request())

    # The body, stage by stage

    @property
    def has_answered(self) -> bool:
        return self._answer.begun

    def came(self, count: int) -> None:
        self.touch()
        self.record.read += count
        if isinstance(self._answer, Orphan):
            self._answer.grew(count)

    def expanded(self, count: int) -> None:
        self._expanded += count
        if isinstance(self._answer, Orphan):
            self._answer.grew(count)

    def asks_again(self, status: int, beginning: bytes) -> bool:
        if not self._fallbacks.refused(status, beginning):
            return False
        self._stop_reading()
        self.drain()
        self.record.attempts += (self._fallbacks.reason,)
        self._ask()
        return True

    def succeeded(self) -> None:
        self._fallbacks.succeeded()

    @property
    def count(self) -> Callable[[int], None] | None:
        return None if self.content is None else self.content.count

    def aggregate(self, *, streamed: bool) -> None:
        if self.content is not None and not streamed:
            self.content.stop()
        self.record.note_mode(None if streamed else self._why_passed())

    def relay_body(self, headers: list[RawHeader], held: Iterable[bytes]) -> None:
        """Relay a response that is no event stream."""
        assert self.response is not None
        self.record.note_mode(self._why_passed())
        self._answer.stop()
        self._stop_reading()
        self.relay(self.response, headers, held)

    def complete(self, aggregation: Aggregation) -> Iterator[int]:
        """Send the result, by steps if it is large."""
        if self.content is not None:
            self.content.stop()
        for cost in aggregation.steps():
            yield cost
            self.touch()
        response = self.response
        assert response is not None
        if isinstance(aggregation, StreamAggregation):
            self._fallbacks.succeeded()
        status, pieces = response.status, aggregation.result()
        head = status, response.reason, converted_response_headers(response.headers)
        if self._is_late:
            self._identity.keep_error(Result(*head, pieces), self._fallbacks.body)
        if len(pieces) <= 1:
            self._answer.respond(*head, b"".join(pieces))
            self.drain()
            self.close(Outcome(status, self.sent))
            return
        self.stop_waiting()
        self._stop_reading()
        self.drain()
        self._result = Result(*head, pieces) if self._identity.known is not None else None
        self._answer.respond_in_pieces(*head, pieces, lambda: self.close(Outcome(status, self.sent)))

    def _why_passed(self) -> str:
        success = self.response is not None and 200 <= self.response.status < 300
        return "no stream came" if success else "upstream error"

    def _stop_reading(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.stop()

    # The end

    def _head_due(self) -> None:
        """Send a head to a client that has waited without a byte: that of the response, if it is known."""
        response = self.response
        try:
            if isinstance(self._answer, Orphan):
                return
            if response is None or response.status in FALLBACK_STATUSES:
                self._answer.begin(200, None, ())
            elif 200 <= response.status < 300:
                headers = converted_response_headers(response.headers)
                self._answer.begin(response.status, response.reason, headers)
            else:
                self.relay_body(response.headers, self._body.held if self._body is not None else ())
            self.record.kept_alive = not self.relaying
        except Exception:
            self.bug(Failure())

    def _stopped(self) -> None:
        self.fail(service_stopping())
