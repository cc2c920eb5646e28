"""The one answer that is put together out of a body as it comes."""

from __future__ import annotations

from typing import Protocol

from stream_proxy.aggregate.accumulator import EventAccumulator
from stream_proxy.aggregate.chat import ChatCompletionsAccumulator
from stream_proxy.aggregate.chat_runs import ChatRuns
from stream_proxy.aggregate.responses import ResponseAccumulator
from stream_proxy.aggregate.sse import SSEDecoder
from stream_proxy.errors import APIError, response_too_large, upstream_error
from stream_proxy.flows.call import Call, Kind
from stream_proxy.http.content_coding import ContentDecoder
from stream_proxy.lenient_json import BOM

#: What an event may say beside its part of the answer.
_EVENT_OVERHEAD = 65_536


class Aggregation(Protocol):
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


class StreamAggregation:
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


class JSONAggregation:
    """A JSON answer that came in one piece, for a client whom its own head can no longer reach.

    :param content: what decodes it.
    :param max_bytes: how large it may be.
    """

    complete = False  # nothing but its end says so

    def __init__(self, content: ContentDecoder, max_bytes: int) -> None:
        self._content = content
        self._max_bytes = max_bytes
        self._body = bytearray()

    def feed(self, piece: bytes) -> None:
        self._body += piece
        if len(self._body) > self._max_bytes:
            raise response_too_large(self._max_bytes)

    def end(self, error: APIError | None) -> None:
        if error is not None:
            raise error
        if not self._content.ended:
            raise upstream_error("The upstream's compressed answer was cut off.")

    def result_bytes(self) -> bytes:
        # A byte order mark is tolerated at the start alone, and this may be no start any more.
        return bytes(self._body).removeprefix(BOM)
