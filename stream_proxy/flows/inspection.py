"""What an answer is: decided by its head and the first bytes of its body, and kept until then."""

from __future__ import annotations

from stream_proxy.errors import APIError, status_error
from stream_proxy.http.body_kind import BodyKind, sniff
from stream_proxy.http.headers import RawHeader

#: How much of an answer is looked at before it is decided what it is.
PEEK_BYTES = 65_536
#: A refusal with one of these may be of the stream, or of an option that only a stream has.
FALLBACK_STATUSES = (400, 422)


class Inspection:
    """Looks at the beginning of one answer. Sans-I/O.

    :param status: of the answer.
    :param media: its media type, in lower case and without parameters; empty if it has none.
    :param codings: the names of its content codings.
    :param readable: whether they can be undone; if not, the body cannot be looked at.
    """

    def __init__(self, status: int, media: bytes, codings: list[bytes], *, readable: bool) -> None:
        self._media = media
        #: What has come, as it came, in case it is to be relayed.
        self.held: list[bytes] = []
        self._status = status
        self._codings = codings
        self._readable = readable
        self._held_bytes = 0
        self._seen = bytearray()

    @property
    def seen(self) -> bytes:
        """What has come, decoded."""
        return bytes(self._seen)

    @property
    def beginning(self) -> bytes:
        """As much of it as is looked at."""
        return bytes(self._seen[:PEEK_BYTES])

    @property
    def success(self) -> bool:
        """Whether it is an answer to the call at all."""
        return 200 <= self._status < 300

    @property
    def may_fall_back(self) -> bool:
        """Whether the call might be answered if it was made otherwise."""
        return self._status in FALLBACK_STATUSES

    def came(self, data: bytes) -> None:
        """Some bytes came."""
        self.held.append(data)
        self._held_bytes += len(data)

    def feed(self, piece: bytes) -> None:
        """Add decoded bytes."""
        self._seen += piece

    def kind(self, *, ended: bool) -> BodyKind | None:
        """What the answer is, or ``None`` if that takes more of it.

        :param ended: there is no more.
        """
        whole = ended or not self._readable or max(len(self._seen), self._held_bytes) >= PEEK_BYTES
        if self.may_fall_back and not whole:  # its words count
            return None
        kind = sniff(self.beginning, ended=whole)
        if kind is BodyKind.UNDECIDED:
            return None
        if kind is BodyKind.JSON:
            return BodyKind.JSON
        if self.success and (kind is BodyKind.EVENTS or self._media == b"text/event-stream"):
            return BodyKind.EVENTS
        return BodyKind.OTHER

    def headers(self, kind: BodyKind, headers: list[RawHeader]) -> list[RawHeader]:
        """The fields to relay the answer with: JSON goes out as JSON, whatever it came as."""
        if kind is not BodyKind.JSON or self._media == b"application/json" or self._media.endswith(b"+json"):
            return headers
        others = [pair for pair in headers if pair[0].lower() != b"content-type"]
        return [*others, (b"Content-Type", b"application/json")]

    def unusable(self) -> APIError:
        """Why this is no answer, for a client whom it cannot reach as it is."""
        if not self._readable:
            names = b", ".join(self._codings)[:40].decode("ascii", "replace")
            return status_error(
                self._status,
                f"The upstream compressed its answer with {names}, which the proxy cannot decode; it asked "
                "for identity.",
            )
        told = f"The upstream answered with status {self._status}"
        media = self._media[:80].decode("ascii", "replace") or "no content type"
        return status_error(
            self._status, f"{told} and {media}, which is neither JSON nor an event stream.", for_log=told
        )
