"""Tests of the chat accumulator: complete and incomplete streams, and the members beside the deltas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.aggregate.chat import ChatCompletionsAccumulator
from stream_proxy.aggregate.sse import ServerSentEvent
from stream_proxy.errors import APIError, IncompleteStreamError
from tests.support.compiled import skip_if_compiled

DONE = ServerSentEvent(data=b"[DONE]")


def event(value: Any, name: str = "message") -> ServerSentEvent:
    return ServerSentEvent(name, value if isinstance(value, bytes) else json.dumps(value).encode())


def chunk(*choices: Any, **top: Any) -> ServerSentEvent:
    fields = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "m",
        "choices": list(choices),
    }
    return event({**fields, **top})


def choice(index: int | None = 0, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    made = {"index": index, "delta": {}, "finish_reason": finish, **fields}
    return {key: value for key, value in made.items() if not (key == "index" and value is None)}


def text(content: str, index: int | None = 0, finish: str | None = None) -> dict[str, Any]:
    return choice(index, finish, delta={"content": content})


def accumulate(*events: ServerSentEvent, **options: Any) -> ChatCompletionsAccumulator:
    accumulator = ChatCompletionsAccumulator(**options)
    for each in events:
        accumulator.feed(each)
    return accumulator


def completion(*events: ServerSentEvent) -> Any:
    return accumulate(*events, DONE).result()


def message(*deltas: dict[str, Any]) -> Any:
    return completion(*(chunk(choice(delta=delta)) for delta in deltas))["choices"][0]["message"]


class ChatTestCase(SynchronousTestCase):
    def assertFails(self, accumulator: ChatCompletionsAccumulator, *args: Any, **kwargs: Any) -> APIError:
        """Check that `end` raises, and that the error stays."""
        error = self.assertRaises(APIError, accumulator.end, *args, **kwargs)
        self.assertIs(self.assertRaises(APIError, accumulator.result_bytes), error)
        accumulator.end()
        accumulator.feed(DONE)
        self.assertFalse(accumulator.complete)
        assert isinstance(error, APIError)
        return error

    def assertBreaks(self, *events: ServerSentEvent, **options: Any) -> APIError:
        """Check that the last of `events` raises, and that the error stays."""
        accumulator = accumulate(*events[:-1], **options)
        error = self.assertRaises(APIError, accumulator.feed, events[-1])
        assert isinstance(error, APIError)
        self.assertIs(self.assertRaises(APIError, accumulator.result), error)
        accumulator.feed(events[-1])
        return error


class ResultTests(ChatTestCase):
    def test_whole(self) -> None:
        """The result is that of the non-streaming API, in the order of its keys."""
        result = accumulate(
            chunk(choice(delta={"role": "assistant", "content": ""}), service_tier="default"),
            chunk(text("Hel")),
            chunk(text("lo")),
            chunk(choice(finish="stop")),
            chunk(usage={"total_tokens": 3}),
            DONE,
        ).result_bytes()
        self.assertEqual(
            result,
            b'{"id":"c1","object":"chat.completion","created":7,"model":"m","choices":[{"index":0,"message":'
            b'{"role":"assistant","content":"Hello"},"logprobs":null,"finish_reason":"stop"}],'
            b'"usage":{"total_tokens":3},"service_tier":"default"}',
        )

    def test_defaults(self) -> None:
        """Without them the role is assistant, content and logprobs are null, the finish_reason is stop."""
        self.assertEqual(
            completion(chunk(choice()))["choices"],
            [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
        )
        self.assertEqual(message({"role": "", "content": None})["role"], "assistant")
        self.assertEqual(message({"role": "developer"})["role"], "developer")

    def test_choices(self) -> None:
        """Choices may interleave, merge by index, and are sorted; without an index the position counts."""
        found = completion(chunk(text("b", 1)), chunk(text("a", 0), text("b", 1)), chunk(text("a", 0)))[
            "choices"
        ]
        self.assertEqual([(c["index"], c["message"]["content"]) for c in found], [(0, "aa"), (1, "bb")])
        found = completion(chunk(text("a", None), text("b", None)), chunk(text("a", None), text("b", None)))[
            "choices"
        ]
        self.assertEqual([(c["index"], c["message"]["content"]) for c in found], [(0, "aa"), (1, "bb")])

    def test_whole_message(self) -> None:
        """A whole message merges like a delta, unless it is beside one, which it repeats (Perplexity)."""
        whole = {"role": "assistant", "content": "Hi"}
        self.assertEqual(completion(chunk({"index": 0, "message": whole}))["choices"][0]["message"], whole)
        self.assertEqual(
            completion(chunk({"index": 0, "message": whole, "delta": {}}))["choices"][0]["message"], whole
        )
        both = chunk(choice(delta={"content": "Hi"}, message=whole))
        self.assertEqual(completion(both)["choices"][0]["message"], whole)

    def test_tool_call_index_removed(self) -> None:
        """The index of tool calls is removed; other indexes stay."""
        found = message(
            {"tool_calls": [{"index": 1, "id": "a", "function": {"name": "f", "arguments": ""}}]},
            {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}, 5]},
            {"images": [{"index": 0, "image_url": {"url": "u"}}]},
        )
        call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        self.assertEqual(found["tool_calls"], [call, 5])
        self.assertEqual(found["images"], [{"index": 0, "image_url": {"url": "u"}}])

    def test_logprobs(self) -> None:
        """Logprobs extend token by token, even by equal ones; null does not remove them."""
        token = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [], "index": 0, "id": "x"}
        result = completion(
            chunk(choice(logprobs=None)),
            chunk(choice(logprobs={"content": [token], "refusal": None})),
            chunk(choice(logprobs={"content": [token, token], "refusal": [token]})),
            chunk(choice(logprobs={"content": None, "refusal": [token], "v": 1})),
            chunk(choice(logprobs=None)),
        )
        self.assertEqual(
            result["choices"][0]["logprobs"], {"content": [token] * 3, "refusal": [token] * 2, "v": 1}
        )

    def test_finish_reason(self) -> None:
        """The last finish_reason that is not empty wins."""
        found = completion(*(chunk(choice(finish=f)) for f in ("stop", "tool_calls", "", None)))["choices"][0]
        self.assertEqual(found["finish_reason"], "tool_calls")

    def test_beside_delta(self) -> None:
        """Vendor fields of a choice: objects merge, arrays extend, else the last that is not null wins."""
        found = completion(
            chunk(choice(content_filter_results={"hate": {"filtered": False}}, token_ids=[1], stop="a")),
            chunk(choice(content_filter_results={"hate": {"severity": "safe"}}, token_ids=[2], stop=None)),
        )["choices"][0]
        self.assertEqual(found["content_filter_results"], {"hate": {"filtered": False, "severity": "safe"}})
        self.assertEqual((found["token_ids"], found["stop"]), ([1, 2], "a"))

    def test_first_of_id_created_model(self) -> None:
        """The first id, created and model that are not empty win (Azure's first chunk has empty ones)."""
        result = completion(
            chunk(id="", created=0, model="", prompt_filter_results=[1]),
            chunk(choice(), id=None), chunk(choice(), id="c2", created=8, model="n"),
        )  # fmt: skip
        self.assertEqual((result["id"], result["created"], result["model"]), ("c2", 7, "m"))
        self.assertEqual(result["prompt_filter_results"], [1])

    def test_usage(self) -> None:
        """Usage is never summed; the fields of a later object replace those of an earlier one."""
        result = completion(
            chunk(choice(), usage={"a": 1, "b": {"c": 1}}), chunk(usage=None),
            chunk(usage={"a": 2, "b": {"d": None}}), chunk(usage=[]),
        )  # fmt: skip
        self.assertEqual(result["usage"], {"a": 2, "b": {"c": 1, "d": None}})
        self.assertEqual(completion(chunk(usage=None))["usage"], None)

    def test_top_level(self) -> None:
        """Strings and arrays are replaced, objects merge, obfuscation is removed, unknown fields stay."""
        result = completion(
            chunk(choice(), citations=["a"], tier="x", x_groq={"id": 1}, obfuscation="zz", v=None, w=1),
            chunk(choice(), citations=["a", "b"], tier="y", x_groq={"usage": 2}, obfuscation="z", w=None),
            chunk(citations=None, tier=None, x_groq=None, v=False),
        )
        self.assertEqual(result["citations"], ["a", "b"])
        self.assertEqual(
            (result["tier"], result["x_groq"], result["v"], result["w"]),
            ("y", {"id": 1, "usage": 2}, False, 1),
        )
        self.assertNotIn("obfuscation", result)
        self.assertEqual(result["object"], "chat.completion")

    def test_pretty_padding(self) -> None:
        """Obfuscation is dropped inside choices and deltas as well."""
        found = completion(chunk(choice(delta={"content": "a", "obfuscation": "x"}, obfuscation="y")))
        self.assertNotIn("obfuscation", json.dumps(found))

    def test_reasoning(self) -> None:
        """Reasoning of DeepSeek and OpenRouter is kept, and its details merge by index."""
        detail = {"type": "reasoning.text", "index": 0, "format": "f"}
        found = message(
            {"reasoning_content": "a", "content": None, "reasoning_details": [{**detail, "text": "x"}]},
            {"reasoning_content": "b", "reasoning_details": [{**detail, "text": "y", "signature": "s"}]},
            {"content": "c"},
        )
        self.assertEqual((found["reasoning_content"], found["content"]), ("ab", "c"))
        self.assertEqual(found["reasoning_details"], [{**detail, "text": "xy", "signature": "s"}])

    def test_split_surrogates(self) -> None:
        """A surrogate pair split over two deltas becomes one character; NaN becomes null."""
        halves = (
            b'{"choices":[{"index":0,"delta":{"content":"%s"}}],"x":NaN}' % h
            for h in (b"\\ud83d", b"\\ude00")
        )
        result = completion(*map(event, halves))
        self.assertEqual((result["choices"][0]["message"]["content"], result["x"]), ("😀", None))


class EndTests(ChatTestCase):
    def test_done(self) -> None:
        """[DONE], even with blanks around it, completes the result; later events have no effect."""
        accumulator = accumulate(chunk(text("a")))
        self.assertRaises(IncompleteStreamError, accumulator.result)
        self.assertFalse(accumulator.complete)
        accumulator.feed(event(b" [DONE] "))
        self.assertTrue(accumulator.complete)
        before = accumulator.result_bytes()
        accumulator.feed(chunk(text("b")))
        accumulator.feed(event(b"rubbish"))
        accumulator.end(b'{"error":"x"}', clean=False)
        self.assertEqual(accumulator.result_bytes(), before)

    def test_done_after_empty_choices(self) -> None:
        """After an empty list of choices [DONE] completes the result."""
        self.assertEqual(completion(chunk())["choices"], [])

    def test_done_too_early(self) -> None:
        """[DONE] before any choices is an error."""
        for early in ((DONE,), (event({"id": "x"}), DONE)):
            error = self.assertBreaks(*early)
            self.assertEqual((error.status, error.type), (502, "upstream_error"))
            self.assertIn("ended without", error.message)

    def test_clean_end(self) -> None:
        """Without [DONE] a clean end completes the result if every choice has a finish_reason."""
        accumulator = accumulate(chunk(text("a", finish="stop")))
        accumulator.end()
        self.assertEqual(accumulator.result()["choices"][0]["message"]["content"], "a")

    def test_broken_ends(self) -> None:
        """Without finish_reason, with too few choices or none, or after an unclean end there is an error."""
        for events, options, clean in [
            ([chunk(text("a"))], {}, True),
            ([chunk(text("a", finish=""))], {}, True),
            ([chunk(text("a", finish="stop"), text("b", 1))], {}, True),
            ([chunk(text("a", finish="stop"))], {"n": 2}, True),
            ([chunk(text("a", finish="stop"))], {}, False),
            ([chunk()], {}, True),
            ([], {}, True),
        ]:
            error = self.assertFails(accumulate(*events, **options), clean=clean)
            self.assertEqual((error.status, error.type), (502, "upstream_error"))
            self.assertIn("ended without", error.message)

    def test_stray_error(self) -> None:
        """A bare JSON error at the end becomes the call's error, even after a finish_reason."""
        stray = b'{"error": {"message": "m", "code": 429}}'
        for last in (chunk(text("a")), chunk(text("a", finish="stop"))):
            error = self.assertFails(accumulate(last), stray)
            self.assertEqual((error.status, error.message), (429, "m"))
        error = self.assertFails(
            accumulate(chunk(text("a"))), b'{"message": "m", "type": "rate_limit_error"}'
        )
        self.assertEqual((error.status, error.message), (429, "m"))

    def test_stray_rubbish(self) -> None:
        """Stray lines without an error do not matter in a complete stream."""
        for stray in (b"rubbish", b"[1]", b'{"a":1}', b'{"error":null}'):
            accumulator = accumulate(chunk(text("a", finish="stop")))
            accumulator.end(stray)
            self.assertTrue(accumulator.complete)


class ErrorTests(ChatTestCase):
    def test_error_in_chunk(self) -> None:
        """An error that is not null ends the call, whether it is an object or a string."""
        error = self.assertBreaks(chunk(text("a")), chunk(error={"message": "m", "code": 503, "type": "t"}))
        self.assertEqual((error.status, error.message, error.type, error.code), (503, "m", "t", 503))
        self.assertEqual(self.assertBreaks(event({"error": "boom"})).message, "boom")
        self.assertEqual(self.assertBreaks(event({"error": {}})).status, 502)

    def test_no_error(self) -> None:
        """A null or empty error is ignored."""
        for none in (None, "", False):
            self.assertTrue(accumulate(chunk(text("a"), error=none), DONE).complete)

    def test_flat_error(self) -> None:
        """What comes in place of a chunk can itself be the error, as in vLLM, even after a finish_reason."""
        for flat, status in [
            ({"object": "error", "message": "m", "code": 400}, 400),
            ({"code": 500, "reason": "INTERNAL", "message": "m"}, 500),
            ({"detail": "m"}, 502),
            ({"error": "m", "code": "429"}, 429),
            ({"base_resp": {"status_code": 1008, "status_msg": "m"}, "choices": None}, 502),
            ([{"error": {"message": "m", "status_code": 503}}], 503),
        ]:
            error = self.assertBreaks(chunk(text("a", finish="stop")), event(flat))
            self.assertEqual((error.status, error.message), (status, "m"))

    def test_error_event(self) -> None:
        """An event named error is an error: in its error key, as an object, or as text."""
        for data, status, message in [
            ({"error": {"message": "m", "type": "overloaded_error"}}, 503, "m"),
            ({"message": "m", "type": "authentication_error"}, 401, "m"),
            (b"plain words", 502, "plain words"),
            ("a string", 502, "a string"),
        ]:
            error = self.assertBreaks(chunk(text("a")), event(data, "error"))
            self.assertEqual((error.status, error.message), (status, message))

    def test_not_json(self) -> None:
        """Data other than a JSON object is an error in a message only; blank data is ignored."""
        for data in (
            b"rubbish",
            b"{",
            b"5",
            b"[]",
            b"[" * 100_000,
        ):
            self.assertEqual(self.assertBreaks(event(data)).status, 502)
        for other in (
            event(b"", "message"),
            event(b"  "),
            event(b"null"),
            event({"type": "ping"}),
            event({"heartbeat": 1}),
            event(b"", "error"),
            event(b"x", "ping"),
            event(5, "ping"),
        ):
            self.assertEqual(completion(other, chunk(text("a")))["choices"][0]["message"]["content"], "a")

    def test_deep_nesting(self) -> None:
        """Deep deltas are merged or lead to an APIError."""
        for depth in (50, 300, 450, 600, 800, 900, 950, 1000, 1100, 2000):
            for opening, closing in ((b'{"a":', b"}"), (b"[", b"]"), (b'[{"a":', b"}]")):
                deep = opening * depth + b"1" + closing * depth
                accumulator = ChatCompletionsAccumulator()
                try:
                    accumulator.feed(event(b'{"choices":[{"delta":{"a":' + deep + b"}}]}"))
                    accumulator.feed(DONE)
                except APIError as error:
                    self.assertGreater(depth, 50)
                    self.assertEqual(error.status, 502)
                else:
                    self.assertIn(deep, accumulator.result_bytes())

    def test_other_names(self) -> None:
        """An event with another name is a chunk if it has a key of chunks."""
        result = completion(event({"type": "ping"}, "ping"), event({"choices": [text("a")]}, "chunk"))
        self.assertEqual(result["choices"][0]["message"]["content"], "a")
        self.assertNotIn("type", result)

    def test_odd_shapes(self) -> None:
        """Choices, entries and deltas of the wrong type are ignored."""
        shapes: list[Any] = [
            None,
            5,
            "x",
            {"a": 1},
            [None, 5, "x", []],
            [{"delta": 5, "logprobs": 3, "message": "x"}],
        ]
        for odd in shapes:
            self.assertTrue(accumulate(event({"choices": odd}), DONE).complete)
        indexes: list[Any] = [None, "0", True, 1.5, [], {}]
        for index in indexes:
            self.assertEqual(
                completion(chunk({"index": index, "delta": {"content": "a"}}))["choices"][0]["index"], 0
            )


class BoundTests(ChatTestCase):
    def test_final_size_is_exact(self) -> None:
        """A result of the maximum size passes, one byte more does not."""
        events = [chunk(text("x" * 1000)), DONE]
        size = len(accumulate(*events).result_bytes())
        self.assertTrue(accumulate(*events, max_bytes=size).complete)
        error = self.assertBreaks(*events, max_bytes=size - 1)
        self.assertEqual((error.status, error.type, error.should_retry), (502, "upstream_error", False))
        self.assertIn("maxResponseBytes", error.message)

    def test_held_not_flowed(self) -> None:
        """Members that replace each other do not add up."""
        accumulator = accumulate(max_bytes=2_000)
        for _ in range(500):
            accumulator.feed(chunk(text("x"), service_tier="y" * 300))
        accumulator.feed(DONE)
        self.assertTrue(accumulator.complete)

    def test_stops_on_the_way(self) -> None:
        """An endless stream fails soon after the bound."""
        accumulator = ChatCompletionsAccumulator(max_bytes=10_000)
        fed = 0
        with self.assertRaises(APIError):
            while fed < 1_000_000:
                accumulator.feed(chunk(text("x" * 100)))
                fed += 100
        self.assertLess(fed, 11_000)

    def test_measuring_is_amortised(self) -> None:
        """The aggregate is measured after every share of the bound, not with every chunk."""
        skip_if_compiled()
        measured = 0

        class Counting(ChatCompletionsAccumulator):
            def _measure(self) -> Iterator[int]:
                nonlocal measured
                measured += 1
                return super()._measure()

        accumulator = Counting(max_bytes=100_000)
        for _ in range(2_000):
            accumulator.feed(chunk(text("x" * 10), service_tier="y" * 300))
        self.assertTrue(0 < measured < 20, measured)
