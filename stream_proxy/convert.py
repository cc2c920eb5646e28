"""One converted request: an ordinary call made as a stream, and answered when the stream is complete."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request

from stream_proxy.aggregate import Aggregate, StreamAggregate, WholeAggregate
from stream_proxy.coding import ContentDecoder, content_codings, decoder_for
from stream_proxy.config import IncludeUsage
from stream_proxy.decide import Call, Kind, refuses_include_usage, refuses_stream
from stream_proxy.downstream import answer, answer_error
from stream_proxy.errors import (
    UPSTREAM_ERROR,
    APIError,
    internal_error,
    upstream_error,
    upstream_timeout,
)
from stream_proxy.headers import (
    RawHeader,
    converted_response_headers,
    request_headers,
    streaming_request_headers,
)
from stream_proxy.keepalive import KeepAlive
from stream_proxy.memory import Refusal, RefusalMemory
from stream_proxy.opening import Opening, Verdict
from stream_proxy.outcome import Outcome, RequestLog
from stream_proxy.relay import AnswerRelay
from stream_proxy.sniff import media_type
from stream_proxy.timer import IdleTimer
from stream_proxy.upstream import Upstream, UpstreamResponse


@dataclass(frozen=True)
class Terms:
    """What holds for every conversion of a rule."""

    include_usage: IncludeUsage = "auto"
    timeout_seconds: float = 600.0
    max_response_bytes: int = 256 * 2**20
    max_decoded_bytes: int = 256 * 2**20
    keep_alive_seconds: float = 0.0


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
        self._headers = headers
        self._call = call
        self._body = body
        self._terms = terms
        self._memory = memory
        self._log = log
        self._timer: IdleTimer | None = None
        self._asking: Deferred[UpstreamResponse] | None = None
        self._with_usage = False
        self._suspect: Refusal | None = None
        self._response: UpstreamResponse | None = None
        self._relay: AnswerRelay | None = None
        self._keep_alive: KeepAlive | None = None
        self._converting = True
        self._content: ContentDecoder | None = None
        self._opening: Opening | None = None
        self._answer: Aggregate | None = None

    def start(self) -> None:
        """Send the request, as a stream unless the upstream is known not to stream this model."""
        model, terms = self._call.model, self._terms
        self._timer = IdleTimer(self._clock, terms.timeout_seconds, self._silent)
        self._keep_alive = KeepAlive(self._clock, self._request, terms.keep_alive_seconds, self._early_head)
        if self._memory.knows(Refusal.STREAM, model):
            self._pass_on()
            return
        known = self._memory.knows(Refusal.INCLUDE_USAGE, model)
        self._ask(terms.include_usage == "always" or (terms.include_usage == "auto" and not known))

    def cancel(self) -> None:
        """The client has gone: so goes the request to the upstream."""
        self._close(Outcome.gone(self._sent))

    @property
    def _sent(self) -> int:
        if self._relay is not None:
            return self._relay.sent
        return self._keep_alive.sent if self._keep_alive is not None else 0

    # The request

    def _ask(self, with_usage: bool) -> None:
        self._with_usage = with_usage and self._call.kind is Kind.CHAT
        self._send(streaming_request_headers(self._headers), self._call.body(include_usage=with_usage))

    def _pass_on(self) -> None:
        """Send the client's own call."""
        self.how = "passed"
        self._converting = False
        self._send(request_headers(self._headers), self._body)

    def _send(self, headers: Iterable[RawHeader], body: bytes) -> None:
        asking = self._asking = self._upstream.request(b"POST", self._target, headers, body)
        asking.addCallbacks(self._answered, self._failed)
        asking.addErrback(self._bug)

    def _failed(self, failure: Failure) -> None:
        self._asking = None
        if failure.check(CancelledError) or self._timer is None:
            return
        if isinstance(failure.value, APIError):
            self._fail(failure.value)
        else:
            self._bug(failure)

    # The answer

    def _answered(self, response: UpstreamResponse) -> None:
        assert self._timer is not None
        self._timer.touch()
        self._asking = None
        self._response = response
        if self._suspect is not None and 200 <= response.status < 300:
            self._memory.note(self._suspect, self._call.model)  # it was that, and nothing else
        codings = content_codings(response.values(b"content-encoding"))
        self._content = decoder_for(codings, self._terms.max_decoded_bytes)
        media = media_type(response.values(b"content-type"))
        self._opening = Opening(response.status, media, self._content)
        if not self._converting and not self._begun:
            self._relay_answer(response, Verdict.OTHER)
        else:
            response.start(self)

    def body_received(self, data: bytes) -> None:
        """The upstream's body, as it came."""
        if self._timer is None:
            return
        self._timer.touch()
        try:
            self._read(data)
        except APIError as error:
            self._fail(error)
        except Exception:
            self._bug(Failure())

    def body_ended(self, error: APIError | None) -> None:
        """The upstream's body has ended."""
        if self._timer is None:
            return
        try:
            if self._answer is not None:
                self._answer.end(clean=error is None)
                self._complete()
            elif error is not None:
                self._fail(error)
            elif self._opening is not None:
                self._decide(self._opening, self._opening.end(), ended=True)
        except APIError as failure:
            self._fail(failure)
        except Exception:
            self._bug(Failure())

    def _read(self, data: bytes) -> None:
        opening = self._opening
        if opening is not None:
            verdict = opening.feed(data)
            if verdict is not None:
                self._decide(opening, verdict, ended=False)
        elif self._answer is not None and self._content is not None:
            self._take(self._answer, self._content.pieces(data))

    def _decide(self, opening: Opening, verdict: Verdict, *, ended: bool) -> None:
        """Go on as the answer turned out to be."""
        response = self._response
        assert response is not None
        if self._retry(response, opening.start):
            return
        if verdict is Verdict.EVENTS and self._converting:
            self._aggregate(StreamAggregate(self._call, self._terms.max_response_bytes), ended=ended)
        elif not self._begun:
            self._relay_answer(response, verdict)
        elif verdict in (Verdict.JSON, Verdict.MISLABELLED):
            self.how = "passed"
            self._aggregate(WholeAggregate(self._terms.max_response_bytes), ended=ended)
        else:
            raise APIError(
                response.status if response.status >= 400 else 502,
                f"The upstream answered with status {response.status} and something that is not JSON.",
                UPSTREAM_ERROR,
            )

    def _retry(self, response: UpstreamResponse, body: bytes) -> bool:
        """Whether the refusal is one that can be answered by asking otherwise."""
        model = self._call.model
        if not self._converting:
            return False
        if refuses_stream(response.status, body):
            self._memory.note(Refusal.STREAM, model)
            self._leave(response)
            self._pass_on()
            return True
        if (
            self._with_usage
            and self._terms.include_usage == "auto"
            and refuses_include_usage(response.status, body)
        ):
            self._suspect = Refusal.INCLUDE_USAGE
            self._leave(response)
            self._ask(False)
            return True
        return False

    def _leave(self, response: UpstreamResponse) -> None:
        self._upstream.drain(response)
        self._response = self._opening = None

    def _relay_answer(self, response: UpstreamResponse, verdict: Verdict) -> None:
        """Relay an answer as it came."""
        assert self._timer is not None and self._opening is not None and self._keep_alive is not None
        self.how = "passed"
        opening, self._opening = self._opening, None
        self._keep_alive.stop()
        headers: Iterable[RawHeader] = response.headers
        if verdict is Verdict.MISLABELLED:
            headers = [pair for pair in headers if pair[0].lower() != b"content-type"]
            headers.append((b"Content-Type", b"application/json"))
        self._relay = AnswerRelay(self._request, response, self._timer.touch, self._relayed)
        self._relay.start(headers, opening.held)

    def _relayed(self, error: APIError | None) -> None:
        self._close(Outcome(self._request.code, self._sent, error.message if error else None))

    def _aggregate(self, aggregate: Aggregate, *, ended: bool) -> None:
        """Put the answer together, beginning with what is there."""
        assert self._response is not None and self._opening is not None
        if self._content is None:
            names = b", ".join(content_codings(self._response.values(b"content-encoding")))
            raise upstream_error(
                f"The upstream compressed its answer with {names[:40].decode('ascii', 'replace')}, which "
                "the proxy cannot decode; it asked for identity."
            )
        opening, self._opening = self._opening, None
        self._answer = aggregate
        self._take(aggregate, chain((bytes(opening.seen),), opening.rest))
        if ended and self._timer is not None:
            aggregate.end(clean=True)
            self._complete()

    def _take(self, aggregate: Aggregate, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            aggregate.feed(piece)
            if aggregate.complete:
                self._complete()
                return

    # The end

    @property
    def _begun(self) -> bool:
        """Whether a head is out that says nothing about the answer."""
        return self._keep_alive is not None and self._keep_alive.begun

    def _early_head(self) -> tuple[int, Iterable[RawHeader]]:
        response = self._response
        if response is None:
            return 200, ()
        success = 200 <= response.status < 300
        return response.status if success else 200, converted_response_headers(response.headers)

    def _complete(self) -> None:
        response, waiting = self._response, self._keep_alive
        assert response is not None and waiting is not None and self._answer is not None
        body = self._answer.body()
        if waiting.begun:
            waiting.finish(body)
        else:
            fields = converted_response_headers(response.headers)
            answer(self._request, response.status, response.reason, fields, body)
        self._upstream.drain(response)
        self._end(Outcome(response.status, waiting.sent or len(body)))

    def _fail(self, error: APIError) -> None:
        body = error.envelope()
        if self._begun and self._keep_alive is not None:
            self._keep_alive.finish(body)
            self._end(Outcome.failed(error, self._keep_alive.sent))
            return
        headers = converted_response_headers(self._response.headers) if self._response is not None else ()
        if self._request.channel is not None:
            answer_error(self._request, error, headers)
        self._close(Outcome.failed(error, len(body)))

    def _end(self, outcome: Outcome) -> None:
        """The end of an answer; its status may not be the one that went out."""
        early = self._begun and not 200 <= outcome.status < 300
        self._close(replace(outcome, detail="after status 200") if early else outcome)

    def _bug(self, failure: Failure) -> None:
        self._log.bug(failure)
        if self._timer is None:
            return
        if self._relay is not None:
            self._relay.stop(internal_error())
        else:
            self._fail(internal_error())

    def _silent(self) -> None:
        seconds = self._terms.timeout_seconds
        if self._relay is not None:
            self._relay.silent(seconds)
        else:
            what = f"The upstream sent nothing for {seconds:g} seconds"
            self._fail(upstream_timeout(f"{what}; ask for less, or raise timeoutSeconds."))

    def _close(self, outcome: Outcome) -> None:
        timer, self._timer = self._timer, None
        if timer is None:
            return
        timer.stop()
        if self._keep_alive is not None:
            self._keep_alive.stop()
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
        # What is being drained has an owner; anything else ends here.
        if (
            self._response is not None
            and self._response.sink is not None
            and (self._response.sink is self or self._response.sink is self._relay)
        ):
            self._response.abort()
        self.done.callback(outcome)
