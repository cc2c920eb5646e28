"""Session of an open WebSocket: the bytes of each side, written to the other's connection.

Backpressure is the transports' own: a full one pauses reading on the other side, and nothing is queued in
between.

The end of a session follows from the close frames that each side has sent and been sent, and from the loss of
connections. If one side vanishes, the other is sent a close frame; a side that has sent and been sent one is
finished.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.web.http import HTTPChannel
from twisted.web.server import Request

from stream_proxy.downstream.channel import DownstreamChannel
from stream_proxy.downstream.response import is_taking
from stream_proxy.request_log import Outcome
from stream_proxy.transport.eager_write import send_promptly
from stream_proxy.transport.timers import Timeout
from stream_proxy.websocket.frames import Close, FrameTracker
from stream_proxy.websocket.pings import Pings
from stream_proxy.websocket.side import Connection, Side
from stream_proxy.websocket.upstream_handshake import UpstreamHandshake

#: How long a close frame waits for the peer's.
CLOSE_SECONDS = 10.0
#: How long an ending session waits for the rest: a reply to our close frame, the upstream's own end.
END_SECONDS = 1.0
#: How long a connection that we close may take to send what is queued for it: the client may be slow.
FLUSH_SECONDS = 30.0
#: Sent to the client when the upstream vanishes.
_ABNORMAL = Close.of(1011, "upstream websocket disconnected abnormally")
_GOING_AWAY = Close.of(1001)
#: Stand-ins in the log (RFC 6455 section 7.4.1): for a close frame without a code, and for none at all.
_NO_CODE = 1005
_VANISHED = 1006


class Seen(Protocol):
    """Something that is shown what the peers send."""

    def __call__(self, data: bytes, *, sent: bool) -> None:
        """Take bytes; the client sent them, or else the upstream."""


class Session:
    """One open WebSocket, until both of its connections have ended.

    :param request: the client's handshake, which has been accepted.
    :param upstream: the handshake that the upstream has accepted.
    :param ended: called once, at the end.
    :param ping_seconds: the silence after which a side is sent a ping, and the time that it has to answer; 0:
        never.
    """

    def __init__(
        self,
        clock: IReactorTime,
        request: Request,
        upstream: UpstreamHandshake,
        ended: Callable[[Outcome], None],
        ping_seconds: float = 0.0,
    ) -> None:
        self._clock = clock
        self._ping_seconds = ping_seconds
        self._pings: list[Pings] = []
        self._request = request
        self._client: Side[HTTPChannel] = Side(request.channel, masked=False)
        self._upstream = Side(upstream, masked=True)
        self._ended = ended
        #: Called with the bytes that came from a peer, if somebody wants to see them.
        self.seen: Seen | None = None
        #: The close code and the problem, for the log.
        self._code: int | None = None
        self._problem: str | None = None
        self._timeout = Timeout(clock)

    @property
    def up(self) -> FrameTracker:
        """The frames of the client."""
        return self._client.frames

    @property
    def down(self) -> FrameTracker:
        """The frames of the upstream."""
        return self._upstream.frames

    def start(self) -> None:
        """Take over both connections, and what has already come on them."""
        client, upstream = self._client, self._upstream
        channel, connection = client.connection, upstream.connection
        assert channel is not None and connection is not None
        relay = self._relay if self.seen is None else self._show
        from_client = _take_over(channel, partial(relay, client, upstream), self.shut_down)
        from_upstream = connection.take_over(partial(relay, upstream, client), self._upstream_lost)
        send_promptly(channel.transport)
        send_promptly(connection.transport)
        client.consume(upstream)
        upstream.consume(client)
        client.resumeProducing()
        if from_upstream:
            relay(upstream, client, from_upstream)
        if from_client:
            relay(client, upstream, from_client)
        if self._ping_seconds:
            self._ping(client, upstream, "client")
            self._ping(upstream, client, "upstream")
        if isinstance(channel, DownstreamChannel) and channel.site.going_away:
            self.shut_down()

    def client_lost(self) -> None:
        """End the session: the client's connection is gone."""
        channel = self._client.connection
        if channel is not None:
            _take_over(channel, _ignore, _ignore)  # whatever keeps the channel must not keep the session
        self._client.lost()
        if self._client.close_sent is None and self._upstream.close_sent is None:
            self._code = _VANISHED
            self._problem = self._problem or "the client went away without a close frame"
        self._settle()

    def shut_down(self) -> None:
        """Close both sides, because the service stops."""
        self._client.send_close(_GOING_AWAY)
        self._upstream.send_close(_GOING_AWAY)
        self._settle(_GOING_AWAY)

    def drop(self) -> None:
        """Drop both connections."""
        self._timeout.stop()
        self._stop_pings()
        self._upstream.abort()
        self._client.abort()

    def _relay(self, source: Side[Connection], target: Side[Connection], data: bytes) -> None:
        # An upstream is not listened to any more once the client is gone: only its end counts.
        frames = source.frames
        if frames.close is not None or self._client.connection is None:
            return
        if source.heard is not None:
            source.heard()
        out = frames.feed(data)
        if frames.bytes_left or source.reads_much:
            source.read_ahead()
        close = frames.close
        if target.close_sent is None:
            connection = target.connection
            if out and connection is not None:
                connection.transport.write(out)
            target.close_sent = close
        if close is not None:
            self._settle(close)

    def _show(self, source: Side[Connection], target: Side[Connection], data: bytes) -> None:
        """Relay `data` that somebody wants to see."""
        if self.seen is not None:
            self.seen(data, sent=source is self._client)
        self._relay(source, target, data)

    def _upstream_lost(self) -> None:
        self._upstream.lost()
        if self._client.close_sent is None and self._upstream.close_sent is None:
            self._problem = self._problem or "the upstream went away without a close frame"
        self._settle(_ABNORMAL)

    def _ping(self, side: Side[Connection], other: Side[Connection], name: str) -> None:
        """Ping a side whenever it is silent for long; drop it if it does not answer."""
        seconds = self._ping_seconds

        def vanished() -> None:
            self._problem = f"the {name} did not answer a ping within {seconds:g} seconds"
            side.abort()

        pings = Pings(self._clock, seconds, side, other, vanished)
        side.heard = pings.heard
        self._pings.append(pings)

    def _stop_pings(self) -> None:
        pings, self._pings = self._pings, []
        for each in pings:
            each.stop()
        self._client.heard = self._upstream.heard = None

    # The end of a session

    def _settle(self, close: Close | None = None) -> None:
        """Do what follows from the close frames and losses so far; `close` is the frame that is new."""
        client, upstream = self._client, self._upstream
        self._stop_pings()
        if close is not None and self._code is None:
            self._code = close.code or _NO_CODE
        if client.gone and upstream.gone:
            self._end()
            return
        # The side that is left must not stay paused for one that takes nothing any more.
        if client.gone:
            upstream.send_close(upstream.frames.close or _GOING_AWAY)
            upstream.resumeProducing()
        elif upstream.gone:
            client.send_close(client.frames.close or _ABNORMAL)
            client.resumeProducing()
        if client.close_sent is not None and client.frames.close is not None:
            client.hang_up()
        alone = client.gone or upstream.gone
        if alone or (client.close_sent is not None and upstream.close_sent is not None):
            # Not at once: closing a connection with unread bytes of the peer resets it, which could destroy
            # our last frames on their way.
            self._timeout.start(END_SECONDS, self._finish)
        else:
            self._timeout.start(CLOSE_SECONDS, self._unanswered)

    def _unanswered(self) -> None:
        """Return a close frame that had no reply to its sender."""
        self._client.send_close(self._client.frames.close or _GOING_AWAY)
        self._upstream.send_close(self._upstream.frames.close or _GOING_AWAY)
        self._finish()

    def _finish(self) -> None:
        self._timeout.start(FLUSH_SECONDS, self._flushed)
        self._client.hang_up()
        self._upstream.hang_up()

    def _flushed(self) -> None:
        if not self._client.gone and is_taking(self._request):
            self._timeout.start(FLUSH_SECONDS, self._flushed)  # the channel drops clients that take nothing
        else:
            self.drop()

    def _end(self) -> None:
        self._timeout.stop()
        up, down = self.up, self.down
        detail = (
            f"close {self._code or _VANISHED}, "
            f"{up.messages} messages {up.octets} bytes up, {down.messages} messages {down.octets} bytes down"
        )
        self._ended(Outcome(101, down.octets, self._problem, detail))


def _take_over(
    channel: HTTPChannel, receiver: Callable[[bytes], None], going_away: Callable[[], None]
) -> bytes:
    """Take over the client's connection, also from a plain site, whose channel has no method for it."""
    if isinstance(channel, DownstreamChannel):
        return channel.take_over(receiver, going_away)
    channel.dataReceived = receiver  # type: ignore[method-assign]
    held, channel._dataBuffer = b"".join(channel._dataBuffer), []
    return held


def _ignore(*received: bytes) -> None:
    """Do nothing."""
