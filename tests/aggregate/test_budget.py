"""Bounds of what a stream may make of few bytes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.aggregate.accumulator import EventAccumulator
from stream_proxy.aggregate.arrays import identity
from stream_proxy.aggregate.chat import ChatCompletionsAccumulator
from stream_proxy.aggregate.merge import merge_delta, settled
from stream_proxy.aggregate.responses import ResponseAccumulator
from stream_proxy.aggregate.sse import ServerSentEvent
from stream_proxy.errors import APIError

#: Python's hash of an integer is its remainder by this.
MODULUS = 2**61 - 1
DONE = ServerSentEvent("message", b"[DONE]")


def event(data: Any) -> ServerSentEvent:
    return ServerSentEvent("message", data if isinstance(data, bytes) else json.dumps(data).encode())


def delta(**members: Any) -> ServerSentEvent:
    return event({"choices": [{"index": 0, "delta": members}]})


class BudgetTestCase(SynchronousTestCase):
    """Accumulators that are fed until they refuse."""

    def assert_refused(self, accumulator: EventAccumulator, *events: ServerSentEvent) -> int:
        """Check that one of `events` is one too many; return how many were not."""
        for count, each in enumerate(events):
            try:
                accumulator.feed(each)
            except APIError as error:
                self.assertEqual((error.status, error.code), (502, "response_too_many_values"))
                self.assertIs(error.should_retry, False)
                self.assertIn("maxResponseValues", error.message)
                return count
        raise AssertionError("all of it was taken")


class ChatTests(BudgetTestCase):
    """Values of chat completions."""

    def test_one_event(self) -> None:
        """An event with too many values is refused before it is decoded, whatever they are."""
        for values in (b"{}", b"[]", b'{"a":1}', b'"a"', b"1.5", b"null"):
            data = b'{"choices":[{"delta":{"a":[' + b",".join([values] * 1000) + b"]}}]}"
            self.assert_refused(ChatCompletionsAccumulator(max_values=1000), event(data))

    def test_text_holds_separators(self) -> None:
        """Text counts as one value, whatever is in it."""
        accumulator = ChatCompletionsAccumulator(max_values=100)
        accumulator.feed(delta(content="{a: [1, 2, 3]}, " * 1000))
        accumulator.feed(DONE)
        self.assertTrue(accumulator.complete)

    def test_what_flows_by(self) -> None:
        """What replaces or continues what is there does not add up."""
        accumulator = ChatCompletionsAccumulator(max_values=100)
        for _ in range(2000):
            accumulator.feed(
                event(
                    {
                        "id": "c",
                        "usage": {"total_tokens": 1},
                        "choices": [
                            {
                                "index": 0,
                                "delta": {"tool_calls": [{"index": 0, "function": {"arguments": "x"}}]},
                            }
                        ],
                    }
                )
            )
        accumulator.feed(DONE)
        self.assertTrue(accumulator.complete)

    def test_choices(self) -> None:
        """There can be 128 choices, as with OpenAI, but not any number."""
        for count, taken in ((128, True), (129, False)):
            accumulator = ChatCompletionsAccumulator(max_values=10_000)
            events = [event({"choices": [{"index": each, "delta": {}}]}) for each in range(count)]
            if taken:
                for each in events:
                    accumulator.feed(each)
            else:
                self.assertEqual(self.assert_refused(accumulator, *events), 128)

    def test_many_events(self) -> None:
        """What adds up over many events is refused long before it is large."""
        shapes = (
            lambda at: delta(tool_calls=[{"index": at * 50 + each} for each in range(50)]),
            lambda at: delta(annotations=[{} for _ in range(50)]),
            lambda at: delta(**{f"a{at}-{each}": [] for each in range(50)}),
            lambda at: delta(a={f"{at}-{each}": {"b": None} for each in range(50)}),
        )
        for shape in shapes:
            events = [shape(at) for at in range(500)]
            taken = self.assert_refused(ChatCompletionsAccumulator(max_values=1000), *events)
            self.assertLess(taken * 50, 20_000)

    def test_kept_values(self) -> None:
        """So are values that are kept as they came."""
        shapes: tuple[Callable[[int], Any], ...] = (
            lambda at: {"choices": [{"logprobs": {"content": [[]] * 50}}]},
            lambda at: {"choices": [{"delta": {"a": [[[]]] * 50}}]},
            lambda at: {"choices": [{f"a{at}": [1] * 50}]},
            lambda at: {"choices": [], f"a{at}": {"b": [1] * 50}},
        )
        for shape in shapes:
            events = [event(shape(at)) for at in range(1000)]
            taken = self.assert_refused(ChatCompletionsAccumulator(max_values=1000), *events)
            self.assertLess(taken * 50, 10_000)

    def test_one_step(self) -> None:
        """An event that is too much to merge in one step is refused before that."""
        shapes: tuple[Any, ...] = (
            {"choices": [{"index": 0}] * 20_000},
            {"choices": [{"delta": {"a": [{}] * 20_000}}]},
            {"choices": [{"delta": {"a": {"b": [{}] * 20_000}}}]},
            {"choices": [{"delta": {f"{each}": 1 for each in range(20_000)}}]},
            {"choices": [{f"{each}": 1 for each in range(20_000)}]},
            {"choices": [], "a": {f"{each}": 1 for each in range(20_000)}},
            {"choices": [], **{f"{each}": 1 for each in range(20_000)}},
        )
        for shape in shapes:
            self.assert_refused(ChatCompletionsAccumulator(), event(shape))

    def test_log_probabilities(self) -> None:
        """Log probabilities of a whole response may come in one event."""
        entry = {"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}
        accumulator = ChatCompletionsAccumulator()
        accumulator.feed(event({"choices": [{"delta": {}, "logprobs": {"content": [entry] * 20_000}}]}))
        accumulator.feed(DONE)
        self.assertEqual(len(accumulator.result()["choices"][0]["logprobs"]["content"]), 20_000)

    def test_index_beyond_bounds(self) -> None:
        """A choice whose index no reader of JSON has exactly is placed by its position."""
        accumulator = ChatCompletionsAccumulator()
        for index in (MODULUS, 2 * MODULUS, -(2**70)):
            accumulator.feed(event({"choices": [{"index": index, "delta": {"content": "x"}}]}))
        accumulator.feed(DONE)
        [choice] = accumulator.result()["choices"]
        self.assertEqual((choice["index"], choice["message"]["content"]), (0, "xxx"))


class IndexTests(SynchronousTestCase):
    """Indices and ids of entries."""

    def test_no_collisions(self) -> None:
        """Numbers that hash alike are told apart without comparing each with all."""
        message: dict[str, Any] = {}
        for at in [*range(1, 200), *range(1, 200)]:
            for key in ("index", "id"):
                merge_delta(message, {key: [{key: at * MODULUS, "text": "x"}]})
        for key, known in (("index", message["index"]._by_index), ("id", message["id"]._by_id)):
            self.assertEqual(len({hash(place) for place in known}), 199)
            self.assertEqual(
                [(entry[key], entry["text"]) for entry in settled(message)[key]],
                [(at * MODULUS, "xx") for at in range(1, 200)],
            )

    def test_huge_integers(self) -> None:
        """Integers beyond what Python writes in decimal are told apart, with either sign."""
        huge = 10 ** (sys.int_info.default_max_str_digits + 100)
        found = [identity(number) for number in (huge, huge + 1, -huge, huge)]
        self.assertEqual((len(set(found)), found[0]), (3, found[3]))
        self.assertTrue(all(isinstance(each, str) for each in found))


class ResponseTests(BudgetTestCase):
    """Values of Responses."""

    def test_one_event(self) -> None:
        """An event with too many values is refused, at whatever depth they are."""
        for data in (
            b'{"type":"response.completed","response":{"output":[%b]}}' % b",".join([b"[]"] * 1000),
            b"{%b}" % b",".join(b'"%d":1' % each for each in range(1000)),
        ):
            self.assert_refused(ResponseAccumulator(max_values=1000), event(data))

    def test_items(self) -> None:
        """Items are bounded in number, since small ones take more than their bytes."""
        for item in (
            {"type": "response.output_item.done", "item": {}},
            {"type": "response.output_text.done", "text": ""},
        ):
            events = [event({**item, "output_index": each}) for each in range(5000)]
            self.assertEqual(self.assert_refused(ResponseAccumulator(max_values=1000), *events), 4096)

    def test_index_beyond_bounds(self) -> None:
        """Items whose index no reader of JSON has exactly stay in their order."""
        accumulator = ResponseAccumulator()
        for at in range(1, 4):
            item = {"type": "response.output_item.done", "output_index": at * MODULUS, "item": {"n": at}}
            accumulator.feed(event(item))
        accumulator.feed(event({"type": "response.completed", "response": {"output": []}}))
        self.assertEqual([item["n"] for item in accumulator.result()["output"]], [1, 2, 3])
