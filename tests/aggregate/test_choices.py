"""Tests of what providers send beside the deltas, and in other places than OpenAI does."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.aggregate.chat import ChatCompletionsAccumulator
from stream_proxy.errors import APIError
from tests.aggregate.test_chat import DONE, accumulate, choice, chunk, completion, event, message, text

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
SENSE = {"content": "Hi", "reasoning_content": "hm"}


def only(*entries: dict[str, Any]) -> Any:
    """Return the one choice of chunks with these entries."""
    (found,) = completion(*map(chunk, entries))["choices"]
    return found


def whole(**members: Any) -> dict[str, Any]:
    return {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **members}}


class MessageTests(SynchronousTestCase):
    """Whole messages in a stream."""

    def test_after_deltas(self) -> None:
        """A message after deltas repeats the answer (MiniMax); only what is missing is taken from it."""
        deltas = [choice(delta={"role": "assistant", key: value}) for key, value in SENSE.items()]
        self.assertEqual(only(*deltas, whole(**SENSE))["message"], {"role": "assistant", **SENSE})
        found = only(*deltas, whole(**SENSE, audio={"id": "a"}, refusal=None))["message"]
        self.assertEqual(found, {"role": "assistant", **SENSE, "audio": {"id": "a"}, "refusal": None})
        found = only(
            choice(delta={"audio": {"id": "a", "data": "AA"}}), whole(audio={"data": "AA", "expires_at": 1})
        )
        self.assertEqual(found["message"]["audio"], {"id": "a", "data": "AA", "expires_at": 1})

    def test_calls_after_deltas(self) -> None:
        """Tool calls that only the message has are taken from it, and those of the deltas are kept."""
        calls = [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]
        wanted = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
        spoken = choice(delta={"content": "Hi"})
        self.assertEqual(only(spoken, whole(content="Hi", tool_calls=calls))["message"]["tool_calls"], wanted)
        called = choice(delta={"tool_calls": calls})
        self.assertEqual(only(called, whole(tool_calls=calls))["message"]["tool_calls"], wanted)

    def test_beside_deltas(self) -> None:
        """A message beside each delta is the answer so far (Perplexity)."""
        found = only(
            *(
                choice(delta={"role": "assistant", "content": part}, message={"content": so_far, "v": so_far})
                for part, so_far in (("H", "H"), ("i", "Hi"), ("", "Hi"))
            )
        )
        self.assertEqual(found["message"], {"role": "assistant", "content": "Hi", "v": "Hi"})

    def test_in_place_of_deltas(self) -> None:
        """Where no delta holds anything, messages are merged like deltas."""
        for first in ([], [choice(delta={"role": "assistant", "content": ""})]):
            found = only(*first, *({"index": 0, "message": {"content": part}} for part in "Hi"))
            self.assertEqual(found["message"]["content"], "Hi")

    def test_text_and_parts(self) -> None:
        """Content that comes as text and as parts becomes parts, in the message too (Mistral)."""
        thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
        found = message(
            {"role": "assistant", "content": ""}, {"content": [thinking]}, {"content": "H"}, {"content": "i"}
        )
        self.assertEqual(found["content"], [thinking, {"type": "text", "text": "Hi"}])


class PlaceTests(SynchronousTestCase):
    """Members in other places than OpenAI's, and members that only streams have."""

    def test_usage_in_choice(self) -> None:
        """Usage in a choice moves to the top (Moonshot); where it came there as well, it is dropped."""
        result = completion(chunk(text("a")), chunk(choice(finish="stop", usage=USAGE)))
        self.assertEqual(result["usage"], USAGE)
        self.assertNotIn("usage", result["choices"][0])
        result = completion(chunk(choice(usage={"total_tokens": 1})), chunk(choice(usage=USAGE), usage=None))
        self.assertEqual(result["usage"], USAGE)
        result = completion(chunk(choice(usage={"total_tokens": 1})), chunk(usage=USAGE))
        self.assertEqual((result["usage"], "usage" in result["choices"][0]), (USAGE, False))
        self.assertNotIn("usage", completion(chunk(choice(usage=None))))

    def test_usage_of_groq(self) -> None:
        """Usage in ``x_groq`` moves to the top; the rest of it stays."""
        first, last = (
            chunk(text("a"), x_groq={"id": "r"}),
            chunk(choice(finish="stop"), x_groq={"usage": USAGE}),
        )
        self.assertNotIn("x_groq", completion(chunk(text("a")), last))
        result = completion(first, last)
        self.assertEqual((result["usage"], result["x_groq"]), (USAGE, {"id": "r"}))
        result = completion(
            first, chunk(choice(finish="stop"), usage=USAGE, x_groq={"id": "r", "usage": USAGE})
        )
        self.assertEqual((result["usage"], result["x_groq"]), (USAGE, {"id": "r"}))

    def test_channel(self) -> None:
        """Groq's channel, which only deltas have, is dropped; elsewhere it is a label that stands once."""
        chunks = [choice(delta={"reasoning": part, "channel": "analysis"}) for part in "hm"]
        labelled = completion(*map(chunk, chunks))["choices"][0]["message"]
        self.assertEqual((labelled["reasoning"], labelled["channel"]), ("hm", "analysis"))
        found = completion(*(chunk(each, x_groq={"id": "r"}) for each in chunks))["choices"][0]["message"]
        self.assertEqual(found, {"role": "assistant", "content": None, "reasoning": "hm"})

    def test_text_and_token_id(self) -> None:
        """``text`` and ``token_id`` repeat the delta they are beside or in (Together, Hugging Face)."""
        delta = {"content": "a", "token_id": 7, "text": "a"}
        found = only(*[choice(delta=delta, text="a", token_id=7)] * 2)
        self.assertEqual(found.keys(), choice(logprobs=None, message=0).keys() - {"delta"})
        self.assertEqual(found["message"], {"role": "assistant", "content": "aa"})
        found = only(choice(text="", delta={"content": "", "text": ""}))
        self.assertEqual((found["message"], "text" in found), ({"role": "assistant", "content": ""}, False))

    def test_only_text(self) -> None:
        """A text that repeats nothing is kept whole."""
        self.assertEqual(only(choice(text="H"), choice(text="i"))["text"], "Hi")
        self.assertEqual(message({"text": "H"}, {"text": "i"})["text"], "Hi")

    def test_padding(self) -> None:
        """Mistral's padding at the top is dropped; elsewhere ``p`` is anybody's."""
        result = completion(chunk(text("a"), p="abc"), chunk(choice(delta={"p": 1}), p="ab"))
        self.assertNotIn("p", result)
        self.assertEqual(result["choices"][0]["message"]["p"], 1)

    def test_index_of_choice(self) -> None:
        """The choice's index inside its deltas is dropped (Mistral); another index is not ours to judge."""
        self.assertNotIn("index", message({"index": 0, "content": "a"}, {"index": 0}))
        self.assertEqual(message({"index": 3})["index"], 3)

    def test_filter_offsets(self) -> None:
        """Azure's offsets into the text of a stream are dropped, its filter results are not."""
        found = only(
            choice(
                content_filter_offsets={"check_offset": 1},
                content_filter_results={"hate": {"filtered": False}},
            ),
            text("a"),
        )
        self.assertNotIn("content_filter_offsets", found)
        self.assertEqual(found["content_filter_results"], {"hate": {"filtered": False}})

    def test_legacy_logprobs(self) -> None:
        """All arrays of log probabilities extend, those of the legacy API too."""
        parts = [
            {"tokens": [part], "token_logprobs": [-1.0], "top_logprobs": [{part: -1.0}], "text_offset": [at]}
            for at, part in enumerate("Hi")
        ]
        self.assertEqual(only(*(choice(logprobs=part) for part in parts))["logprobs"], {
            "tokens": ["H", "i"], "token_logprobs": [-1.0, -1.0],
            "top_logprobs": [{"H": -1.0}, {"i": -1.0}], "text_offset": [0, 1]})  # fmt: skip
        self.assertEqual(only(choice(logprobs=[1]), choice(logprobs=[2]))["logprobs"], [1, 2])

    def test_arrays(self) -> None:
        """Arrays beside the delta extend (vLLM's ``token_ids``); arrays at the top are sent again whole."""
        result = completion(
            *(chunk(choice(token_ids=ids), prompt_token_ids=[1]) for ids in ([5], None, [], [6, 7]))
        )
        self.assertEqual(result["choices"][0]["token_ids"], [5, 6, 7])
        self.assertEqual(result["prompt_token_ids"], [1])


