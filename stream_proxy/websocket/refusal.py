"""Refusal of a WebSocket handshake: an ordinary response, read by Twisted's parser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITransport
from twisted.python.failure import Failure
from twisted.web._newclient import HTTPClientParser, Request, TransportProxyProducer
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from stream_proxy.upstream.twisted_client.parser import bound_head, in_head


@dataclass(frozen=True, slots=True)
class Refused:
    """The refusal: its head is in, and its body may be delivered."""

    response: IResponse
    #: Values of its ``Connection`` fields, which Twisted keeps apart from the others.
    connection_fields: list[bytes]


class RefusalReader:
    """Reader of one refusal.

    :param decided: called with the refusal once its head is in, or with the reason why there is none.
    """

    def __init__(self, transport: ITransport, decided: Callable[[Refused | Failure], None]) -> None:
        self._transport: ITransport | None = transport
        request = Request._construct(b"GET", b"/", Headers({b"Host": [b"upstream"]}), None)
        parser = self._parser = HTTPClientParser(request, self._ended)
        bound_head(parser)
        parser.makeConnection(TransportProxyProducer(transport))

        def refused(response: IResponse) -> None:
            decided(Refused(response, list(parser.connHeaders.getRawHeaders(b"Connection", ()))))

        parser._responseDeferred.addCallbacks(refused, decided)

    def feed(self, data: bytes) -> bool:
        """Read `data`, and report whether the head still goes on."""
        self._parser.dataReceived(data)
        return in_head(self._parser)

    def connection_lost(self, reason: Failure) -> None:
        """End the head or the body, unless it has ended."""
        self._transport = None
        if self._parser.state != "DONE":
            self._parser.connectionLost(reason)

    def _ended(self, rest: bytes) -> None:
        if self._transport is not None:
            self._transport.loseConnection()
            self._parser.connectionLost(Failure(ConnectionDone()))
