"""Bodies of responses (RFC 9112 section 6.3): where each ends. Sans-I/O."""

from __future__ import annotations

from typing import Protocol

from stream_proxy.upstream.http1.chunked import ChunkedBody
from stream_proxy.upstream.http1.head import ResponseHead


class Body(Protocol):
    """Decoder of one body; nothing may be fed after its end or a fault."""

    @property
    def ended(self) -> bool:
        """Whether the body is complete."""

    @property
    def surplus(self) -> bool:
        """Whether bytes came behind its end."""

    @property
    def fault(self) -> str | None:
        """What is wrong, if its framing is malformed."""

    @property
    def ends_with_connection(self) -> bool:
        """Whether an orderly close is its end."""

    def feed(self, data: bytes) -> bytes:
        """Return the content of the next bytes, which may precede a fault."""


class LengthBody:
    """Body of a known length."""

    __slots__ = ("_left", "ended", "surplus")
    fault = None
    ends_with_connection = False

    def __init__(self, length: int) -> None:
        self.surplus = False
        self.ended = not length
        self._left = length

    def feed(self, data: bytes) -> bytes:
        left = self._left = self._left - len(data)
        if left > 0:
            return data
        self.ended = True
        if not left:
            return data
        self.surplus = True
        return data[:left]


class CloseBody:
    """Body that ends with its connection."""

    __slots__ = ()
    ended = surplus = False
    fault = None
    ends_with_connection = True

    def feed(self, data: bytes) -> bytes:
        return data


def body_of(head: ResponseHead) -> Body:
    """Return the decoder for the body that `head` announces."""
    if head.chunked:
        return ChunkedBody()
    return CloseBody() if head.length is None else LengthBody(head.length)
