"""Fetching: a retry whose answer another process keeps, asked for over that process's socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import upstream_error
from stream_proxy.flows.exchange import Exchange, Flow
from stream_proxy.flows.resuming.joining import Joining
from stream_proxy.flows.resuming.offering import JOIN_PATH, naming, unpacked
from stream_proxy.flows.resuming.orphan import Joiner, Result
from stream_proxy.request_log import Outcome
from stream_proxy.transport.unix_agent import unix_agent
from stream_proxy.waiting.identity import Identity

#: Seconds that another process may take to say whether it keeps a call.
_CLAIM_SECONDS = 1.0


class Fetching:
    """Flow of a retry until it is clear whether the other process has its answer.

    :param exchange: the retry.
    :param identity: what it repeats.
    :param path: the other process's socket.
    :param otherwise: returns the flow that answers if the call is not kept there any more.
    :param late: called with an error that goes out after a head.
    """

    def __init__(
        self,
        exchange: Exchange,
        identity: Identity,
        path: str,
        otherwise: Callable[[], Flow],
        late: Callable[[Result], None],
    ) -> None:
        self._exchange = exchange
        self._identity = identity
        self._path = path
        self._otherwise: Callable[[], Flow] | None = otherwise
        self._late = late
        self._asking: Deferred[Any] | None = None

    def start(self) -> None:
        """Ask."""
        exchange = self._exchange
        path = self._path
        agent = unix_agent(exchange.clock, lambda _: path)
        fields = Headers({b"Host": [b"localhost"]})
        for name, values in naming(self._identity):
            fields.setRawHeaders(name, values)
        asking = self._asking = agent.request(b"POST", b"http://localhost" + JOIN_PATH, fields)
        asking.addTimeout(_CLAIM_SECONDS, exchange.clock)
        asking.addCallbacks(self._claimed, self._not_there).addErrback(exchange.bug)

    def cancel(self) -> None:
        """End because the client has left, too."""
        self._otherwise = None
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
        self._exchange.finished(Outcome.gone(0))

    def _claimed(self, response: IResponse) -> None:
        self._asking = None
        fetched = _Fetched(response)
        if response.code != 200:
            response.deliverBody(fetched)  # which nobody waits for
            self._not_there()
        elif self._otherwise is not None:
            self._otherwise = None
            self._exchange.run(Joining(self._exchange, fetched, self._late))

    def _not_there(self, failure: Failure | None = None) -> None:
        self._asking = None
        otherwise, self._otherwise = self._otherwise, None
        if otherwise is not None:
            self._exchange.run(otherwise())


class _Fetched(Protocol):
    """Result on its way from another process, the body of its response."""

    def __init__(self, response: IResponse) -> None:
        self._response: IResponse | None = response
        self._pieces: list[bytes] = []
        self._joiner: Joiner | None = None

    def join(self, joiner: Joiner) -> None:
        """Read the result."""
        response, self._response = self._response, None
        assert response is not None
        self._joiner = joiner
        response.deliverBody(self)

    def part(self) -> None:
        """Let go: the other process keeps the answer for the next retry."""
        self._joiner = None
        if self.transport is not None:
            self.transport.loseConnection()

    def end(self) -> None:
        """Do nothing: the other process knows when it has given everything."""

    def dataReceived(self, data: bytes) -> None:
        self._pieces.append(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        pieces, self._pieces = self._pieces, []
        joiner, self._joiner = self._joiner, None
        if joiner is None:
            return
        whole = reason is not None and reason.check(ResponseDone)
        try:
            result = unpacked(b"".join(pieces)) if whole else None
        except ValueError:
            result = None
        if result is None:
            error = upstream_error("The process that kept this answer has ended.", ErrorCode.UPSTREAM_CUT)
            result = Result(error.status, None, [], [], error)
        joiner.resumed(result)
