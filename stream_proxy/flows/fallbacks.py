"""Fallbacks: the ways to make a call, and which of them an upstream is known to refuse."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from enum import Enum, auto

from stream_proxy.flows.call import Call, IncludeUsage, Kind, refuses_include_usage, refuses_stream
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
        body: bytes,
        include_usage: IncludeUsage,
        memory: RefusalMemory,
        *,
        compressed: bool,
    ) -> None:
        self.call = call
        self._headers = headers
        self._body = body
        self._include_usage = include_usage
        self._memory = memory
        self._plain_headers = request_headers if compressed else uncompressed_request_headers
        self._suspect: Unsupported | None = None
        #: Whether the call is made as a stream, and not as the client made it.
        self.streams = not memory.knows(Unsupported.STREAM, call.model)
        known = memory.knows(Unsupported.INCLUDE_USAGE, call.model)
        self._usage = include_usage == "always" or (include_usage == "auto" and not known)

    def request(self) -> tuple[Iterable[RawHeader], bytes]:
        """Return the header fields and the body to send now."""
        if not self.streams:
            return self._plain_headers(self._headers), self._body
        return streaming_request_headers(self._headers), self.call.body(include_usage=self._usage)

    def refused(self, status: int, body: bytes) -> bool:
        """Report whether another way is left after this error, which then is the next."""
        if not self.streams:
            return False
        if refuses_stream(status, body):
            self._memory.note(Unsupported.STREAM, self.call.model)
            self._suspect = None
            self.streams = False
            return True
        asked = self._usage and self._include_usage == "auto" and self.call.kind is Kind.CHAT
        if asked and refuses_include_usage(status, body):
            self._suspect = Unsupported.INCLUDE_USAGE
            self._usage = False
            return True
        return False

    def responded(self, status: int) -> None:
        """Record the status of the latest response."""
        if self._suspect is not None and 200 <= status < 300:
            self._memory.note(self._suspect, self.call.model)  # the option was the reason, and nothing else


#: Providers change: a refusal is tried anew after an hour.
REMEMBER_SECONDS = 3600.0


class Unsupported(Enum):
    """Features that an upstream may not support for a model."""

    INCLUDE_USAGE = auto()
    STREAM = auto()


class RefusalMemory:
    """Refusals by model, the least recently used forgotten first.

    :param seconds: the clock.
    :param size: the number of refusals that are kept.
    """

    def __init__(self, seconds: Callable[[], float], size: int = 1024) -> None:
        self._seconds = seconds
        self._size = size
        self._until: OrderedDict[tuple[Unsupported, bytes], float] = OrderedDict()

    def note(self, refusal: Unsupported, model: bytes) -> None:
        """Record that a feature was refused for `model`."""
        key = (refusal, model)
        self._until[key] = self._seconds() + REMEMBER_SECONDS
        self._until.move_to_end(key)
        if len(self._until) > self._size:
            self._until.popitem(last=False)

    def knows(self, refusal: Unsupported, model: bytes) -> bool:
        """Report whether the feature was refused for `model` within the last hour."""
        key = (refusal, model)
        until = self._until.get(key)
        if until is None:
            return False
        if self._seconds() >= until:
            del self._until[key]
            return False
        self._until.move_to_end(key)
        return True
