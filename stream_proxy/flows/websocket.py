"""One relayed WebSocket: the upstream is asked first, and its answer is the client's; then the session."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request

from stream_proxy.downstream.response import respond_error
from stream_proxy.errors import APIError, internal_error, invalid_request, upstream_error, upstream_timeout
from stream_proxy.flows.response_relay import ResponseRelay
from stream_proxy.http.headers import RawHeader, request_headers, response_headers
from stream_proxy.http.upgrade import without_handshake
from stream_proxy.request_log import Outcome, RequestLog
from stream_proxy.transport.idle_timer import IdleTimer
from stream_proxy.transport.tuning import tune
from stream_proxy.upstream.client import Upstream
from stream_proxy.upstream.response import UpstreamResponse
from stream_proxy.websocket.client_handshake import ClientHandshake
from stream_proxy.websocket.handshake_rules import HandshakeError
from stream_proxy.websocket.refusal import Refused
from stream_proxy.websocket.session import Session
from stream_proxy.websocket.upstream_handshake import Accepted, UpstreamHandshake


class WebSocketRelay:
    """One WebSocket, from its handshake to the end of both connections.

    :param request: the client's handshake.
    :param upstream: where it goes.
    :param target: in origin form.
    :param headers: the client's, as they came.
    :param timeout_seconds: how long to wait for a connection that may be used, and the longest silence in the
        body of a refusal. In a session silence is no error.
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
        self.how = "websocket"
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
        self._server: ClientHandshake | None = None
        self._client: UpstreamHandshake | None = None
        self._relay: ResponseRelay | None = None
        self._response: UpstreamResponse | None = None
        self._session: Session | None = None
        self._ended = False

    def start(self) -> None:
        """Check the client's handshake, then ask the upstream."""
        server = self._server = ClientHandshake(self._clock, self._headers)
        if server.fault is not None:
            reason, fields = server.fault
            self._refuse(invalid_request(f"The WebSocket handshake is malformed: {reason}."), fields)
            return
        client = self._client = UpstreamHandshake(self._clock, self._handshake(), server.offers)
        self._timer = self._clock.callLater(self._seconds, self._never_begun)
        client.decision.addCallbacks(self._answered, self._failed).addErrback(self._bug)
        connecting = self._connecting = self._upstream.connect(client.factory(), self._begun)
        connecting.addCallbacks(self._connected, self._failed).addErrback(self._bug)

    def cancel(self) -> None:
        """The client has gone."""
        if self._session is not None:
            self._session.client_lost()
        else:
            self._close(Outcome.gone(self._relay.sent if self._relay is not None else 0))

    # The handshakes

    def _handshake(self) -> list[bytes]:
        url = self._upstream.url
        target = self._upstream.access.target(self._target)
        lines = [b"GET %b%b HTTP/1.1" % (url.prefix, target), b"Host: " + url.netloc]
        offers = [field for field in self._headers if field[0].lower() == b"sec-websocket-protocol"]
        fields = [*without_handshake(request_headers(self._headers)), *offers]
        lines += [b"%b: %b" % field for field in self._upstream.access.headers(b"GET", fields)]
        return [*lines, b"Upgrade: websocket", b"Connection: Upgrade"]

    def _begun(self) -> None:
        self._stop_waiting()
        self._timer = self._clock.callLater(self._upstream.connect_seconds, self._too_slow)

    def _connected(self, protocol: object) -> None:
        self._connecting = None
        if self._client is not None and self._client.transport is not None:
            tune(self._client.transport)

    def _answered(self, decision: Accepted | Refused) -> None:
        if self._ended:
            return
        self._stop_waiting()
        if isinstance(decision, Accepted):
            self._take_over(decision)
            return
        answer = decision.response
        raw = [(name, value) for name, values in answer.headers.getAllRawHeaders() for value in values]
        fields = without_handshake(response_headers(raw, decision.connection_fields))
        fields = self._upstream.access.answer_headers(fields)
        response = UpstreamResponse(answer, fields, self._client, self._upstream.url.origin)
        self._response = response
        idle = self._idle = IdleTimer(self._clock, self._seconds, self._silent)
        self._relay = ResponseRelay(self._request, response, idle.touch, self._refusal_ended)
        self._relay.start(response.headers)

    def _failed(self, failure: Failure) -> None:
        if self._ended or failure.check(CancelledError):
            return
        if isinstance(failure.value, HandshakeError):
            origin = self._upstream.url.origin
            self._refuse(upstream_error(f"The WebSocket handshake of {origin} is invalid: {failure.value}."))
            return
        known = self._upstream.explained(failure)
        if isinstance(known.value, APIError):
            self._refuse(known.value)
        else:
            self._bug(failure)

    def _bug(self, failure: Failure) -> None:
        self._log.bug(failure)
        if self._session is not None:
            self._session.drop()
        elif not self._ended and not self._request.startedWriting:
            self._refuse(internal_error())
        else:
            self._close(Outcome(500, 0, "the proxy failed"))

    def _never_begun(self) -> None:
        self._refuse(self._upstream.never_free(self._seconds))

    def _too_slow(self) -> None:
        seconds, origin = self._upstream.connect_seconds, self._upstream.url.origin
        self._refuse(
            upstream_timeout(f"{origin} did not answer the WebSocket handshake within {seconds:g} seconds.")
        )

    def _silent(self) -> None:
        if self._relay is not None:
            self._relay.silent(self._seconds)

    def _refusal_ended(self, error: APIError | None) -> None:
        sent = self._relay.sent if self._relay is not None else 0
        self._close(Outcome(self._request.code, sent, error.message if error else None))

    def _refuse(self, error: APIError, fields: Iterable[RawHeader] = ()) -> None:
        if self._request.channel is not None:
            respond_error(self._request, error, fields)
        self._close(Outcome.failed(error, len(error.envelope())))

    def _take_over(self, accepted: Accepted) -> None:
        request, client, server = self._request, self._client, self._server
        assert client is not None and server is not None
        request.startedWriting = 1
        request.setResponseCode(101)
        fields = self._upstream.access.answer_headers(accepted.headers)
        self._channel.transport.write(server.accept(accepted.subprotocol, fields))
        self._session = Session(self._clock, request, client, self._close)
        self._session.start()

    # The end

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
        if self._client is not None:
            self._client.abort()
        self._client = self._server = self._session = self._relay = self._response = None
        self.done.callback(outcome)

    def _stop_waiting(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
