"""Eager writes, which go out at the end of their turn, or earlier, without first polling for room.

Twisted keeps each write until its next poll, which takes two system calls and a turn of the reactor, although
there nearly always is room. Subclasses of its connections ask the kernel first. Only what it does not take is
left to Twisted's own buffers, in whose order and state everything stays at every moment. So closing,
half-closing, producers and errors are Twisted's: an error met here is met again by its next attempt, and
never reaches a protocol from within a write.

A connection that exists takes such a subclass for its class (they add no layout), which costs no memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from twisted.internet import endpoints, unix
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReactorTime
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Client, Connection, Server
from twisted.python.failure import Failure

from stream_proxy.transport.eager_tls import encrypt_promptly
from stream_proxy.transport.turn import Turn, turn_of
from stream_proxy.transport.ways import plain_ways, uses

#: The most bytes of one read, and of one read of a large body.
READ_BYTES: Final = Connection.bufferSize
LARGE_READ_BYTES: Final = 2**18


class _EagerWrites(Connection):
    """Connection that sends when its turn ends, or as soon as much was written."""

    _turn: Turn
    #: It will be flushed when the turn ends.
    _queued = False

    def write(self, data: bytes) -> None:
        if type(data) is not bytes or not self.connected or self._writeDisconnected:
            Connection.write(self, data)
        elif data:
            self._tempDataBuffer.append(data)
            self._tempDataLen += len(data)
            if self._tempDataLen > READ_BYTES:
                if not self.dataBuffer:
                    self._send()
                FileDescriptor._maybePauseProducer(self)
            if not self._queued and not self.dataBuffer:
                self._queued = True
                turn = self._turn
                turn.senders.append(self)
                if not turn.depth:
                    turn.end_later()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        for data in iovec:
            self.write(data)

    def startWriting(self) -> None:
        if self.dataBuffer:
            FileDescriptor.startWriting(self)
        elif not self._queued:
            # This may be loseConnection, which sets `disconnecting` only after this call.
            self._queued = True
            self._turn.add(self)

    def flush(self) -> None:
        """Send what was written. What is to be done once everything is sent, Twisted does after a poll."""
        self._queued = False
        if not self.connected:
            return
        if self._tempDataLen and not self.dataBuffer:
            self._send()
        producer_waits = self.producer is not None and (self.producerPaused or not self.streamingProducer)
        if producer_waits or self.disconnecting or self._writeDisconnecting:
            FileDescriptor.startWriting(self)

    def connectionLost(self, reason: Failure) -> None:
        """Send what was written in the turn in which the connection ends, because its peer has, say."""
        if not self._aborting:
            self._turn.flush()
        super().connectionLost(reason)

    def _send(self) -> None:
        """Send what was written since there was last a backlog; what finds no room becomes one."""
        if self._aborting:
            return
        written, self._tempDataBuffer, self._tempDataLen = self._tempDataBuffer, [], 0
        data = written[0] if len(written) == 1 else b"".join(written)
        try:
            sent = self.socket.send(data)
        except OSError:
            sent = 0
        if sent < len(data):
            self.dataBuffer = data
            self.offset = sent
            FileDescriptor.startWriting(self)


class _EagerReads(Connection):
    """Connection that puts each read into a bracket, and reads more at once where that was allowed."""

    _turn: Turn
    #: The most that may be read at once, and what the next read asks for.
    _most_bytes = _read_bytes = READ_BYTES

    def doRead(self) -> ConnectionLost | ConnectionDone | None:  # type: ignore[override]
        size = self._read_bytes
        try:
            data = self.socket.recv(size)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        if len(data) < size:
            if size != READ_BYTES:
                self._read_bytes = READ_BYTES
        elif size != self._most_bytes:
            self._read_bytes = self._most_bytes
        turn = self._turn
        turn.depth += 1
        try:
            self.protocol.dataReceived(data)
        finally:
            turn.depth -= 1
            if turn.senders and not turn.depth:
                turn.flush()
        return None

    def allow_reads(self, most: int) -> None:
        """Ask for so many bytes at once, first and whenever the last read was full."""
        self._most_bytes = self._read_bytes = min(max(most, READ_BYTES), LARGE_READ_BYTES)


class _EagerServer(_EagerWrites, _EagerReads, Server):
    """Client's TCP connection."""


