"""Conversion: an ordinary call made as a stream, and answered with one JSON when the stream is complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from twisted.python.failure import Failure

from stream_proxy.downstream.closing import service_stopping
from stream_proxy.downstream.heartbeat import Heartbeat
from stream_proxy.errors import APIError
from stream_proxy.flows.aggregation import Aggregation, JSONAggregation, StreamAggregation
from stream_proxy.flows.call import FALLBACK_STATUSES
from stream_proxy.flows.exchange import Exchange
from stream_proxy.flows.fallbacks import Fallbacks
from stream_proxy.flows.inspection import Inspection
from stream_proxy.flows.pacing import PacedBody
from stream_proxy.flows.relaying_call import RelayingCall
from stream_proxy.http.body_kind import BodyKind, media_type
from stream_proxy.http.content_coding import ContentDecoder, content_codings, decoder_for
from stream_proxy.http.headers import RawHeader, converted_response_headers
from stream_proxy.request_log import Outcome
from stream_proxy.upstream.response import UpstreamResponse


class Conversion(RelayingCall):
    """One converted request.

    A response goes through stages: it is inspected until it is clear what it is, and then aggregated,
    relayed, or drained in favour of a fallback. Its body is paced and decoded once for all of them.

    :param exchange: the request.
    :param target: its target in origin form.
    :param fallbacks: the ways to make the call.
    """

    mode = "converted"

    def __init__(self, exchange: Exchange, target: bytes, fallbacks: Fallbacks) -> None:
        super().__init__(exchange)
        self._target = target
        self._fallbacks = fallbacks
        self._heartbeat = Heartbeat(
            exchange.clock, self.request, self.limits.keep_alive_seconds, self._head_due, self._stopped
        )
        self._content: ContentDecoder | None = None
        self._body: PacedBody | None = None
        self._stage: Inspection | Aggregation | None = None

    def begin(self) -> None:
        self._heartbeat.start()
        self._ask()

    @property
    def sent(self) -> int:
        return super().sent if self.relaying else self._heartbeat.sent

    def responded(self, response: UpstreamResponse) -> None:
        thorough = self._fallbacks.suspect is not None
        if not (self._fallbacks.streams or self._heartbeat.begun or thorough):
            self._relay_response(response.headers)
            return
        codings = content_codings(response.values(b"content-encoding"))
        self._content = decoder_for(codings, self.limits.max_decoded_bytes)
        media = media_type(response.values(b"content-type"))
        self._stage = Inspection(
            response.status, media, codings, readable=self._content is not None, thorough=thorough
        )
        self._body = PacedBody(self.exchange.clock, response, self._read, self._body_ended, self.broken)
        response.start(self._body)

    def fail(self, error: APIError, headers: Iterable[RawHeader] = ()) -> None:
        if self.ended:
            return
        self.stop_asking()
        upstreams = self.response.headers if self.response is not None else ()
        self._heartbeat.fail(error, converted_response_headers(upstreams))
        self.close(Outcome.failed(error, self.sent))

    def close(self, outcome: Outcome) -> None:
        super().close(self._heartbeat.amended(outcome))

    def release(self) -> None:
        super().release()
        self._heartbeat.stop()
        self._stop_reading()

    def _ask(self) -> None:
        self.record.mode = "converted" if self._fallbacks.streams else "passed"
        self.ask(b"POST", self._target, *self._fallbacks.request())

    # The body, read by read

    def _read(self, data: bytes) -> Iterator[int]:
        """Hold a read as it came, and return the steps of the work on it."""
        if isinstance(self._stage, Inspection):
            self._stage.came(data)
        return self._steps(data)

    def _steps(self, data: bytes) -> Iterator[int]:
        """Work on a read piece by piece: little data can hold much."""
        self.touch()
        self.record.read += len(data)
        for piece in self._content.pieces(data) if self._content is not None else ():
            if self._stage is not None:
                self._stage.feed(piece)
                aggregation = self._advance()
                if aggregation is not None:
                    yield from self._complete(aggregation)
                    return
            yield len(piece)
            self.touch()
        yield from self._complete(self._advance())  # much data can hold little, too

    def _body_ended(self, error: APIError | None) -> Iterator[int]:
        if error is not None and isinstance(self._stage, Inspection):
            self.fail(error)
            return
        aggregation = self._advance(ended=True)
        if aggregation is not None and not aggregation.complete:
            aggregation.end(error)
        yield from self._complete(aggregation)

    def _advance(self, *, ended: bool = False) -> Aggregation | None:
        """Go on to the next stage if it is clear what the body is; return the last one if it has enough."""
        if isinstance(self._stage, Inspection):
            self._decide(self._stage, ended=ended)
        stage = self._stage
        if stage is None or isinstance(stage, Inspection):
            return None
        return stage if ended or stage.complete else None

    def _decide(self, inspection: Inspection, *, ended: bool) -> None:
        """Choose what becomes of the response, once it is clear what it is.

        :param ended: the whole body is in.
        """
        response = self.response
        assert response is not None
        kind = inspection.kind(ended=ended)
        if kind is None:
            return
        if inspection.may_fall_back and self._fallbacks.refused(response.status, inspection.beginning):
            self._stop_reading()
            self.drain()
            self._ask()
            return
        if kind is not BodyKind.EVENTS and inspection.succeeded(kind):
            self._fallbacks.succeeded()
        if kind is BodyKind.EVENTS or self._heartbeat.begun:
            self._aggregate(inspection, kind)
        else:
            self._relay_response(inspection.headers(kind, response.headers), inspection.held)

    def _relay_response(self, headers: list[RawHeader], held: Iterable[bytes] = ()) -> None:
        """Relay a response that is no event stream."""
        assert self.response is not None
        self.record.mode = "passed"
        self._heartbeat.stop()
        self._stop_reading()
        self.relay(self.response, headers, held)

    def _aggregate(self, inspection: Inspection, kind: BodyKind) -> None:
        """Put one JSON together out of what has come and what will."""
        if self._content is None or kind is BodyKind.OTHER:
            raise inspection.unusable()
        aggregation: Aggregation
        if kind is BodyKind.EVENTS:
            self.record.mode = "converted"
            aggregation = StreamAggregation(self._fallbacks.call, self.limits)
        else:
            self.record.mode = "passed"
            aggregation = JSONAggregation(self._content, self.limits.max_response_bytes)
        self._stage = aggregation
        aggregation.feed(inspection.seen)

    def _stop_reading(self) -> None:
        body, self._body = self._body, None
        self._stage = None
        if body is not None:
            body.stop()

    # The end

    def _head_due(self) -> None:
        """Send a head to a client that has waited without a byte: that of the response, if it is known."""
        response = self.response
        try:
            if response is None or response.status in FALLBACK_STATUSES:
                self._heartbeat.begin(200, None, ())
            elif 200 <= response.status < 300:
                headers = converted_response_headers(response.headers)
                self._heartbeat.begin(response.status, response.reason, headers)
            else:
                held = self._stage.held if isinstance(self._stage, Inspection) else ()
                self._relay_response(response.headers, held)
        except Exception:
            self.bug(Failure())

    def _stopped(self) -> None:
        self.fail(service_stopping())

    def _complete(self, aggregation: Aggregation | None) -> Iterator[int]:
        """Send the result, by steps if it is large; do nothing without an aggregation."""
        if aggregation is None:
            return
        for cost in aggregation.steps():
            yield cost
            self.touch()
        response = self.response
        assert response is not None
        if isinstance(aggregation, StreamAggregation):
            self._fallbacks.succeeded()
        status, pieces = response.status, aggregation.result()
        head = status, response.reason, converted_response_headers(response.headers)
        if len(pieces) <= 1:
            self._heartbeat.respond(*head, b"".join(pieces))
            self.drain()
            self.close(Outcome(status, self.sent))
            return
        self.stop_waiting()
        self._stop_reading()
        self.drain()
        self._heartbeat.respond_in_pieces(*head, pieces, lambda: self.close(Outcome(status, self.sent)))
