"""Runs of similar chunks, which are merged without decoding each of them.

Most chunks of a chat stream differ from the chunk before in one string only. `ChatRuns` recognises such a run
by its bytes: everything around that string is the same in each chunk. The strings of the chunks that are in
one read are joined, still escaped, and decoded together::

    data: {"id":"c","choices":[{"index":0,"delta":{"content":"Hel"}}]}    decoded
    data: {"id":"c","choices":[{"index":0,"delta":{"content":"lo,"}}]}    decoded; the pattern repeats: a run
    data: {"id":"c","choices":[{"index":0,"delta":{"content":" wor"}}]}   joined
    data: {"id":"c","choices":[{"index":0,"delta":{"content":"ld"}}]}     joined
    data: {"id":"c","choices":[{"index":0,"delta":{"content":"!\\n"}}]}    joined: one delta, " world!\\n"
    data: {"id":"c","choices":[{"index":0,"delta":{"content":null}}]}     decoded; the run has ended

Everything else is decoded event by event. The result is the same, byte for byte, as that of
:class:`~stream_proxy.SSEDecoder` and :class:`~stream_proxy.ChatCompletionsAccumulator` alone.
"""

from __future__ import annotations

from itertools import repeat, takewhile

import msgspec

from stream_proxy.aggregate.chat import ChatCompletionsAccumulator
from stream_proxy.aggregate.run_patterns import (
    EVENT_END,
    FIELD,
    Pattern,
    TextPath,
    pattern_of,
    text_path,
    texts_of,
)
from stream_proxy.aggregate.sse import SSEDecoder

# The longest event that can be part of a run: it is held here in addition to what the decoder holds.
_MAX_EVENT = 65_536
# A run is worthwhile if it is at least a quarter of the bytes searched: the rest of the read is split for it.
_WORTHWHILE_PART = 4
# After this many events without a worthwhile run the search pauses: for one read, then two, four, up to 256.
_PATIENCE = 8
_MAX_DOUBLINGS = 8
_decode_string = msgspec.json.Decoder(str).decode


class _BackOff:
    """Pauses of the search for runs.

    In a stream without runs, such as one of two interleaved choices, the search costs more than it saves.
    """

    def __init__(self) -> None:
        self._plain_since = 0  # events decoded one by one since the last worthwhile run
        self._reads_to_skip = 0
        self._pauses = 0

    def skips_read(self) -> bool:
        """Count one read, and report whether it falls into a pause."""
        if not self._reads_to_skip:
            return False
        self._reads_to_skip -= 1
        return True

    def found(self, joined: int, searched: int) -> None:
        """Count a run of `joined` bytes, for which `searched` bytes were looked at."""
        if joined * _WORTHWHILE_PART >= searched:
            self._plain_since = self._pauses = 0
        else:
            self._plain_since += 1

    def missed(self) -> bool:
        """Count an event outside of a run, and report whether that begins a pause."""
        self._plain_since += 1
        if self._plain_since <= _PATIENCE:
            return False
        self._plain_since = 0
        self._reads_to_skip = 1 << min(self._pauses, _MAX_DOUBLINGS)
        self._pauses += 1
        return True


