"""Strict channel: requests whose heads, and whose bodies' ends, every server reads in the same way."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.resource import IResource

from stream_proxy.downstream.holding_channel import HoldingChannel, LimitedSite
from stream_proxy.downstream.time_limits import HeadLimit
from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import (
    APIError,
    head_too_large,
    head_too_slow,
    invalid_request,
    not_http,
    too_many_fields,
)
from stream_proxy.http.first_bytes import foreign_protocol
from stream_proxy.http.headers import connection_tokens
from stream_proxy.http.host import host_fault
from stream_proxy.http.strictness import is_doubtful, is_folded, is_trailer
from stream_proxy.transport.eager_write import allow_reads
from stream_proxy.transport.peer import peer_host

#: Errors for clients that speak another protocol.
_SPOKEN = {
    "TLS": "The client speaks TLS to a port without; use http:// in its base URL, or listen with ssl:.",
    "HTTP/2": "The client speaks HTTP/2 without asking first; let it use HTTP/1.1.",
}


class StrictSite(LimitedSite, Protocol):
    """Site that a channel reads requests for."""

    reactor: IReactorTime

    def getResourceFor(self, request: server.Request) -> IResource:
        """Find the resource that `request` is for."""

    def tell(self, channel: Any, how: str, status: int, code: str | int, problem: str) -> None:
        """Note the end of a connection that is no request's."""


