"""Fallbacks: the ways to make a call, and which of them an upstream is known to refuse."""

from __future__ import annotations

from collections.abc import Iterable

from stream_proxy.flows.conversion.call import Call, IncludeUsage, Kind, refuses_include_usage, refuses_stream
from stream_proxy.flows.conversion.refusals import Asker, RefusalMemory, Unsupported
from stream_proxy.http.body_pieces import BodyPieces
from stream_proxy.http.headers import (
    RawHeader,
    request_headers,
    streaming_request_headers,
    uncompressed_request_headers,
)


class Fallbacks:
    """The ways to make one call, each at most once. Sans-I/O.

    :param call: the call.
    :param headers: the client's fields, as they came.
    :param body: the body as the client wrote it.
    :param include_usage: the rule's setting.
    :param compressed: whether a response that is not streamed may come compressed.
    :param memory: what this upstream refused lately.
    """

    def __init__(
        self,
        call: Call,
        headers: list[RawHeader],
        body: bytes | BodyPieces,
        include_usage: IncludeUsage,
        memory: RefusalMemory,
        *,
        compressed: bool,
    ) -> None:
        self.call = call
        self._headers = headers
        #: The body as the client wrote it.
        self.body = body
        self._include_usage = include_usage
        self._memory = memory
        self._plain_headers = request_headers if compressed else uncompressed_request_headers
        self._asker = Asker(call.model, headers, call.fields)
        #: What was refused, if the call is now made without it.
        self.suspect: Unsupported | None = None
        #: Whether the call is made as a stream, and not as the client made it.
        self.streams = not memory.knows(Unsupported.STREAM, self._asker)
        known = memory.knows(Unsupported.INCLUDE_USAGE, self._asker)
        self._usage = include_usage == "always" or (include_usage == "auto" and not known)

    def request(self) -> tuple[Iterable[RawHeader], bytes | BodyPieces]:
        """Return the header fields and the body to send now."""
        if not self.streams:
            return self._plain_headers(self._headers), self.body
        return streaming_request_headers(self._headers), self.call.body(include_usage=self._usage)

    @property
    def reason(self) -> str:
        """Why the call is made as it is now, if it had been refused."""
        return f"refused {self.suspect.name.lower()}" if self.suspect is not None else ""

    def refused(self, status: int, body: bytes) -> bool:
        """Report whether another way is left after this error, which then is the next."""
        if not self.streams:
            return False
        if refuses_stream(status, body):
            self.suspect = Unsupported.STREAM
            self.streams = False
            return True
        asked = self._usage and self._include_usage == "auto" and self.call.kind is Kind.CHAT
        if asked and refuses_include_usage(status, body):
            self.suspect = Unsupported.INCLUDE_USAGE
            self._usage = False
            return True
        return False

    def succeeded(self) -> None:
        """Learn from a call that succeeded: what it was made without was the reason, and nothing else."""
        suspect, self.suspect = self.suspect, None
        if suspect is not None:
            self._memory.learn(suspect, self._asker)
