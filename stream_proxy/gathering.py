"""The one answer that is put together out of a body as it comes."""

from __future__ import annotations

from typing import Protocol

from stream_proxy.accumulator import EventAccumulator
from stream_proxy.chat import ChatCompletionsAccumulator
from stream_proxy.decide import Call, Kind
from stream_proxy.errors import APIError
from stream_proxy.responses import ResponseAccumulator
from stream_proxy.runs import ChatRuns
from stream_proxy.sse import SSEDecoder

#: What an event may say beside its part of the answer.
_EVENT_OVERHEAD = 65_536


class Gathering(Protocol):
    """Takes a decoded body, and has an answer once there is enough of it. Sans-I/O."""

    @property
    def complete(self) -> bool:
        """Whether the answer is there."""

    def feed(self, piece: bytes) -> None:
        """Take the next bytes.

        :raises APIError: they are an error, or more than may be held.
        """

    def end(self, error: APIError | None) -> None:
        """The body is over, as its framing promised or with an `error`; there is an answer after this.

        :raises APIError: there is none.
        """

    def result_bytes(self) -> bytes:
        """The answer, which is JSON."""


class EventGathering:
    """An answer out of an event stream.

    :param call: what it answers.
    :param max_bytes: how large it may become.
    """

    def __init__(self, call: Call, max_bytes: int) -> None:
        self._events = SSEDecoder(max_event_bytes=max_bytes + _EVENT_OVERHEAD)
        self._runs: ChatRuns | None = None
        self._answer: EventAccumulator
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

    def end(self, error: APIError | None) -> None:
        self._answer.end(self._events.stray(), clean=error is None)

    def result_bytes(self) -> bytes:
        return self._answer.result_bytes()
