"""Handshake with the upstream (RFC 6455 section 4.1), and the connection afterwards."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from stream_proxy.http.headers import RawHeader
from stream_proxy.http.upgrade import switching_headers
from stream_proxy.upstream.http1.faults import HeadTooLargeError, HTTP2SpokenError, TLSSpokenError
from stream_proxy.upstream.http1.head import MAX_HEAD_BYTES, MAX_HEAD_FIELDS, first_bytes
from stream_proxy.upstream.slots import Occupant
from stream_proxy.websocket.handshake_rules import VERSION, HandshakeError, head_for_autobahn, without_values
from stream_proxy.websocket.refusal import RefusalReader, Refused
from stream_proxy.websocket.response_head import ResponseHead, Switching


@dataclass(frozen=True, slots=True)
class Accepted:
    """The upstream's 101: the subprotocol it chose, and its other fields."""

    subprotocol: str | None
    headers: list[RawHeader]


class _Check(WebSocketClientProtocol):
    """autobahn's check of a 101, without a connection.

    :param reactor: keeps autobahn from importing the global one.
    :param offers: the subprotocols that are offered.
    """

    def __init__(self, reactor: IReactorTime, offers: list[str]) -> None:
        super().__init__()
        self.websocket_key = base64.b64encode(os.urandom(16))
        self._fault: str | None = None
        self.factory = WebSocketClientFactory("ws://upstream/", reactor=reactor, protocols=offers)
        # 18 is the draft that autobahn takes RFC 6455 for.
        self.factory.setProtocolOptions(openHandshakeTimeout=0, version=18)
        self._connectionMade()  # type: ignore[no-untyped-call]

    def chosen(self, head: Switching) -> str | None:
        """Return the subprotocol that the upstream chose.

        :raises HandshakeError: if the head does not accept this key and these offers.
        """
        if any(name.lower() == b"sec-websocket-extensions" and value for name, value in head.fields):
            # None is ever offered, and autobahn's errors about one quote it.
            raise HandshakeError("it chose an extension that was not offered")
        self._dataReceived(head_for_autobahn(head.status_line, head.fields))
        if self._fault is not None:
            raise HandshakeError(without_values(self._fault))
        chosen: str | None = self.websocket_protocol_in_use
        return chosen

    def startHandshake(self) -> None:
        """Leave the request to UpstreamHandshake: autobahn would add fields of its own."""

    def failHandshake(self, reason: str) -> None:
        self._fault = reason

    def _onOpen(self) -> None:
        """Leave the frames to the session."""


class _One(Factory):
    """Factory of a single connection, whose protocol exists already.

    Twisted's `Connector` and transport keep each other and the factory until the cycle collector runs, so the
    factory must not keep the protocol.
    """

    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._only: Protocol | None = protocol

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        only, self._only = self._only, None
        return only


class UpstreamHandshake(Occupant, Protocol):
    """Our handshake with the upstream, and the connection that it is made on.

    :param request: the request line and the fields, but for key and version.
    :param offers: the subprotocols among them.
    """

    #: `None` as soon as the connection is gone: over TLS, one that is gone must not be aborted any more.
    transport: Any

    def __init__(self, reactor: IReactorTime, request: list[bytes], offers: list[str]) -> None:
        #: Fires once with the upstream's decision; fails without a valid response.
        self.decision: Deferred[Accepted | Refused] = Deferred()
        #: The connection ended otherwise than by an orderly close.
        self.torn = False
        # All of these are let go once the upstream has accepted: a WebSocket may be open for days.
        self._request = request
        self._check: _Check | None = _Check(reactor, offers)
        self._head: ResponseHead | None = ResponseHead(MAX_HEAD_BYTES, MAX_HEAD_FIELDS)
        self._refusal: RefusalReader | None = None
        self._early = self._first = b""
        self._lost: Callable[[], None] | None = None

    def factory(self) -> Factory:
        """Return the factory that a client endpoint needs for this one connection."""
        return _One(self)

    def take_over(self, receiver: Callable[[bytes], None], lost: Callable[[], None]) -> bytes:
        """Hand all further bytes to `receiver`, and return those that came with the 101.

        :param lost: called once the connection is gone.
        """
        # In place of a flag that each read would have to ask for, as in the client's channel.
        self.dataReceived = receiver  # type: ignore[method-assign, assignment]
        self._lost = lost
        early, self._early = self._early, b""
        return early

    def loseConnection(self) -> None:
        """Close the connection once everything is sent."""
        self.transport.loseConnection()

    def abort(self) -> None:
        """Drop the connection, if there is one; :attr:`decision` is cancelled unless it has fired."""
        self.decision.cancel()
        if self.transport is not None:
            self.transport.abortConnection()

    # Twisted's hooks

    def connectionMade(self) -> None:
        assert self._check is not None
        own = [b"Sec-WebSocket-Key: " + self._check.websocket_key, b"Sec-WebSocket-Version: %d" % VERSION]
        self.transport.write(b"\r\n".join([*self._request, *own, b"", b""]))

    def dataReceived(self, data: bytes) -> None:
        try:
            if self._refusal is not None:
                self._read_refusal(self._refusal, data)
            elif self.decision.called:
                self._early += data
            else:
                self._read_head(data)
        except (HandshakeError, HTTP2SpokenError, TLSSpokenError) as error:
            self._fail(error)
        except HeadTooLargeError:
            self._fail(HandshakeError("its head is too large"))
        except Exception:
            self._fail(HandshakeError("it is not valid HTTP"))

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.transport.unregisterProducer()  # or else a TLS transport keeps it until the cycle collector runs
        self.transport = None
        self.is_gone = True
        self.torn = not reason.check(ConnectionDone)
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            refusal.connection_lost(reason)
        self._decide(reason)
        self.__dict__.pop("dataReceived", None)
        lost, self._lost = self._lost, None
        if lost is not None:
            lost()
        self.vacate()

    def _read_head(self, data: bytes) -> None:
        check, head = self._check, self._head
        assert check is not None and head is not None
        self._first = first_bytes(self._first, data)
        found = head.feed(data)
        if isinstance(found, Switching):
            chosen = check.chosen(found)
            self._early, self._first = found.rest, b""
            self._request, self._check, self._head = [], None, None
            self._decide(Accepted(chosen, switching_headers(found.fields)))
        elif found is not None:
            self._refusal = RefusalReader(self.transport, self._decide)
            self._read_refusal(self._refusal, found)

    def _read_refusal(self, refusal: RefusalReader, data: bytes) -> None:
        if refusal.feed(data) and self._head is not None:
            self._head.pass_on(len(data))

    def _fail(self, error: Exception) -> None:
        self._decide(Failure(error))
        if self.transport is not None:
            self.transport.abortConnection()

    def _decide(self, decision: Accepted | Refused | Failure) -> None:
        if not self.decision.called:
            self.decision.callback(decision)
