"""Channel: one client connection, the pace of its requests and uploads, and its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.python.failure import Failure
from twisted.web import server

from stream_proxy.downstream.closing import LINGER_IDLE_SECONDS, Closing, State, last_response
from stream_proxy.downstream.lane import take_plain
from stream_proxy.downstream.pipeline import Pipeline
from stream_proxy.downstream.stall import Outbox, StalledError
from stream_proxy.downstream.strict_channel import StrictChannel, StrictSite
from stream_proxy.downstream.time_limits import IdleLimit
from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError
from stream_proxy.transport.tuning import tune

#: When the site drains: how long a new connection may take to begin its first request.
_BEGIN_SECONDS = 1.0
#: How long a connection is idle before it closes without having said so, where that need not be at once: load
#: balancers first use the connection that was used last, so hardly that one just then.
_QUIET_SECONDS = 5.0
#: When the service stops: how long a client may take to read why its response breaks off.
_LAST_WORDS_SECONDS = 1.0


class ChannelSite(StrictSite, Protocol):
    """Site whose connection a channel is, and which keeps count of it."""

    #: Seconds that an idle connection is kept.
    timeOut: float | None
    #: The site will soon drain, and responses that can say so are the last of their connections.
    leaving: bool
    #: The site only finishes what it has begun.
    draining: bool
    #: WebSockets are to end as well.
    going_away: bool
    #: Plain requests are taken without reading them line by line.
    lane: bool

    def channel_made(self, channel: DownstreamChannel) -> None:
        """Count a connection, which may be one too many."""

    def channel_lost(self, channel: DownstreamChannel) -> None:
        """Forget a connection."""


def _idle_seconds(site: ChannelSite, *, used: bool) -> float:
    """Return how long a connection that is to close may be idle before that."""
    if site.leaving or not site.draining:
        return _QUIET_SECONDS
    return 0 if used else _BEGIN_SECONDS


class DownstreamChannel(StrictChannel):
    """One client connection."""

    __slots__ = ("_at_start", "_closing", "_idle", "_pipeline", "_turned_away", "outbox")

    site: ChannelSite
    #: Bytes that wait to be sent to the client.
    outbox: Outbox

    def __init__(self) -> None:
        super().__init__()
        #: Nothing has come since the connection was opened, or since the last request was answered.
        self._at_start = False
        #: The connection is one too many: its first request gets this error.
        self._turned_away: APIError | None = None

    def connectionMade(self) -> None:
        clock, age = self.site.reactor, self.site.limits.max_connection_age_seconds
        self._idle = IdleLimit(clock, self.timeoutConnection)
        self._pipeline, self._closing = Pipeline(clock), Closing(clock, age)
        self.outbox = Outbox(self.transport)
        super().connectionMade()
        tune(self.transport)
        self._at_start = True
        self.site.channel_made(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._closing.stop()
        self._pipeline.stop()
        self.outbox.close()
        super().connectionLost(self._closing.reason or reason)
        self._idle.stop()
        self.site.channel_lost(self)

    def dataReceived(self, data: bytes) -> None:
        if self._at_start and self.site.lane and not self.site.draining and take_plain(self, data):
            self._at_start = False
            if self.paused:  # it has been answered
                self._end_turn()
        elif self._closing.begun:
            if self._closing.state is State.LINGERING:
                self.resetTimeout()
        elif self._turned_away is not None:
            self.refuse(self._turned_away)
        else:
            super().dataReceived(data)
            if not self._busyReceiving:
                self._end_turn()

    # The pace of requests and uploads

    def requestDone(self, request: server.Request) -> None:
        if self.site.draining or self._closing.is_due:
            seconds = _idle_seconds(self.site, used=True)
            self._pipeline.end(self, at_once=not seconds)
            self._closing.when_idle(self, seconds)
        self._pipeline.answered(self)
        self._at_start = not self.paused and bool(self.persistent)
        super().requestDone(request)

    def ends_with(self, announces: Callable[[], bool]) -> bool:
        ends = self.site.leaving or self.site.draining or self._closing.is_due
        return ends and announces() and self._pipeline.is_last(self)

    def _end_turn(self) -> None:
        """Leave a request that waits behind an answered one for later; watch one that has begun."""
        answered = self.paused
        if not self._pipeline.end_turn(self):
            self._at_start = answered and not self._closing.begun
            self.watch_head()

    def resumeProducing(self) -> None:
        super().resumeProducing()
        if self.paused and not self._busyReceiving:  # a request waits, or may come
            self._end_turn()

    def take_over(self, receiver: Callable[[bytes], None], going_away: Callable[[], None]) -> bytes:
        """Hand all further bytes to `receiver`, and return those that came after the request.

        The connection speaks another protocol from here on. Closing still is the channel's business.

        :param going_away: called when the site stops, to end that protocol.
        """
        # In place of a flag: neither requests, which are frequent, nor frames have to ask for one, and what
        # comes while the channel closes has to reach the receiver, too.
        self.dataReceived = receiver  # type: ignore[method-assign, assignment]
        self._closing.going_away = going_away
        return self.release()

    # Its limits of time, and its end

    def setTimeout(self, period: float | None) -> float | None:
        previous, self.timeOut = self.timeOut, period  # type: ignore[assignment]
        self._idle.set(period)
        return previous

    def resetTimeout(self) -> None:
        self._idle.touch()

    @property
    def is_closing(self) -> bool:
        return self._closing.begun

    @property
    def is_taking(self) -> bool:
        """Whether a response is still on its way. StallWatch bounds how long that may take."""
        return self._turned_away is None and self.outbox.waiting

    def loseConnection(self) -> None:
        if not self._closing.begun:
            self._close(linger=self._transferDecoder is not None)

    def _close(self, *, linger: bool) -> None:
        self._at_start = False
        self.forget_body()
        self.release()
        self._closing.close(self, self.site.timeOut, linger=linger)

    def close_after_writes(self) -> None:
        """Close once everything is sent."""
        super().loseConnection()

    def break_off(self) -> None:
        """Reset the connection after what was written."""
        self._at_start = False
        self._closing.reset(self, self.site.timeOut)

    def timeoutConnection(self) -> None:
        if self.is_taking:
            self.setTimeout(self.timeOut)
        elif self._closing.state is State.LINGERING:
            # All that came has been read, so this close is no reset, and the rest of the response arrives.
            self.transport.loseConnection()
        elif self._closing.begun or self.requests:
            self.abort()
        else:
            self.loseConnection()

    def stalled(self, seconds: float) -> None:
        """Drop a client that read nothing for so long while bytes waited for it."""
        self._drop(StalledError.took_nothing(seconds))

    def _drop(self, error: StalledError) -> None:
        if self._closing.reason is not None:  # it is being dropped already
            return
        self._closing.reason = Failure(error)
        if not self.requests:  # else the log line of the request says so
            self.site.tell(self, "dropped", 499, ErrorCode.CLIENT_STALLED.code, str(error))
        self.abort()

    def check(self, now: float) -> None:
        """Drop a client that has left while its upload, or its next request, was paused, or has vanished."""
        # A WebSocket's frames from before the client left are still to be relayed.
        http = self.requests and not self._closing.begun and self._closing.going_away is None
        if http and self.outbox.deserted:
            self.abort()
        elif (self.requests or self._closing.begun) and self.outbox.path.is_dead(now):
            self._drop(StalledError.vanished())

    def refuse(self, error: APIError) -> None:
        started = any(request.startedWriting for request in self.requests)
        known = any(getattr(request, "rendered", False) for request in self.requests)
        self.forget_requests(Failure(error))
        if not started:
            self.transport.write(last_response(error))
        if not known and self._turned_away is None:
            self.site.tell(self, "refused", error.status, error.code, error.for_log)
        self._close(linger=True)

    # What the site asks for

    def turn_away(self, error: APIError) -> None:
        """Answer the first request with `error`."""
        self._turned_away = error
        self._at_start = False
        self.setTimeout(LINGER_IDLE_SECONDS)

    def stop(self) -> None:
        """Drop the connection because the service stops, after telling a client whose response has begun."""
        stopping = getattr(self.requests[0], "stopping", None) if self.requests else None
        if stopping is None:
            self.abort()
        else:
            stopping()
            self._closing.abort_later(_LAST_WORDS_SECONDS, self.abort)

    def drain(self, *, websockets: bool) -> None:
        """Close once all requests that the client has sent by now are answered.

        :param websockets: end WebSockets as well.
        """
        if self._closing.going_away is not None:
            if websockets:
                self._closing.going_away()
        elif self._closing.state is State.LINGERING or self._turned_away is not None:
            self.abort()
        elif self.line_mode:
            self._closing.when_idle(self, _idle_seconds(self.site, used=self.used))
