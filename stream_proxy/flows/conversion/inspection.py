"""Inspection of a response: the head and the first bytes of the body decide what it is."""

from __future__ import annotations

from collections.abc import Iterable

from stream_proxy.aggregate.stream_errors import find_error
from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, status_error
from stream_proxy.flows.conversion.call import FALLBACK_STATUSES
from stream_proxy.http.body_kind import BodyKind, sniff
from stream_proxy.http.headers import RawHeader

#: The part of a body that is looked at before it is decided what the response is.
PEEK_BYTES = 65_536


class Inspection:
    """Beginning of one response, kept until it is clear what the response is. Sans-I/O.

    :param status: the status.
    :param media: the media type, in lower case and without parameters; empty if there is none.
    :param codings: the names of the content codings.
    :param readable: whether these can be decoded; if not, the body cannot be looked at.
    :param thorough: look at JSON until it is clear whether it is an error.
    """

    def __init__(
        self, status: int, media: bytes, codings: list[bytes], *, readable: bool, thorough: bool = False
    ) -> None:
        self._media = media
        self._thorough = thorough
        #: The body so far, as it came, in case it is to be relayed.
        self.held: list[bytes] = []
        self._status = status
        self._codings = codings
        self._readable = readable
        self._held_bytes = 0
        #: The body so far, decoded.
        self.seen = b""

    @property
    def beginning(self) -> bytes:
        """The part of that which is looked at."""
        return self.seen[:PEEK_BYTES]

    @property
    def success(self) -> bool:
        """Whether the status is a success."""
        return 200 <= self._status < 300

    @property
    def may_fall_back(self) -> bool:
        """Whether the call might succeed if it was made in another way."""
        return self._status in FALLBACK_STATUSES

    def came(self, data: bytes) -> None:
        """Hold bytes as they came."""
        self.held.append(data)
        self._held_bytes += len(data)

    def feed(self, piece: bytes) -> Iterable[int]:
        """Add decoded bytes; no work on them is left to do."""
        self.seen = self.seen + piece if self.seen else piece
        return ()

    def kind(self, *, ended: bool) -> BodyKind | None:
        """Return what the response is, or ``None`` if more of it is needed for that.

        :param ended: the whole body is in.
        """
        whole = ended or not self._readable or max(len(self.seen), self._held_bytes) >= PEEK_BYTES
        if self.may_fall_back and not whole:  # its text counts
            return None
        kind = sniff(self.beginning, ended=whole)
        if kind is BodyKind.UNDECIDED:
            return None
        if kind is BodyKind.JSON:
            if self.success and self._media == b"text/event-stream":
                return self._mislabelled(ended, whole)
            return BodyKind.JSON if whole or not self._thorough else None
        if self.success and (kind is BodyKind.EVENTS or self._media == b"text/event-stream"):
            return BodyKind.EVENTS
        return BodyKind.OTHER

    def succeeded(self, kind: BodyKind) -> bool:
        """Report whether a response that is no stream is, as far as can be seen, what was asked for."""
        if not (self.success and self._readable):
            return self.success
        return kind is BodyKind.JSON and find_error(self.beginning) is None

    def _mislabelled(self, ended: bool, whole: bool) -> BodyKind | None:
        """Return what a body is that begins as JSON under the type of an event stream.

        A server that had committed itself to a stream may write a bare error, which as a 200 would pass for a
        response; that is for the aggregation to find.
        """
        if not whole:
            return None
        return BodyKind.EVENTS if ended and find_error(self.seen) is not None else BodyKind.JSON

    def headers(self, kind: BodyKind, headers: list[RawHeader]) -> list[RawHeader]:
        """Return the fields to relay the response with: JSON goes out as JSON, whatever it was called."""
        if kind is not BodyKind.JSON or self._media == b"application/json" or self._media.endswith(b"+json"):
            return headers
        others = [pair for pair in headers if pair[0].lower() != b"content-type"]
        return [*others, (b"Content-Type", b"application/json")]

    def unusable(self) -> APIError:
        """Return the error for a client that a response of this kind cannot reach any more."""
        if not self._readable:
            names = b", ".join(self._codings)[:40].decode("ascii", "replace")
            return status_error(
                self._status,
                f"The upstream compressed its answer with {names}, which the proxy cannot decode; it asked "
                "for identity.",
                ErrorCode.UPSTREAM_ENCODING,
            )
        told = f"The upstream answered with status {self._status}"
        media = self._media[:80].decode("ascii", "replace") or "no content type"
        return status_error(
            self._status,
            f"{told} and {media}, which is neither JSON nor an event stream.",
            ErrorCode.UPSTREAM_MALFORMED if self.success else ErrorCode.UPSTREAM_STATUS,
            for_log=told,
        )
