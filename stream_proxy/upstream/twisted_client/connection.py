"""Connection by Twisted's ``HTTP11ClientProtocol``, with the bounds and checks that it lacks."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.web._newclient import HTTP11ClientProtocol, Request
from twisted.web.iweb import IResponse

from stream_proxy.http.headers import connection_tokens
from stream_proxy.transport.tuning import has_unread
from stream_proxy.upstream.http1.faults import HeadTooLargeError
from stream_proxy.upstream.http1.head import MAX_HEAD_BYTES
from stream_proxy.upstream.opening import Opening
from stream_proxy.upstream.twisted_client.parser import bound_head, in_head


class TwistedConnection(Opening, HTTP11ClientProtocol):
    """Connection in a pool of the library's user.

    Beyond Twisted's it bounds the response head, honours all spellings of ``Connection: close``, and delivers
    a response that comes before the request's body is out.
    """

    #: The number of requests that were sent on this connection.
    requests = 0
    #: The connection ended otherwise than by an orderly close.
    torn = False
    _head_bytes = 0
    _head: Deferred[IResponse] | None = None

    def __init__(self, quiescent: Callable[[TwistedConnection], None]) -> None:
        super().__init__(quiescent)
        self.ready = Deferred()

    @property
    def state(self) -> str:
        """Twisted's state, by which a pool knows which connections may be used."""
        idle = self._state == "QUIESCENT" and self.requests and self._parser is None
        if idle and has_unread(self.transport):
            return "SPOILED"  # these bytes would be taken for the next response
        return self._state

    def request(self, request: Request) -> Deferred[IResponse]:
        """Send `request`; unlike Twisted's, the result fires as soon as the response's head is in."""
        self.requests += 1
        self._occupied = True
        self._head_bytes = 0
        sent: Deferred[IResponse] = super().request(request)
        parser, head = self._parser, self._responseDeferred
        if parser is not None:
            bound_head(parser)
        if self._state != "TRANSMITTING" or head is None:
            return sent
        self._head = head
        early: Deferred[IResponse] = Deferred(lambda _: sent.cancel())

        def responded(response: IResponse) -> IResponse:
            if not early.called:
                early.callback(response)
            return response

        def failed(failure: Failure) -> Failure:
            if not early.called:
                early.errback(failure)
            return failure

        # Twisted chains `head` to `sent` once the request is out, so both must keep their result.
        head.addCallbacks(responded, failed)
        sent.addErrback(failed).addErrback(lambda _: None)
        return early

    def dataReceived(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:  # bytes that no request asked for: nothing sensible can follow
            self.transport.abortConnection()
            return
        heading = in_head(parser)
        super().dataReceived(data)
        if heading:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and self._parser is parser and in_head(parser):
                self._giveUp(Failure(HeadTooLargeError()))

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.torn = not reason.check(ConnectionDone)
        reason = self.not_opened(reason)
        unfinished = self._state in ("TRANSMITTING", "GENERATION_FAILED")
        super().connectionLost(reason)
        if unfinished:  # Twisted forgets the body of a response that came before the request was out
            self._disconnectParser(reason)
            if self._head is not None:
                self._head.addErrback(lambda _: None)
        self.is_gone = True
        self.vacate()

    def abort(self) -> Deferred[None]:
        """Drop an idle connection; an orderly close over TLS would wait for the other side."""
        gone: Deferred[None] = super().abort()
        if self.transport is not None and not self.is_gone:
            self.transport.abortConnection()
        return gone

    def _giveUp(self, reason: Failure) -> None:
        if self._state == "TRANSMITTING":
            # At the end of TRANSMITTING Twisted needs the Deferred that is given up here.
            self._state = "GENERATION_FAILED"
        super()._giveUp(reason)
        if not reason.check(ConnectionDone):
            # This was no response. An orderly close would wait: over TLS, or for the rest of an upload.
            self.transport.abortConnection()

    def _finishResponse_WAITING(self, rest: bytes) -> None:
        # Before the connection goes to the pool: whoever hears of the end may use it for another request.
        self.vacate()
        parser = self._parser
        if parser is not None:
            tokens = connection_tokens(parser.connHeaders.getRawHeaders(b"Connection", ()))
            old = parser.response.version < (b"HTTP", 1, 1) and b"keep-alive" not in tokens
            if old or rest or b"close" in tokens:
                parser.connHeaders.setRawHeaders(b"Connection", [b"close"])
        super()._finishResponse_WAITING(rest)

    def _disconnectParser(self, reason: Failure) -> None:
        parser = self._parser
        super()._disconnectParser(reason)
        if parser is not None:
            # The decoder refers to its parser, which refers to the request and so to its body.
            parser.bodyDecoder = None

    _finishResponse_TRANSMITTING = _finishResponse_WAITING

    def _finishResponse_CONNECTION_LOST(self, rest: bytes) -> None:
        """Ignore the end of a body that ends with the connection, for which Twisted has no method."""
