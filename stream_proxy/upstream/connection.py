"""Connection to an upstream: one request at a time, and the response to it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from twisted.web._newclient import (
    RequestGenerationFailed,
    RequestNotSent,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
)

from stream_proxy.transport.timers import Timeout
from stream_proxy.transport.tuning import has_unread, has_unsent
from stream_proxy.upstream.http1.body import Body, body_of
from stream_proxy.upstream.http1.faults import InvalidAnswerError
from stream_proxy.upstream.http1.head import HeadReader
from stream_proxy.upstream.opening import Opening
from stream_proxy.upstream.response import UpstreamResponse
from stream_proxy.upstream.upload import SLICE_BYTES, Outgoing, ProducedUpload, Upload, upload_of

#: Seconds that an orderly close may take: over TLS it waits for the peer's.
CLOSE_SECONDS = 1.0


@dataclass(slots=True)
class Request:
    """Request as it goes out.

    :param head: its bytes, framing included.
    :param to_head: its method is HEAD.
    """

    head: bytes
    body: Outgoing | None
    to_head: bool


class Requester(Protocol):
    """Owner of a request, who is told once of a response or a failure."""

    def uploaded(self) -> None:
        """Note that a body has been written that was too large to go out with the head."""

    def responded(self, response: UpstreamResponse) -> None:
        """Take the response, whose head is in."""

    def failed(self, failure: Failure) -> None:
        """Take the reason why there is none, as an exception of Twisted's client."""


class Keeper(Protocol):
    """Owner of idle connections."""

    @property
    def clock(self) -> IReactorTime:
        """The reactor."""

    def keep(self, connection: UpstreamConnection) -> None:
        """Keep a connection, on which a further request may be sent."""

    def forget(self, connection: UpstreamConnection) -> None:
        """Forget a connection that has ended while it was idle."""


class State(Enum):
    """State of a connection."""

    #: No request is under way.
    IDLE = auto()
    #: A request is under way: no head of a response is in.
    ASKED = auto()
    #: The body of a response is coming in.
    RESPONDING = auto()
    #: Nothing further is read: the connection is being closed.
    ENDING = auto()


