"""Channel: one client connection, its request heads, the pace of its uploads, and its closing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource

from stream_proxy.downstream.closing import AfterLastWrite, last_response
from stream_proxy.downstream.stall import Outbox, StalledError
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
from stream_proxy.limits import Limits
from stream_proxy.transport.dead_path import Path
from stream_proxy.transport.eager_write import tcp_connection
from stream_proxy.transport.tuning import handshake_done, has_handshake, is_half_closeable, tune

#: After a response that came before the upload was over: how long the rest of that may take, and pause.
_LINGER_SECONDS = 30.0
_LINGER_IDLE_SECONDS = 5.0
#: Errors for clients that speak another protocol.
_SPOKEN = {
    "TLS": "The client speaks TLS to a port without; use http:// in its base URL, or listen with ssl:.",
    "HTTP/2": "The client speaks HTTP/2 without asking first; let it use HTTP/1.1.",
}
#: When the site drains: how long a new connection may take to begin its first request.
_BEGIN_SECONDS = 1.0
#: When the service stops: how long a client may take to read why its response breaks off.
_LAST_WORDS_SECONDS = 1.0


class ChannelSite(Protocol):
    """Site whose connection a channel is, and which keeps count of it."""

    limits: Limits
    #: Seconds that an idle connection is kept.
    timeOut: float | None
    #: The site only finishes what it has begun.
    draining: bool
    #: WebSockets are to end as well.
    going_away: bool

    def getResourceFor(self, request: server.Request) -> IResource:
        """Find the resource that `request` is for."""

    def channel_made(self, channel: DownstreamChannel) -> None:
        """Count a connection, which may be one too many."""

    def channel_lost(self, channel: DownstreamChannel) -> None:
        """Forget a connection."""

    def tell(self, channel: DownstreamChannel, how: str, status: int, problem: str) -> None:
        """Log the end of a connection that is no request's."""