class _EagerClient(_EagerWrites, _EagerReads, Client):
    """TCP connection to an upstream."""


class _EagerUNIX(_EagerWrites):
    """UNIX connection, which reads as Twisted's does, and is not used to send descriptors."""

    def _dataReceived(self, data: bytes | None) -> ConnectionDone | None:
        self._turn.begin()
        try:
            return super()._dataReceived(data)
        finally:
            self._turn.end()


class _EagerUNIXServer(_EagerUNIX, unix.Server):
    """Client's UNIX connection."""


class _EagerUNIXClient(_EagerUNIX, unix.Client):
    """UNIX connection to an upstream."""


_EAGER: Final[dict[type[Connection], type[_EagerWrites]]] = {
    Server: _EagerServer,
    Client: _EagerClient,
    unix.Server: _EagerUNIXServer,
    unix.Client: _EagerUNIXClient,
}
#: What endpoints put between a connection and its protocol, of which it calls every method.
_wrapping: Any = getattr(endpoints, "_WrappingProtocol", None)
_WRAPPING: Final = _wrapping if uses(getattr(_wrapping, "dataReceived", None), "_wrappedProtocol") else None
#: Whether Twisted's connections have the insides that the subclasses rely on.
FITS: Final = uses(
    FileDescriptor.write, "_writeDisconnected", "_tempDataBuffer", "_tempDataLen", "_maybePauseProducer"
) and uses(
    FileDescriptor.doWrite, "dataBuffer", "offset", "_tempDataBuffer", "_tempDataLen", "_writeDisconnecting"
)


def send_promptly(transport: object) -> None:
    """Let the connection below `transport`, if there is one that Twisted made, send without polling first.

    TLS connections on the way there encrypt once for each turn.
    """
    inner: object | None = transport
    while inner is not None and not isinstance(inner, Connection):
        encrypt_promptly(inner)
        inner = getattr(inner, "transport", None)
    eager = _EAGER.get(type(inner)) if inner is not None else None
    if inner is not None and eager is not None and not inner.TLS and FITS and not plain_ways():
        inner.__class__ = eager
        assert isinstance(inner, _EagerWrites)
        inner._turn = turn_of(IReactorTime(inner.reactor))
        if type(inner.protocol) is _WRAPPING:
            inner.protocol = inner.protocol._wrappedProtocol  # type: ignore[attr-defined]


def allow_reads(transport: object, most: int) -> None:
    """Let `transport` read up to `most` bytes at once, within 64 and 256 KiB.

    More than 64 KiB is for the bytes of one large body, or frame, that are passed on as they are: other work
    with so many would take too long in one turn.
    """
    inner = tcp_connection(transport)
    if isinstance(inner, _EagerReads):
        inner.allow_reads(most)


def send_written(transport: object) -> None:
    """Send what was written to `transport`, and to all others, before the turn ends."""
    connection = tcp_connection(transport)
    if isinstance(connection, _EagerWrites):
        connection._turn.flush()


def tcp_connection(transport: object) -> Connection | None:
    """Return the TCP or UNIX connection below TLS and other wrappers, if there is one."""
    inner: object | None = transport
    while inner is not None and not isinstance(inner, Connection):
        inner = getattr(inner, "transport", None)
    return inner


def unsent(connection: Connection) -> int:
    """Return how many written bytes the kernel has not been given yet."""
    return len(connection.dataBuffer) - int(connection.offset) + int(connection._tempDataLen)
