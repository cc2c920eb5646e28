"""HTTP server that does not interfere: uploads stream, and responses get no header of its own."""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.web import server
from twisted.web.resource import IResource, Resource

from stream_proxy.downstream.channel import DownstreamChannel
from stream_proxy.downstream.request import ProxyRequest
from stream_proxy.downstream.stall import StallWatch
from stream_proxy.errors import too_many_connections
from stream_proxy.http.target import origin_form
from stream_proxy.limits import Limits
from stream_proxy.observe.ledger import Ledger
from stream_proxy.observe.log_entries import log_request
from stream_proxy.observe.record import Record
from stream_proxy.request_log import RequestLog
from stream_proxy.transport.ways import plain_ways

#: Connections beyond the limit that may stay long enough to get an error.
_MOST_TURNED_AWAY = 1_000
#: Seconds between two log lines about these.
_OVERLOAD_LOG_SECONDS = 10.0


class ProxySite(server.Site):
    """Site whose requests stream their uploads, without an access log.

    :param resource: the root.
    :param reactor: the reactor; by default the running one.
    :param idle_seconds: seconds that an idle client connection is kept, in place of the one in `limits`.
    :param limits: times, sizes and counts, as in the configuration.
    :param log: the log of requests that reach no resource.
    """

    protocol = DownstreamChannel  # type: ignore[assignment]
    #: The site will soon drain, and responses that can say so are the last of their connections.
    leaving = False

    def __init__(
        self,
        resource: Resource | IResource,
        *,
        reactor: Any = None,
        idle_seconds: float | None = None,
        limits: Limits | None = None,
        log: RequestLog | None = None,
    ) -> None:
        limits = limits if limits is not None else Limits()
        super().__init__(
            cast(IResource, resource),  # which it is; type checkers do not know without a plugin
            requestFactory=ProxyRequest,
            parsePOSTFormSubmission=False,
            timeout=limits.client_idle_seconds if idle_seconds is None else idle_seconds,
            reactor=reactor,
        )
        self.noisy = False
        self.limits = limits
        #: The connections that are open.
        self.channels: set[DownstreamChannel] = set()
        #: Connections beyond the limit, which are about to be closed.
        self.turned_away: set[DownstreamChannel] = set()
        #: The site only finishes what it has begun.
        self.draining = False
        #: WebSockets are to end as well.
        self.going_away = False
        self._drained: list[Deferred[None]] = []
        self._log = log if log is not None else RequestLog()
        self._overload_logged: float | None = None
        self._untold = 0
        clock: IReactorTime = self.reactor
        self._stalls = StallWatch(clock, self.channels, limits.timeout_seconds)

    @cached_property
    def lane(self) -> bool:
        """Whether plain requests are taken without reading them line by line; they mean the same."""
        return not plain_ways()

    def change_limits(self, limits: Limits) -> None:
        """Apply `limits` from now on; some of them to new connections only."""
        self.limits = limits
        self.timeOut = limits.client_idle_seconds
        self._stalls.seconds = limits.timeout_seconds

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return the channel of a new connection.

        Twisted's has what ours asks its site for, and a `factory`, whose access log would show queries and
        ``Referer``.
        """
        channel: Any = self.protocol()
        channel.site = self
        channel.timeOut = self.timeOut
        return channel

    def acceptableProtocols(self) -> list[bytes]:
        """Return the protocols that TLS offers: HTTP/2 is not spoken here."""
        return [b"http/1.1"]

    def getResourceFor(self, request: Any) -> IResource:
        root: IResource = self.resource
        if not root.isLeaf:
            return cast(IResource, super().getResourceFor(request))
        request.site, request.sitepath = self, []  # as Twisted does, which copies the path
        return root

    def startFactory(self) -> None:
        """Do nothing: there is no access log to open."""

    def stopFactory(self) -> None:
        """Do nothing: there is no access log to close."""

    def tell(self, channel: DownstreamChannel, how: str, status: int, code: str | int, problem: str) -> None:
        """Note the end of a connection that is no request's."""
        # That of a resource with an upstream, which has one.
        ledger: Ledger | None = getattr(self.resource, "ledger", None)
        name = getattr(self.resource, "name", "-")
        record = Record(0, name, 0.0) if ledger is None else ledger.begin(name)
        record.method = getattr(channel, "_command", b"-")
        record.path = (origin_form(getattr(channel, "_path", b"")) or b"-").partition(b"?")[0]
        record.client, record.mode = channel.client_address, how
        record.status, record.code, record.problem = status, str(code), problem
        if ledger is not None:
            ledger.end(record)
        log_request(self._log, record)

    def drain(self, seconds: float | None) -> Deferred[None]:
        """Close idle connections now, and the others when their request is done.

        A second call sets a new limit.

        :param seconds: after so many everything is aborted, and WebSockets are closed at once; ``None``: no
            limit, for WebSockets neither.
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
        """Drop every connection, those whose response has begun early within a second."""
        for channel in [*self.channels, *self.turned_away]:
            channel.stop()

    def channel_made(self, channel: DownstreamChannel) -> None:
        """Count a connection, which may be one too many."""
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
        """Forget a connection."""
        self.channels.discard(channel)
        self.turned_away.discard(channel)
        if not self.channels:
            self._stalls.stop()
        if not (self.channels or self.turned_away):
            drained, self._drained = self._drained, []
            for gone in drained:
                gone.callback(None)
