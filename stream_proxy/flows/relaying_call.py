"""Call that can end with the upstream's response relayed, with backpressure."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from stream_proxy.downstream.response import break_off, is_taking, start_response
from stream_proxy.errors import APIError, client_stalled, internal_error, upstream_timeout
from stream_proxy.flows.content_clock import ContentClock
from stream_proxy.flows.exchange import Exchange
from stream_proxy.flows.upstream_call import UpstreamCall
from stream_proxy.http.body_kind import media_type
from stream_proxy.http.content_coding import content_codings
from stream_proxy.http.headers import RawHeader
from stream_proxy.observe.content_scan import ContentScan
from stream_proxy.observe.record import Phase
from stream_proxy.observe.stream_watch import StreamWatch
from stream_proxy.request_log import Outcome
from stream_proxy.upstream.response import UpstreamResponse

_NO_LENGTH_STATUS = (204, 304)
# The longest media type that is looked for.
_MEDIA_BYTES = len(b"text/event-stream")


@implementer(IPushProducer)
class RelayingCall(UpstreamCall):
    """Call that is the sink of its response and the client's producer once it relays that response.

    The body goes to the client as it comes and as fast as the client reads.

    :param exchange: the request to answer.
    """

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange)
        #: The response is on its way to the client, to whom nothing else can be said any more.
        self.relaying = False
        self._paused = False
        self._watch: StreamWatch | None = None
        self._scan: ContentScan | None = None

    @property
    def sent(self) -> int:
        return self.record.sent

    def relay(
        self, response: UpstreamResponse, headers: Iterable[RawHeader], held: Iterable[bytes] = ()
    ) -> None:
        """Send the head, the held part of the body, and then the rest as it comes; its end is the call's.

        :param headers: the fields of the head, in place of the upstream's.
        :param held: the part of the body that was taken already; if there is any, the body flows.
        """
        self.relaying = True
        record = self.record
        record.recount = self._recount_relayed
        watch = self._watch = self._watch_over(response)
        if self.content is not None:
            self._begin_scan(self.content, response)
        if watch is None:
            record.phase = Phase.STREAMING
        request = self.request
        fields = list(headers)
        if response.length is not None and response.status not in _NO_LENGTH_STATUS:
            fields = [field for field in fields if field[0].lower() != b"content-length"]
            if request.method == b"HEAD":
                fields += [(b"Content-Length", value) for value in response.values(b"content-length")]
            else:
                fields.append((b"Content-Length", b"%d" % response.length))
        start_response(request, response.status, response.reason, fields)
        if not response.arrived:  # else all is written now, the head with the body
            request.registerProducer(self, True)
            request.write(b"")
        if response.length is not None:
            response.read_much()
        for piece in held:
            self.body_received(piece)
        if not response.started:
            response.start(self)
            return
        response.sink = self
        if response.ended:
            self.body_ended(response.error)
        elif not self._paused:
            response.resume()

    def body_received(self, data: bytes) -> None:
        """Pass on a part of the body."""
        timer = self._timer
        now = None if timer is None else timer.touch()
        self.record.sent += len(data)
        if self._watch is not None:
            self._watch.feed(data, now)
        if self._scan is not None and self.content is not None and self._scan.feed(data):
            self.content.heard()
        self.request.write(data)

    def body_ended(self, error: APIError | None) -> None:
        """End the response, so that with an error the client sees that it is not complete."""
        request = self.request
        if request.channel is not None and not request.finished:
            request.unregisterProducer()
            if error is None:
                request.finish()
            else:
                break_off(request)
        watch, record = self._watch, self.record
        code = problem = None
        if error is not None:
            code, problem = str(error.code), error.message
        if watch is not None:
            watch.end()
            record.usage = watch.usage
            if error is None and watch.problem is not None:
                code, problem = watch.problem, "the upstream reported an error in its stream"
        self.close(Outcome(request.code, record.sent, problem, code=code))

    def pauseProducing(self) -> None:
        self._paused = True
        if self.response is not None:
            self.response.pause()

    def resumeProducing(self) -> None:
        self._paused = False
        self.touch()
        if self.response is not None:
            self.response.resume()

    def stopProducing(self) -> None:
        """Do nothing: the exchange hears of a lost client from its request."""

    def bug(self, failure: Failure) -> None:
        if self.relaying and not self.ended:
            self.exchange.log.bug(failure)
            self._break_off(internal_error())
        else:
            super().bug(failure)

    def silent(self) -> None:
        """End with the side that kept silent as the reason."""
        if not self.relaying:
            super().silent()
            return
        seconds = self.limits.timeout_seconds
        if self._paused and is_taking(self.request):
            self.touch()  # the upstream waits for a client that is slow
        elif self._paused:
            self._break_off(client_stalled(seconds))
        else:
            self._break_off(upstream_timeout(f"The upstream sent nothing for {seconds:g} seconds."))

    @property
    def waits_for_client(self) -> bool:
        return self._paused

    def stalled(self, error: APIError) -> None:
        if self.relaying and not self._paused:
            self._break_off(error)
        else:
            super().stalled(error)

    def _begin_scan(self, content: ContentClock, response: UpstreamResponse) -> None:
        """Scan a stream of an API that is known, and can be read; the limits are about nothing else."""
        kind, asked = self.record.kind, self.record.asked
        media = media_type(response.values(b"content-type"))
        readable = StreamWatch.knows(kind) and not content_codings(response.values(b"content-encoding"))
        if media == b"text/event-stream" and 200 <= response.status < 300 and readable:
            self._scan = ContentScan(kind)
            content.start(0.0 if asked is None else self.exchange.clock.seconds() - asked)
        else:
            content.stop()

    def _watch_over(self, response: UpstreamResponse) -> StreamWatch | None:
        """Return a watch over a response that may tell of tokens, if that is wanted."""
        kind = self.record.kind
        if not StreamWatch.knows(kind) or not 200 <= response.status < 300:
            return None
        ledger = self.exchange.resource.ledger
        if not (ledger.watches and (ledger.keeps or self.exchange.log.tells_requests)):
            return None
        media = b""
        for name, value in response.headers:
            lower = name.lower()
            if lower == b"content-type":
                media = value[:_MEDIA_BYTES].lower()
            elif lower == b"content-encoding" and content_codings((value,)):
                return None
        if media.startswith(b"text/event-stream"):
            return StreamWatch(kind, streams=True)
        return StreamWatch(kind, streams=False) if media.startswith(b"application/json") else None

    def _recount_relayed(self) -> None:
        record, watch = self.record, self._watch
        record.read = record.sent
        if watch is None:
            return
        if watch.model is not None:
            record.name_model(watch.model)
        if watch.first is not None:
            record.events, record.first_event, record.last_event = watch.events, watch.first, watch.last
            record.phase = Phase.STREAMING

    def _break_off(self, error: APIError) -> None:
        """Drop the rest of the response."""
        if self.response is not None:
            self.response.abort()
        self.body_ended(error)
