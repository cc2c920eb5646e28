"""Handshake with the client (RFC 6455 section 4.2): checked at once, accepted once the upstream has."""

from __future__ import annotations

from collections.abc import Iterable

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from stream_proxy.http.headers import RawHeader
from stream_proxy.websocket.handshake_rules import VERSION, head_for_autobahn, without_values


def _announces_body(name: bytes, value: bytes) -> bool:
    return name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" \t0") != b"")


class ClientHandshake(WebSocketServerProtocol):
    """A client's handshake, checked by autobahn, which never sees a connection.

    :param reactor: keeps autobahn from importing the global one.
    :param headers: the request's fields as they came.
    """

    def __init__(self, reactor: IReactorTime, headers: Iterable[RawHeader]) -> None:
        super().__init__()
        #: The fault, if there is one, and the fields that belong into its error response.
        self.fault: tuple[str, list[RawHeader]] | None = None
        self.factory = WebSocketServerFactory(reactor=reactor, server="")
        self.factory.setProtocolOptions(openHandshakeTimeout=0, versions=[VERSION], webStatus=False)
        self._connectionMade()
        # Extensions are never negotiated: the frames of both legs have to be the same.
        fields = [field for field in headers if field[0].lower() != b"sec-websocket-extensions"]
        if any(_announces_body(name.lower(), value) for name, value in fields):
            self.fault = ("it has a body", [])
        else:
            self._dataReceived(head_for_autobahn(b"GET / HTTP/1.1", fields, b"Host: proxy"))

    @property
    def offers(self) -> list[str]:
        """Subprotocols that the client offers."""
        return list(self.websocket_protocols)

    def accept(self, subprotocol: str | None, headers: Iterable[RawHeader]) -> bytes:
        """Return the 101, with the upstream's choice of a subprotocol and its other fields."""
        fields: dict[str, list[str]] = {}
        spelled: dict[bytes, str] = {}
        for name, value in headers:
            key = spelled.setdefault(name.lower(), name.decode("latin-1"))
            fields.setdefault(key, []).append(value.decode("latin-1"))
        self.succeedHandshake((subprotocol, fields))
        return self._response

    # autobahn's hooks

    def onConnect(self, request: object) -> Deferred[None]:  # type: ignore[override]
        # autobahn sends the 101 when this fires. It never does: accept() sends it.
        return Deferred()

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        # autobahn encodes the text that accept() made out of bytes as UTF-8.
        self._response = data.decode("utf-8").encode("latin-1")

    def failHandshake(
        self, reason: str, code: int = 400, responseHeaders: Iterable[tuple[str, str]] | None = None
    ) -> None:
        fields = [(name.encode(), value.encode()) for name, value in responseHeaders or ()]
        self.fault = (without_values(reason), fields)

    def _onOpen(self) -> None:
        """Leave the frames to the session."""
