"""Bodies of requests on their way out: produced as they come, or cut into slices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPullProducer
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from stream_proxy.http.body_pieces import BodyPieces
from stream_proxy.upstream.http1.request import UNKNOWN

#: Bytes that are written at once. A body of no more goes out together with its head.
SLICE_BYTES = 131_072

#: Body of a request: in memory, or from a producer.
Outgoing: TypeAlias = bytes | BodyPieces | IBodyProducer

#: Called once: with ``None`` when the whole body has been written, with the reason if it cannot be.
Done = Callable[[Failure | None], None]


class Upload(Protocol):
    """Body on its way out; its transport must be connected."""

    def start(self) -> None:
        """Begin, after the head. The body may be written whole before this returns."""

    def stop(self) -> None:
        """Write no more, and report nothing."""


class WrongLengthError(Exception):
    """A producer writes more or less than it promised."""


def length_of(body: Outgoing | None) -> int | None:
    """Return the length of `body` for the head of its request."""
    if body is None or isinstance(body, bytes | BodyPieces):
        return None if body is None else len(body)
    return UNKNOWN if body.length is UNKNOWN_LENGTH else int(body.length)


@implementer(IPullProducer)
class SlicedUpload:
    """Body in memory that is too large for one write: it would be copied whole, and block all others."""

    def __init__(self, body: bytes | BodyPieces, transport: Any, done: Done) -> None:
        self._body: memoryview | BodyPieces | None = memoryview(body) if isinstance(body, bytes) else body
        self._at = 0
        self._transport = transport
        self._done: Done | None = done

    def start(self) -> None:
        self._transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        if self._body is None:
            return
        body, end = self._body, self._at + SLICE_BYTES
        piece = body.read(self._at, end) if isinstance(body, BodyPieces) else bytes(body[self._at : end])
        self._at += len(piece)
        whole = self._at >= len(self._body)
        self._transport.write(piece)
        if whole:
            done = self._done
            self.stop()
            if done is not None:
                done(None)

    def stopProducing(self) -> None:
        """Write no more: the connection is gone."""
        self._body = self._done = None

    def stop(self) -> None:
        if self._body is not None:
            self._body = self._done = None
            self._transport.unregisterProducer()


@implementer(IConsumer)
class ProducedUpload:
    """Body that a producer writes, framed as the head says."""

    def __init__(self, body: IBodyProducer, transport: Any, done: Done) -> None:
        self._producer: IBodyProducer | None = body
        self._left = length_of(body)
        self._transport = transport
        self._done: Done | None = done

    def start(self) -> None:
        producer = self._producer
        assert producer is not None
        self._transport.registerProducer(producer, True)
        produced: Deferred[None] = producer.startProducing(self)
        produced.addCallbacks(self._produced, self._end)

    def write(self, data: bytes) -> None:
        if self._done is None or not data:
            return
        if self._left == UNKNOWN:
            self._transport.writeSequence((b"%x\r\n" % len(data), data, b"\r\n"))
            return
        assert self._left is not None
        self._left -= len(data)
        if self._left < 0:
            self._stop_producing()
            self._end(Failure(WrongLengthError("the body is longer than its length")))
        else:
            self._transport.write(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Do nothing: the transport has the producer."""

    def unregisterProducer(self) -> None:
        """Do nothing, as above."""

    def stop(self) -> None:
        if self._done is not None:
            self._done = None
            self._transport.unregisterProducer()
            self._stop_producing()

    def _stop_producing(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()

    def _produced(self, _: object) -> None:
        if self._done is None:
            return
        if self._left == UNKNOWN:
            self._transport.write(b"0\r\n\r\n")
        elif self._left:
            self._end(Failure(WrongLengthError("the body is shorter than its length")))
            return
        self._end(None)

    def _end(self, failure: Failure | None) -> None:
        done, self._done, self._producer = self._done, None, None
        if done is not None:
            self._transport.unregisterProducer()
            done(failure)


def upload_of(body: Outgoing, transport: Any, done: Done) -> Upload:
    """Return the upload of `body`."""
    if isinstance(body, bytes | BodyPieces):
        return SlicedUpload(body, transport, done)
    return ProducedUpload(body, transport, done)