class FinishReasonTests(SynchronousTestCase):
    """The finish_reason of a stream that ended without one."""

    def test_inferred(self) -> None:
        """After [DONE] it is that of tool calls if there are any, else ``stop``."""
        call = {"name": "f", "arguments": "{}"}
        for delta, reason in (
            ({"content": "a"}, "stop"),
            ({"tool_calls": [{"index": 0, "id": "a", "function": call}]}, "tool_calls"),
            ({"tool_calls": []}, "stop"),
            ({"function_call": call}, "function_call"),
            ({"audio": {"data": "AA"}}, "stop"),
        ):
            self.assertEqual(only(choice(delta=delta))["finish_reason"], reason)
        self.assertEqual(only(choice(delta={}, finish="length"), choice())["finish_reason"], "length")

    def test_not_without_done(self) -> None:
        """Without [DONE] the stream is not whole."""
        for n, events, ends in (
            (1, [chunk(text("a"))], False),
            (2, [chunk(text("a", finish="stop"))], False),
            (2, [chunk(text("a", finish="stop")), chunk(text("b", 1, finish="stop"))], True),
        ):
            accumulator = accumulate(*events, n=n)
            if ends:
                accumulator.end()
            else:
                self.assertRaises(APIError, accumulator.end)
            self.assertEqual(accumulator.complete, ends)


