"""Reader of event streams, which feeds an accumulator event by event.

Its subclasses know events that need no decoding, and take as many of them at once as one read has.
"""

from __future__ import annotations

from collections.abc import Iterator

from stream_proxy.aggregate.accumulator import EventAccumulator
from stream_proxy.aggregate.sse import ServerSentEvent, SSEDecoder, simple_event

EVENT_END = b"\n\n"
# After so many events of which nothing was taken, it is not tried again for some bytes, then for twice as
# many, and so on: trying costs more than it saves, and the decoder is faster with many events at a time.
_PATIENCE = 16
_BLIND_BYTES = 128
_MAX_DOUBLINGS = 9
# What is taken is worthwhile if it is at least this part of what was looked at.
_WORTHWHILE_PART = 4
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
        self._misses = 0  # events since something worthwhile was taken
        self._blind = 0  # bytes to decode before taking is tried again; -1 to feed one event before that

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
            at = self._step(data, at, end)
        if self._accumulator.complete:
            return
        rest = data[at:] if at else data
        if len(rest) > _MOST_HELD:
            self._decode(rest)
        else:
            self._held = rest

    def feed_long(self, data: bytes) -> Iterator[int]:
        """Process the next bytes, in which a long event may end, in steps; yield what each cost.

        This is for when the decoder `holds_long`.

        :raises APIError: as `feed` does.
        """
        for event in self._decoded(data):
            yield from self._accumulator.feed_long(event)
            if self._accumulator.complete:
                break

    def end(self) -> None:
        """Give the decoder what it does not have of the last event; its own end comes after this."""
        held, self._held = self._held, b""
        if held:
            self._decode(held)

    def _step(self, data: bytes, at: int, end: int) -> int:
        """Process some of the whole events in `data` between two positions; return where the rest begins."""
        if self._blind > 0:
            stop = _end_of_event(data, min(at + self._blind, end) - 1, end)
            self._blind = max(self._blind - (stop - at), 0) or -1
            self._decode(data[at:stop])
            return stop if self._aligned else self._align(data, stop)
        if self._blind == 0:
            taken = self._take(data, at, end)
            if (taken - at) * _WORTHWHILE_PART >= end - at:
                self._misses = 0
            else:
                self._misses += 1
            if taken > at:
                return taken
            if self._misses > _PATIENCE:
                self._blind = _BLIND_BYTES << min(self._misses - _PATIENCE, _MAX_DOUBLINGS)
                return at
        self._blind = 0
        stop = _end_of_event(data, at, end)
        self._feed_event(data[at:stop])
        return stop if self._aligned else self._align(data, stop)

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
        events = self._decoded(data)
        for event in events:
            self._accumulator.feed(event)
            if self._accumulator.complete:
                break
        return bool(events)

    def _decoded(self, data: bytes) -> list[ServerSentEvent]:
        """Return the events that any bytes complete."""
        events = self._decoder.feed(data)
        self._aligned = self._decoder.between_events
        return events

    def _align(self, data: bytes, at: int) -> int:
        """Decode `data` from a position to where an event begins, and return where that is."""
        while at < len(data) and not self._aligned:
            end = data.find(EVENT_END, at)
            stop = len(data) if end < 0 else end + len(EVENT_END)
            self._decode(data[at:stop])
            at = stop
        return at


def _end_of_event(data: bytes, at: int, end: int) -> int:
    """Return where the event ends that has the byte at a position, given the end of the last event."""
    found = data.find(EVENT_END, at, end)
    return end if found < 0 else found + len(EVENT_END)  # a third line end may be the last byte
