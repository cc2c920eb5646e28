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
from stream_proxy.config import Limits
from stream_proxy.decide import origin_form
from stream_proxy.errors import APIError
from stream_proxy.headers import RawHeader
from stream_proxy.incoming import IncomingBody
from stream_proxy.outcome import Outcome, RequestLog
from stream_proxy.refusals import too_many_connections
from stream_proxy.stall import StallWatch

#: How many connections beyond the allowed ones may be there to be answered that they are too many.
_MOST_TURNED_AWAY = 1_000
#: At most so often the log tells of these.
_OVERLOAD_LOG_SECONDS = 10.0


class ProxyRequest(server.Request):
    """A request whose body need not be in before it is answered.

    A resource with ``streamsUploads = True`` is rendered as soon as the head is in and finds the body in
    ``request.body`` (an :class:`IncomingBody`); every other resource finds it in ``request.content``.
    """

    defaultContentType = None
    body: IncomingBody | None = None
    #: The resource has been asked: from there on it is the one who tells the log.
    rendered = False
    _resource: IResource | None = None

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
        if self._resource is not None and not self.rendered:
            self.rendered = True
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
    :param idle_seconds: how long an idle client connection is kept, in place of what `limits` say.
    :param limits: times, sizes and counts, those of the configuration.
    :param log: where is told what no resource can tell: requests that do not get so far.
    """

    protocol = DownstreamChannel  # type: ignore[assignment]

    def __init__(
        self,
        resource: IResource,
        *,
        reactor: Any = None,
        idle_seconds: float | None = None,
        limits: Limits | None = None,
        log: RequestLog | None = None,
    ) -> None:
        limits = limits if limits is not None else Limits()
        super().__init__(
            resource,
            requestFactory=ProxyRequest,
            parsePOSTFormSubmission=False,
            timeout=limits.client_idle_seconds if idle_seconds is None else idle_seconds,
            reactor=reactor,
        )
        self.noisy = False
        self.limits = limits
        #: The connections that are open.
        self.channels: set[DownstreamChannel] = set()
        #: Those that were too many, and are about to go.
        self.turned_away: set[DownstreamChannel] = set()
        #: Set once the site only finishes what it has begun.
        self.draining = False
        #: Set once WebSockets are to end as well.
        self.going_away = False
        self._drained: list[Deferred[None]] = []
        self._log = log if log is not None else RequestLog()
        self._overload_logged: float | None = None
        self._untold = 0
        clock: IReactorTime = self.reactor
        self._stalls = StallWatch(clock, self.channels, limits.timeout_seconds)

    def change_limits(self, limits: Limits) -> None:
        """Let `limits` hold from now on; some of them only for connections that are new."""
        self.limits = limits
        self.timeOut = limits.client_idle_seconds
        self._stalls.seconds = limits.timeout_seconds

    def acceptableProtocols(self) -> list[bytes]:
        """What TLS is to offer: HTTP/2 is not spoken here."""
        return [b"http/1.1"]

    def startFactory(self) -> None:
        """There is no access log to open."""

    def stopFactory(self) -> None:
        """There is none to close."""

    def log(self, request: object) -> None:
        """Nothing: Twisted's access log would print queries and ``Referer``."""

    def tell(self, channel: DownstreamChannel, how: str, status: int, problem: str) -> None:
        """Log the end of a connection that is no request's."""
        target = origin_form(getattr(channel, "_path", b"")) or b"-"
        method = getattr(channel, "_command", b"-")
        outcome = Outcome(status, 0, problem)
        self._log.request(method, target.partition(b"?")[0], "-", how, 0.0, outcome)

    def drain(self, seconds: float | None) -> Deferred[None]:
        """Close idle connections now, and the others when their request is done.

        It can be asked for again, to set a limit or another one.

        :param seconds: after so many everything is aborted, and WebSockets are closed at once; ``None``: all
            may take the time that they need, WebSockets as well.
        :return: fires when all are gone.
        """
        self.draining = True
        self.going_away = self.going_away or seconds is not None
        for channel in [*self.channels, *self.turned_away]:
            channel.drain(websockets=self.going_away)
        gone: Deferred[None] = Deferred()
        if not (self.channels or self.turned_away):
            gone.callback(None)
            return gone
        self._drained.append(gone)
        if seconds is None:
            return gone
        clock: IReactorTime = self.reactor
        limit = clock.callLater(seconds, self.abort)

        def done(result: None) -> None:
            if limit.active():
                limit.cancel()

        return gone.addCallback(done)

    def abort(self) -> None:
        """Drop every connection."""
        for channel in [*self.channels, *self.turned_away]:
            channel.abort()

    def channel_made(self, channel: DownstreamChannel) -> None:
        """A connection is there, which may be one too many."""
        if len(self.channels) >= self.limits.max_connections:
            self._turn_away(channel)
            return
        self.channels.add(channel)
        self._stalls.start()
        if self.draining:
            channel.drain(websockets=self.going_away)

    def _turn_away(self, channel: DownstreamChannel) -> None:
        limit, clock = self.limits.max_connections, self.reactor
        self._untold += 1
        now = clock.seconds()
        if self._overload_logged is None or now - self._overload_logged >= _OVERLOAD_LOG_SECONDS:
            self._log.warn(
                f"refused connections: {self._untold}; all {limit} that maxConnections allows are in use"
            )
            self._overload_logged, self._untold = now, 0
        crowded = len(self.turned_away) >= _MOST_TURNED_AWAY
        self.turned_away.add(channel)
        if crowded:
            channel.abort()
        else:
            channel.turn_away(too_many_connections(limit))

    def channel_lost(self, channel: DownstreamChannel) -> None:
        """A connection is gone."""
        self.channels.discard(channel)
        self.turned_away.discard(channel)
        if not self.channels:
            self._stalls.stop()
        if not (self.channels or self.turned_away):
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


def is_taking(request: server.Request) -> bool:
    """Whether something waits for the client on a connection that watches that it is taken."""
    channel = request.channel
    return isinstance(channel, DownstreamChannel) and channel.outbox.waiting
