"""Handshake with the client (RFC 6455 section 4.2): checked at once, answered after the upstream's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from autobahn.twisted.websocket import (
    WebSocketServerFactory,
    WebSocketServerProtocol,
)
from twisted.internet.defer import Deferred

from stream_proxy.http.headers import RawHeader
from stream_proxy.websocket.handshake_rules import VERSION, judged_fields, without_values


def _announces_body(name: bytes, value: bytes) -> bool:
    return name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" \t0") != b"")


class ClientHandshake(WebSocketServerProtocol):
    """Our answer to the client, held back until it is known what the upstream says."""

    transport: Any

    def __init__(self) -> None:
        super().__init__()
        #: What is wrong with the client's handshake, and the fields to say beside it.
        self.refusal: tuple[str, list[tuple[str, str]]] | None = None
        self._decision: Deferred[tuple[str | None, dict[str, list[str]]]] = Deferred()

    @classmethod
    def check(cls, reactor: Any, transport: Any, headers: Iterable[RawHeader]) -> ClientHandshake:
        """Check the client's handshake; nothing is written to `transport` before :meth:`accept`."""
        factory = WebSocketServerFactory(reactor=reactor, server="")
        factory.setProtocolOptions(openHandshakeTimeout=0, versions=[VERSION], webStatus=False)
        half = cls()
        half.factory = factory
        half.makeConnection(transport)
        fields = [field for field in headers if field[0].lower() != b"sec-websocket-extensions"]
        if any(_announces_body(name.lower(), value) for name, value in fields):
            half.refusal = ("it has a body", [])
        else:
            lines = [b"GET / HTTP/1.1", b"Host: proxy", *judged_fields(fields), b"", b""]
            half._dataReceived(b"\r\n".join(lines))
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
            fields.setdefault(key, []).append(value.decode("latin-1"))
        self._decision.callback((subprotocol, fields))

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        # The 101. autobahn encodes as UTF-8 what was bytes before accept() made text of it.
        self.transport.write(data.decode("utf-8").encode("latin-1"))

    def onConnect(self, request: object) -> Any:
        return self._decision

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        self.refusal = (without_values(reason), list(responseHeaders or ()))

    def _onOpen(self) -> None:
        """What follows is the relay's."""