class MadeIdTests(SynchronousTestCase):
    """Ids of calls that came without."""

    def test_made(self) -> None:
        """It is the same for the same stream, and another one in another choice or completion."""
        call = {"index": 0, "function": {"name": "f", "arguments": "{}"}}

        def ids(*entries: dict[str, Any], **top: Any) -> list[str]:
            found = completion(chunk(*entries, **top))["choices"]
            return [each["message"]["tool_calls"][0]["id"] for each in found]

        both = ids(choice(0, delta={"tool_calls": [call]}), choice(1, delta={"tool_calls": [call]}))
        self.assertEqual(len(set(both)), 2)
        self.assertEqual(ids(choice(delta={"tool_calls": [call]})), both[:1])
        self.assertNotEqual(ids(choice(delta={"tool_calls": [call]}), id="c2"), both[:1])


class HeldTests(SynchronousTestCase):
    """What is held counts, not only what is read from it."""

    def test_snapshots(self) -> None:
        """Arguments that come again and again in full are bounded by all that is held for them."""
        accumulator = ChatCompletionsAccumulator(max_bytes=10_000)
        entry = choice(
            delta={"tool_calls": [{"index": 0, "function": {"arguments": '{"a":"%s"}' % ("x" * 500)}}]}
        )
        fed = 0
        with self.assertRaises(APIError) as caught:
            for _ in range(100):
                accumulator.feed(chunk(entry))
                fed += 500
        self.assertIn("maxResponseBytes", str(caught.exception))
        self.assertLess(fed, 12_000)
        few = ChatCompletionsAccumulator(max_bytes=2_000)
        for _ in range(3):
            few.feed(chunk(entry))
        few.feed(DONE)
        self.assertTrue(few.complete)
        few.feed(event({}))
