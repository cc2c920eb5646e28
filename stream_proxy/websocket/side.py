"""One side of a WebSocket session: the client or the upstream, and the connection to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from stream_proxy.transport.eager_write import allow_reads
from stream_proxy.websocket.frames import Close, FrameTracker


class Connection(Protocol):
    """Connection of a side: the client's HTTP channel, or the upstream's handshake."""

    #: A TCP or TLS transport.
    transport: Any

    def loseConnection(self) -> None:
        """Close it once everything is sent."""


C = TypeVar("C", bound=Connection, covariant=True)


@implementer(IPushProducer)
class Side(Generic[C]):
    """One of two peers.

    As a producer it stands for what the peer sends: the other side's transport, when full, pauses it.

    :param masked: whether frames to the peer are masked (RFC 6455 section 5.3: an upstream's are).
    """

    def __init__(self, connection: C, *, masked: bool) -> None:
        #: `None` once it is gone.
        self.connection: C | None = connection
        #: The frames that the peer has sent.
        self.frames = FrameTracker()
        #: The close frame that was sent to the peer: the other side's own, or one of ours.
        self.close_sent: Close | None = None
        #: Whether frames to the peer are masked.
        self.masked = masked
        #: The other side's transport is full, so that nothing is read of this one.
        self.paused = False
        #: Called whenever something has come from the peer.
        self.heard: Callable[[], None] | None = None
        self._source: Side[Connection] | None = None
        #: More is read at once than Twisted does.
        self.reads_much = False

    @property
    def gone(self) -> bool:
        """Whether the connection has ended."""
        return self.connection is None

    def consume(self, source: Side[Connection]) -> None:
        """Let this side's transport pause `source`, whose frames it is sent."""
        self._source = source
        if self.connection is not None:
            # HTTPChannel registered itself, for requests to come; there will be none.
            self.connection.transport.unregisterProducer()
            self.connection.transport.registerProducer(source, True)

    def write(self, data: bytes) -> None:
        """Send `data`, unless the connection is gone."""
        if self.connection is not None:
            self.connection.transport.write(data)

    def read_ahead(self) -> None:
        """Read more at once inside a long frame, and no more than usual behind it."""
        if self.connection is not None:
            # No more than the rest of the frame: many short frames would take too long in one turn.
            left = self.frames.bytes_left
            self.reads_much = left > 0
            allow_reads(self.connection.transport, left)

    def send_close(self, close: Close) -> None:
        """Send `close`, unless a close frame was sent before."""
        if self.close_sent is not None or self._source is None:
            return
        self.close_sent = close
        # Inside a frame, the peer would read a close frame as part of the payload; and RFC 6455 forbids to
        # send some codes. In both cases the end of the connection is the only message left.
        if self._source.frames.inside_frame or not close.legal:
            self.hang_up()
        else:
            self.write(close.frame(masked=self.masked))

    def hang_up(self) -> None:
        """Close the connection once everything is sent."""
        if self.connection is not None and self._source is not None:
            self.connection.transport.unregisterProducer()
            self._source.resumeProducing()  # nobody else would
            self.connection.loseConnection()

    def abort(self) -> None:
        """Drop the connection."""
        if self.connection is not None:
            self.connection.transport.abortConnection()

    def lost(self) -> None:
        """Note that the connection is gone, and let go of everything that leads back here."""
        if self.connection is not None and self.connection.transport is not None:
            # Twisted's TLS transports wait for the cycle collector; what they produce for must not.
            self.connection.transport.unregisterProducer()
        self.connection = self._source = self.heard = None

    # IPushProducer

    def pauseProducing(self) -> None:
        self.paused = True
        if self.connection is not None:
            self.connection.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.paused = False
        if self.connection is not None:
            self.connection.transport.resumeProducing()

    def stopProducing(self) -> None:
        """Ignore the end of the other side's connection: the session hears of it anyway."""
