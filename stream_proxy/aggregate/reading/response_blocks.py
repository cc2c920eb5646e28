"""Blocks of events of a Responses stream, which are kept undecoded.

The terminal event repeats what all the others have told. Only where it does not are they decoded, so that in
most streams a search for the first event of another kind is all that hundreds of deltas cost.
"""

from __future__ import annotations

import re

from stream_proxy.aggregate.reading.stream_reader import EVENT_END, StreamReader
from stream_proxy.aggregate.response_texts import ITEM_EVENTS
from stream_proxy.aggregate.responses import ResponseAccumulator
from stream_proxy.aggregate.sse import SSEDecoder

# The events of a block: those that items are made of, and those that stand among them in every stream.
_KINDS = [
    "response.output_text.delta",
    *sorted(ITEM_EVENTS - {"response.output_text.delta"}),
    "response.content_part.added",
    "response.content_part.done",
    "response.reasoning_summary_part.added",
    "response.reasoning_summary_part.done",
]
# The quantifiers are possessive: matching takes linear time.
_BLOCK = re.compile(rb"(?:event: (?:%b)\ndata: .*+\n\n)++" % "|".join(map(re.escape, _KINDS)).encode())


class ResponseBlocks(StreamReader):
    """Reader of a Responses stream.

    :param decoder: the decoder of the stream.
    :param accumulator: the accumulator of the stream.
    """

    def __init__(self, decoder: SSEDecoder, accumulator: ResponseAccumulator) -> None:
        super().__init__(decoder, accumulator)
        self._response = accumulator

    def _take(self, data: bytes, at: int, end: int) -> int:
        block = _BLOCK.match(data, at, end)
        if block is None:
            return at
        if not self._response.defer(block[0]):
            while at < block.end():  # the one that exceeds a bound is among these
                stop = data.find(EVENT_END, at) + len(EVENT_END)
                self._feed_event(data[at:stop])
                at = stop
        return block.end()
