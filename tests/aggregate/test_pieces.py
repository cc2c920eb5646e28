"""Pieces of JSON: large results are put together step by step, and are what they would be at once."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.aggregate import chat, long_text, pieces
from stream_proxy.aggregate.accumulator import EventAccumulator
from stream_proxy.aggregate.chat import ChatCompletionsAccumulator
from stream_proxy.aggregate.long_text import LongText, repeated_blocks
from stream_proxy.aggregate.pieces import PIECE_BYTES, PieceEncoder
from stream_proxy.aggregate.responses import ResponseAccumulator
from stream_proxy.aggregate.sse import ServerSentEvent
from stream_proxy.errors import APIError
from stream_proxy.flows.pacing import TURN_BYTES
from stream_proxy.lenient_json import count_values, encode_json
from tests.support.properties import examples

#: Texts of all kinds, lone surrogates among them.
TEXTS = st.text(
    st.characters() | st.characters(categories=["Cs"]) | st.sampled_from('"\\\n,:[{é😀'), max_size=40
)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | TEXTS,
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(TEXTS, inner, max_size=8),
    max_leaves=30,
)


def finished(
    accumulator: EventAccumulator, *payloads: Any, done: bytes = b"[DONE]"
) -> tuple[bytes, list[int]]:
    """Return a result that is put together by steps, and what these cost."""
    accumulator.by_steps = True
    for payload in payloads:
        accumulator.feed(ServerSentEvent(payload.get("type", "message"), json.dumps(payload).encode()))
    accumulator.feed(ServerSentEvent(data=done))
    costs = list(accumulator.steps())
    return b"".join(accumulator.result_pieces()), costs


def chunk(**delta: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta}]}


class EncoderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(pieces, "PIECE_BYTES", 24)

    @examples(300)
    @given(TREES)
    def test_same_bytes(self, tree: object) -> None:
        """The pieces are the JSON of the whole, and their values are counted as its are."""
        encoder = PieceEncoder()
        whole = b"".join(encoder.pieces(tree))
        self.assertEqual(whole, encode_json(tree))
        self.assertEqual(encoder.values, count_values(whole))

    @examples(100)
    @given(st.lists(TEXTS, max_size=5), st.lists(st.integers(), max_size=5))
    def test_other_values(self, blocks: list[str], entries: list[int]) -> None:
        """Long texts, JSON that is encoded, and the inside of a string stand for what they are."""
        text = LongText(blocks[:2])
        for block in blocks[2:]:
            text.write(block)
        inside, raw = bytearray(encode_json("".join(blocks))[1:-1]), Raw(encode_json(entries))
        tree = {"a": [text, raw], "b": inside, "c": raw}
        whole = "".join(blocks)
        self.assertEqual(
            b"".join(PieceEncoder().pieces(tree)), encode_json({"a": [whole, raw], "b": whole, "c": raw})
        )

    def test_small_pieces(self) -> None:
        """No piece is much larger than it has to be, whatever the shape."""
        values: list[object] = [
            ["a"] * 1000,
            {str(n): n for n in range(1000)},
            "é" * 1000,
            [[["a" * 1000]]],
            [{}] * 1000,
        ]
        for value in values:
            sizes = [len(piece) for piece in PieceEncoder().pieces(value)]
            self.assertLess(max(sizes), 24 * 6)
            self.assertGreater(len(sizes), 10)


class TextTests(SynchronousTestCase):
    @examples(100)
    @given(st.lists(st.text(max_size=10)), st.text(max_size=10), st.integers(0, 50))
    def test_blocks(self, fragments: list[str], label: str, times: int) -> None:
        """However a text is written, its blocks are the whole."""
        self.patch(long_text, "_BLOCK", 16)
        text = LongText(repeated_blocks(label, times))
        for fragment in fragments:
            text.write(fragment)
        whole = label * times + "".join(fragments)
        self.assertEqual((text.getvalue(), "".join(text.blocks()), text.size), (whole, whole, len(whole)))
        self.assertEqual(repr(text), repr(whole[:16]))


class ResultTests(SynchronousTestCase):
    def at_once(self, *payloads: Any) -> bytes:
        self.patch(chat, "_SMALL", 2**40)
        whole, costs = finished(ChatCompletionsAccumulator(), *payloads)
        self.assertEqual(costs, [])
        self.patch(chat, "_SMALL", 0)
        return whole

    @examples(100)
    @given(st.lists(st.dictionaries(st.sampled_from(["content", "x", "y", "refusal"]), TREES, max_size=3)))
    def test_chat(self, deltas: list[dict[str, Any]]) -> None:
        """A chat completion by steps is the one that is made at once."""
        self.patch(pieces, "PIECE_BYTES", 32)
        payloads = [chunk(**delta) for delta in [{"role": "assistant"}, *deltas]]
        whole = self.at_once(*payloads)
        self.assertEqual(finished(ChatCompletionsAccumulator(), *payloads)[0], whole)

    def test_arguments(self) -> None:
        """Arguments of every dialect are read by steps as at once."""
        dialects = (["{}", '{"a":1}'], ['{"a"', '{"a":1}'], ['{"a":1}'] * 20_000, ["{", '"', "a"], [" "] * 9)
        for fragments in dialects:
            calls = [{"index": 0, "function": {"name": "f", "arguments": part}} for part in fragments]
            payloads = [chunk(tool_calls=[call]) for call in calls]
            whole = self.at_once(*payloads)
            self.assertEqual(finished(ChatCompletionsAccumulator(), *payloads)[0], whole)

    def test_long_texts(self) -> None:
        """Of megabytes of text or arguments each step is a small part."""
        arguments = {"index": 0, "function": {"name": "f", "arguments": "x" * 2**20}}
        for delta, count in (
            ({"content": "é" * 2**20}, 3),
            ({"x": "ab" * 2**19}, 3),
            ({"tool_calls": [arguments]}, 13),
        ):
            payloads = [chunk(**delta)] * count
            accumulator = ChatCompletionsAccumulator()
            whole, costs = finished(accumulator, *payloads, chunk(x="end"))
            self.assertLess(max(map(len, accumulator.result_pieces())), 3 * PIECE_BYTES)
            self.assertGreater(len(costs), len(whole) // PIECE_BYTES // 3)
            self.assertLess(max(costs), TURN_BYTES)
            message = json.loads(whole)["choices"][0]["message"]
            texts = [message["content"], message.get("x"), *_arguments(message)]
            self.assertIn(max((text for text in texts if text), key=len)[:9], ("é" * 9, "ababababa", "x" * 9))

    def test_id_of_long_call(self) -> None:
        """A call without an id gets one that depends on its text alone, not on how that came."""
        found = set()
        for cut in (2**20, 2**18):
            fragments = ["x" * cut] * (13 * 2**20 // cut)
            payloads = [
                chunk(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": part}}])
                for part in fragments
            ]
            whole, _ = finished(ChatCompletionsAccumulator(), *payloads)
            found.add(json.loads(whole)["choices"][0]["message"]["tool_calls"][0]["id"])
        self.assertEqual(len(found), 1)

    def test_bounds(self) -> None:
        """A result beyond a bound is refused by a step, and frees what was held."""
        for limits, code in (
            ({"max_bytes": 300_000}, "response_too_large"),
            ({"max_values": 40}, "response_too_many_values"),
        ):
            accumulator = ChatCompletionsAccumulator(**limits)
            with self.assertRaises(APIError) as raised:
                finished(accumulator, chunk(content="x" * 280_000), chunk(x=["y" * 500] * 50))
            self.assertEqual(raised.exception.code, code)
            self.assertFalse(accumulator.complete)

    def test_rebuilt_response(self) -> None:
        """A Response is rebuilt by steps from texts that are long, and from many."""
        for count, text in ((2, "é" * 2**20), (2000, "a")):
            deltas = [
                {
                    "type": "response.output_text.delta",
                    "output_index": n,
                    "item_id": f"m{n}",
                    "content_index": 0,
                    "delta": text,
                }
                for n in range(count)
            ]
            accumulator = ResponseAccumulator()
            whole, costs = finished(
                accumulator, *deltas, {"type": "response.completed", "response": {"id": "r", "output": []}}
            )
            [message] = json.loads(whole)["output"]
            self.assertEqual([part["text"] for part in message["content"]], [text] * count)
            self.assertLess(max(map(len, accumulator.result_pieces())), 3 * PIECE_BYTES)
            self.assertLess(max(costs), TURN_BYTES)


def _arguments(message: dict[str, Any]) -> list[str]:
    return [call["function"]["arguments"] for call in message.get("tool_calls", ())]
