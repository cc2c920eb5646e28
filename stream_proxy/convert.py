"""One converted request: an ordinary call made as a stream, and answered when the stream is complete."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request

from stream_proxy.accumulator import EventAccumulator
from stream_proxy.chat import ChatCompletionsAccumulator
from stream_proxy.coding import ContentDecoder, content_codings, decoder_for
from stream_proxy.config import IncludeUsage
from stream_proxy.decide import Call, Kind, refuses_include_usage, refuses_stream
from stream_proxy.downstream import answer, answer_error
from stream_proxy.errors import APIError, internal_error, upstream_error, upstream_timeout
from stream_proxy.headers import (
    RawHeader,
    converted_response_headers,
    request_headers,
    streaming_request_headers,
)
from stream_proxy.memory import Refusal, RefusalMemory
from stream_proxy.outcome import Outcome, RequestLog
from stream_proxy.relay import AnswerRelay, Relay
from stream_proxy.responses import ResponseAccumulator
from stream_proxy.runs import ChatRuns
from stream_proxy.sniff import Sniffed, media_type, sniff
from stream_proxy.sse import SSEDecoder
from stream_proxy.timer import IdleTimer
from stream_proxy.upstream import Upstream, UpstreamResponse

#: How much of an answer is looked at before it is decided what it is.
PEEK_BYTES = 65_536
#: What an event may say beside its part of the answer.
_EVENT_OVERHEAD = 65_536


@dataclass(frozen=True)
class Terms:
    """What holds for every conversion of a rule."""

    include_usage: IncludeUsage = "auto"
    timeout_seconds: float = 600.0
    max_response_bytes: int = 256 * 2**20


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
        self._unconverted: Relay | None = None
        self._content: ContentDecoder | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._seen = bytearray()
        self._events: SSEDecoder | None = None
        self._runs: ChatRuns | None = None
        self._answer: EventAccumulator | None = None

    def start(self) -> None:
        """Send the request, as a stream unless the upstream is known not to stream this model."""
        model, terms = self._call.model, self._terms
        if self._memory.knows(Refusal.STREAM, model):
            self._pass_on()
            return
        self._timer = IdleTimer(self._clock, terms.timeout_seconds, self._silent)
        known = self._memory.knows(Refusal.INCLUDE_USAGE, model)
        self._ask(terms.include_usage == "always" or (terms.include_usage == "auto" and not known))

    def cancel(self) -> None:
        """The client has gone: so goes the request to the upstream."""
        if self._unconverted is not None:
            self._unconverted.cancel()
        elif self._timer is not None:
            self._close(Outcome.gone(self._relay.sent if self._relay is not None else 0))

    # The request

    def _ask(self, with_usage: bool) -> None:
        self._with_usage = with_usage and self._call.kind is Kind.CHAT
        asking = self._asking = self._upstream.request(
            b"POST",
            self._target,
            streaming_request_headers(self._headers),
            self._call.body(include_usage=with_usage),
        )
        asking.addCallbacks(self._answered, self._failed)
        asking.addErrback(self._bug)

    def _pass_on(self) -> None:
        """Send the client's own body."""
        self.how = "passed"
        self._stop_timer()
        self._unconverted = Relay(
            self._clock,
            self._request,
            self._upstream,
            self._target,
            request_headers(self._headers),
            self._body,
            self._terms.timeout_seconds,
            self._log,
        )
        self._unconverted.done.addCallback(self.done.callback)
        self._unconverted.start()

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
        self._content = decoder_for(content_codings(response.values(b"content-encoding")))
        self._held, self._held_bytes, self._seen = [], 0, bytearray()
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
            if self._answer is not None and self._events is not None:
                self._answer.end(self._events.stray(), clean=error is None)
                self._complete()
            elif error is not None:
                self._fail(error)
            else:
                self._look(ended=True)
        except APIError as failure:
            self._fail(failure)
        except Exception:
            self._bug(Failure())

    def _read(self, data: bytes) -> None:
        response = self._response
        if self._events is None:
            self._held.append(data)  # in case the answer is to be relayed as it came
            self._held_bytes += len(data)
        if self._content is None:
            self._look(ended=False)
            return
        # Little data can hold much: what is decoded is looked at piece by piece, never all at once.
        for piece in self._content.pieces(data):
            if self._events is not None:
                self._take(piece)
            else:
                self._seen += piece
                self._look(ended=False)
            if self._timer is None or self._relay is not None or self._response is not response:
                return
        if self._events is None and self._held_bytes >= PEEK_BYTES:  # much that decodes to next to nothing
            self._look(ended=False)

    def _look(self, *, ended: bool) -> None:
        """Decide what kind of answer this is, once enough of it is there."""
        response = self._response
        assert response is not None
        whole = ended or self._content is None or max(len(self._seen), self._held_bytes) >= PEEK_BYTES
        refused = response.status in (400, 422)
        if refused and not whole:
            return
        seen = bytes(self._seen[:PEEK_BYTES])
        if refused and self._retry(response, seen):
            return
        kind = sniff(seen, ended=whole)
        if kind is Sniffed.UNDECIDED:
            return
        said = media_type(response.values(b"content-type"))
        success = 200 <= response.status < 300
        if kind is Sniffed.JSON or not success:
            self._relay_answer(response, json=kind is Sniffed.JSON and not _is_json(said))
        elif kind is Sniffed.EVENTS or said == b"text/event-stream":
            self._convert(response, ended=ended)
        else:
            self._relay_answer(response, json=False)

    def _retry(self, response: UpstreamResponse, body: bytes) -> bool:
        """Whether the refusal is one that can be answered by asking otherwise."""
        model = self._call.model
        if refuses_stream(response.status, body):
            self._memory.note(Refusal.STREAM, model)
            self._upstream.drain(response)
            self._pass_on()
            return True
        if (
            self._with_usage
            and self._terms.include_usage == "auto"
            and refuses_include_usage(response.status, body)
        ):
            self._suspect = Refusal.INCLUDE_USAGE
            self._upstream.drain(response)
            self._response = None
            self._ask(False)
            return True
        return False

    def _relay_answer(self, response: UpstreamResponse, *, json: bool) -> None:
        """Relay an answer that is no event stream."""
        assert self._timer is not None
        self.how = "passed"
        headers: Iterable[RawHeader] = response.headers
        if json:
            headers = [pair for pair in headers if pair[0].lower() != b"content-type"]
            headers.append((b"Content-Type", b"application/json"))
        held, self._held = self._held, []
        self._relay = AnswerRelay(self._request, response, self._timer.touch, self._relayed)
        self._relay.start(headers, held)

    def _relayed(self, error: APIError | None) -> None:
        sent = self._relay.sent if self._relay is not None else 0
        self._close(Outcome(self._request.code, sent, error.message if error else None))

    def _convert(self, response: UpstreamResponse, *, ended: bool) -> None:
        limit = self._terms.max_response_bytes
        if self._content is None:
            names = b", ".join(content_codings(response.values(b"content-encoding")))
            raise upstream_error(
                f"The upstream compressed its stream with {names[:40].decode('ascii', 'replace')}, which "
                "the proxy cannot decode; it asked for identity."
            )
        self._events = SSEDecoder(max_event_bytes=limit + _EVENT_OVERHEAD)
        if self._call.kind is Kind.CHAT:
            chat = self._answer = ChatCompletionsAccumulator(n=self._call.n, max_bytes=limit)
            self._runs = ChatRuns(self._events, chat)
        else:
            self._answer = ResponseAccumulator(max_bytes=limit)
        self._held = []
        seen, self._seen = bytes(self._seen), bytearray()
        self._take(seen)
        if ended and self._timer is not None:
            self._answer.end(self._events.stray())
            self._complete()

    def _take(self, piece: bytes) -> None:
        assert self._events is not None and self._answer is not None
        if self._runs is not None:
            self._runs.feed(piece)
        else:
            for event in self._events.feed(piece):
                self._answer.feed(event)
        if self._answer.complete:
            self._complete()

    # The end

    def _complete(self) -> None:
        response, result = self._response, self._answer
        assert response is not None and result is not None
        body = result.result_bytes()
        answer(
            self._request,
            response.status,
            response.reason,
            converted_response_headers(response.headers),
            body,
        )
        self._upstream.drain(response)
        self._close(Outcome(response.status, len(body)))

    def _fail(self, error: APIError) -> None:
        headers = converted_response_headers(self._response.headers) if self._response is not None else ()
        if self._request.channel is not None:
            answer_error(self._request, error, headers)
        self._close(Outcome.failed(error, len(error.envelope())))

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
            queued = self._upstream.queue_error(self._asking, seconds)
            self._fail(queued or upstream_timeout(f"{what}; ask for less, or raise timeoutSeconds."))

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()

    def _close(self, outcome: Outcome) -> None:
        if self._timer is None:
            return
        self._stop_timer()
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


def _is_json(media: bytes) -> bool:
    return media == b"application/json" or media.endswith(b"+json")
