"""Aggregation: one JSON response out of a body as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from stream_proxy.aggregate.accumulator import EventAccumulator
from stream_proxy.aggregate.chat import ChatCompletionsAccumulator
from stream_proxy.aggregate.reading.chat_runs import ChatRuns
from stream_proxy.aggregate.reading.response_blocks import ResponseBlocks
from stream_proxy.aggregate.reading.stream_reader import StreamReader
from stream_proxy.aggregate.responses import ResponseAccumulator
from stream_proxy.aggregate.sse import SSEDecoder
from stream_proxy.errors import APIError, compressed_data_cut, response_too_large
from stream_proxy.flows.conversion.call import Call, Kind
from stream_proxy.http.content_coding import ContentDecoder
from stream_proxy.json_steps import LONG_BYTES, costing
from stream_proxy.lenient_json import BOM
from stream_proxy.limits import Limits
from stream_proxy.observe.record import Phase, Record
from stream_proxy.observe.usage import usage_of

# The size of a collected response's pieces: it is copied piece by piece.
_PIECE_BYTES = 2**20


class Aggregation(Protocol):
    """Something that takes a decoded body, and has a result once there is enough of it. Sans-I/O."""

    @property
    def complete(self) -> bool:
        """Whether there is enough of it; then the `steps` lead to the result."""

    def feed(self, piece: bytes) -> Iterable[int]:
        """Add the next bytes, and return the steps of the work that is left to do on them.

        :raises APIError: they report an error, or are more than may be held.
        """

    def end(self, error: APIError | None) -> Iterator[int]:
        """End the body, in steps, after which the `steps` lead to a result.

        :param error: ``None`` if the body ended as its framing promised.
        :raises APIError: there is no result.
        """

    def steps(self) -> Iterator[int]:
        """Put the result together, and yield what each step cost; see :class:`PacedBody`.

        :raises APIError: the result exceeds a bound.
        """

    def result(self) -> list[bytes]:
        """Return the pieces of the result, which is JSON."""


class StreamAggregation:
    """Aggregation of an event stream.

    :param call: the call that the stream answers.
    :param limits: those of the rule.
    :param record: told of the content, the model and the usage.
    :param count: called after each piece with a number that rises whenever it had content.
    """

    def __init__(
        self,
        call: Call,
        limits: Limits,
        record: Record,
        count: Callable[[int], None] | None = None,
    ) -> None:
        self._record = record
        self._count = count
        max_bytes, max_values = limits.max_response_bytes, limits.max_response_values
        self._max_values = max_values
        self._events = SSEDecoder(max_event_bytes=limits.max_event_bytes, max_cleaned=LONG_BYTES)
        self._accumulator: EventAccumulator
        self._reader: StreamReader
        if call.kind is Kind.CHAT:
            chat = self._accumulator = ChatCompletionsAccumulator(
                n=call.n, max_bytes=max_bytes, max_values=max_values
            )
            self._reader = ChatRuns(self._events, chat)
        else:
            response = self._accumulator = ResponseAccumulator(max_bytes=max_bytes, max_values=max_values)
            self._reader = ResponseBlocks(self._events, response)
        self._accumulator.by_steps = True
        record.recount = self._recount

    @property
    def complete(self) -> bool:
        return self._accumulator.complete

    def feed(self, piece: bytes) -> Iterable[int]:
        if self._events.holds_long:
            return self._reader.feed_long(piece)
        self._reader.feed(piece)
        self._look()
        return self._accumulator.pending()

    def _look(self) -> None:
        """Note the first event with content, and when the last one came."""
        record = self._record
        if self._count is not None:
            self._count(self._accumulator.content.changes)
        silence = record.silence
        if silence is None:
            return
        if record.first_event is not None:
            record.last_event = silence.touched
        elif self._accumulator.content.any:
            record.first_event = record.last_event = silence.touched
            record.phase = Phase.STREAMING

    def _recount(self) -> None:
        self._record.events = self._accumulator.content.events

    def end(self, error: APIError | None) -> Iterator[int]:
        self._reader.end()
        if error is None:
            ending = self._events.end_steps(self._max_values)
            for event in (yield from costing(ending)):
                yield from self._accumulator.feed_long(event)
        self._accumulator.end(self._events.stray(), clean=error is None)

    def steps(self) -> Iterator[int]:
        return self._accumulator.steps()

    def result(self) -> list[bytes]:
        pieces = self._accumulator.result_pieces()
        record = self._record
        model, usage = self._accumulator.reported
        record.name_model(model)
        record.usage = usage_of(usage)
        record.phase = Phase.CLIENT
        return pieces


class JSONAggregation:
    """Collection of a JSON response whose head came too late: another one had been sent.

    :param content: the decoder of the body.
    :param max_bytes: the largest result.
    """

    complete = False  # only the end of the body says so

    def __init__(self, content: ContentDecoder, max_bytes: int) -> None:
        self._content = content
        self._max_bytes = max_bytes
        self._body = bytearray()

    def feed(self, piece: bytes) -> Iterable[int]:
        self._body += piece
        if len(self._body) > self._max_bytes:
            raise response_too_large(self._max_bytes)
        return ()

    def end(self, error: APIError | None) -> Iterator[int]:
        if error is not None:
            raise error
        if not self._content.ended:
            raise compressed_data_cut()
        return iter(())

    def steps(self) -> Iterator[int]:
        return iter(())

    def result(self) -> list[bytes]:
        # A byte order mark is tolerated at the start alone, and blanks may have gone out before it.
        start = len(BOM) if self._body.startswith(BOM) else 0
        return [
            bytes(self._body[at : at + _PIECE_BYTES]) for at in range(start, len(self._body), _PIECE_BYTES)
        ]
