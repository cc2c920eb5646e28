"""The bodies of upstream answers, taken in piece by piece until there is one body for the client."""

from __future__ import annotations

from typing import Protocol

from stream_proxy.accumulator import EventAccumulator
from stream_proxy.chat import ChatCompletionsAccumulator
from stream_proxy.decide import Call, Kind
from stream_proxy.errors import response_too_large, upstream_error
from stream_proxy.responses import ResponseAccumulator
from stream_proxy.runs import ChatRuns
from stream_proxy.sse import SSEDecoder

#: What an event may say beside its part of the answer.
_EVENT_OVERHEAD = 65_536


class Aggregate(Protocol):
    """A body in the making. Each method raises ``APIError`` where there can be none."""

    @property
    def complete(self) -> bool:
        """Whether nothing that may still come belongs to it."""

    def feed(self, piece: bytes) -> None:
        """Some more, decoded."""

    def end(self, *, clean: bool) -> None:
        """There is no more; `clean`: it ended as its framing promised."""

    def body(self) -> bytes:
        """What the client gets."""


class StreamAggregate:
    """The events of a stream.

    :param call: what they answer.
    :param max_bytes: how large the answer may be.
    """

    def __init__(self, call: Call, max_bytes: int) -> None:
        self._events = SSEDecoder(max_event_bytes=max_bytes + _EVENT_OVERHEAD)
        self._answer: EventAccumulator
        self._runs: ChatRuns | None = None
        if call.kind is Kind.CHAT:
            chat = self._answer = ChatCompletionsAccumulator(n=call.n, max_bytes=max_bytes)
            self._runs = ChatRuns(self._events, chat)
        else:
            self._answer = ResponseAccumulator(max_bytes=max_bytes)

    @property
    def complete(self) -> bool:
        return self._answer.complete

    def feed(self, piece: bytes) -> None:
        if self._runs is not None:
            self._runs.feed(piece)
        else:
            for event in self._events.feed(piece):
                self._answer.feed(event)

    def end(self, *, clean: bool) -> None:
        self._answer.end(self._events.stray(), clean=clean)

    def body(self) -> bytes:
        return self._answer.result_bytes()


class WholeAggregate:
    """A body that is an answer as it is.

    :param max_bytes: how large it may be.
    """

    complete = False

    def __init__(self, max_bytes: int) -> None:
        self._data = bytearray()
        self._max_bytes = max_bytes

    def feed(self, piece: bytes) -> None:
        self._data += piece
        if len(self._data) > self._max_bytes:
            raise response_too_large(self._max_bytes)

    def end(self, *, clean: bool) -> None:
        if not clean:
            raise upstream_error("The connection to the upstream broke before the answer was complete.")

    def body(self) -> bytes:
        return bytes(self._data)
