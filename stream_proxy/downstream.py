"""The HTTP server that does not interfere: uploads flow as they come, answers are what they are told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource

from stream_proxy.channel import DownstreamChannel
from stream_proxy.errors import APIError
from stream_proxy.headers import RawHeader
from stream_proxy.incoming import IncomingBody

#: An idle client connection is kept longer than the load balancers in front keep theirs.
CLIENT_IDLE_SECONDS = 650.0


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
        self._drained: list[Deferred[None]] = []

    def startFactory(self) -> None:
        """There is no access log to open."""

    def stopFactory(self) -> None:
        """There is none to close."""

    def log(self, request: object) -> None:
        """Nothing: Twisted's access log would print queries and ``Referer``."""

    def drain(self, seconds: float | None) -> Deferred[None]:
        """Close idle connections now and the others when their request is done, or after `seconds`.

        :return: fires when all are gone.
        """
        self.draining = True
        for channel in list(self.channels):
            channel.drain()
        gone: Deferred[None] = Deferred()
        if not self.channels:
            gone.callback(None)
            return gone
        clock: IReactorTime = self.reactor
        limit = None if seconds is None else clock.callLater(seconds, self.abort)
        self._drained.append(gone)

        def done(result: None) -> None:
            if limit is not None and limit.active():
                limit.cancel()

        return gone.addCallback(done)

    def abort(self) -> None:
        """Drop every connection."""
        for channel in list(self.channels):
            channel.abort()

    def channel_lost(self, channel: DownstreamChannel) -> None:
        """A connection is gone."""
        self.channels.discard(channel)
        if not self.channels:
            drained, self._drained = self._drained, []
            for gone in drained:
                gone.callback(None)


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
    if error.retry_after is not None:
        fields.append((b"Retry-After", b"%d" % error.retry_after))
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
