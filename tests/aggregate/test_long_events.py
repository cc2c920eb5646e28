"""Long events, which are worked on in steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy import json_steps
from stream_proxy.aggregate import accumulator, arguments, sse
from stream_proxy.aggregate.accumulator import EventAccumulator
from stream_proxy.aggregate.arguments import Arguments
from stream_proxy.aggregate.chat import ChatCompletionsAccumulator
from stream_proxy.aggregate.long_text import LongText
from stream_proxy.aggregate.merge import merge_delta, settled
from stream_proxy.aggregate.reading.chat_runs import ChatRuns
from stream_proxy.aggregate.reading.response_blocks import ResponseBlocks
from stream_proxy.aggregate.reading.stream_reader import StreamReader
from stream_proxy.aggregate.responses import ResponseAccumulator
from stream_proxy.aggregate.sse import ServerSentEvent, SSEDecoder
from stream_proxy.errors import APIError
from stream_proxy.json_steps import Steps
from tests.support.compiled import skip_if_compiled

#: What counts as long here.
LONG = 40
CONTENT = b'{"id":"c","choices":[{"index":0,"delta":{"content":"%b"}}]}'
DELTA = b'{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"%b"}'
ITEM = (
    b'{"type":"response.output_item.done","output_index":0,"item":'
    b'{"id":"i","type":"message","content":[{"type":"output_text","text":"%b"}]}}'
)
TEXTS = st.lists(
    st.sampled_from(
        [b"a", b"word ", b"\\n", b"\xc3\xbc", b"\xff", b"\xe2\x82", b"\\ud83d", b"\\ude00", b",", b'\\"']
    ),
    max_size=30,
).map(b"".join)
CHAT_EVENTS = st.one_of(
    TEXTS.map(lambda text: CONTENT % text),
    TEXTS.map(lambda text: b'{"choices":[],"x":[NaN,"%b"]}' % text),
    TEXTS.map(lambda text: b'{"error":{"message":"%b"}}' % text),
    TEXTS.map(lambda text: b'"%b"' % text),
    TEXTS,
    st.just(b"[DONE]"),
)
RESPONSE_EVENTS = st.one_of(
    TEXTS.map(lambda text: DELTA % text),
    TEXTS.map(lambda text: ITEM % text),
    TEXTS.map(
        lambda text: b'{"type":"response.completed","response":{"id":"r","output":[],"x":"%b"}}' % text
    ),
    TEXTS.map(lambda text: b'{"type":"response.completed","response":{"id":"%b","x":[NaN, 1.50]}}' % text),
    TEXTS.map(
        lambda text: b'{"type":"response.failed","response":{"error":{"code":"x","message":"%b"}}}' % text
    ),
    TEXTS.map(lambda text: b'{"type":"error","message":"%b"}' % text),
    TEXTS,
)


def framed(events: Iterable[bytes], named: bool, end: bytes) -> bytes:
    """Return a stream of events, the last of which ends with `end`."""
    parts = []
    for data in events:
        kind = data[9 : data.find(b'"', 9)] if named and data.startswith(b'{"type":"') else b""
        parts.append((b"event: %b\n" % kind if kind else b"") + b"data: " + data)
    return b"\n\n".join(parts) + end


def fed(chat: bool, reads: list[bytes], most: int, *, steps: bool) -> object:
    """Return the result of a stream, or its error; in steps each read is fed as an aggregation feeds it."""
    decoder = SSEDecoder(most, max_cleaned=LONG if steps else None)
    aggregate: EventAccumulator
    reader: StreamReader
    if chat:
        aggregate = chats = ChatCompletionsAccumulator()
        reader = ChatRuns(decoder, chats)
    else:
        aggregate = responses = ResponseAccumulator()
        reader = ResponseBlocks(decoder, responses)
    aggregate.by_steps = steps
    try:
        for read in reads:
            if steps and decoder.holds_long:
                exhaust(reader.feed_long(read))
            else:
                reader.feed(read)
                exhaust(aggregate.pending())
            if aggregate.complete:
                break
        else:
            reader.end()
            for event in decoder.end():
                exhaust(aggregate.feed_long(event))
            aggregate.end(decoder.stray())
        exhaust(aggregate.steps())
        return aggregate.result_bytes()
    except APIError as error:
        return error.status, error.message.partition("no usable JSON:")[0]  # what is wrong has several names


@contextmanager
def long_from(size: int) -> Iterator[None]:
    """Count as long what is longer than `size`."""
    with (
        mock.patch.object(accumulator, "LONG_BYTES", size),
        mock.patch.object(json_steps, "LONG_BYTES", size),
        mock.patch.object(sse, "_LONG", size // 2),
    ):
        yield


def exhaust(steps: Iterable[object]) -> int:
    """Take all steps, and return how many there were."""
    return sum(1 for _ in steps)


class SameTests(SynchronousTestCase):
    """Results, which do not depend on whether events are worked on in steps."""

    @settings(max_examples=200)
    @given(
        st.data(),
        st.booleans(),
        st.sampled_from([10_000, 150]),
        st.sampled_from([b"\n\n", b"\n", b"", b"\r\n\r\n"]),
    )
    def test_any_stream(self, data: st.DataObject, chat: bool, most: int, end: bytes) -> None:
        """Any stream, cut anywhere, has the same result or error, byte for byte."""
        skip_if_compiled()
        events = data.draw(st.lists(CHAT_EVENTS if chat else RESPONSE_EVENTS, max_size=6))
        body = framed(events, data.draw(st.booleans()), end)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
        reads = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        expected = fed(chat, reads, most, steps=False)
        with long_from(LONG):
            self.assertEqual(fed(chat, reads, most, steps=True), expected)

    def test_deltas(self) -> None:
        """Long pieces of a text are the same, however they are spelled."""
        skip_if_compiled()
        done = b'{"type":"response.completed","response":{"id":"r","output":[]}}'
        for text in (b"\\u00fc" * 20, b"\\ud800" * 20, "é".encode() * 20, b""):
            body = framed([DELTA % b"a", DELTA % text, DELTA % b"b", done], True, b"\n\n")
            reads = [body[at : at + 30] for at in range(0, len(body), 30)]
            expected = fed(False, reads, 10_000, steps=False)
            with long_from(LONG):
                self.assertEqual(fed(False, reads, 10_000, steps=True), expected)


class StepTests(SynchronousTestCase):
    """Steps of the work on long events."""

    def steps(self, make: Callable[[], EventAccumulator], data: bytes) -> int:
        """Return how many steps an event takes."""
        aggregate = make()
        aggregate.by_steps = True
        return exhaust(aggregate.feed_long(ServerSentEvent(data=data)))

    def test_long(self) -> None:
        """An event of 4 MiB takes many steps, whatever is odd about it; a short one takes none."""
        for text in (b"a" * 2**22, b"\xff" * 2**22, b"a" * 2**22 + b"\\ud800", b',\\"' * 2**20):
            self.assertGreater(self.steps(ChatCompletionsAccumulator, CONTENT % text), 8)
            completed = b'{"type":"response.completed","response":{"x":"%b"}}' % text
            self.assertGreater(self.steps(ResponseAccumulator, completed), 8)
        self.assertEqual(self.steps(ChatCompletionsAccumulator, CONTENT % b"a"), 0)

    def test_end(self) -> None:
        """A last event without its end is not decoded to see if it is whole if it has too many values."""
        decoded: list[bytes] = []

        def counting(data: bytes) -> Steps[None]:
            decoded.append(data)
            yield

        self.patch(sse, "decode_steps", counting)
        for values, count in ((10, 1), (600_000, 1)):
            decoder = SSEDecoder()
            decoder.feed(b"data: [" + b"1," * values)
            decoder.end()
            self.assertEqual(len(decoded), count)

    def test_measured(self) -> None:
        """Beyond the bound in bytes of chunks the aggregate is measured in steps."""
        aggregate = ChatCompletionsAccumulator(max_bytes=2**22)
        aggregate.by_steps = True
        chunk = ServerSentEvent(data=CONTENT % (b"a" * 2**16) + b" " * 2**16)
        steps = []
        for _ in range(40):
            aggregate.feed(chunk)
            steps.append(exhaust(aggregate.pending()))
        self.assertGreater(max(steps), 8)

    def test_error(self) -> None:
        """Of an error of megabytes the beginning is told."""
        for error in (
            {"message": "a" * 2**20},
            {"message": "a", "details": "b" * 2**20, "code": "c" * 2**20},
        ):
            with self.assertRaises(APIError) as raised:
                ChatCompletionsAccumulator().feed(ServerSentEvent(data=json.dumps({"error": error}).encode()))
            self.assertLess(len(raised.exception.envelope()), 2**19 + 1000)


class MergeTests(SynchronousTestCase):
    """Steps that merging a small chunk takes however much came before."""

    def test_sorted_fragments(self) -> None:
        """Fragments of arguments are sorted as they come, not all of them when somebody asks."""
        skip_if_compiled()
        grown = Arguments()
        for _ in range(100):
            grown.extend([b"a"] * 1000)
            self.assertLess(grown._unsorted, arguments._UNSORTED_FRAGMENTS + 1000)
        for _ in range(50_000):
            grown.write("a")
        self.assertLessEqual(grown._unsorted, arguments._UNSORTED_FRAGMENTS)
        self.assertLess(len(grown._current), 50_000)
        self.assertFalse(grown.complete)

    def test_parts_after_text(self) -> None:
        """A long text is not joined when an array of parts follows it, and goes on growing."""
        target: dict[str, Any] = {}
        for _ in range(20):
            merge_delta(target, {"content": "x" * 50_000})
        with mock.patch.object(LongText, "getvalue", side_effect=AssertionError):
            merge_delta(target, {"content": [{"type": "text", "text": "y"}]})
            merge_delta(target, {"content": "z"})
        (part,) = settled(target)["content"]
        self.assertEqual("".join(part["text"].blocks()), "x" * 1_000_000 + "yz")
