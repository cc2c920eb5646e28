"""Reader of event streams, which feeds an accumulator event by event.

Its subclasses know events that need no decoding, and take as many of them at once as one read has.
"""

from __future__ import annotations

from stream_proxy.aggregate.accumulator import EventAccumulator
from stream_proxy.aggregate.sse import SSEDecoder, simple_event

EVENT_END = b"\n\n"
# The longest beginning of an event that waits here for the rest. A longer one is the decoder's, as it would
# take quadratic time to join it with each of many small reads.
_MOST_HELD = 4096


class StreamReader:
    """Feeds an accumulator with a stream, with the same result as if each event were decoded and fed.

    :param decoder: the decoder of the stream, which takes what is not plain: carriage returns, comments,
        several ``data`` lines, stray lines and long events.
    :param accumulator: the accumulator of the stream.
    """

    def __init__(self, decoder: SSEDecoder, accumulator: EventAccumulator) -> None:
        self._decoder = decoder
        self._accumulator = accumulator
        self._held = b""  # the beginning of an event
        self._begun = False
        self._aligned = True  # whether the next byte begins an event

    def feed(self, data: bytes) -> None:
        """Process the next bytes of the stream.

        :raises APIError: as the decoder and the accumulator do.
        """
        plain = b"\r" not in data
        searched = 0
        if self._held:
            searched = len(self._held) - 1  # nothing before ends an event
            data = self._held + data
            self._held = b""
        elif not self._begun:
            data = self._decoder.begin(data)
            if not data:
                return
            self._begun = True
        # An event that might exceed its bound is the decoder's.
        if not plain or len(data) >= self._decoder.max_event_bytes:
            self._decode(data)
            return
        at = 0 if self._aligned else self._align(data, 0)
        last = data.rfind(EVENT_END, max(at, searched))
        end = at if last < 0 else last + len(EVENT_END)
        while at < end and not self._accumulator.complete:
            taken = self._take(data, at, end)
            if taken > at:
                at = taken
                continue
            found = data.find(EVENT_END, at)
            stop = end if found < 0 else found + len(EVENT_END)  # a third line end may be the last
            self._feed_event(data[at:stop])
            at = stop if self._aligned else self._align(data, stop)
        if self._accumulator.complete:
            return
        rest = data[at:] if at else data
        if len(rest) > _MOST_HELD:
            self._decode(rest)
        else:
            self._held = rest

    def end(self) -> None:
        """Give the decoder what it does not have of the last event; its own end comes after this."""
        held, self._held = self._held, b""
        if held:
            self._decode(held)

    def _take(self, data: bytes, at: int, end: int) -> int:
        """Take what need not be decoded of whole events, and return where the rest begins.

        :param at: the position in `data` where the first event begins.
        :param end: the position where the last one ends.
        """
        return at

    def _feed_event(self, event: bytes) -> bool:
        """Feed the accumulator with one event, and report whether there was one in those bytes."""
        simple = simple_event(event)
        if simple is None:
            return self._decode(event)
        self._accumulator.feed(simple)
        return True

    def _decode(self, data: bytes) -> bool:
        """Decode any bytes, feed the accumulator, and report whether there were events."""
        events = self._decoder.feed(data)
        for event in events:
            self._accumulator.feed(event)
            if self._accumulator.complete:
                break
        self._aligned = self._decoder.between_events
        return bool(events)

    def _align(self, data: bytes, at: int) -> int:
        """Decode `data` from a position to where an event begins, and return where that is."""
        while at < len(data) and not self._aligned:
            end = data.find(EVENT_END, at)
            stop = len(data) if end < 0 else end + len(EVENT_END)
            self._decode(data[at:stop])
            at = stop
        return at
