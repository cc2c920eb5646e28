"""The beginning of an answer, held until it shows what the answer is."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto

from stream_proxy.coding import ContentDecoder
from stream_proxy.sniff import Sniffed, sniff

#: How much of an answer is looked at before it is decided what it is.
PEEK_BYTES = 65_536
#: Errors that may be answered by asking otherwise; what they say is read to its end first.
_REFUSALS = (400, 422)


class Verdict(Enum):
    """What an answer is."""

    #: The stream that was asked for.
    EVENTS = auto()
    #: JSON, and said to be.
    JSON = auto()
    #: JSON under another type, or none.
    MISLABELLED = auto()
    #: Whatever it is, it is for the client.
    OTHER = auto()


class Opening:
    """An answer's beginning.

    :param status: the answer's.
    :param media: its media type, in lower case.
    :param content: what undoes its compression; ``None`` if nothing can.
    """

    def __init__(self, status: int, media: bytes, content: ContentDecoder | None) -> None:
        #: All that came, as it came.
        self.held: list[bytes] = []
        #: What of it is decoded, and what is not yet.
        self.seen = bytearray()
        self.rest: Iterator[bytes] = iter(())
        self._status = status
        self._media = media
        self._content = content
        self._held_bytes = 0

    @property
    def start(self) -> bytes:
        """What the verdict is about."""
        return bytes(self.seen[:PEEK_BYTES])

    def feed(self, data: bytes) -> Verdict | None:
        """Some more of it; the verdict, if it can be given. Then :attr:`rest` is still to be read.

        :raises APIError: it cannot be decoded.
        """
        self.held.append(data)
        self._held_bytes += len(data)
        if self._content is None:
            return self._judge(ended=False)
        # Little data can hold much: what is decoded is looked at piece by piece, never all at once.
        self.rest = self._content.pieces(data)
        for piece in self.rest:
            self.seen += piece
            verdict = self._judge(ended=False)
            if verdict is not None:
                return verdict
        return self._judge(ended=False) if self._held_bytes >= PEEK_BYTES else None

    def end(self) -> Verdict:
        """There is no more of it."""
        verdict = self._judge(ended=True)
        assert verdict is not None
        return verdict

    def _judge(self, *, ended: bool) -> Verdict | None:
        whole = ended or self._content is None or max(len(self.seen), self._held_bytes) >= PEEK_BYTES
        if self._status in _REFUSALS and not whole:
            return None
        kind = sniff(self.start, ended=whole)
        if kind is Sniffed.UNDECIDED:
            return None
        if kind is Sniffed.JSON:
            named = self._media == b"application/json" or self._media.endswith(b"+json")
            return Verdict.JSON if named else Verdict.MISLABELLED
        success = 200 <= self._status < 300
        if success and (kind is Sniffed.EVENTS or self._media == b"text/event-stream"):
            return Verdict.EVENTS
        return Verdict.OTHER
