"""The HTTP server that does not interfere: uploads flow as they come, answers are what they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IHalfCloseableDescriptor,
    IPullProducer,
    IReactorTime,
)
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from twisted.web.resource import IResource
from zope.interface import implementer

from stream_proxy.errors import APIError, invalid_request
from stream_proxy.headers import RawHeader, connection_tokens
from stream_proxy.sockets import tune

#: The longest request head: request line and header fields together.
MAX_HEAD_BYTES = 65_536
#: An idle client connection is kept longer than the load balancers in front keep theirs.
CLIENT_IDLE_SECONDS = 650.0
#: After an answer that came before the upload was over: how long the rest may take, and pause, to run out.
_LINGER_SECONDS = 30.0
_LINGER_IDLE_SECONDS = 5.0
#: What is held of an upload that nobody has asked for yet.
_HOLD_BYTES = 65_536


class BodyTooLargeError(Exception):
    """A body that was to be collected is larger than its limit."""


@implementer(IBodyProducer)
class IncomingBody:
    """A request's body on its way in: collected whole, or produced into a consumer as it arrives.

    :param channel: the connection it comes on.
    :param length: its ``Content-Length``, or ``None`` if it is chunked.
    """

    def __init__(self, channel: DownstreamChannel, length: int | None) -> None:
        self.length: Any = UNKNOWN_LENGTH if length is None else length
        #: The whole body has come in.
        self.ended = length == 0
        #: Called whenever a piece arrives.
        self.touched: Callable[[], None] = lambda: None
        self._channel = channel
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._limit: int | None = None
        self._collected: Deferred[bytes] | None = None
        self._consumer: IConsumer | None = None
        self._produced: Deferred[None] | None = None
        self._discard = False
        self._paused = False

    def collect(self, limit: int) -> Deferred[bytes]:
        """The whole body.

        :param limit: bytes.
        :raises BodyTooLargeError: through the Deferred, as soon as that is known.
        """
        self._limit = limit
        self._collected = Deferred(lambda _: self.stopProducing())
        collected = self._collected
        if self.length is not UNKNOWN_LENGTH and self.length > limit:
            self._fail_collecting()
        else:
            self._check_collected()
        return collected

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        self._consumer = consumer
        produced: Deferred[None] = Deferred(lambda _: self.stopProducing())
        self._produced = produced
        held, self._held = self._held, []
        for piece in held:
            consumer.write(piece)
        if self.ended:
            self._finish_producing()
        elif not self._paused:
            self.resumeProducing()
        return produced

    def pauseProducing(self) -> None:
        self._paused = True
        if not self.ended:
            self._channel.pause_reading()

    def resumeProducing(self) -> None:
        self._paused = False
        if not self.ended:
            self._channel.resume_reading()

    def stopProducing(self) -> None:
        """Nobody wants the rest: what still comes is thrown away."""
        self._discard = True
        self._held = []
        self._consumer = self._produced = self._collected = None
        self.resumeProducing()

    def data_received(self, data: bytes) -> None:
        """The channel has a piece."""
        self.touched()
        if self._discard:
            return
        if self._consumer is not None:
            self._consumer.write(data)
        else:
            self._held.append(data)
            self._held_bytes += len(data)
            if self._collected is not None:
                self._check_collected()
            elif self._held_bytes > _HOLD_BYTES:
                self._channel.pause_reading()
        if self._paused:  # the channel resumes reading for reasons of its own
            self._channel.pause_reading()

    def end_received(self) -> None:
        """The channel has all of it."""
        self.ended = True
        self.touched()
        if self._consumer is not None:
            self._finish_producing()
        elif self._collected is not None:
            self._check_collected()

    def _finish_producing(self) -> None:
        produced, self._produced = self._produced, None
        self._consumer = None
        if produced is not None:
            produced.callback(None)

    def _check_collected(self) -> None:
        if self._limit is not None and self._held_bytes > self._limit:
            self._fail_collecting()
        elif self.ended and self._collected is not None:
            collected, self._collected = self._collected, None
            held, self._held = self._held, []
            collected.callback(b"".join(held))

    def _fail_collecting(self) -> None:
        collected = self._collected
        self.stopProducing()
        if collected is not None:
            collected.errback(BodyTooLargeError())


class ProxyRequest(server.Request):
    """A request whose body need not be in before it is answered.

    A resource with ``streamsUploads = True`` is rendered as soon as the head is in and finds the body in
    ``request.body`` (an :class:`IncomingBody`); every other resource finds it in ``request.content``.
    """

    defaultContentType = None
    body: IncomingBody | None = None
    _resource: IResource | None = None
    _rendered = False

    def gotLength(self, length: int | None) -> None:
        channel = cast(DownstreamChannel, self.channel)
        self.method, self.uri, self.clientproto = channel._command, channel._path, channel._version
        self.path = self.uri.split(b"?", 1)[0]
        self.args = {}
        self.site = channel.site
        self.prepath = []
        self.postpath = self.path[1:].split(b"/")
        found = channel.site.getResourceFor(self)
        if getattr(found, "streamsUploads", False):
            self._resource = found
            self.body = IncomingBody(channel, length)
        else:
            super().gotLength(length)

    def headReceived(self) -> None:
        """The channel has done its part with the head: the resource may look at it."""
        if self._resource is not None and not self._rendered:
            self._rendered = True
            try:
                self.render(self._resource)
            except BaseException:
                self.processingFailed(Failure())

    def handleContentChunk(self, data: bytes) -> None:
        if self.body is None:
            super().handleContentChunk(data)
        else:
            self.body.data_received(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if self.body is None:
            super().requestReceived(command, path, version)
            return
        self.body.end_received()
        self.headReceived()

    def write(self, data: bytes) -> None:
        if not self.startedWriting and self.channel is not None:
            if self.body is not None and not self.body.ended:
                self.channel.persistent = False  # or the rest of the body would be read as the next request
            if not self.channel.persistent:
                self.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        super().write(data)


class DownstreamChannel(HTTPChannel):
    """One client connection."""

    MAX_LENGTH = MAX_HEAD_BYTES
    totalHeadersSize = MAX_HEAD_BYTES
    site: ProxySite
    transport: Any
    _lingering: IDelayedCall | None = None
    _head_in = False
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
        super().lineReceived(line)
        if self._head_in:
            self._head_in = False
            if self.requests:
                self.requests[-1].headReceived()

    def rawDataReceived(self, data: bytes) -> None:
        if not self._closing:
            super().rawDataReceived(data)

    def allContentReceived(self) -> None:
        if not self._closing:
            super().allContentReceived()

    def allHeadersReceived(self) -> None:
        super().allHeadersReceived()
        if self.length != 0 and isinstance(self.requests[-1], ProxyRequest) and self.requests[-1].body:
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
        if self._closing or self.requests:
            self.abort()
        else:
            self.loseConnection()

    def abort(self) -> None:
        """Drop the connection."""
        self.transport.abortConnection()

    def drain(self) -> None:
        """Close when the request under way is done: now, if there is none."""
        self.persistent = False
        if self._lingering is not None:
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


class ProxySite(server.Site):
    """A site whose requests stream their uploads, without an access log.

    :param resource: the root.
    :param reactor: for its timers.
    :param idle_seconds: how long an idle client connection is kept.
    """

    protocol = DownstreamChannel  # type: ignore[assignment]

    def __init__(
        self, resource: IResource, *, reactor: Any = None, idle_seconds: float = CLIENT_IDLE_SECONDS
    ) -> None:
        super().__init__(
            resource,
            requestFactory=ProxyRequest,
            parsePOSTFormSubmission=False,
            timeout=idle_seconds,
            reactor=reactor,
        )
        self.noisy = False
        #: The connections that are open.
        self.channels: set[DownstreamChannel] = set()
        #: Set once the site only finishes what it has begun.
        self.draining = False
        self._drained: Deferred[None] | None = None

    def startFactory(self) -> None:
        """There is no access log to open."""

    def stopFactory(self) -> None:
        """There is none to close."""

    def log(self, request: object) -> None:
        """Nothing: Twisted's access log would print queries and ``Referer``."""

    def drain(self, seconds: float) -> Deferred[None]:
        """Close idle connections now and the others when their request is done, or after `seconds`.

        :return: fires when all are gone.
        """
        self.draining = True
        for channel in list(self.channels):
            channel.drain()
        if not self.channels:
            return succeed(None)
        clock: IReactorTime = self.reactor
        limit = clock.callLater(seconds, self.abort)
        self._drained = Deferred()

        def done(result: None) -> None:
            if limit.active():
                limit.cancel()

        return self._drained.addCallback(done)

    def abort(self) -> None:
        """Drop every connection."""
        for channel in list(self.channels):
            channel.abort()

    def channel_lost(self, channel: DownstreamChannel) -> None:
        """A connection is gone."""
        self.channels.discard(channel)
        if self._drained is not None and not self.channels:
            drained, self._drained = self._drained, None
            drained.callback(None)


