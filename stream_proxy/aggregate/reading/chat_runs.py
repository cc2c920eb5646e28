"""Runs of similar chunks, which are merged without decoding each of them.

Most chunks of a chat stream differ from the chunk before in one string only. `ChatRuns` recognises such a run
by its bytes: everything around that string is the same in each chunk. The strings of the chunks that are in
one read are joined, still escaped, and decoded together::

    data: {"id":"c","choices":[{"index":0,"delta":{"content":"Hel"}}]}    decoded, which gives the pattern
    data: {"id":"c","choices":[{"index":0,"delta":{"content":"lo,"}}]}    joined
    data: {"id":"c","choices":[{"index":0,"delta":{"content":" wor"}}]}   joined
    data: {"id":"c","choices":[{"index":0,"delta":{"content":"ld"}}]}     joined
    data: {"id":"c","choices":[{"index":0,"delta":{"content":"!\\n"}}]}    joined: one delta, "lo, world!\\n"
    data: {"id":"c","choices":[{"index":0,"delta":{"content":null}}]}     decoded; the run has ended

Everything else is decoded event by event. The result is the same, byte for byte, as that of
:class:`~stream_proxy.SSEDecoder` and :class:`~stream_proxy.ChatCompletionsAccumulator` alone.
"""

from __future__ import annotations

from stream_proxy.aggregate.chat import ChatCompletionsAccumulator
from stream_proxy.aggregate.reading.run_patterns import (
    FIELD,
    Pattern,
    TextPath,
    decoded,
    joined,
    pattern_of,
    text_path,
)
from stream_proxy.aggregate.reading.stream_reader import EVENT_END, StreamReader
from stream_proxy.aggregate.sse import ServerSentEvent, SSEDecoder

# Chunks of one run have at least so many of their first bytes in common.
_ALIKE_BYTES = 32
_FRAMING = len(FIELD) + len(EVENT_END)


class ChatRuns(StreamReader):
    """Reader of a chat stream.

    :param decoder: the decoder of the stream.
    :param accumulator: the accumulator of the stream.
    """

    def __init__(self, decoder: SSEDecoder, accumulator: ChatCompletionsAccumulator) -> None:
        super().__init__(decoder, accumulator)
        self._chat = accumulator
        self._last = b""  # the last event, if a run may begin after it
        self._rejected = b""  # what stands between texts of one that does not simply append
        self._pattern: Pattern | None = None  # that of the current run, whose last chunk is the last event
        self._path: TextPath | None = None

    def feed(self, data: bytes) -> None:
        pattern = self._pattern
        if pattern is None or self._held or not self._aligned or not self._feed_chunk(pattern, data):
            super().feed(data)

    def _feed_chunk(self, pattern: Pattern, data: bytes) -> bool:
        """Merge a read that is one chunk of the run, and report whether it was."""
        size = len(data)
        piece = pattern.piece(data) if size < self._decoder.max_event_bytes else None
        if piece is None or size >= self._chat.room():
            return False
        text = decoded(piece)
        if text is None:
            return False
        self._add(text, [piece], size - _FRAMING)
        return True

    def _take(self, data: bytes, at: int, end: int) -> int:
        pattern = self._pattern
        if pattern is None:
            if not self._last or not data.startswith(self._last[:_ALIKE_BYTES], at):
                return at
            pattern = self._begin_run(data, at)
            if pattern is None:
                return at
        # Near a bound chunks are decoded one by one, so that the error is raised for the same chunk.
        if not data.startswith(pattern.start, at) or end - at >= self._chat.room():
            return at
        return self._join(pattern, data, at, pattern.end_of_run(data, at, end))

    def _feed_event(self, event: bytes) -> bool:
        fed = super()._feed_event(event)
        if fed:
            self._pattern, self._last = None, event
        return fed

    def _decoded(self, data: bytes) -> list[ServerSentEvent]:
        events = super()._decoded(data)
        if events:
            self._pattern, self._last = None, b""
        return events

    def _begin_run(self, data: bytes, at: int) -> Pattern | None:
        """Return the pattern of the last event, if it is that of the next and its chunks can be joined."""
        pattern, self._last = pattern_of(self._last), b""
        if pattern is None or not data.startswith(pattern.start, at) or pattern.between == self._rejected:
            return None
        path = text_path(pattern)
        if path is None or not self._lengthens(path):
            self._rejected = pattern.between
            return None
        self._pattern, self._path = pattern, path
        return pattern

    def _lengthens(self, path: TextPath) -> bool:
        if path.call is None:
            return self._chat.lengthens(path.index, path.key)
        return self._chat.arguments_at(path.index, path.call) is not None

    def _join(self, pattern: Pattern, data: bytes, at: int, end: int) -> int:
        """Merge the chunks of the run that begins in `data` at a position, and return where they end.

        :param end: where the last event that looks like a chunk of the run ends.
        """
        texts = pattern.texts(data, at, end)
        whole = None if texts is None else joined(texts)
        if texts is None or whole is None:  # something in between only looks like a chunk of the run
            end = pattern.end_of_valid(data, at, end)
            texts = pattern.texts(data, at, end)
            whole = None if texts is None else joined(texts)
            if texts is None or whole is None:
                return at
        self._add(whole, texts, end - at - len(texts) * _FRAMING)
        return end

    def _add(self, text: str, texts: list[bytes], size: int) -> None:
        """Add the text of chunks, whole and in pieces as they are spelled, and the size of their data."""
        path = self._path
        assert path is not None
        self._chat.content.add(len(texts))
        if path.call is None:
            self._chat.add_text(path.index, path.key, text, size)
        else:  # where one fragment ends and the next begins matters to arguments
            self._chat.add_arguments(path.index, path.call, texts, size)
