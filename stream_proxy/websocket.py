"""One relayed WebSocket: two handshakes, then the bytes of each side written to the other's connection.

The upstream is asked first and its answer is the client's. Backpressure is the transports' own: whichever is
full pauses the other side, and nothing is queued in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse
from twisted.web.server import Request
from zope.interface import implementer

from stream_proxy.downstream import DownstreamChannel, answer_error
from stream_proxy.errors import APIError, internal_error, invalid_request, upstream_error, upstream_timeout
from stream_proxy.failures import request_failure
from stream_proxy.frames import Close, FrameTracker
from stream_proxy.handshakes import ClientHalf, HandshakeError, Opened, ServerHalf, without_handshake
from stream_proxy.headers import RawHeader, request_headers, response_headers
from stream_proxy.outcome import Outcome, RequestLog
from stream_proxy.relay import AnswerRelay
from stream_proxy.sockets import tune
from stream_proxy.timer import IdleTimer
from stream_proxy.upstream import Upstream, UpstreamResponse

#: How long a close frame waits for the peer's.
CLOSE_SECONDS = 10.0
#: How long a connection may take to end once both sides have said all they had to say.
END_SECONDS = 1.0
#: What the client is told when the upstream vanishes.
_ABNORMAL = Close.of(1011, "upstream websocket disconnected abnormally")
_GOING_AWAY = Close.of(1001)


@implementer(IPushProducer)
class _Gate:
    """What a full transport pauses: the reading on the other side."""

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self.pauseProducing = pause
        self.resumeProducing = resume

    def stopProducing(self) -> None:
        """The connection is going, which whoever watches it hears anyway."""


class WebSocketRelay:
    """One WebSocket, from its handshake to the end of both connections.

    :param request: the client's handshake.
    :param upstream: where it goes.
    :param target: in origin form.
    :param headers: the client's, as they came.
    :param timeout_seconds: the longest silence in the body of a refusal. In a session silence is no error.
    """

    def __init__(
        self,
        clock: IReactorTime,
        request: Request,
        upstream: Upstream,
        target: bytes,
        headers: list[RawHeader],
        timeout_seconds: float,
        log: RequestLog,
    ) -> None:
        #: Fires once with how it ended.
        self.done: Deferred[Outcome] = Deferred()
        self._clock = clock
        self._request = request
        self._channel: Any = request.channel
        self._upstream = upstream
        self._target = target
        self._headers = headers
        self._seconds = timeout_seconds
        self._log = log
        self._timer: IDelayedCall | None = None
        self._idle: IdleTimer | None = None
        self._connecting: Deferred[Any] | None = None
        self._server: ServerHalf | None = None
        self._client: ClientHalf | None = None
        self._relay: AnswerRelay | None = None
        self._response: UpstreamResponse | None = None
        self._open = False
        self._up = FrameTracker()
        self._down = FrameTracker()
        self._client_gone = False
        self._upstream_gone = False
        self._ended = False

    def start(self) -> None:
        """Check the client's handshake, then ask the upstream."""
        server = self._server = ServerHalf.check(self._clock, self._channel.transport, self._headers)
        if server.refusal is not None:
            reason, fields = server.refusal
            error = invalid_request(f"The WebSocket handshake is malformed: {reason}.")
            self._refuse(error, [(name.encode(), value.encode()) for name, value in fields])
            return
        factory, client = ClientHalf.factory_for(self._clock, self._handshake(), server.offers)
        self._client = client
        self._wait(self._upstream.connect_seconds, self._too_slow)
        client.answered.addCallbacks(self._answered, self._failed).addErrback(self._bug)
        connecting = self._connecting = self._upstream.connect(factory)
        connecting.addCallbacks(self._connected, self._failed).addErrback(self._bug)

    def cancel(self) -> None:
        """The client has gone."""
        self._client_gone = True
        if self._ended:
            return
        if not self._open:
            self._close(Outcome.gone(self._relay.sent if self._relay is not None else 0))
        elif self._upstream_gone:
            self._close_session()
        elif self._up.close is not None or self._down.close is not None:
            if self._up.close is None and self._down.close is not None:
                self._send_upstream(self._down.close)
            self._wait(END_SECONDS, self._drop)
        elif self._up.inside_frame:
            self._drop()
        else:
            self._send_upstream(_GOING_AWAY)
            self._wait(END_SECONDS, self._drop)

    # The handshakes

    def _handshake(self) -> list[bytes]:
        url = self._upstream.url
        lines = [b"GET %b%b HTTP/1.1" % (url.prefix, self._target), b"Host: " + url.netloc]
        lines += [b"%b: %b" % field for field in without_handshake(request_headers(self._headers))]
        lines += [
            b"%b: %b" % (name, value)
            for name, value in self._headers
            if name.lower() == b"sec-websocket-protocol"
        ]
        return [*lines, b"Upgrade: websocket", b"Connection: Upgrade"]

    def _connected(self, protocol: object) -> None:
        self._connecting = None
        if self._client is not None and self._client.transport is not None:
            tune(self._client.transport)

    def _answered(self, answer: Opened | IResponse) -> None:
        if self._ended:
            return
        self._stop_waiting()
        if isinstance(answer, Opened):
            self._take_over(answer)
            return
        raw = [(name, value) for name, values in answer.headers.getAllRawHeaders() for value in values]
        fields = without_handshake(response_headers(raw))
        response = UpstreamResponse(answer, fields, cast(Any, self._client), self._upstream.url.origin)
        self._response = response
        idle = self._idle = IdleTimer(self._clock, self._seconds, self._silent)
        self._relay = AnswerRelay(self._request, response, idle.touch, self._refusal_ended)
        self._relay.start(response.headers)

    def _failed(self, failure: Failure) -> None:
        if self._ended or failure.check(CancelledError):
            return
        if isinstance(failure.value, HandshakeError):
            origin = self._upstream.url.origin
            self._refuse(upstream_error(f"The WebSocket handshake of {origin} is invalid: {failure.value}."))
            return
        known = request_failure(failure, self._upstream.url, self._upstream.connect_seconds)
        if isinstance(known.value, APIError):
            self._refuse(known.value)
        else:
            self._bug(failure)

    def _bug(self, failure: Failure) -> None:
        self._log.bug(failure)
        if self._open:
            self._drop()
        elif not self._ended and not self._request.startedWriting:
            self._refuse(internal_error())
        else:
            self._close(Outcome(500, 0, "the proxy failed"))

    def _too_slow(self) -> None:
        seconds, origin = self._upstream.connect_seconds, self._upstream.url.origin
        self._refuse(
            upstream_timeout(f"{origin} did not answer the WebSocket handshake within {seconds:g} seconds.")
        )

    def _silent(self) -> None:
        if self._relay is not None:
            self._relay.stop(upstream_timeout(f"The upstream sent nothing for {self._seconds:g} seconds."))

    def _refusal_ended(self, error: APIError | None) -> None:
        sent = self._relay.sent if self._relay is not None else 0
        self._close(Outcome(self._request.code, sent, error.message if error else None))

    def _refuse(self, error: APIError, fields: Iterable[RawHeader] = ()) -> None:
        if self._request.channel is not None:
            answer_error(self._request, error, fields)
        self._close(Outcome.failed(error, len(error.envelope())))

    # The session

    def _take_over(self, opened: Opened) -> None:
        request, channel, client, server = self._request, self._channel, self._client, self._server
        assert client is not None and server is not None
        self._open = True
        request.startedWriting = 1
        request.setResponseCode(101)
        held, channel._dataBuffer = b"".join(channel._dataBuffer), []
        channel.dataReceived = self._from_client
        if isinstance(channel, DownstreamChannel):
            channel.going_away = self._shut_down
        client.received, client.lost = self._from_upstream, self._upstream_lost
        server.accept(opened.subprotocol, opened.headers)
        network = channel._networkProducer
        pause_client, resume_client = network.pauseProducing, network.resumeProducing
        request.registerProducer(_Gate(self._pause_upstream, self._resume_upstream), True)
        client.transport.registerProducer(_Gate(pause_client, resume_client), True)
        resume_client()
        if opened.early:
            self._from_upstream(opened.early)
        if held:
            self._from_client(held)

    def _pause_upstream(self) -> None:
        if self._client is not None and not self._upstream_gone:
            self._client.transport.pauseProducing()

    def _resume_upstream(self) -> None:
        if self._client is not None and not self._upstream_gone:
            self._client.transport.resumeProducing()

    def _from_client(self, data: bytes) -> None:
        if self._up.close is not None:
            return
        out = self._up.feed(data)
        if out and not self._upstream_gone and self._client is not None:
            self._client.transport.write(out)
        if self._up.close is not None:
            self._close_passed()

    def _from_upstream(self, data: bytes) -> None:
        if self._down.close is not None:
            return
        out = self._down.feed(data)
        if out and not self._client_gone:
            self._channel.transport.write(out)
        if self._down.close is not None:
            self._close_passed()

    def _close_passed(self) -> None:
        if self._client_gone or self._upstream_gone or (self._up.close and self._down.close):
            self._end_soon()
        else:
            self._wait(CLOSE_SECONDS, self._unanswered)

    def _unanswered(self) -> None:
        """A close frame had no reply: its sender gets its own back."""
        if self._up.close is not None:
            self._send_client(self._up.close)
        elif self._down.close is not None:
            self._send_upstream(self._down.close)
        self._end_soon()

    def _upstream_lost(self, reason: Failure) -> None:
        self._upstream_gone = True
        if self._client_gone:
            self._close_session()
            return
        if self._down.close is not None:
            # The upstream has closed in order. The client's reply has nowhere to go, but an end of the
            # connection before it has come could destroy the close frame on its way.
            if self._up.close is None:
                self._wait(END_SECONDS, self._end_soon)
                return
        elif self._up.close is not None:
            self._send_client(self._up.close)
        elif self._down.inside_frame:
            self._channel.transport.abortConnection()
            return
        else:
            self._send_client(_ABNORMAL)
            self._down.close = _ABNORMAL
            self._wait(END_SECONDS, self._end_soon)
            return
        self._end_soon()

    def _shut_down(self) -> None:
        """The service stops."""
        if self._ended or self._client_gone:
            return
        if self._up.close is None and not self._upstream_gone:
            self._send_upstream(_GOING_AWAY)
            self._up.close = _GOING_AWAY
        if self._down.close is None:
            self._send_client(_GOING_AWAY)
            self._down.close = _GOING_AWAY
        self._wait(END_SECONDS, self._end_soon)

    def _send_client(self, close: Close) -> None:
        if self._down.inside_frame:
            self._channel.transport.abortConnection()
        elif self._down.close is None:
            self._channel.transport.write(close.frame(masked=False))

    def _send_upstream(self, close: Close) -> None:
        if self._client is None or self._upstream_gone:
            return
        if self._up.inside_frame:
            self._client.transport.abortConnection()
        elif self._up.close is None:
            self._client.transport.write(close.frame(masked=True))

    # The end

    def _end_soon(self) -> None:
        """Both sides have said all: close in order, the client's connection first, and wait no longer."""
        self._wait(END_SECONDS, self._drop)
        if not self._client_gone:
            self._request.unregisterProducer()
            self._channel.loseConnection()
        if not self._upstream_gone and self._client is not None:
            self._client.transport.unregisterProducer()
            self._client.transport.resumeProducing()

    def _drop(self) -> None:
        self._stop_waiting()
        if not self._upstream_gone and self._client is not None and self._client.transport is not None:
            self._client.transport.abortConnection()
        if not self._client_gone and self._open:
            self._channel.transport.abortConnection()

    def _close_session(self) -> None:
        up, down = self._up, self._down
        close = up.close or down.close
        code = close.code if close is not None else 1006
        detail = (
            f"close {code if code is not None else 1005}, "
            f"{up.messages} messages {up.octets} bytes up, {down.messages} messages {down.octets} bytes down"
        )
        self._close(Outcome(101, down.octets, detail=detail))

    def _close(self, outcome: Outcome) -> None:
        if self._ended:
            return
        self._ended = True
        self._stop_waiting()
        if self._idle is not None:
            self._idle.stop()
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        client = self._client
        if client is not None and client.transport is not None and not self._upstream_gone:
            client.transport.abortConnection()
        self.done.callback(outcome)

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop_waiting()
        self._timer = self._clock.callLater(seconds, self._waited, then)

    def _waited(self, then: Callable[[], None]) -> None:
        self._timer = None
        then()

    def _stop_waiting(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
