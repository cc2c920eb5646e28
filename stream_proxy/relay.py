"""One passed-through request, with a producer on either side of the proxy."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from twisted.web.server import Request
from zope.interface import implementer

from stream_proxy.downstream import answer_error, break_off, is_taking, start_answer
from stream_proxy.errors import APIError, internal_error, upload_stalled, upstream_error, upstream_timeout
from stream_proxy.headers import RawHeader
from stream_proxy.incoming import IncomingBody
from stream_proxy.outcome import Outcome, RequestLog
from stream_proxy.timer import IdleTimer
from stream_proxy.upstream import Upstream, UpstreamResponse

_NO_LENGTH_STATUS = (204, 304)


@implementer(IPushProducer)
class AnswerRelay:
    """An upstream's answer on its way to the client, as it comes and as fast as the client takes it.

    :param request: the client's.
    :param response: the upstream's, whose head is in; its body may have begun already.
    :param touched: called whenever something moves.
    :param ended: called once, with why it did not come to its end, if so.
    """

    def __init__(
        self,
        request: Request,
        response: UpstreamResponse,
        touched: Callable[[], None],
        ended: Callable[[APIError | None], None],
    ) -> None:
        self._request = request
        self._response = response
        self._touched = touched
        self._ended = ended
        self.sent = 0
        self.paused = False

    def start(self, headers: Iterable[RawHeader], held: Iterable[bytes] = ()) -> None:
        """Send the head, what is at hand of the body, and then the rest as it comes.

        :param headers: in place of the upstream's.
        :param held: what has been taken of the body; if any was, the body flows already.
        """
        response = self._response
        fields = list(headers)
        if response.length is not None and response.status not in _NO_LENGTH_STATUS:
            fields = [(name, value) for name, value in fields if name.lower() != b"content-length"]
            if self._request.method == b"HEAD":
                fields += [(b"Content-Length", value) for value in response.values(b"content-length")]
            else:
                fields.append((b"Content-Length", b"%d" % response.length))
        start_answer(self._request, response.status, response.reason, fields)
        self._request.registerProducer(self, True)
        self._request.write(b"")  # the head does not wait for the body
        for piece in held:
            self.body_received(piece)
        if response.started:
            response.sink = self
            if response.ended:
                self.body_ended(response.error)
            elif not self.paused:
                response.resume()
        else:
            response.start(self)

    def body_received(self, data: bytes) -> None:
        self._touched()
        self.sent += len(data)
        self._request.write(data)

    def body_ended(self, error: APIError | None) -> None:
        self._end(error)

    def pauseProducing(self) -> None:
        self.paused = True
        self._response.pause()

    def resumeProducing(self) -> None:
        self.paused = False
        self._touched()
        self._response.resume()

    def stopProducing(self) -> None:
        """The client's connection is going; whoever watches the request ends this."""

    def stop(self, error: APIError | None) -> None:
        """Take no more from the upstream; with an error, show the client that this is not the end."""
        self._response.abort()
        self._end(error)

    def silent(self, seconds: float) -> None:
        """Nothing moved for so long: break off, and tell whose silence it was."""
        if self.paused and is_taking(self._request):
            self._touched()  # the upstream waits for a client that is slow
        elif self.paused:
            self.stop(upstream_error(f"The client took nothing for {seconds:g} seconds."))
        else:
            self.stop(upstream_timeout(f"The upstream sent nothing for {seconds:g} seconds."))

    def _end(self, error: APIError | None) -> None:
        request = self._request
        if request.channel is not None and not request.finished:
            request.unregisterProducer()
            if error is None:
                request.finish()
            else:
                break_off(request)
        self._ended(error)


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
        self._relay: AnswerRelay | None = None
        self._response: UpstreamResponse | None = None

    def start(self) -> None:
        """Send the request."""
        self._timer = IdleTimer(self._clock, self._seconds, self._silent)
        if isinstance(self._body, IncomingBody):
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
        self._relay = AnswerRelay(self._request, response, self._timer.touch, self._ended)
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
            uploading = isinstance(self._body, IncomingBody) and not self._body.ended
            queued = self._upstream.queue_error(self._asking, self._seconds)
            self._refuse(queued or _silence(uploading, self._seconds))
        else:
            self._relay.silent(self._seconds)

    def _refuse(self, error: APIError) -> None:
        if self._asking is not None:
            self._asking.cancel()
        if self._request.channel is not None:
            answer_error(self._request, error)
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
        if isinstance(self._body, IncomingBody):
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
