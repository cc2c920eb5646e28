"""One client connection: whose head comes in, whose upload may wait, and how it closes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall, IHalfCloseableDescriptor, IPullProducer
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http import HTTPChannel
from zope.interface import implementer

from stream_proxy.errors import APIError, invalid_request
from stream_proxy.framing import is_doubtful, is_folded, is_trailer
from stream_proxy.headers import connection_tokens
from stream_proxy.sockets import tune

if TYPE_CHECKING:
    from stream_proxy.downstream import ProxySite

#: The longest request head: request line and header fields together.
MAX_HEAD_BYTES = 65_536
#: After an answer that came before the upload was over: how long the rest may take, and pause, to run out.
_LINGER_SECONDS = 30.0
_LINGER_IDLE_SECONDS = 5.0


class DownstreamChannel(HTTPChannel):
    """One client connection."""

    MAX_LENGTH = MAX_HEAD_BYTES
    totalHeadersSize = MAX_HEAD_BYTES
    site: ProxySite
    transport: Any
    _lingering: IDelayedCall | None = None
    _head_in = False
    #: What a connection that has become a WebSocket does when the site stops.
    going_away: Callable[[], None] | None = None
    #: The connection is closing: nothing that still comes is a request, or part of one.
    _closing = False

    def connectionMade(self) -> None:
        self.site.channels.add(self)
        super().connectionMade()
        tune(self.transport)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if self._lingering is not None and self._lingering.active():
            self._lingering.cancel()
        super().connectionLost(reason)
        self.site.channel_lost(self)

    def dataReceived(self, data: bytes) -> None:
        if not self._closing:
            super().dataReceived(data)
        elif self._lingering is not None:
            self.resetTimeout()

    # What came in the same read as that which closed the connection is still on its way through these.

    def lineReceived(self, line: bytes) -> None:
        if self._closing:
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
        if not self._closing and is_doubtful(line, self._version):
            self._respondToBadRequestAndDisconnect()
        return not self._closing and super().headerReceived(line)

    def rawDataReceived(self, data: bytes) -> None:
        if not self._closing:
            super().rawDataReceived(data)

    def _finishRequestBody(self, data: bytes) -> None:
        # What stands after the last chunk but is no field may be the next request to somebody else.
        if all(is_trailer(bytes(line)) for line in getattr(self._transferDecoder, "_trailerHeaders", ())):
            super()._finishRequestBody(data)
        else:
            self._respondToBadRequestAndDisconnect()

    def allContentReceived(self) -> None:
        if not self._closing:
            super().allContentReceived()

    def allHeadersReceived(self) -> None:
        hosts = self.requests[-1].requestHeaders.getRawHeaders(b"Host", ())
        if len(hosts) > 1:
            self._respondToBadRequestAndDisconnect()
            return
        super().allHeadersReceived()
        if self.length != 0 and getattr(self.requests[-1], "body", None) is not None:
            # The time limit of an upload is the business of who reads it. Rendering waits until the channel
            # has switched to the body, because an answer at once would find it between two states.
            self._savedTimeOut = self.setTimeout(None)
            self._head_in = True

    def checkPersistence(self, request: server.Request, version: bytes) -> bool:
        if version != b"HTTP/1.1":
            return False
        tokens = connection_tokens(request.requestHeaders.getRawHeaders(b"Connection", ()))
        return b"close" not in tokens and not self.site.draining

    def pause_reading(self) -> None:
        """The upload has to wait."""
        self._networkProducer.pauseProducing()

    def resume_reading(self) -> None:
        """The upload may go on."""
        self._networkProducer.resumeProducing()

    def loseConnection(self) -> None:
        if not self._closing:
            self._close(linger=self._transferDecoder is not None)

    def _close(self, *, linger: bool) -> None:
        """Close after what was written.

        :param linger: the client may still be sending. A close with unread bytes is a reset, which can
            destroy the answer on its way to the client.
        """
        self._closing = True
        transport: Any = self.transport
        if not (linger and _is_half_closeable(transport)):
            self.setTimeout(self.site.timeOut)  # a client that takes nothing must not hold the connection
            super().loseConnection()
            return
        self._lingering = self.callLater(_LINGER_SECONDS, self.abort)
        transport.unregisterProducer()
        transport.resumeProducing()
        transport.loseWriteConnection()
        self.setTimeout(_LINGER_IDLE_SECONDS)

    def break_off(self) -> None:
        """Reset the connection after what was written."""
        self._closing = True
        transport: Any = self.transport
        if not _is_half_closeable(transport):
            self.abort()
            return
        self.setTimeout(self.site.timeOut)
        transport.unregisterProducer()
        transport.registerProducer(_AfterLastWrite(transport, self.abort), False)

    def timeoutConnection(self) -> None:
        if self._lingering is not None:
            # All that came has been read, so this close is no reset, and the rest of the answer arrives.
            self.transport.loseConnection()
        elif self._closing or self.requests:
            self.abort()
        else:
            self.loseConnection()

    def abort(self) -> None:
        """Drop the connection."""
        self.transport.abortConnection()

    def drain(self) -> None:
        """Close when the request under way is done: now, if there is none."""
        self.persistent = False
        if self.going_away is not None:
            self.going_away()
        elif self._lingering is not None:
            self.abort()
        elif not self.requests:
            self.loseConnection()

    def lineLengthExceeded(self, line: bytes) -> None:
        self._refuse(_head_too_large())

    def _respondToBadRequestAndDisconnect(self) -> None:
        if self._receivedHeaderSize > self.totalHeadersSize or self._receivedHeaderCount > self.maxHeaders:
            self._refuse(_head_too_large())
        else:
            self._refuse(
                invalid_request("The request is not valid HTTP/1.1; check the client's framing and headers.")
            )

    def _refuse(self, error: APIError) -> None:
        """Answer what is no request, or no longer one, and close."""
        self.persistent = False
        started = any(request.startedWriting for request in self.requests)
        requests, self.requests = self.requests, []
        for request in requests:
            request.connectionLost(Failure(error))
        if not started:
            body = error.envelope()
            head = (
                b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\nConnection: close\r\n\r\n"
            )
            reason = b"Bad Request" if error.status == 400 else b"Request Header Fields Too Large"
            self.transport.write(head % (error.status, reason, len(body)) + body)
        self._close(linger=True)


def _is_half_closeable(transport: object) -> bool:
    """Whether it is a plain TCP or UNIX connection, with nothing like TLS on it."""
    return bool(IHalfCloseableDescriptor.providedBy(transport))


@implementer(IPullProducer)
class _AfterLastWrite:
    """Calls `done` when a transport has sent all that was written to it.

    A transport asks a pull producer for more once at the start, and again whenever there is nothing left.
    """

    def __init__(self, transport: Any, done: Callable[[], None]) -> None:
        self._transport = transport
        self._done = done
        self._asked = False

    def resumeProducing(self) -> None:
        if self._asked:
            self._done()
        else:
            self._asked = True
            self._transport.startWriting()

    def stopProducing(self) -> None:
        """The connection is gone already."""


def _head_too_large() -> APIError:
    return invalid_request(
        f"The request head is larger than {MAX_HEAD_BYTES} bytes or has too many fields; "
        "send fewer or shorter headers.",
        431,
    )
