"""One converted request: an ordinary call made as a stream, and answered when the stream is complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request

from stream_proxy.downstream.heartbeat import Heartbeat
from stream_proxy.errors import APIError, internal_error, upstream_timeout
from stream_proxy.flows.aggregation import Aggregation, JSONAggregation, StreamAggregation
from stream_proxy.flows.call import Call, IncludeUsage
from stream_proxy.flows.fallbacks import Fallbacks, RefusalMemory
from stream_proxy.flows.inspection import FALLBACK_STATUSES, Inspection
from stream_proxy.flows.pacing import PacedBody
from stream_proxy.flows.response_relay import ResponseRelay
from stream_proxy.http.body_kind import BodyKind, media_type
from stream_proxy.http.content_coding import ContentDecoder, content_codings, decoder_for
from stream_proxy.http.headers import RawHeader, converted_response_headers
from stream_proxy.limits import Limits
from stream_proxy.request_log import Outcome, RequestLog
from stream_proxy.transport.idle_timer import IdleTimer
from stream_proxy.upstream.client import Upstream
from stream_proxy.upstream.response import UpstreamResponse


@dataclass(frozen=True)
class Terms:
    """What holds for every conversion of a rule, as in the configuration."""

    include_usage: IncludeUsage
    limits: Limits


class Conversion:
    """One converted request.

    :param request: the client's.
    :param upstream: where it goes.
    :param target: in origin form.
    :param headers: the client's, as they came.
    :param call: what the client asks for.
    :param body: the body as the client wrote it.
    :param memory: what this upstream refused lately.
    """

    def __init__(
        self,
        clock: IReactorTime,
        request: Request,
        upstream: Upstream,
        target: bytes,
        headers: list[RawHeader],
        call: Call,
        body: bytes,
        terms: Terms,
        memory: RefusalMemory,
        log: RequestLog,
    ) -> None:
        #: Fires once with how it ended.
        self.done: Deferred[Outcome] = Deferred()
        #: ``"converted"`` unless the answer is not one that the proxy wrote.
        self.how = "converted"
        self._clock = clock
        self._request = request
        self._upstream = upstream
        self._target = target
        self._call = call
        self._limits = terms.limits
        self._log = log
        waits = terms.limits.keep_alive_seconds
        # Once a head of ours is out, an answer cannot say how it is compressed.
        self._attempts = Fallbacks(call, headers, body, terms.include_usage, memory, compressed=not waits)
        self._answer = Heartbeat(clock, request, waits, self._waited)
        self._timer: IdleTimer | None = None
        self._asking: Deferred[UpstreamResponse] | None = None
        self._response: UpstreamResponse | None = None
        # What becomes of its body: paced and decoded, it is looked at, and then gathered or relayed.
        self._paced: PacedBody | None = None
        self._content: ContentDecoder | None = None
        self._inspection: Inspection | None = None
        self._gathering: Aggregation | None = None
        self._relay: ResponseRelay | None = None

    def start(self) -> None:
        """Send the request, as a stream unless the upstream is known not to stream this model."""
        self._timer = IdleTimer(self._clock, self._limits.timeout_seconds, self._silent)
        self._answer.wait()
        self._ask()

    def cancel(self) -> None:
        """The client has gone: so goes the request to the upstream."""
        self._close(Outcome.gone(self._sent))

    @property
    def _sent(self) -> int:
        return self._relay.sent if self._relay is not None else self._answer.sent

    # The request

    def _ask(self) -> None:
        assert self._timer is not None
        self._timer.touch()
        self.how = "converted" if self._attempts.streams else "passed"
        headers, body = self._attempts.request()
        asking = self._asking = self._upstream.request(b"POST", self._target, headers, body)
        asking.addCallbacks(self._answered, self._failed)
        asking.addErrback(self._bug)

    def _failed(self, failure: Failure) -> None:
        self._asking = None
        if not failure.check(CancelledError):
            self._broken(failure)

    # The answer

    def _answered(self, response: UpstreamResponse) -> None:
        assert self._timer is not None
        self._timer.touch()
        self._asking = None
        self._response = response
        self._attempts.answered(response.status)
        if not (self._attempts.streams or self._answer.begun):
            self._relay_answer(response, response.headers)
            return
        codings = content_codings(response.values(b"content-encoding"))
        self._content = decoder_for(codings, self._limits.max_decoded_bytes)
        media = media_type(response.values(b"content-type"))
        self._inspection = Inspection(response.status, media, codings, readable=self._content is not None)
        self._paced = PacedBody(self._clock, response, self._came, self._ended, self._broken)
        response.start(self._paced)

    def _came(self, data: bytes) -> Iterator[int]:
        if self._inspection is not None:
            self._inspection.came(data)
        return self._read(data)

    def _read(self, data: bytes) -> Iterator[int]:
        """Work on what came, piece by piece: little data can hold much."""
        assert self._timer is not None
        timer = self._timer
        timer.touch()
        for piece in self._content.pieces(data) if self._content is not None else ():
            if self._gathering is not None:
                self._take(self._gathering, piece)
            elif self._inspection is not None:
                self._inspection.decoded(piece)
                self._look(ended=False)
            yield len(piece)
            timer.touch()
        if self._inspection is not None:  # much can hold little, too
            self._look(ended=False)

    def _ended(self, error: APIError | None) -> None:
        if self._gathering is not None:
            self._gathering.end(error)
            self._complete(self._gathering)
        elif error is not None:
            self._fail(error)
        else:
            self._look(ended=True)

    def _look(self, *, ended: bool) -> None:
        """Decide what to do with this answer, once it is clear what it is."""
        response, inspection = self._response, self._inspection
        assert response is not None and inspection is not None
        found = inspection.found(ended=ended)
        if found is None:
            return
        if inspection.refusal and self._attempts.refused(response.status, inspection.beginning):
            self._ask_again(response)
            return
        if found is BodyKind.EVENTS or self._answer.begun:
            self._gather(inspection, found, ended=ended)
            return
        self._relay_answer(response, inspection.headers(found, response.headers), inspection.held)

    def _ask_again(self, response: UpstreamResponse) -> None:
        assert self._paced is not None
        self._paced.stop()
        self._upstream.drain(response)
        self._response = self._inspection = None
        self._ask()

    def _relay_answer(
        self, response: UpstreamResponse, headers: list[RawHeader], held: Iterable[bytes] = ()
    ) -> None:
        """Relay an answer that is no event stream."""
        assert self._timer is not None
        self.how = "passed"
        self._inspection = None
        self._answer.stop()
        if self._paced is not None:
            self._paced.stop()
        self._relay = ResponseRelay(self._request, response, self._timer.touch, self._relayed)
        self._relay.start(headers, held)

    def _relayed(self, error: APIError | None) -> None:
        self._close(Outcome(self._request.code, self._sent, error.message if error else None))

    def _gather(self, inspection: Inspection, found: BodyKind, *, ended: bool) -> None:
        """Put one answer together out of what has come and what will."""
        if self._content is None or found is BodyKind.OTHER:
            raise inspection.unusable()
        limit = self._limits.max_response_bytes
        gathering: Aggregation
        if found is BodyKind.EVENTS:
            self.how = "converted"
            gathering = StreamAggregation(self._call, limit)
        else:
            self.how = "passed"
            gathering = JSONAggregation(self._content, limit)
        self._gathering, self._inspection = gathering, None
        self._take(gathering, inspection.seen)
        if ended and self._timer is not None:
            gathering.end(None)
            self._complete(gathering)

    def _take(self, gathering: Aggregation, piece: bytes) -> None:
        gathering.feed(piece)
        if gathering.complete:
            self._complete(gathering)

    # The end

    def _waited(self) -> None:
        """The client has waited without a word: it gets a head, that of the answer if it is known."""
        response = self._response
        try:
            if response is None or response.status in FALLBACK_STATUSES:
                self._answer.begin(200, None, ())
            elif 200 <= response.status < 300:
                headers = converted_response_headers(response.headers)
                self._answer.begin(response.status, response.reason, headers)
            else:
                held = self._inspection.held if self._inspection is not None else ()
                self._relay_answer(response, response.headers, held)
        except Exception:
            self._bug(Failure())

    def _complete(self, gathering: Aggregation) -> None:
        response = self._response
        assert response is not None
        headers = converted_response_headers(response.headers)
        self._answer.answer(response.status, response.reason, headers, gathering.result_bytes())
        self._upstream.drain(response)
        self._close(Outcome(response.status, self._sent))

    def _broken(self, failure: Failure) -> None:
        if isinstance(failure.value, APIError):
            self._fail(failure.value)
        else:
            self._bug(failure)

    def _fail(self, error: APIError) -> None:
        if self._timer is None:
            return
        told = self._response.headers if self._response is not None else ()
        self._answer.fail(error, converted_response_headers(told))
        self._close(Outcome.failed(error, self._sent))

    def _bug(self, failure: Failure) -> None:
        self._log.bug(failure)
        if self._timer is None:
            return
        if self._relay is not None:
            self._relay.stop(internal_error())
        else:
            self._fail(internal_error())

    def _silent(self) -> None:
        seconds = self._limits.timeout_seconds
        if self._relay is not None:
            self._relay.silent(seconds)
        else:
            what = f"The upstream sent nothing for {seconds:g} seconds"
            queued = self._upstream.queue_error(self._asking, seconds)
            self._fail(queued or upstream_timeout(f"{what}; ask for less, or raise timeoutSeconds."))

    def _close(self, outcome: Outcome) -> None:
        timer, self._timer = self._timer, None
        if timer is None:
            return
        timer.stop()
        self._answer.stop()
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
        if self._paced is not None:
            self._paced.stop()
        # What is being drained has an owner; anything else ends here.
        response = self._response
        if response is not None and response.sink in (self._paced, self._relay):
            response.abort()
        self.done.callback(self._answer.told(outcome))
