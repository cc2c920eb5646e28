"""Relay of one WebSocket: the upstream is asked first, the client gets its response, a session follows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from stream_proxy.downstream.response import break_off
from stream_proxy.errors import handshake_unanswered, handshake_unusable, invalid_handshake
from stream_proxy.flows.exchange import Exchange
from stream_proxy.flows.relaying_call import RelayingCall
from stream_proxy.http.headers import RawHeader, raw_headers, request_headers, response_headers
from stream_proxy.http.upgrade import without_handshake
from stream_proxy.observe.record import Phase
from stream_proxy.request_log import Outcome
from stream_proxy.transport.tuning import tune
from stream_proxy.upstream.response import UpstreamResponse
from stream_proxy.upstream.twisted_client.response import upstream_response
from stream_proxy.websocket.client_handshake import ClientHandshake
from stream_proxy.websocket.handshake_rules import HandshakeError
from stream_proxy.websocket.refusal import Refused
from stream_proxy.websocket.session import Session
from stream_proxy.websocket.upstream_handshake import Accepted, UpstreamHandshake


class WebSocketRelay(RelayingCall):
    """One WebSocket, from its handshake to the end of both connections.

    ``timeoutSeconds`` is how long to wait for a connection that may be used, and the longest silence in the
    body of a refusal. In a session silence is no error.

    :param exchange: the client's handshake.
    :param target: its target in origin form.
    """

    mode = "websocket"

    def __init__(self, exchange: Exchange, target: bytes) -> None:
        super().__init__(exchange)
        self._target = target
        self._connecting: Deferred[Any] | None = None
        self._client: ClientHandshake | None = None
        self._handshake: UpstreamHandshake | None = None
        self._session: Session | None = None

    def begin(self) -> None:
        client = self._client = ClientHandshake(self.exchange.clock, self.exchange.fields)
        if client.fault is not None:
            reason, fields = client.fault
            self.fail(invalid_handshake(reason), fields)
            return
        handshake = self._handshake = UpstreamHandshake(
            self.exchange.clock, self._request_lines(), client.offers
        )
        handshake.decision.addCallbacks(self._decided, self._failed).addErrback(self.bug)
        self.record.phase, self.record.asked = Phase.QUEUED, self.exchange.clock.seconds()
        connecting = self._connecting = self.upstream.connect(handshake.factory(), self._begun)
        connecting.addCallbacks(self._connected, self._failed).addErrback(self.bug)

    def cancel(self) -> None:
        if self._session is not None:
            self._session.client_lost()
        else:
            super().cancel()

    def silent(self) -> None:
        if self.relaying:
            super().silent()
        else:  # no connection may be used yet
            self.fail(self.upstream.never_free(self.limits.timeout_seconds))

    def bug(self, failure: Failure) -> None:
        if not self.relaying and self.request.startedWriting:
            # The client has its 101: nothing but the end of the connection can say more.
            self.exchange.log.bug(failure)
            if self._session is not None:
                self._session.drop()
            else:
                break_off(self.request)
                self.close(Outcome(500, 0, "the proxy failed"))
        else:
            super().bug(failure)

    def release(self) -> None:
        super().release()
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        handshake, self._handshake = self._handshake, None
        if handshake is not None:
            handshake.abort()
        self._recount()
        self._client = self._session = None

    # The handshakes

    def _request_lines(self) -> list[bytes]:
        url, access = self.upstream.url, self.upstream.access
        fields = self.exchange.fields
        lines = [b"GET %b%b HTTP/1.1" % (url.prefix, access.target(self._target)), b"Host: " + url.netloc]
        offers = [field for field in fields if field[0].lower() == b"sec-websocket-protocol"]
        sent = [*without_handshake(request_headers(fields)), *offers]
        lines += [b"%b: %b" % field for field in access.headers(b"GET", sent)]
        return [*lines, b"Upgrade: websocket", b"Connection: Upgrade"]

    def _begun(self) -> None:
        self.record.phase, self.record.connecting = Phase.CONNECTING, self.exchange.clock.seconds()
        self.limit(self.upstream.connect_seconds, self._too_slow)

    def _connected(self, protocol: object) -> None:
        self._connecting = None
        self.record.phase, self.record.connected = Phase.HEAD, self.exchange.clock.seconds()
        if self._handshake is not None and self._handshake.transport is not None:
            tune(self._handshake.transport)

    def _decided(self, decision: Accepted | Refused) -> None:
        handshake = self._handshake
        if self.ended or handshake is None:
            return
        self.record.head = self.exchange.clock.seconds()
        if isinstance(decision, Accepted):
            self._open(decision, handshake)
            return
        self.limit(self.limits.timeout_seconds, self.silent)
        raw = raw_headers(decision.response.headers.getAllRawHeaders())
        fields = without_handshake(response_headers(raw, decision.connection_fields))
        headers = self.exchange.local(self.upstream.access.answer_headers(fields))
        origin = self.upstream.url.origin
        self.responded(upstream_response(decision.response, headers, handshake, origin))

    def responded(self, response: UpstreamResponse) -> None:
        self.response = response
        self.record.response_fields = response.headers
        self.relay(response, response.headers)

    def _failed(self, failure: Failure) -> None:
        if isinstance(failure.value, HandshakeError):
            origin = self.upstream.url.origin
            failure = Failure(handshake_unusable(origin, failure.value))
        super().upstream_failed(self.upstream.explained(failure))

    def _too_slow(self) -> None:
        seconds, origin = self.upstream.connect_seconds, self.upstream.url.origin
        self.fail(handshake_unanswered(origin, seconds))

    def _open(self, accepted: Accepted, handshake: UpstreamHandshake) -> None:
        """Accept the client as the upstream did, and leave both connections to a session."""
        client, channel = self._client, self.request.channel
        assert client is not None and channel is not None and channel.transport is not None
        self.stop_waiting()
        self.request.startedWriting = 1
        self.request.setResponseCode(101)
        headers = self.upstream.access.answer_headers(accepted.headers)
        channel.transport.write(client.accept(accepted.subprotocol, headers))
        self._client = None  # autobahn's part is over, and a WebSocket may be open for days
        record = self.record
        record.response_fields, record.phase, record.recount = headers, Phase.STREAMING, self._recount
        self._session = Session(
            self.exchange.clock,
            self.request,
            handshake,
            self.close,
            self.limits.web_socket_ping_seconds,
        )
        capture = self.record.capture
        if capture is not None:
            capture.response_head(101, b"Switching Protocols", _shown(accepted.subprotocol, headers))
            self._session.seen = capture.socket_part
        self._session.start()

    def _recount(self) -> None:
        session, record = self._session, self.record
        if session is not None:
            record.received, record.messages_up = session.up.octets, session.up.messages
            record.read = record.sent = session.down.octets
            record.messages_down = session.down.messages


def _shown(subprotocol: str | None, headers: Iterable[RawHeader]) -> list[RawHeader]:
    """Return the fields by which a client is accepted, but for those that every one gets."""
    chosen = [] if subprotocol is None else [(b"Sec-WebSocket-Protocol", subprotocol.encode())]
    return [*headers, *chosen]