class StrictChannel(HoldingChannel):
    """Channel that refuses whatever another server on the way could read in another way.

    Subclasses decide how a connection ends: what came in the same read as the bytes that closed it still
    passes through here.
    """

    __slots__ = ("_head_in", "_head_limit", "used")

    site: StrictSite
    transport: Any
    _head_limit: HeadLimit

    def __init__(self) -> None:
        super().__init__()
        #: The head of a request has come.
        self.used = False
        #: The request that is read is to be rendered once the channel has switched to its body.
        self._head_in = False

    @cached_property
    def client_address(self) -> str:
        """The client's address, which the PROXY protocol may tell only after the connection is made."""
        return peer_host(self.transport)

    @property
    def is_closing(self) -> bool:
        """Whether no more requests, or parts of one, are read."""
        raise NotImplementedError

    def ends_with(self, announces: Callable[[], bool]) -> bool:
        """Report whether the connection closes after the response that is about to begin.

        :param announces: returns whether that response can say so.
        """
        raise NotImplementedError

    def refuse(self, error: APIError) -> None:
        """Answer input that is no request, or no longer one, with an error, and close."""
        raise NotImplementedError

    def connectionMade(self) -> None:
        self._head_limit = HeadLimit(self.site.reactor)
        super().connectionMade()
        seconds = self.site.limits.request_head_seconds
        self._head_limit.handshake(self.transport, seconds, partial(self._handshake_late, seconds))

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._head_limit.stop()
        super().connectionLost(reason)
        # Cycles: a decoder and a request's body refer to this channel, a producer to its request.
        for request in self.requests:
            request.producer = None
        self.requests = []
        self._transferDecoder = self._requestProducer = None

    def abort(self) -> None:
        """Drop the connection."""
        self.transport.abortConnection()

    def is_foreign(self, begun: bytes) -> bool:
        """Refuse a connection that begins with another protocol; `begun` is its first line, or less."""
        protocol = None if self.used else foreign_protocol(begun)
        if protocol is not None:
            self.refuse(invalid_request(_SPOKEN[protocol], ErrorCode.INVALID_HTTP))
        return protocol is not None

    def lineReceived(self, line: bytes) -> None:
        if self.is_closing or (not self.requests and self.is_foreign(line)):
            return
        if is_folded(line):
            self._respondToBadRequestAndDisconnect()
            return
        super().lineReceived(line)
        if self._head_in:
            self._head_in = False
            if self.requests:
                self.requests[-1].headReceived()

    def headerReceived(self, line: bytes) -> bool:
        if not self.is_closing and is_doubtful(line, self._version):
            self._respondToBadRequestAndDisconnect()
        if self.is_closing or not super().headerReceived(line):
            return False
        fields = getattr(self.requests[-1], "raw_fields", None)
        if fields is not None:
            name, _, value = line.partition(b":")
            fields.append((name, value.strip(b" \t")))
        return True

    def rawDataReceived(self, data: bytes) -> None:
        if not self.is_closing:
            super().rawDataReceived(data)

    def _finishRequestBody(self, data: bytes) -> None:
        # Lines after the last chunk that are no fields may be the next request to another reader.
        if all(is_trailer(bytes(line)) for line in getattr(self._transferDecoder, "_trailerHeaders", ())):
            super()._finishRequestBody(data)
        else:
            self._respondToBadRequestAndDisconnect()

    def allContentReceived(self) -> None:
        if not self.is_closing:
            super().allContentReceived()

    def allHeadersReceived(self) -> None:
        self.used = True
        self._head_limit.end()  # the rest of this read belongs to another request
        hosts = self.requests[-1].requestHeaders.getRawHeaders(b"Host", [])
        fault = host_fault(hosts, self._version)
        if fault is not None:
            self.refuse(fault)
            return
        super().allHeadersReceived()
        if self.length != 0 and getattr(self.requests[-1], "body", None) is not None:
            # Whoever reads an upload limits its time. Rendering waits until the channel has switched to the
            # body, because a response at once would find it between two states.
            self.suspend_timeout()
            self._head_in = True

    def suspend_timeout(self) -> None:
        """Let the client be idle until the request has been answered."""
        if self.timeOut:
            self._savedTimeOut = self.setTimeout(None)

    def checkPersistence(self, request: server.Request, version: bytes) -> bool:
        if version != b"HTTP/1.1":
            return False
        tokens = connection_tokens(request.requestHeaders.getRawHeaders(b"Connection", ()))
        return b"close" not in tokens

    def _handshake_late(self, seconds: float) -> None:
        code = ErrorCode.REQUEST_HEAD_TIMEOUT
        problem = f"The TLS handshake took longer than {seconds:g} seconds."
        self.site.tell(self, "dropped", code.status, code.code, problem)
        self.abort()

    @property
    def in_head(self) -> bool:
        """Whether a head has begun that is not over."""
        return bool(self.line_mode and not self.is_closing and (self._buffer or self.requests))

    @property
    def is_idle(self) -> bool:
        """Whether no request has begun."""
        return bool(self.line_mode) and not self.in_head

    def watch_head(self) -> None:
        """Bound the time of a head that has begun."""
        if not self.in_head:
            self._head_limit.end()
        # A ClientHello may have no end of a line, so its sender would wait for the limit.
        elif not self.is_foreign(self._buffer):
            self._head_limit.begin(self.site.limits.request_head_seconds, self._head_late)

    def _head_late(self) -> None:
        if self._waitingForTransport:  # nothing is read before the client has read the last response
            self.watch_head()
        else:
            self.refuse(head_too_slow(self.site.limits.request_head_seconds))

    def allow_reads(self, most: int) -> None:
        """Read up to `most` bytes at once, while they are an upload that is passed on as it is."""
        allow_reads(self.transport, most)

    def forget_body(self) -> None:
        """Decode no more of a body: its decoder refers to the request."""
        self._transferDecoder = None

    def forget_requests(self, reason: Failure) -> None:
        """End the requests on this connection, which gets no further ones."""
        self._head_limit.end()
        self.persistent = False
        requests, self.requests = self.requests, []
        for request in requests:
            request.connectionLost(reason)

    def lineLengthExceeded(self, line: bytes) -> None:
        self.refuse(head_too_large(self.MAX_LENGTH))

    def _respondToBadRequestAndDisconnect(self) -> None:
        if self._receivedHeaderSize > self.totalHeadersSize:
            self.refuse(head_too_large(self.totalHeadersSize))
        elif self._receivedHeaderCount > self.maxHeaders:
            self.refuse(too_many_fields(self.maxHeaders))
        else:
            self.refuse(not_http())
