"""Request body on its way in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from stream_proxy.http.body_pieces import BodyPieces

#: Bytes of an upload that are held before anybody reads it.
_HOLD_BYTES = 65_536
#: A longer body is read in larger pieces while it is passed on.
_LARGE_BYTES = 262_144


class UploadChannel(Protocol):
    """Connection that an upload comes in on."""

    def pause_reading(self) -> None:
        """Read nothing for now."""

    def resume_reading(self) -> None:
        """Read again."""

    def allow_reads(self, most: int) -> None:
        """Read up to so many bytes at once, within bounds of its own."""


class BodyTooLargeError(Exception):
    """A body to collect is larger than its limit."""


class _Collecting(NamedTuple):
    """The largest body to collect, what is called with its pieces, and what fires with the whole."""

    limit: int
    came: Callable[[BodyPieces], None] | None
    collected: Deferred[bytes | BodyPieces]


class _Producing(NamedTuple):
    """Who takes the body as it comes, and what fires at its end."""

    consumer: IConsumer
    produced: Deferred[None]


@implementer(IBodyProducer)
class RequestBody:
    """Request body on its way in: collected whole, or produced into a consumer as it arrives.

    :param channel: the connection it comes on.
    :param length: its ``Content-Length``, or ``None`` if it is chunked.
    """

    def __init__(self, channel: UploadChannel, length: int | None) -> None:
        self.length: Any = UNKNOWN_LENGTH if length is None else length
        #: The whole body has come in.
        self.ended = length == 0
        #: How many bytes of it have come in.
        self.received = 0
        #: Called whenever a piece arrives.
        self.touched: Callable[[], object] | None = None
        self._channel = channel
        self._held = bytearray()
        self._collecting: _Collecting | None = None
        self._pieces: BodyPieces | None = None
        self._producing: _Producing | None = None
        self._discard = False
        self._paused = False
        self._then: Callable[[bytes], None] | None = None

    @property
    def arrived(self) -> bool:
        """Whether it is all there, with its head, and ends as soon as that has been looked at."""
        return self.received == self.length and not self.ended

    @property
    def held(self) -> bytes:
        """What has come and nobody has taken yet."""
        return bytes(self._held)

    @property
    def _is_large(self) -> bool:
        return self.length is not UNKNOWN_LENGTH and self.length > _LARGE_BYTES

    def collect(
        self, limit: int, came: Callable[[BodyPieces], None] | None = None
    ) -> Deferred[bytes | BodyPieces]:
        """Return a Deferred of the whole body, in pieces if it has more than 64 KiB.

        :param limit: the largest body, in bytes.
        :param came: called with the pieces so far whenever one was added, and the end is yet to come.
        :raises BodyTooLargeError: through the Deferred, as soon as that is known.
        """
        collected: Deferred[bytes | BodyPieces] = Deferred(lambda _: self.stopProducing())
        self._collecting = _Collecting(limit, came, collected)
        if self.length is not UNKNOWN_LENGTH and self.length > limit:
            self._fail_collecting()
        elif self._held or self.ended:
            self._check_collected()
        return collected

    def hand_over(self, then: Callable[[bytes], None]) -> None:
        """Call `then` with the whole body, which has arrived, when it ends."""
        self._then = then

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        produced: Deferred[None] = Deferred(lambda _: self.stopProducing())
        self._producing = _Producing(consumer, produced)
        if self._is_large:
            self._channel.allow_reads(self.length)
        held, self._held = self._held, bytearray()
        if held:
            consumer.write(bytes(held))
        if self.ended:
            self._finish_producing()
        elif not self._paused:
            self.resumeProducing()
        return produced

    def pauseProducing(self) -> None:
        self._paused = True
        if not self.ended:
            self._channel.pause_reading()

    def resumeProducing(self) -> None:
        self._paused = False
        if not self.ended:
            self._channel.resume_reading()

    def stopProducing(self) -> None:
        """Discard the rest of the body."""
        self._discard = True
        self._held = bytearray()
        self._producing = self._collecting = self._pieces = self._then = None
        self.resumeProducing()

    def arrive(self, data: bytes) -> None:
        """Take the whole body from the channel, which has looked at nothing but the head yet."""
        self.received = len(data)
        self._held += data

    def data_received(self, data: bytes) -> None:
        """Take a piece from the channel."""
        self.received += len(data)
        if self.touched is not None:
            self.touched()
        if self._discard:
            return
        if self._producing is not None:
            self._producing.consumer.write(data)
        else:
            self._held += data
            if self._collecting is not None:
                self._check_collected()
            elif len(self._held) > _HOLD_BYTES:
                self._channel.pause_reading()
        if self._paused:  # the channel resumes reading for reasons of its own
            self._channel.pause_reading()

    def end_received(self) -> None:
        """Note that the channel has read the whole body."""
        self.ended = True
        if self._is_large:
            self._channel.allow_reads(0)
        if self.touched is not None:
            self.touched()
        if self._producing is not None:
            self._finish_producing()
        elif self._then is not None:
            then, self._then = self._then, None
            held, self._held = self._held, bytearray()
            then(bytes(held))
        else:
            self._check_collected()

    def _finish_producing(self) -> None:
        producing, self._producing = self._producing, None
        if producing is not None:
            producing.produced.callback(None)

    def _check_collected(self) -> None:
        if self._collecting is None:
            return
        limit, came, collected = self._collecting
        held, pieces = self._held, self._pieces
        if len(held) + len(pieces or ()) > limit:
            self._fail_collecting()
            return
        if len(held) > _HOLD_BYTES or (self.ended and pieces is not None):
            if pieces is None:
                pieces = self._pieces = BodyPieces()
            self._held = bytearray()
            pieces.append(bytes(held))
            if came is not None and not self.ended:
                came(pieces)
        if self.ended:
            self._held, self._pieces, self._collecting = bytearray(), None, None
            collected.callback(bytes(held) if pieces is None else pieces)

    def _fail_collecting(self) -> None:
        collecting = self._collecting
        self.stopProducing()
        if collecting is not None:
            collecting.collected.errback(BodyTooLargeError())
