"""The two WebSocket handshakes (RFC 6455 section 4), made by autobahn's protocols.

autobahn checks what each side sends and computes the keys; what it would add or
lose on the way is written and read here. Neither half ever sees a frame.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from typing import Any

from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
)
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.web._newclient import HTTPClientParser, Request, TransportProxyProducer
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from stream_proxy.http.headers import RawHeader, response_headers
from stream_proxy.http.upgrade import without_handshake
from stream_proxy.upstream.failures import HeadTooLargeError
from stream_proxy.upstream.parser import MAX_HEAD_BYTES, MAX_HEAD_FIELDS, bound_head
from stream_proxy.upstream.slots import Occupant
from stream_proxy.websocket.handshake_rules import VERSION, HandshakeError, judged_fields, without_values


class Opened:
    """The upstream's 101: the ``subprotocol`` it chose, its other ``headers``, and the bytes behind them."""

    def __init__(self, subprotocol: str | None, headers: list[RawHeader], early: bytes) -> None:
        self.subprotocol = subprotocol
        self.headers = headers
        self.early = early


class UpstreamHandshake(Occupant, WebSocketClientProtocol):  # type: ignore[misc]
    """Our handshake with the upstream.

    :param request: the request, whole but for key and version, as lines.
    :param offers: the subprotocols in it.
    """

    #: `None` once the connection is gone.
    transport: Any

    def __init__(self, request: list[bytes]) -> None:
        super().__init__()
        #: Fires with `Opened`, or with the ``IResponse`` that refuses; fails if there is no answer.
        self.answered: Deferred[Opened | IResponse] = Deferred()
        #: Takes what comes after the handshake.
        self.received: Callable[[bytes], None] = lambda data: None
        #: Told once when an open connection is gone.
        self.lost: Callable[[Failure], None] = lambda reason: None
        #: What the ``Connection`` fields of a refusal say.
        self.connection_fields: list[bytes] = []
        #: The connection ended otherwise than by an orderly close.
        self.torn = False
        self._request = request
        self._head_bytes = 0
        self._open = False
        self._parser: HTTPClientParser | None = None
        self._fields: list[RawHeader] = []

    @classmethod
    def factory_for(
        cls, reactor: Any, request: list[bytes], offers: list[str]
    ) -> tuple[Any, UpstreamHandshake]:
        """A factory for one connection, and the protocol that it will build."""
        factory = WebSocketClientFactory("ws://upstream/", reactor=reactor, protocols=offers)
        factory.setProtocolOptions(openHandshakeTimeout=0, version=18)
        factory.noisy = False
        half = cls(request)
        half.factory = factory
        factory.protocol = lambda: half  # type: ignore[assignment]
        return factory, half

    def startHandshake(self) -> None:
        self.websocket_key = base64.b64encode(os.urandom(16))
        own = [b"Sec-WebSocket-Key: " + self.websocket_key, b"Sec-WebSocket-Version: %d" % VERSION]
        self.transport.write(b"\r\n".join([*self._request, *own, b"", b""]))

    def dataReceived(self, data: bytes) -> None:
        if self._open:
            self.received(data)
            return
        try:
            if self._in_head:
                self._head_bytes += len(data)
            if self._parser is not None:
                self._parser.dataReceived(data)
            else:
                self._dataReceived(data)
        except HeadTooLargeError:
            self.failHandshake("its head is too large")
        except Exception:
            self.failHandshake("it is not valid HTTP")
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            self.failHandshake("its head is too large")

    @property
    def _in_head(self) -> bool:
        if self._parser is not None:
            return self._parser.state in ("STATUS", "HEADER")
        return not self._open

    def processHandshake(self) -> None:
        # autobahn knows the answer 101 only; any other is an ordinary response, which Twisted parses.
        while True:
            line, end, _ = bytes(self.data).partition(b"\n")
            if not end:
                return
            status = line.split(b" ", 2)[1:2]
            if status == [b"101"]:
                head, end, rest = bytes(self.data).partition(b"\r\n\r\n")
                if end:
                    lines = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
                    if len(lines) > MAX_HEAD_FIELDS:
                        self.failHandshake("its head is too large")
                        return
                    self._fields = [(name.strip(), value.strip()) for name, colon, value in lines if colon]
                    judged = [head.split(b"\r\n", 1)[0], *judged_fields(self._fields), b"", b""]
                    self.data = b"\r\n".join(judged) + rest
                    super().processHandshake()
                return
            if not (status and status[0].startswith(b"1") and len(status[0]) == 3):
                break
            _, end, rest = bytes(self.data).partition(b"\r\n\r\n")  # an interim response
            if not end:
                return
            self.data = rest
        self._refused()

    def _refused(self) -> None:
        request = Request._construct(b"GET", b"/", Headers({b"Host": [b"upstream"]}), None)
        parser = self._parser = HTTPClientParser(request, self._refusal_ended)
        bound_head(parser)
        parser.makeConnection(TransportProxyProducer(self.transport))
        parser._responseDeferred.addCallbacks(self._refusing, self._fail)
        data, self.data = bytes(self.data), b""
        parser.dataReceived(data)

    def _refusing(self, answer: IResponse) -> None:
        if self._parser is not None:
            self.connection_fields = list(self._parser.connHeaders.getRawHeaders(b"Connection", ()))
        self._answer(answer)

    def _refusal_ended(self, rest: bytes) -> None:
        if self._parser is not None and self.transport is not None:
            self.transport.loseConnection()
            self._parser.connectionLost(Failure(ConnectionDone()))

    def _onOpen(self) -> None:
        self._open = True
        early, self.data = bytes(self.data), b""
        headers = without_handshake(response_headers(self._fields))
        self._answer(Opened(self.websocket_protocol_in_use, headers, early))

    def failHandshake(self, reason: str) -> None:
        self._fail(Failure(HandshakeError(without_values(reason))))
        if self.transport is not None:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.transport = None  # over TLS, it must not be aborted any more
        self.is_gone = True
        self.torn = not reason.check(ConnectionDone)
        if self._parser is not None and self._parser.state != "DONE":
            self._parser.connectionLost(reason)
        self._fail(reason)
        if self._open:
            self.lost(reason)
        self.vacate()

    def _answer(self, answer: Opened | IResponse) -> None:
        if not self.answered.called:
            self.answered.callback(answer)

    def _fail(self, reason: Failure) -> None:
        if not self.answered.called:
            self.answered.errback(reason)
