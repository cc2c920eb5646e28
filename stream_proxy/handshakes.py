"""The two WebSocket handshakes (RFC 6455 section 4), made by autobahn's protocols.

autobahn checks what each side sends and computes the keys; what it would add or
lose on the way is written and read here. Neither half ever sees a frame.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable
from typing import Any

from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    WebSocketServerFactory,
    WebSocketServerProtocol,
)
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.web._newclient import HTTPClientParser, Request, TransportProxyProducer
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from stream_proxy.headers import RawHeader, connection_tokens, response_headers

_VERSION = 13
_HANDSHAKE = b"sec-websocket-"
_MAX_HEAD_BYTES = 65_536


class HandshakeError(Exception):
    """A handshake that is not one; the text says what is wrong with it."""


def wants_websocket(method: bytes, headers: Iterable[RawHeader]) -> bool:
    """Whether a request asks for a WebSocket: a GET whose ``Upgrade`` and ``Connection`` say so."""
    upgrade: list[bytes] = []
    connection: list[bytes] = []
    for name, value in headers:
        lower = name.lower()
        if lower == b"upgrade":
            upgrade.append(value)
        elif lower == b"connection":
            connection.append(value)
    return (
        method == b"GET"
        and b"websocket" in connection_tokens(upgrade)
        and b"upgrade" in connection_tokens(connection)
    )


def without_handshake(headers: Iterable[RawHeader]) -> list[RawHeader]:
    """The fields that are not the handshake's own."""
    return [(name, value) for name, value in headers if not name.lower().startswith(_HANDSHAKE)]


class ServerHalf(WebSocketServerProtocol):
    """Our answer to the client, held back until it is known what the upstream says."""

    def __init__(self) -> None:
        super().__init__()
        #: What is wrong with the client's handshake, and the fields to say beside it.
        self.refusal: tuple[str, list[tuple[str, str]]] | None = None
        self._decision: Deferred[tuple[str | None, dict[str, list[str]]]] = Deferred()

    @classmethod
    def check(cls, reactor: Any, transport: Any, headers: Iterable[RawHeader]) -> ServerHalf:
        """Check the client's handshake; nothing is written to `transport` before :meth:`accept`."""
        factory = WebSocketServerFactory(reactor=reactor, server="")
        factory.setProtocolOptions(openHandshakeTimeout=0, versions=[_VERSION], webStatus=False)
        half = cls()
        half.factory = factory
        half.makeConnection(transport)
        # Only what autobahn judges: it joins and counts fields, and takes offence at some origins and ports.
        judged = [b"GET / HTTP/1.1", b"Host: proxy"]
        for name, value in headers:
            lower = name.lower()
            if lower in (b"upgrade", b"connection") or (
                lower.startswith(_HANDSHAKE) and lower != b"sec-websocket-extensions"
            ):
                judged.append(name + b": " + value)
        half._dataReceived(b"\r\n".join([*judged, b"", b""]))
        return half

    @property
    def offers(self) -> list[str]:
        """The subprotocols that the client offers."""
        return list(self.websocket_protocols)

    def accept(self, subprotocol: str | None, headers: Iterable[RawHeader]) -> None:
        """Send the 101, with the upstream's choice and its other fields."""
        fields: dict[str, list[str]] = {}
        spelled: dict[bytes, str] = {}
        for name, value in headers:
            key = spelled.setdefault(name.lower(), name.decode("latin-1"))
            fields.setdefault(key, []).append(value.decode("utf-8", "replace"))
        self._decision.callback((subprotocol, fields))

    def onConnect(self, request: object) -> Any:
        return self._decision

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        self.refusal = (reason, list(responseHeaders or ()))

    def _onOpen(self) -> None:
        """What follows is the relay's."""


class Opened:
    """The upstream's 101: the ``subprotocol`` it chose, its other ``headers``, and the bytes behind them."""

    def __init__(self, subprotocol: str | None, headers: list[RawHeader], early: bytes) -> None:
        self.subprotocol = subprotocol
        self.headers = headers
        self.early = early


class ClientHalf(WebSocketClientProtocol):
    """Our handshake with the upstream.

    :param request: the request, whole but for key and version, as lines.
    :param offers: the subprotocols in it.
    """

    transport: Any

    def __init__(self, request: list[bytes]) -> None:
        super().__init__()
        #: Fires with `Opened`, or with the ``IResponse`` that refuses; fails if there is no answer.
        self.answered: Deferred[Opened | IResponse] = Deferred()
        #: Takes what comes after the handshake.
        self.received: Callable[[bytes], None] = lambda data: None
        #: Told once when an open connection is gone.
        self.lost: Callable[[Failure], None] = lambda reason: None
        #: The connection ended otherwise than by an orderly close.
        self.torn = False
        self._request = request
        self._head_bytes = 0
        self._open = False
        self._parser: HTTPClientParser | None = None
        self._raw_head = b""

    @classmethod
    def factory_for(cls, reactor: Any, request: list[bytes], offers: list[str]) -> tuple[Any, ClientHalf]:
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
        own = [b"Sec-WebSocket-Key: " + self.websocket_key, b"Sec-WebSocket-Version: %d" % _VERSION]
        self.transport.write(b"\r\n".join([*self._request, *own, b"", b""]))

    def dataReceived(self, data: bytes) -> None:
        if self._open:
            self.received(data)
            return
        try:
            if self._parser is not None:
                self._parser.dataReceived(data)
                return
            self._head_bytes += len(data)
            self._dataReceived(data)
        except Exception:
            self.failHandshake("it is not valid HTTP")
        if not self._open and self._parser is None and self._head_bytes > _MAX_HEAD_BYTES:
            self.failHandshake("its head is too large")

    def processHandshake(self) -> None:
        # autobahn knows the answer 101 only; any other is an ordinary response, which Twisted parses.
        while True:
            line, end, _ = bytes(self.data).partition(b"\n")
            if not end:
                return
            status = line.split(b" ", 2)[1:2]
            if status == [b"101"]:
                head = bytes(self.data).partition(b"\r\n\r\n")
                if head[1]:
                    self._raw_head = head[0]
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
        parser.MAX_LENGTH = _MAX_HEAD_BYTES
        parser.makeConnection(TransportProxyProducer(self.transport))
        parser._responseDeferred.addCallbacks(self._answer, self._fail)
        data, self.data = bytes(self.data), b""
        parser.dataReceived(data)

    def _refusal_ended(self, rest: bytes) -> None:
        parser = self._parser
        if parser is not None:
            self.transport.loseConnection()
            parser.connectionLost(Failure(ConnectionDone()))

    def _onOpen(self) -> None:
        self._open = True
        early, self.data = bytes(self.data), b""
        fields = [line.partition(b":") for line in self._raw_head.split(b"\r\n")[1:]]
        raw = [(name.strip(), value.strip()) for name, _, value in fields]
        headers = without_handshake(response_headers(raw))
        self._answer(Opened(self.websocket_protocol_in_use, headers, early))

    def failHandshake(self, reason: str) -> None:
        self._fail(Failure(HandshakeError(reason)))
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.torn = not reason.check(ConnectionDone)
        if self._parser is not None and self._parser.state != "DONE":
            self._parser.connectionLost(reason)
        self._fail(reason)
        if self._open:
            self.lost(reason)

    def _answer(self, answer: Opened | IResponse) -> None:
        if not self.answered.called:
            self.answered.callback(answer)

    def _fail(self, reason: Failure) -> None:
        if not self.answered.called:
            self.answered.errback(reason)
