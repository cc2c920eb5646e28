"""Responses of Twisted's clients and other agents, as sources of a body."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from twisted.web._newclient import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse

from stream_proxy.http.headers import RawHeader
from stream_proxy.upstream.response import UpstreamResponse


class Connection(Protocol):
    """Connection that a response comes on."""

    #: It has ended.
    is_gone: bool
    #: It ended otherwise than by an orderly close.
    torn: bool
    transport: Any


class _Body(TwistedProtocol):
    """Receiver of the body of an agent's response, which hands it on to a response of ours."""

    transport: Any = None

    def __init__(self, response: IResponse, connection: Connection | None) -> None:
        self.receiver: UpstreamResponse | None = None
        self._response: IResponse | None = response
        self._connection = connection

    # For the response of ours

    def pause(self) -> None:
        if self.transport is not None:
            self.transport.pauseProducing()

    def resume(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.deliverBody(self)
        elif self.transport is not None:
            self.transport.resumeProducing()

    def drop(self) -> None:
        self.receiver = None
        if self._connection is not None:
            if not self._connection.is_gone:  # over TLS, a connection that is gone must not be aborted
                self._connection.transport.abortConnection()
        elif self.transport is not None:
            self.transport.stopProducing()

    # Twisted's hooks

    def dataReceived(self, data: bytes) -> None:
        if self.receiver is not None:
            self.receiver.body_received(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        torn = self._connection is not None and self._connection.torn
        whole = reason.check(ResponseDone) or (reason.check(PotentialDataLoss) and not torn)
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.body_ended(None if whole else reason)


def upstream_response(
    response: IResponse, headers: list[RawHeader], connection: Connection | None, origin: str
) -> UpstreamResponse:
    """Return a response of ours for one of an agent.

    :param headers: the fields that may travel.
    :param connection: where it comes from, if that is known.
    """
    body = _Body(response, connection)
    length = response.length if isinstance(response.length, int) else None
    made = UpstreamResponse(response.code, response.phrase, headers, length, body, origin)
    body.receiver = made
    return made
