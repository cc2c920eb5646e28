"""The HTTP server that does not interfere: uploads flow as they come, answers are what they are told."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web import server
from twisted.web.resource import IResource

from stream_proxy.downstream.channel import DownstreamChannel
from stream_proxy.downstream.request import ProxyRequest
from stream_proxy.downstream.stall import StallWatch
from stream_proxy.errors import too_many_connections
from stream_proxy.http.target import origin_form
from stream_proxy.limits import Limits
from stream_proxy.request_log import Outcome, RequestLog

#: How many connections beyond the allowed ones may be there to be answered that they are too many.
_MOST_TURNED_AWAY = 1_000
#: At most so often the log tells of these.
_OVERLOAD_LOG_SECONDS = 10.0


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
