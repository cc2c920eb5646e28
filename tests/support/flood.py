"""Floods for tests of backpressure: a sender that writes for as long as the other end reads."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from tests.support.loopback import turns
from tests.support.wire import Stream

MIB = 2**20


def small_buffers(stream: Stream) -> None:
    """Shrink the kernel's buffers, so that a paused reader stops the writer soon."""
    handle = stream.transport.getHandle()
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)


def numbered(total: int, size: int = 65536) -> list[bytes]:
    """Return pieces that can be told apart, of `total` bytes together."""
    return [struct.pack(">I", number) * (size // 4) for number in range(total // size)]


@implementer(IPushProducer)
class Pour:
    """A producer that sends pieces for as long as its transport does not pause it."""

    def __init__(self, stream: Stream, pieces: list[bytes], done: Callable[[], None] = lambda: None) -> None:
        #: The number of pieces sent so far.
        self.taken = 0
        self._stream = stream
        self._pieces = pieces
        self._done = done
        self._flowing = True
        stream.transport.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self._flowing = True
        while self._flowing and self.taken < len(self._pieces):
            self.taken += 1
            self._stream.write(self._pieces[self.taken - 1])
        if self.taken == len(self._pieces) and self._flowing:
            self._flowing = False
            self._stream.transport.unregisterProducer()
            self._done()

    def pauseProducing(self) -> None:
        self._flowing = False

    def stopProducing(self) -> None:
        self._flowing = False

    async def stopped(self) -> int:
        """Wait until no more pieces are sent, and return how many were."""
        still, last = 0, -1
        while still < 50:
            await turns(1)
            still = still + 1 if self.taken == last else 0
            last = self.taken
        return self.taken