class ChatRuns:
    """Feeds an accumulator with a stream, with the same result as if each event were decoded and fed.

    :param decoder: the decoder of the stream.
    :param accumulator: the accumulator of the stream.
    """

    def __init__(self, decoder: SSEDecoder, accumulator: ChatCompletionsAccumulator) -> None:
        self._decoder = decoder
        self._accumulator = accumulator
        self._partial = bytearray()  # the bytes so far of the event that has not ended yet
        self._from_start = False  # whether they began right after another event, so that they are all of it
        self._pattern_before: Pattern | None = None  # that of the previous event
        self._rejected: Pattern | None = None  # one whose text does not simply append
        self._pattern: Pattern | None = None  # that of the current run
        self._path = TextPath(0, "", None)
        self._back_off = _BackOff()

    def feed(self, data: bytes) -> None:
        """Process the next bytes of the stream.

        :raises APIError: as the decoder and the accumulator do.
        """
        if b"\r" in data or self._back_off.skips_read():
            self._decode_all(data)
            return
        while data and not self._accumulator.complete:
            pattern = self._pattern
            if pattern is not None and not self._partial and data.startswith(pattern.start):
                joined = self._join_run(pattern, data)
                if joined:
                    self._back_off.found(joined, len(data))
                    data = data[joined:]
                    continue
            if self._back_off.missed():
                self._decode_all(data)
                return
            end = self._end_of_event(data)
            self._decode_event(data[:end])
            data = data[end:]

    def _decode_all(self, data: bytes) -> None:
        """Decode `data` and forget the run, as it is unknown where its last event began."""
        self._partial.clear()
        self._pattern_before = self._pattern = None
        self._decode(data)

    def _decode(self, data: bytes) -> None:
        for event in self._decoder.feed(data):
            self._accumulator.feed(event)
            if self._accumulator.complete:
                return

    def _end_of_event(self, data: bytes) -> int:
        if self._partial.endswith(b"\n") and data.startswith(b"\n"):
            return 1
        end = data.find(EVENT_END)
        return len(data) if end < 0 else end + len(EVENT_END)

    def _decode_event(self, data: bytes) -> None:
        """Decode an event or a part of one; begin a run if its pattern is that of the event before."""
        if not self._partial:
            self._from_start = self._decoder.between_events
        self._decode(data)
        self._partial += data
        if not self._partial.endswith(EVENT_END):
            if len(self._partial) > _MAX_EVENT:
                self._from_start = False
                del self._partial[:-1]  # the last byte may be the first half of the end
            return
        event = bytes(self._partial)
        self._partial.clear()
        pattern = pattern_of(event) if self._from_start and self._decoder.between_events else None
        if pattern is not None and pattern == self._pattern:
            return
        repeated = pattern is not None and pattern == self._pattern_before and pattern != self._rejected
        self._pattern_before, self._pattern = pattern, None
        if repeated and pattern is not None:
            path = text_path(pattern)
            if path is None or not self._lengthens(path):
                self._rejected = pattern
            else:
                self._pattern, self._path = pattern, path

    def _lengthens(self, path: TextPath) -> bool:
        if path.call is None:
            return self._accumulator.lengthens(path.index, {path.key: "x"})
        return self._accumulator.arguments_at(path.index, path.call) is not None

    def _join_run(self, pattern: Pattern, data: bytes) -> int:
        """Merge the chunks of the run that `data` begins with, and return how many bytes they are."""
        # Near a bound chunks are decoded one by one, so that the error is raised for the same chunk.
        if len(data) >= min(self._accumulator.room(), self._decoder.max_event_bytes):
            return 0
        start, end = pattern.start, pattern.end
        *pieces, _ = data.split(end)
        if not all(map(bytes.startswith, pieces, repeat(start))):
            pieces = list(takewhile(lambda piece: piece.startswith(start), pieces))
        pieces = [piece[len(start) :] for piece in pieces]
        texts = texts_of(pattern, pieces)
        if texts is None:  # one of them only looks like a chunk of the run
            pieces = list(takewhile(lambda piece: texts_of(pattern, [piece]) is not None, pieces))
            texts = texts_of(pattern, pieces)
        if not texts:
            return 0
        framing = len(FIELD) + len(EVENT_END)
        size = sum(map(len, pieces)) + len(pieces) * (len(start) + len(end) - framing)
        self._add(texts, size)
        return size + len(pieces) * framing

    def _add(self, texts: list[bytes], size: int) -> None:
        index, call = self._path.index, self._path.call
        if call is None:
            text = _decode_string(b'"%b"' % b"".join(texts))
            self._accumulator.add_text(index, {self._path.key: text}, size)
        else:  # where one fragment ends and the next begins matters to arguments
            self._accumulator.add_arguments(index, call, texts, size)