def start_answer(
    request: server.Request, status: int, reason: bytes | None, headers: Iterable[RawHeader]
) -> None:
    """Set the head of an answer: exactly these fields, and the close that the connection itself needs.

    :param reason: ``None`` for the usual one.
    """
    close = request.responseHeaders.getRawHeaders(b"Connection")
    fields = Headers()
    for name, value in headers:
        fields.addRawHeader(name, value)
    if close:
        fields.setRawHeaders(b"Connection", close)
    request.responseHeaders = fields
    request.defaultContentType = None
    request.setResponseCode(status, reason)


def answer(
    request: server.Request, status: int, reason: bytes | None, headers: Iterable[RawHeader], body: bytes
) -> None:
    """Answer with JSON, whole."""
    own = [(b"Content-Type", b"application/json"), (b"Content-Length", b"%d" % len(body))]
    start_answer(request, status, reason, [*headers, *own])
    request.write(body)
    request.finish()


def answer_error(request: server.Request, error: APIError, headers: Iterable[RawHeader] = ()) -> None:
    """Answer with an error's envelope; `headers` are what the upstream said beside it."""
    fields = list(headers)
    if error.should_retry is not None:
        fields = [(name, value) for name, value in fields if name.lower() != b"x-should-retry"]
        fields.append((b"x-should-retry", b"true" if error.should_retry else b"false"))
    answer(request, error.status, None, fields, error.envelope())


def break_off(request: server.Request) -> None:
    """End an answer that has begun and cannot be completed, so that the client sees it is not complete."""
    channel = request.channel
    if channel is None:
        return
    if request.chunked or request.responseHeaders.hasHeader(b"Content-Length"):
        channel.loseConnection()
    elif isinstance(channel, DownstreamChannel):  # here an orderly close would be the end of the answer
        channel.break_off()
    else:
        cast(Any, channel.transport).abortConnection()
