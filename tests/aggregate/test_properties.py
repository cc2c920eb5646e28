"""Tests of decoder and accumulators together: a result depends on the events alone."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.aggregate.accumulator import EventAccumulator
from stream_proxy.aggregate.chat import ChatCompletionsAccumulator
from stream_proxy.aggregate.responses import ResponseAccumulator
from stream_proxy.aggregate.sse import ServerSentEvent, SSEDecoder
from stream_proxy.errors import APIError
from tests.support.properties import examples

CHAT: list[Any] = [
    {"id": "c", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "é"}}]},
    {"choices": [{"index": 0, "delta": {"content": "😀\r\n", "tool_calls": [{"index": 1, "id": "a"}]}}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 1, "function": {"arguments": "{"}}]}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": {"total_tokens": 1}},
]
RESPONSES: list[Any] = [
    {"type": "response.output_item.done", "output_index": 1, "item": {"id": "é"}},
    {"type": "response.output_text.delta", "delta": "😀"},
    {"type": "response.output_item.done", "output_index": 0, "item": {"id": "a"}},
    {"type": "response.completed", "response": {"id": "r", "output": []}},
]
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
COMMENT_LINES = st.lists(
    st.sampled_from([b": ping", b":", b"id: 7", b"retry: 5", b"x-unknown: 1"]), max_size=2
)


@st.composite
def streams(draw: st.DrawFn, payloads: list[Any], last: bytes) -> list[bytes]:
    """Generate the reads of an event stream with `payloads`, in one of many valid spellings."""
    ends = draw(st.one_of(ENDS.map(lambda end: st.just(end)), st.just(ENDS)))
    out = b"\xef\xbb\xbf" if draw(st.booleans()) else b""
    for payload in [
        *(json.dumps(p, ensure_ascii=False).encode() for p in payloads),
        *([last] if last else []),
    ]:
        lines = draw(COMMENT_LINES)
        space = b" " if draw(st.booleans()) else b""
        if draw(st.booleans()) and b", " in payload:  # a line end between members is white space to JSON
            head, tail = payload.split(b", ", 1)
            lines += [b"data:" + space + head + b",", b"data:" + tail]
        else:
            lines.append(b"data:" + space + payload)
        lines += draw(COMMENT_LINES)
        end = draw(ends)  # one for an event: CR before the LF of a blank line would be a single line end
        out += b"".join(line + end for line in lines) + end
    cuts = sorted(draw(st.lists(st.integers(0, len(out)), max_size=12)))
    return [out[a:b] for a, b in zip([0, *cuts], [*cuts, len(out)], strict=True)]


def aggregate(accumulator: EventAccumulator, reads: list[bytes]) -> bytes:
    decoder = SSEDecoder()
    for read in reads:
        for event in decoder.feed(read):
            accumulator.feed(event)
    accumulator.end(decoder.stray())
    return accumulator.result_bytes()


class SpellingTests(SynchronousTestCase):
    @examples(150)
    @given(streams(CHAT, b"[DONE]"))
    def test_chat(self, reads: list[bytes]) -> None:
        """Line ends, comments, BOM, several data lines and cuts between reads change no byte."""
        self.assertEqual(
            json.loads(aggregate(ChatCompletionsAccumulator(), reads)),
            {
                "id": "c",
                "object": "chat.completion",
                "choices": [
                    {
                        "index": 0,
                        "message": {
                            "role": "assistant",
                            "content": "é😀\r\n",
                            "tool_calls": [{"id": "a", "type": "function", "function": {"arguments": "{"}}],
                        },
                        "logprobs": None,
                        "finish_reason": "stop",
                    }
                ],
                "usage": {"total_tokens": 1},
            },
        )
        plain = [b"data: " + json.dumps(payload).encode() + b"\n\n" for payload in CHAT]
        self.assertEqual(
            aggregate(ChatCompletionsAccumulator(), reads), aggregate(ChatCompletionsAccumulator(), plain)
        )

    @examples(150)
    @given(streams(RESPONSES, b""))
    def test_responses(self, reads: list[bytes]) -> None:
        """The same holds for Responses, except that a line end inside the Response is white space."""
        self.assertEqual(
            json.loads(aggregate(ResponseAccumulator(), reads)),
            {"id": "r", "output": [{"id": "a"}, {"id": "é"}]},
        )
        self.assertEqual(
            aggregate(ResponseAccumulator(), reads), aggregate(ResponseAccumulator(), [b"".join(reads)])
        )


KEYS = st.sampled_from(
    [
        "id",
        "object",
        "created",
        "usage",
        "choices",
        "index",
        "delta",
        "message",
        "logprobs",
        "content",
        "error",
        "code",
        "finish_reason",
        "tool_calls",
        "function",
        "name",
        "type",
        "response",
        "output",
        "item",
        "output_index",
        "text",
        "arguments",
        "function_call",
        "reasoning_details",
        "thinking_blocks",
        "token_id",
        "x_groq",
    ]
)
WORDS = st.sampled_from(
    ["", "a", "stop", "error", "\ud83d", "response.completed", "response.output_item.done"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.just(10**30) | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=15,
)
CHUNKS = st.dictionaries(KEYS, JSON, max_size=5) | st.fixed_dictionaries(
    {"choices": st.lists(st.dictionaries(KEYS, JSON, max_size=6), max_size=3)}
)
NAMES = st.sampled_from(
    [
        "message",
        "message",
        "error",
        "ping",
        "response.completed",
        "response.failed",
        "response.output_item.done",
        "response.output_text.done",
    ]
)
EVENTS = st.builds(
    ServerSentEvent,
    NAMES,
    (CHUNKS | JSON).map(lambda value: json.dumps(value).encode())
    | st.sampled_from([b"[DONE]", b"{", b"", b" "]),
)


class HostileTests(SynchronousTestCase):
    @examples(300)
    @given(
        st.lists(EVENTS, max_size=6), st.sampled_from([b"", b'{"error": 1}', b"{}", b"\xff"]), st.booleans()
    )
    def test_only_api_errors(self, events: list[ServerSentEvent], stray: bytes, clean: bool) -> None:
        """Arbitrary events lead to a result that is strict JSON, or to an APIError."""
        accumulators: list[EventAccumulator] = [ChatCompletionsAccumulator(), ResponseAccumulator()]
        for accumulator in accumulators:
            try:
                for event in events:
                    accumulator.feed(event)
                accumulator.end(stray, clean=clean)
            except APIError as error:
                self.assertIs(self.assertRaises(APIError, accumulator.result), error)
                error.envelope().decode()
                continue
            self.assertTrue(accumulator.complete)
            json.loads(accumulator.result_bytes(), parse_constant=self.fail)
            accumulator.result()
