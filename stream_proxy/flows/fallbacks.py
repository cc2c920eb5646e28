"""How a call is put to the upstream, and how else when it is refused."""

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
    """The ways of making one call, each at most once. It sends nothing.

    :param call: what the client asks for.
    :param headers: the client's, as they came.
    :param body: the body as the client wrote it.
    :param include_usage: as in the configuration.
    :param compressed: whether an answer that is not streamed may come compressed.
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
        """The header fields and the body to send now."""
        if not self.streams:
            return self._plain_headers(self._headers), self._body
        return streaming_request_headers(self._headers), self.call.body(include_usage=self._usage)

    def refused(self, status: int, body: bytes) -> bool:
        """Whether the call may be answered if it is made in another way, which is then the next."""
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
        """That is what the upstream says now."""
        if self._suspect is not None and 200 <= status < 300:
            self._memory.note(self._suspect, self.call.model)  # it was that, and nothing else


#: Providers change: a refusal is tried anew after an hour.
REMEMBER_SECONDS = 3600.0


class Unsupported(Enum):
    """The things that an upstream may refuse for a model."""

    INCLUDE_USAGE = auto()
    STREAM = auto()


class RefusalMemory:
    """Refusals by model, the least recently used forgotten first.

    :param seconds: the clock.
    :param size: how many are kept.
    """

    def __init__(self, seconds: Callable[[], float], size: int = 1024) -> None:
        self._seconds = seconds
        self._size = size
        self._until: OrderedDict[tuple[Unsupported, bytes], float] = OrderedDict()

    def note(self, refusal: Unsupported, model: bytes) -> None:
        """`model` has just been refused this."""
        key = (refusal, model)
        self._until[key] = self._seconds() + REMEMBER_SECONDS
        self._until.move_to_end(key)
        if len(self._until) > self._size:
            self._until.popitem(last=False)

    def knows(self, refusal: Unsupported, model: bytes) -> bool:
        """Whether `model` was refused this within the last hour."""
        key = (refusal, model)
        until = self._until.get(key)
        if until is None:
            return False
        if self._seconds() >= until:
            del self._until[key]
            return False
        self._until.move_to_end(key)
        return True
