"""What follows the two handshakes of a WebSocket: the bytes of each side, written to the other's connection.

Backpressure is the transports' own: whichever is full pauses the other side; nothing is queued in between.

How a session ends follows from what each side has said and been told: the close frames, if any. Whoever
vanishes leaves the other to be told; whoever was told and has said its own is done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request
from zope.interface import implementer

from stream_proxy.downstream.channel import DownstreamChannel
from stream_proxy.downstream.response import is_taking
from stream_proxy.request_log import Outcome
from stream_proxy.transport.eager_write import send_promptly
from stream_proxy.websocket.frames import Close, FrameTracker
from stream_proxy.websocket.upstream_handshake import UpstreamHandshake

#: How long a close frame waits for the peer's.
CLOSE_SECONDS = 10.0
#: How long what is left of an ending session may take to say its last: a reply to us, the upstream's own end.
END_SECONDS = 1.0
#: How long a connection that we close may take to send what is queued for it. The client may be slow.
FLUSH_SECONDS = 30.0
#: What the client is told when the upstream vanishes.
_ABNORMAL = Close.of(1011, "upstream websocket disconnected abnormally")
_GOING_AWAY = Close.of(1001)
#: What the log has instead of a code (RFC 6455 section 7.4.1): a close frame without one, and none at all.
_NO_CODE = 1005
_VANISHED = 1006


@implementer(IPushProducer)
class _Gate:
    """What a full transport pauses: the reading on the other side."""

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self.pauseProducing = pause
        self.resumeProducing = resume

    def stopProducing(self) -> None:
        """The connection is going, which whoever watches it hears anyway."""


class Session:
    """One open WebSocket, until both of its connections have ended.

    :param request: the client's handshake, whose answer is out.
    :param upstream: our connection to the upstream, whose answer is in.
    :param ended: called once, at the end.
    """

    def __init__(
        self,
        clock: IReactorTime,
        request: Request,
        upstream: UpstreamHandshake,
        ended: Callable[[Outcome], None],
    ) -> None:
        self._clock = clock
        self._request = request
        self._channel: Any = request.channel
        self._upstream = upstream
        self._on_end = ended
        self._up = FrameTracker()
        self._down = FrameTracker()
        #: The close frames that have gone out, passed on or ours. What each side said is its tracker's.
        self._told_client: Close | None = None
        self._told_upstream: Close | None = None
        self._client_gone = False
        self._upstream_gone = False
        #: The close code and the trouble, for the log.
        self._code: int | None = None
        self._problem: str | None = None
        self._timer: IDelayedCall | None = None

    def start(self, from_upstream: bytes, from_client: bytes) -> None:
        """Take both connections over; the arguments are what has come already."""
        channel, upstream = self._channel, self._upstream
        channel.dataReceived = self._from_client
        send_promptly(channel.transport, at_once=True)
        send_promptly(upstream.transport, at_once=True)
        if isinstance(channel, DownstreamChannel):
            channel.going_away = self.shut_down
        upstream.received, upstream.lost = self._from_upstream, self.upstream_lost
        self._request.registerProducer(_Gate(self._pause_upstream, self._resume_upstream), True)
        upstream.transport.registerProducer(_Gate(self._pause_client, self._resume_client), True)
        self._resume_client()
        if from_upstream:
            self._from_upstream(from_upstream)
        if from_client:
            self._from_client(from_client)
        if isinstance(channel, DownstreamChannel) and channel.site.going_away:
            self.shut_down()

    def client_lost(self) -> None:
        """The client's connection has ended."""
        self._client_gone = True
        if self._told_client is None and self._told_upstream is None:
            self._code, self._problem = _VANISHED, "the client went away without a close frame"
        self._settle()

    def _pause_upstream(self) -> None:
        if not self._upstream_gone:
            self._upstream.transport.pauseProducing()

    def _resume_upstream(self) -> None:
        if not self._upstream_gone:
            self._upstream.transport.resumeProducing()

    def _pause_client(self) -> None:
        if not self._client_gone:
            self._channel._networkProducer.pauseProducing()

    def _resume_client(self) -> None:
        if not self._client_gone:
            self._channel._networkProducer.resumeProducing()

    def _from_client(self, data: bytes) -> None:
        if self._up.close is not None:
            return
        out = self._up.feed(data)
        close = self._up.close
        if self._told_upstream is None:
            if out and not self._upstream_gone:
                self._upstream.transport.write(out)
            self._told_upstream = close
        if close is not None:
            self._settle(close)

    def _from_upstream(self, data: bytes) -> None:
        if self._down.close is not None or self._client_gone:
            return
        out = self._down.feed(data)
        close = self._down.close
        if self._told_client is None:
            if out:
                self._channel.transport.write(out)
            self._told_client = close
        if close is not None:
            self._settle(close)

    def upstream_lost(self, reason: Failure) -> None:
        """The upstream's connection has ended."""
        self._upstream_gone = True
        if self._told_client is None and self._told_upstream is None:
            self._problem = "the upstream went away without a close frame"
        self._settle(_ABNORMAL)

    def shut_down(self) -> None:
        """The service stops."""
        self._tell_client(_GOING_AWAY)
        self._tell_upstream(_GOING_AWAY)
        self._settle(_GOING_AWAY)

    # The end of a session

    def _settle(self, close: Close | None = None) -> None:
        """Do what follows from what has been said, told and lost; `close` is the frame that is new."""
        if close is not None and self._code is None:
            self._code = close.code or _NO_CODE
        if self._client_gone and self._upstream_gone:
            self._both_gone()
            return
        # Whoever has nobody to listen to it any more must not wait for being read.
        if self._client_gone:
            self._tell_upstream(self._down.close or _GOING_AWAY)
            self._resume_upstream()
        elif self._upstream_gone:
            self._tell_client(self._up.close or _ABNORMAL)
            self._resume_client()
        if self._told_client is not None and self._up.close is not None:
            self._hang_up_client()
        alone = self._client_gone or self._upstream_gone
        if alone or (self._told_client is not None and self._told_upstream is not None):
            # Not at once: to close a connection with bytes of the peer unread is to reset it, which could
            # destroy our last words on their way.
            self._wait(END_SECONDS, self._finish)
        else:
            self._wait(CLOSE_SECONDS, self._unanswered)

    def _unanswered(self) -> None:
        """A close frame had no reply: its sender gets its own back."""
        self._tell_client(self._up.close or _GOING_AWAY)
        self._tell_upstream(self._down.close or _GOING_AWAY)
        self._finish()

    def _tell_client(self, close: Close) -> None:
        if self._told_client is not None or self._client_gone:
            return
        self._told_client = close
        # Inside a frame a close would be taken for its payload, and what may not be sent is not echoed:
        # then the end of the connection has to say it.
        if self._down.inside_frame or not close.legal:
            self._hang_up_client()
        else:
            self._channel.transport.write(close.frame(masked=False))

    def _tell_upstream(self, close: Close) -> None:
        if self._told_upstream is not None or self._upstream_gone:
            return
        self._told_upstream = close
        if self._up.inside_frame or not close.legal:
            self._hang_up_upstream()
        else:
            self._upstream.transport.write(close.frame(masked=True))

    def _hang_up_client(self) -> None:
        """Close the connection when what is queued for it is out."""
        if not self._client_gone:
            self._request.unregisterProducer()
            self._resume_upstream()
            self._channel.loseConnection()

    def _hang_up_upstream(self) -> None:
        if not self._upstream_gone:
            self._upstream.transport.unregisterProducer()
            self._resume_client()
            self._upstream.transport.loseConnection()

    def _finish(self) -> None:
        self._wait(FLUSH_SECONDS, self._flushed)
        self._hang_up_client()
        self._hang_up_upstream()

    def _flushed(self) -> None:
        if not self._client_gone and is_taking(self._request):
            self._wait(FLUSH_SECONDS, self._flushed)  # whether it takes anything is the channel's business
        else:
            self.drop()

    def drop(self) -> None:
        """End both connections at once."""
        self._stop_waiting()
        if not self._upstream_gone:
            self._upstream.transport.abortConnection()
        if not self._client_gone:
            self._channel.transport.abortConnection()

    def _both_gone(self) -> None:
        self._stop_waiting()
        up, down = self._up, self._down
        detail = (
            f"close {self._code or _VANISHED}, "
            f"{up.messages} messages {up.octets} bytes up, {down.messages} messages {down.octets} bytes down"
        )
        self._on_end(Outcome(101, down.octets, self._problem, detail))

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop_waiting()
        self._timer = self._clock.callLater(seconds, self._waited, then)

    def _waited(self, then: Callable[[], None]) -> None:
        self._timer = None
        then()

    def _stop_waiting(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