class UpstreamConnection(Opening, TwistedProtocol):
    """Connection that can be kept and used again.

    A response may come before the request's body is out. When such a response is whole, the connection ends:
    at once if the rest of the body is here, within a second if it still has to be produced.

    :param keeper: where it waits for its next request.
    :param origin: the upstream's, for errors.
    """

    #: The number of requests that were sent.
    requests = 0
    #: When it became idle, by the pool's clock.
    idle_since = 0.0

    def __init__(self, keeper: Keeper, origin: str) -> None:
        self.ready = Deferred()
        self.state = State.IDLE
        self._keeper = keeper
        self._origin = origin
        self._requester: Requester | None = None
        self._upload: Upload | None = None
        self._reader: HeadReader | None = None
        self._body: Body | None = None
        self._response: UpstreamResponse | None = None
        self._persistent = False
        self._paused = False
        self._gone: Deferred[None] | None = None
        self._closing: Timeout | None = None

    @property
    def usable(self) -> bool:
        """Whether a request may be sent now."""
        if self.state is not State.IDLE or self.is_gone:
            return False
        # Unread bytes would be taken for the next response.
        return not (self.requests and has_unread(self.transport))

    def send(self, request: Request, requester: Requester) -> None:
        """Send `request`; `requester` may be told of a failure before this returns."""
        if self.state is not State.IDLE or self.is_gone:
            requester.failed(Failure(RequestNotSent()))
            return
        self.requests += 1
        self.state = State.ASKED
        self._occupied = True
        self._requester = requester
        self._reader = HeadReader(to_head=request.to_head)
        body = request.body
        if body is None:
            self.transport.write(request.head)
        elif isinstance(body, bytes) and len(body) <= SLICE_BYTES:
            self.transport.write(request.head + body)
        else:
            self.transport.write(request.head)
            upload = self._upload = upload_of(body, self.transport, self._uploaded)
            upload.start()

    def closed(self) -> Deferred[None]:
        """Drop the connection, and return a Deferred that fires when it has ended; for one caller."""
        self.drop()
        gone = self._gone = Deferred()
        if self.is_gone:
            gone.callback(None)
        return gone

    # For the response

    def pause(self) -> None:
        """Read nothing for now."""
        if self.state is State.RESPONDING and not self.is_gone:
            self._paused = True
            self.transport.pauseProducing()

    def resume(self) -> None:
        """Read again."""
        if self._paused and not self.is_gone:
            self._paused = False
            self.transport.resumeProducing()

    def drop(self) -> None:
        """End the connection at once; nobody is told. An orderly close over TLS would wait for the peer."""
        self._end_use()
        if not self.is_gone:  # over TLS, a connection that is gone must not be aborted
            self.transport.abortConnection()

    # Twisted's hooks

    def dataReceived(self, data: bytes) -> None:
        try:
            if self._body is not None:
                self._read_body(self._body, data)
            elif self._reader is not None:
                self._read_head(self._reader, data)
            else:  # bytes that no request asked for: nothing sensible can follow
                if self.state is State.IDLE:
                    self._keeper.forget(self)
                self.drop()
        except Exception:
            self._fail(Failure())

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.is_gone = True
        torn = reason.check(ConnectionDone) is None
        reason = self.not_opened(reason)
        produced = isinstance(self._upload, ProducedUpload)
        begun = self._reader is not None and self._reader.begun
        body, requester, response = self._body, self._requester, self._response
        idle = self.state is State.IDLE
        self._end_use()
        try:
            if idle:
                self._keeper.forget(self)
            elif response is not None:
                response.let_go()
                whole = body is not None and body.ends_with_connection and not torn
                response.body_ended(None if whole else reason)
            elif requester is not None and produced:
                requester.failed(Failure(RequestTransmissionFailed([reason])))
            elif requester is not None:
                kind = ResponseFailed if begun else ResponseNeverReceived
                requester.failed(Failure(kind([reason])))
        finally:
            self.vacate()
            gone, self._gone = self._gone, None
            if gone is not None:
                gone.callback(None)

    # What came

    def _read_head(self, reader: HeadReader, data: bytes) -> None:
        head = reader.feed(data)
        requester = self._requester
        if head is None or requester is None:
            return
        self._reader = self._requester = None
        self.state = State.RESPONDING
        self._persistent = head.persistent
        self._body = body = body_of(head)
        response = self._response = UpstreamResponse(
            head.status, head.reason, head.fields, head.length, self, self._origin, arrived=head.is_whole
        )
        requester.responded(response)
        if self._response is not response:  # it was dropped
            return
        if body.ended:
            self._finish(response, surplus=bool(head.rest))
        elif head.rest:
            self._read_body(body, head.rest)

    def _read_body(self, body: Body, data: bytes) -> None:
        content = body.feed(data)
        response = self._response
        if content and response is not None:
            sink = response.sink
            (response if sink is None else sink).body_received(content)
        if response is None or self._response is not response:
            return
        if body.fault is not None:
            raise InvalidAnswerError(body.fault)
        if body.ended:
            self._finish(response, surplus=body.surplus)

    def _finish(self, response: UpstreamResponse, *, surplus: bool) -> None:
        self._response = self._body = None
        # Before the connection is kept: whoever hears of the end may use it for another request.
        self.vacate()
        self.resume()
        if isinstance(self._upload, ProducedUpload):
            self._close()  # the response keeps its source, so that its owner can hang up before
        else:
            response.let_go()
            if self._upload is not None or has_unsent(self.transport):
                self.drop()  # the upstream may never read the rest
            elif self._persistent and not surplus:
                self.state = State.IDLE
                self._keeper.keep(self)
            else:
                self._close()
        response.body_ended()

    def _close(self) -> None:
        self.state = State.ENDING
        closing = self._closing = Timeout(self._keeper.clock)
        closing.start(CLOSE_SECONDS, self.drop)
        self.transport.loseConnection()

    def _uploaded(self, failure: Failure | None) -> None:
        self._upload = None
        if failure is not None:
            self._fail(failure, RequestGenerationFailed)
        elif self._requester is not None:
            self._requester.uploaded()

    def _fail(self, failure: Failure, kind: type[Exception] = ResponseFailed) -> None:
        """End the connection, because this is no response, or that was no request."""
        requester, response = self._requester, self._response
        self.drop()
        if response is not None:
            response.let_go()
            response.body_ended(failure)
        elif requester is not None:
            requester.failed(Failure(kind([failure])))

    def _end_use(self) -> None:
        self.state = State.ENDING
        self._requester = self._response = self._body = self._reader = None
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.stop()
        closing, self._closing = self._closing, None
        if closing is not None:
            closing.stop()