class DownstreamChannel(HTTPChannel):
    """One client connection."""

    site: ChannelSite
    transport: Any
    #: Bytes that wait to be sent to the client.
    outbox: Outbox
    _tcp_path: Path
    _lingering: IDelayedCall | None = None
    _head_in = False
    _head_limit: IDelayedCall | None = None
    _handshake_limit: IDelayedCall | None = None
    _used = False
    _ending: IDelayedCall | None = None
    _abort_call: IDelayedCall | None = None
    #: Set while requests that came with an answered one wait for the next turn of the reactor.
    _next_turn: IDelayedCall | None = None
    #: Set on a connection that has become a WebSocket: called when the site drains.
    going_away: Callable[[], None] | None = None
    #: The connection is closing: no more requests, or parts of one, are read from it.
    _closing = False
    #: The connection is one too many: its first request gets this error.
    _turned_away: APIError | None = None
    _stalled: Failure | None = None

    def connectionMade(self) -> None:
        limits = self.site.limits
        self.MAX_LENGTH = self.totalHeadersSize = limits.max_header_bytes
        self.maxHeaders = limits.max_header_count
        self.outbox = Outbox(self.transport)
        self._tcp_path = Path(self.transport)
        super().connectionMade()
        tune(self.transport)
        if has_handshake(self.transport):
            self._handshake_limit = self.callLater(limits.request_head_seconds, self._handshake_late)
        self.site.channel_made(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        calls = (
            self._lingering,
            self._head_limit,
            self._handshake_limit,
            self._ending,
            self._abort_call,
            self._next_turn,
        )
        for call in calls:
            if call is not None and call.active():
                call.cancel()
        self.outbox.close()
        super().connectionLost(self._stalled or reason)
        # Cycles: a decoder and a request's body refer to this channel, a producer to its request.
        for request in self.requests:
            request.producer = None
        self.requests = []
        self._transferDecoder = self._requestProducer = None
        self.site.channel_lost(self)

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            if self._lingering is not None:
                self.resetTimeout()
        elif self._turned_away is not None:
            self._refuse(self._turned_away)
        else:
            super().dataReceived(data)
            if self.paused and not self._busyReceiving:
                self._end_turn()
            elif not self._busyReceiving:
                self._watch_head()

    def _handshake_late(self) -> None:
        self._handshake_limit = None
        if not handshake_done(self.transport):
            seconds = self.site.limits.request_head_seconds
            self.site.tell(self, "dropped", 408, f"The TLS handshake took longer than {seconds:g} seconds.")
            self.abort()

    # Requests that are answered at once do not keep other clients waiting, however many come in one read.

    def requestDone(self, request: server.Request) -> None:
        self.paused = self._busyReceiving  # more may have come: it is for the next turn
        super().requestDone(request)

    def _end_turn(self) -> None:
        """Leave what has come for the next turn, if there is any."""
        if self._buffer and not self._closing:
            self._networkProducer.pauseProducing()
            if self._next_turn is None:
                self._next_turn = self.callLater(0, self._begin_turn)
        else:
            self.paused = False
            self._watch_head()

    def _begin_turn(self) -> None:
        self._next_turn = None
        self.paused = False
        self.dataReceived(b"")
        if not (self.paused or self._closing or self._waitingForTransport):
            self._networkProducer.resumeProducing()

    def _watch_head(self) -> None:
        """Bound the time of a head that has begun; one that came in one piece needs no timer."""
        if not self._in_head:
            self._stop_head_limit()
        # A ClientHello may have no end of a line, so its sender would wait for the limit.
        elif not self._is_foreign(self._buffer) and self._head_limit is None:
            self._head_limit = self.callLater(self.site.limits.request_head_seconds, self._head_late)

    def _is_foreign(self, begun: bytes) -> bool:
        """Refuse a connection that begins with another protocol; `begun` is its first line, or less."""
        protocol = None if self._used else foreign_protocol(begun)
        if protocol is not None:
            self._refuse(invalid_request(_SPOKEN[protocol], ErrorCode.INVALID_HTTP))
        return protocol is not None

    @property
    def _in_head(self) -> bool:
        return bool(self.line_mode and not self._closing and (self._buffer or self.requests))

    def _head_late(self) -> None:
        self._head_limit = None
        if self._waitingForTransport:  # nothing is read before the client has read the last response
            self._watch_head()
        else:
            self._refuse(head_too_slow(self.site.limits.request_head_seconds))

    def _stop_head_limit(self) -> None:
        call, self._head_limit = self._head_limit, None
        if call is not None:
            call.cancel()

    # What came in the same read as the bytes that closed the connection still passes through these.

    def lineReceived(self, line: bytes) -> None:
        if self._closing or (not self.requests and self._is_foreign(line)):
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
        # Lines after the last chunk that are no fields may be the next request to another reader.
        if all(is_trailer(bytes(line)) for line in getattr(self._transferDecoder, "_trailerHeaders", ())):
            super()._finishRequestBody(data)
        else:
            self._respondToBadRequestAndDisconnect()

    def allContentReceived(self) -> None:
        if not self._closing:
            super().allContentReceived()

    def allHeadersReceived(self) -> None:
        self._used = True
        self._stop_head_limit()  # the rest of this read belongs to another request
        hosts = self.requests[-1].requestHeaders.getRawHeaders(b"Host", [])
        fault = host_fault(hosts, self._version)
        if fault is not None:
            self._refuse(fault)
            return
        super().allHeadersReceived()
        if self.length != 0 and getattr(self.requests[-1], "body", None) is not None:
            # Whoever reads an upload limits its time. Rendering waits until the channel has switched to the
            # body, because a response at once would find it between two states.
            self._savedTimeOut = self.setTimeout(None)
            self._head_in = True

    def checkPersistence(self, request: server.Request, version: bytes) -> bool:
        if version != b"HTTP/1.1":
            return False
        tokens = connection_tokens(request.requestHeaders.getRawHeaders(b"Connection", ()))
        return b"close" not in tokens and not self.site.draining

    def pause_reading(self) -> None:
        """Pause the upload."""
        self._networkProducer.pauseProducing()

    def resume_reading(self) -> None:
        """Resume the upload."""
        self._networkProducer.resumeProducing()

    def loseConnection(self) -> None:
        if not self._closing:
            self._close(linger=self._transferDecoder is not None)

    def _close(self, *, linger: bool) -> None:
        """Close after what was written.

        :param linger: the client may still be sending. A close with unread bytes is a reset, which can
            destroy the response on its way to the client.
        """
        self._closing = True
        self._transferDecoder = None  # nothing is decoded any more, and it refers to the request
        transport: Any = self.transport
        if not (linger and is_half_closeable(transport)):
            # A transport that cannot be half closed, such as TLS, waits for the client's own close.
            self.setTimeout(_LINGER_SECONDS if linger else self.site.timeOut)
            super().loseConnection()
            return
        self._lingering = self.callLater(_LINGER_SECONDS, self._end_linger)
        transport.unregisterProducer()
        transport.resumeProducing()
        transport.loseWriteConnection()
        self.setTimeout(_LINGER_IDLE_SECONDS)

    def break_off(self) -> None:
        """Reset the connection after what was written."""
        self._closing = True
        self.setTimeout(self.site.timeOut)
        self.transport.unregisterProducer()
        # Under TLS, what this turn wrote reaches the connection only in the next one.
        self._ending = self.callLater(0, self._reset_after_writes)

    def _reset_after_writes(self) -> None:
        connection = tcp_connection(self.transport)
        if connection is None:
            self.abort()
        else:
            connection.registerProducer(AfterLastWrite(connection, self.abort), False)

    def timeoutConnection(self) -> None:
        if self._is_taking:
            self.setTimeout(self.timeOut)
        elif self._lingering is not None:
            # All that came has been read, so this close is no reset, and the rest of the response arrives.
            self.transport.loseConnection()
        elif self._closing or self.requests:
            self.abort()
        else:
            self.loseConnection()

    def _end_linger(self) -> None:
        if self._is_taking:
            self._lingering = self.callLater(_LINGER_SECONDS, self._end_linger)
        else:
            self.abort()

    @property
    def _is_taking(self) -> bool:
        """Whether a response is still on its way. StallWatch bounds how long that may take."""
        return self._turned_away is None and self.outbox.waiting

    def stalled(self, seconds: float) -> None:
        """Drop a client that read nothing for so long while bytes waited for it."""
        self._drop(StalledError.took_nothing(seconds))

    def _drop(self, error: StalledError) -> None:
        if self._stalled is not None:  # it is being dropped already
            return
        self._stalled = Failure(error)
        if not self.requests:  # else the log line of the request says so
            self.site.tell(self, "dropped", 499, str(error))
        self.abort()

    def check(self, now: float) -> None:
        """Drop a client that has left while its upload, or its next request, was paused, or has vanished."""
        # A WebSocket's frames from before the client left are still to be relayed.
        http = self.requests and not self._closing and self.going_away is None
        if http and self.outbox.deserted:
            self.abort()
        elif (self.requests or self._closing) and self._tcp_path.is_dead(now):
            self._drop(StalledError.vanished())

    def take_over(self, receiver: Callable[[bytes], None], going_away: Callable[[], None]) -> bytes:
        """Hand all further bytes to `receiver`, and return those that came after the request.

        The connection speaks another protocol from here on. Closing still is the channel's business.

        :param going_away: called when the site stops, to end that protocol.
        """
        # In place of a flag: neither requests, which are frequent, nor frames have to ask for one, and what
        # comes while the channel closes has to reach the receiver, too.
        self.dataReceived = receiver  # type: ignore[method-assign, assignment]
        self.going_away = going_away
        held, self._dataBuffer = b"".join(self._dataBuffer), []
        return held

    def abort(self) -> None:
        """Drop the connection."""
        self.transport.abortConnection()

    def stop(self) -> None:
        """Drop the connection because the service stops, after telling a client whose response has begun."""
        stopping = getattr(self.requests[0], "stopping", None) if self.requests else None
        if stopping is None:
            self.abort()
        else:
            stopping()
            self._abort_call = self.callLater(_LAST_WORDS_SECONDS, self.abort)

    def turn_away(self, error: APIError) -> None:
        """Answer the first request with `error`."""
        self._turned_away = error
        self.setTimeout(_LINGER_IDLE_SECONDS)

    def drain(self, *, websockets: bool) -> None:
        """Close when the request under way is done.

        If there is none, close soon: a request that the client has sent already is still answered.

        :param websockets: end WebSockets as well.
        """
        if self.going_away is not None:
            if websockets:
                self.going_away()
        elif self._lingering is not None or self._turned_away is not None:
            self.abort()
        elif not self.line_mode:
            self.persistent = False
        elif not self._closing and self._ending is None:
            if self._used:
                self._ending = self.callLater(0, self._end_idle_next_turn)
            else:
                self._ending = self.callLater(_BEGIN_SECONDS, self._end_idle)

    def _end_idle_next_turn(self) -> None:
        # The rest of the turn in which the drain began need not have read anything; the next one has.
        self._ending = self.callLater(0, self._end_idle)

    def _end_idle(self) -> None:
        if self.line_mode and not self._in_head:
            self.loseConnection()

    def lineLengthExceeded(self, line: bytes) -> None:
        self._refuse(head_too_large(self.MAX_LENGTH))

    def _respondToBadRequestAndDisconnect(self) -> None:
        if self._receivedHeaderSize > self.totalHeadersSize:
            self._refuse(head_too_large(self.totalHeadersSize))
        elif self._receivedHeaderCount > self.maxHeaders:
            self._refuse(too_many_fields(self.maxHeaders))
        else:
            self._refuse(not_http())

    def _refuse(self, error: APIError) -> None:
        """Answer input that is no request, or no longer one, with an error, and close."""
        self.persistent = False
        self._stop_head_limit()
        started = any(request.startedWriting for request in self.requests)
        known = any(getattr(request, "rendered", False) for request in self.requests)
        requests, self.requests = self.requests, []
        for request in requests:
            request.connectionLost(Failure(error))
        if not started:
            self.transport.write(last_response(error))
        if not known and self._turned_away is None:
            self.site.tell(self, "refused", error.status, error.for_log)
        self._close(linger=True)
