"""Translation of payloads into chunks: known shapes, expressions, modes; sans-I/O."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase as TestCase

from stream_proxy import APIError, ChatCompletionsAccumulator, ServerSentEvent
from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.adapter.dialect import Dialect
from stream_proxy.adapter.shapes.finishes import openai_finish
from stream_proxy.adapter.shapes.search import error_of, extract
from stream_proxy.adapter.shapes.usage import openai_usage
from stream_proxy.lenient_json import JSON

SSE = b"text/event-stream"
IDENTITY = ("chatcmpl-1", 1750000000, "m")


def sse(*payloads: object, event: str | None = None) -> bytes:
    """Return events with these payloads: strings verbatim, anything else as JSON."""
    head = f"event: {event}\n" if event else ""
    texts = (payload if isinstance(payload, str) else json.dumps(payload) for payload in payloads)
    return "".join(f"{head}data: {text}\n\n" for text in texts).encode()


class Answer:
    """The chunks of one translated body."""

    def __init__(self, *reads: bytes, **keys: Any) -> None:
        media = keys.pop("media", SSE)
        max_bytes = keys.pop("max_bytes", 10_000)
        max_event_bytes = keys.pop("max_event_bytes", max_bytes)
        stream = keys.pop("stream", True)
        dialect = Dialect("http://service", AdapterConfig(**keys))
        translation = dialect.translation(
            media,
            IDENTITY,
            include_usage=True,
            max_bytes=max_bytes,
            max_event_bytes=max_event_bytes,
            stream=stream,
        )
        self.error: APIError | None = None
        self.chunks: list[dict[str, Any]] = []
        try:
            for read in reads:
                self.chunks += map(json.loads, translation.feed(read))
            self.chunks += map(json.loads, translation.end())
        except APIError as error:
            self.error = error
        self.complete = translation.complete
        self.remarks = translation.remarks()

    def deltas(self, key: str) -> list[Any]:
        """Return the values that deltas have under `key`."""
        choices = (chunk["choices"][0]["delta"] for chunk in self.chunks if chunk["choices"])
        return [delta[key] for delta in choices if delta.get(key)]

    @property
    def text(self) -> str:
        """All content."""
        return "".join(self.deltas("content"))

    @property
    def reasoning(self) -> str:
        """All reasoning."""
        return "".join(self.deltas("reasoning_content"))

    @property
    def finish(self) -> str | None:
        """The last finish reason."""
        reasons = [chunk["choices"][0]["finish_reason"] for chunk in self.chunks if chunk["choices"]]
        return reasons[-1] if reasons else None

    @property
    def usage(self) -> dict[str, Any] | None:
        """The usage of the last chunk."""
        usage: dict[str, Any] | None = self.chunks[-1]["usage"]
        return usage

    def whole(self) -> dict[str, Any]:
        """Return the chat completion that the chunks make."""
        accumulator = ChatCompletionsAccumulator()
        for chunk in self.chunks:
            accumulator.feed(ServerSentEvent(data=json.dumps(chunk).encode()))
        accumulator.feed(ServerSentEvent(data=b"[DONE]"))
        return accumulator.result()


class ShapeTests(TestCase):
    """Extraction without configured expressions."""

    def test_texts(self) -> None:
        """The text is found in the common shapes."""
        payloads: tuple[JSON, ...] = (
            {"choices": [{"index": 0, "delta": {"content": "x"}}]},
            {"choices": [{"message": {"role": "assistant", "content": "x"}}]},
            {"choices": [{"text": "x"}]},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
            {"type": "content_block_start", "content_block": {"type": "text", "text": "x"}},
            {"type": "message", "content": [{"type": "text", "text": "x"}]},
            {"type": "response.output_text.delta", "delta": "x"},
            {"event": "message", "answer": "x", "conversation_id": "c"},
            {"event": "agent_message", "answer": "x"},
            {"event": "text_chunk", "data": {"text": "x"}},
            {"model": "m", "message": {"role": "assistant", "content": "x"}, "done": False},
            {"model": "m", "response": "x", "done": False},
            {"candidates": [{"content": {"parts": [{"text": "x"}], "role": "model"}}]},
            {"data": {"content": "x"}},
            {"data": '{"content": "x"}'},
            {"data": {"data": '{"message": {"content": "x"}}'}},
            '{"content": "x"}',
            {"code": 0, "message": "success", "data": {"answer": "x"}},
            {"output": {"text": "x", "finish_reason": "null"}},
            {"output": {"choices": [{"message": {"content": "x"}}]}},
            {"token": {"id": 1, "text": "x"}, "generated_text": None},
            {"messages": [{"role": "user", "content": "no"}, {"role": "assistant", "content": "x"}]},
            [{"content": "x"}],
            {"content": [{"type": "text", "text": "x"}]},
            {"result": "x"},
            {"text": "x"},
            {"delta": "x"},
            "x",
        )
        for payload in payloads:
            self.assertEqual(extract(payload).text, "x", payload)

    def test_no_text(self) -> None:
        """A payload without a place for text has none; an empty place is an empty text."""
        nothing: tuple[JSON, ...] = (
            {"type": "ping"},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
            {"type": "response.created", "response": {"output": []}},
            {"type": "response.output_text.done", "text": "all of it again"},
            {"event": "workflow_finished", "data": {"outputs": {"answer": "all of it again"}}},
            {"event": "message_end", "metadata": {}},
            {"event": "node_started", "data": {"title": "x"}},
            {"id": 7, "status": "running", "message": "working on it"},
            {"role": "user", "content": "what was asked"},
            {},
            [],
            None,
            5,
        )
        for payload in nothing:
            self.assertIsNone(extract(payload).text, payload)
        empty: tuple[JSON, ...] = (
            {"type": "message_start", "message": {"content": [], "usage": {"input_tokens": 1}}},
            {"choices": []},
            {"choices": [{"delta": {"role": "assistant"}}]},
            {"content": ""},
        )
        for payload in empty:
            self.assertEqual(extract(payload).text, "", payload)

    def test_reasoning(self) -> None:
        """Reasoning is kept apart from the text."""
        payloads: tuple[JSON, ...] = (
            {"choices": [{"delta": {"reasoning_content": "t"}}]},
            {"choices": [{"delta": {"reasoning": "t", "content": ""}}]},
            {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "t"}},
            {"message": {"role": "assistant", "content": "", "thinking": "t"}},
            {"candidates": [{"content": {"parts": [{"text": "t", "thought": True}]}}]},
            {"type": "response.reasoning_summary_text.delta", "delta": "t"},
        )
        for payload in payloads:
            found = extract(payload)
            self.assertEqual((found.reasoning, found.text or ""), ("t", ""), payload)

    def test_errors(self) -> None:
        """Errors of the common shapes are found, and lookalikes are not taken for errors."""
        errors: tuple[JSON, ...] = (
            {"error": {"message": "m"}},
            {"error": "m"},
            {"type": "error", "error": {"type": "overloaded_error", "message": "m"}},
            {"event": "error", "status": 400, "code": "invalid_param", "message": "m"},
            {"code": 401, "message": "m"},
            {"code": "InvalidApiKey", "message": "m", "request_id": "r"},
            {"code": 1002, "msg": "m", "data": None},
            [{"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED"}}],
        )
        for payload in errors:
            self.assertIsNotNone(error_of(payload), payload)
        others: tuple[JSON, ...] = (
            {"error": None, "content": "x"},
            {"error": "", "content": "x"},
            {"error": False},
            {"error": {}},
            {"code": 0, "message": "ok"},
            {"code": 200, "msg": "success", "data": {"content": "x"}},
            {"code": 1, "message": "odd", "data": {"content": "x"}},
            {"content": "error"},
        )
        for payload in others:
            self.assertIsNone(error_of(payload), payload)

    def test_usage(self) -> None:
        """Counts under any known name become OpenAI's usage."""
        for counts, expected in (
            ({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}, (1, 2, 3)),
            ({"input_tokens": 1, "output_tokens": 2}, (1, 2, 3)),
            ({"input_tokens": 1, "cache_read_input_tokens": 4, "output_tokens": 2}, (5, 2, 7)),
            ({"promptTokenCount": 1, "candidatesTokenCount": 2, "totalTokenCount": 3}, (1, 2, 3)),
            ({"promptTokenCount": 1, "thoughtsTokenCount": 4, "totalTokenCount": 5}, (1, 4, 5)),
            ({"prompt_eval_count": 1, "eval_count": 2}, (1, 2, 3)),
            ({"total_tokens": 3}, (3, 0, 3)),
            ({"output_tokens": 2, "total_tokens": 3}, (1, 2, 3)),
            ({"prompt_tokens": 2.0, "completion_tokens": True}, (2, 0, 2)),
        ):
            usage = openai_usage(counts)
            assert usage is not None
            found = (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"])
            self.assertEqual(found, expected, counts)
        self.assertIsNone(openai_usage({"seconds": 3, "prompt_tokens": -1}))

    def test_finish(self) -> None:
        """A service's finish reason becomes OpenAI's."""
        for word, expected in (
            ("end_turn", "stop"),
            ("STOP", "stop"),
            ("MAX_TOKENS", "length"),
            ("model_context_window_exceeded", "length"),
            ("tool_use", "tool_calls"),
            ("SAFETY", "content_filter"),
            ("whatever", "stop"),
            (True, "stop"),
            (False, None),
            ("null", None),
            (None, None),
        ):
            self.assertEqual(openai_finish(word), expected, word)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        ["data", "content", "choices", "delta", "message", "messages", "type", "usage"]
                    ),
                    inner,
                    max_size=3,
                )
            ),
            max_leaves=12,
        )
    )
    def test_any_payload(self, payload: object) -> None:
        """Any payload, however odd, leads to a response or to an upstream error."""
        answer = Answer(sse({"text": "a"}, {"x": payload}, [payload]), media=SSE)
        self.assertTrue(answer.complete or answer.error is not None)


class StreamTests(TestCase):
    """Translation of whole streams."""

    def test_chunks(self) -> None:
        """Chunks carry the role, deltas, finish reason and usage, with one identity."""
        answer = Answer(
            sse(
                {"text": "He"},
                {"text": "llo"},
                {"text": "", "usage": {"input_tokens": 1, "output_tokens": 2}},
            )
        )
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1750000000, "model": "m"}
        deltas: list[dict[str, Any]] = [
            {"role": "assistant", "content": ""},
            {"content": "He"},
            {"content": "llo"},
            {},
        ]
        expected: list[dict[str, Any]] = [
            {
                **head,
                "choices": [
                    {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None if delta else "stop"}
                ],
                "usage": None,
            }
            for delta in deltas
        ]
        usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
        self.assertEqual(answer.chunks, [*expected, {**head, "choices": [], "usage": usage}])

    def test_whole(self) -> None:
        """The chat accumulator builds the ordinary response from the same chunks."""
        answer = Answer(sse({"text": "He", "thinking": "hm"}, {"text": "llo", "finish_reason": "length"}))
        choice = answer.whole()["choices"][0]
        message = {"role": "assistant", "content": "Hello", "reasoning_content": "hm"}
        self.assertEqual((choice["message"], choice["finish_reason"]), (message, "length"))

    def test_expressions(self) -> None:
        """Expressions select each part."""
        answer = Answer(
            sse(
                {"k": "say", "v": {"t": ["a", {"u": "?"}, "b"], "w": "hm"}},
                {"k": "say", "v": {"t": [1.5]}},
                {"k": "end", "why": "LEN", "n": {"i": 1, "o": 2}},
                {"k": "say", "v": {"t": ["not part of it"]}},
            ),
            content="v.t[?type(@)!='object']",
            reasoning="v.w",
            finish_reason="why && 'length'",
            usage="n.{input_tokens: i, output_tokens: o}",
            done="k == 'end'",
            error="k == 'no'",
        )
        self.assertEqual((answer.text, answer.reasoning, answer.finish), ("ab1.5", "hm", "length"))
        self.assertEqual(answer.usage, {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3})
        self.assertTrue(answer.complete)

    def test_cumulative(self) -> None:
        """Only the new part of a resent text is sent; half a character waits for its rest."""
        answer = Answer(
            sse(
                {"text": "Gr"},
                {"text": "Gr\ufffd"},
                {"text": "Grü"},
                {"text": "Grüße"},
                {"text": ""},
                {"text": "Grüße"},
            ),
            mode="cumulative",
        )
        self.assertEqual(answer.deltas("content"), ["Gr", "ü", "ße"])
        self.assertEqual(Answer(sse({"text": "x\ufffd"}), mode="cumulative").text, "x\ufffd")

    def test_cumulative_changes(self) -> None:
        """A text that changes after it was sent is an error: it cannot be taken back."""
        answer = Answer(sse({"text": "Hello"}, {"text": "Help me"}), mode="cumulative")
        assert answer.error is not None
        self.assertEqual((answer.text, answer.error.status), ("Hello", 502))
        self.assertIn("mode", answer.error.message)

    def test_events(self) -> None:
        """Named events are used or skipped, and one can be the end."""
        body = sse({"text": "a"}, event="piece") + sse({"text": "whole: a"}, event="all")
        body += sse({"text": "no"}, event="end") + sse({"text": " after"}, event="piece")
        self.assertEqual(Answer(body, skip_events=("all", "end"), content="text").text, "a after")
        self.assertEqual(Answer(body, events=("piece",)).text, "a after")
        ended = Answer(body, events=("piece",), end_events=("end",), content="text")
        self.assertEqual((ended.text, ended.complete), ("a", True))
        both = Answer(body, events=("piece", "end"), end_events=("end",), content="text")
        self.assertEqual((both.text, both.complete), ("ano", True))

    def test_error_event(self) -> None:
        """An event named error is an error, whatever it holds and even if it is not in ``events``."""
        for payload in ({"message": "no", "code": 429}, "no"):
            error = Answer(sse(payload, event="error"), events=("piece",)).error
            assert error is not None
            self.assertEqual(error.message, "no")

    def test_ends(self) -> None:
        """A marker or the done expression ends the response; without them the end of the body does."""
        for keys, end in (
            ({}, "[DONE]"),
            ({}, '"[DONE]"'),
            ({}, {"done": True}),
            ({}, {"type": "message_stop"}),
            ({"end_marker": "EOF"}, "EOF"),
            ({"done": "last"}, {"last": 1}),
        ):
            answer = Answer(sse({"text": "a"}, end, {"text": "b"}), **keys)
            self.assertEqual((answer.text, answer.complete), ("a", True), end)
        self.assertEqual(Answer(sse({"text": "a"}, {"done": False, "text": "b"})).text, "ab")

    def test_no_end(self) -> None:
        """A response without its configured end is an error."""
        for keys in ({"end_marker": "EOF"}, {"done": "last"}, {"end_events": ("end",)}):
            answer = Answer(sse({"text": "a"}), **keys)
            assert answer.error is not None
            self.assertEqual((answer.text, answer.error.status), ("a", 502))

    def test_formats(self) -> None:
        """The format is recognised by the media type or by the first bytes."""
        lines = b'{"text": "a"}\n\r\n{"text": "b"}\r\n{"text": "c"}'
        whole = b'\n{\n"text":\n"abc"}'
        for body, media, keys in (
            (sse({"text": "a"}, {"text": "bc"}), b"", {}),
            (b": hi\n\n" + sse({"text": "abc"}), b"text/plain", {}),
            (lines, b"application/x-ndjson", {}),
            (lines, b"text/plain", {}),
            (lines, b"application/json", {"format": "ndjson"}),
            (whole, b"application/json", {}),
            (b'[{"text": "a"},\n{"text": "bc"}]', b"application/json; charset=UTF-8"[:16], {}),
            (b'[{"text": "a"},\n{"text": "bc"}]', b"", {}),
            (b'data: {"text": "abc"}', SSE, {}),
            (b'data: {"text": "ab"}\n\n{"text": "c"}', SSE, {}),
        ):
            for size in (1, 3, 1000):
                reads = [body[at : at + size] for at in range(0, len(body), size)]
                answer = Answer(*reads, media=media, **keys)
                self.assertEqual((answer.text, answer.error), ("abc", None), (body, size))

    def test_texts(self) -> None:
        """Payloads that are no JSON are text, and so are numbers."""
        answer = Answer(sse("The ", "answer is ", "42", ", ", "true", "."))
        self.assertEqual(answer.text, "The answer is 42, true.")
        answer = Answer(sse('"a"', "{", '{"b": 1}', " c"), payload="text")
        self.assertEqual(answer.text, '"a"{{"b": 1} c')

    def test_cut_at_once(self) -> None:
        """A cut payload is an error even if it is the only one."""
        for cut in (b"data: {", b'data: {"answer": "Hel', b"data: [1"):
            error = Answer(cut).error
            assert error is not None
            self.assertEqual((error.status, error.type), (502, "upstream_error"))
        self.assertEqual(Answer(b'data: {"answer": "Hello"}').text, "Hello")
        self.assertEqual(Answer(b"data: Hello").text, "Hello")
        self.assertEqual(Answer(b"data: {", payload="text").text, "{")

    def test_cut(self) -> None:
        """A payload that was cut is an error, never text."""
        for body, keys in (
            (sse({"text": "a"}) + b'data: {"text": "b', {}),
            (sse({"text": "a"}) + b"dat", {}),
            (b'{"text": "a"}\n{"text": "b', {"format": "ndjson"}),
            (sse({"text": "a"}) + b"data: oops\n\n", {"content": "text"}),
            (sse({"text": "a"}) + b"data: oops\n\n", {"payload": "json"}),
        ):
            answer = Answer(body, **keys)
            assert answer.error is not None, body
            self.assertEqual((answer.text, answer.error.status, answer.complete), ("a", 502, False))

    def test_mixed(self) -> None:
        """A payload that is no JSON, among others that are, is an error unless the configuration skips it."""
        body = sse({"text": "a"}, "ping", {"text": "b"})
        error = Answer(body).error
        assert error is not None
        self.assertIn("skipPayloads", error.message)
        self.assertEqual(Answer(body, skip_payloads=("ping",)).text, "ab")
        self.assertEqual(Answer(body, skip_payloads=("ping",), content="text").text, "ab")

    def test_nothing(self) -> None:
        """A body without events, or of another format, is an error that says so."""
        for body, media in ((b"", SSE), (b": ping\n\n", SSE), (b"<html>hello</html>", b"text/html")):
            error = Answer(body, media=media).error
            assert error is not None, body
            self.assertEqual(error.status, 502)

    def test_not_found(self) -> None:
        """If the expression finds nothing, the error shows it with an outline of the payload."""
        error = Answer(sse({"data": {"words": "secret"}, "n": 1}, {"k": [True]}), content="data.text").error
        assert error is not None
        self.assertEqual(
            error.message,
            "None of the service's 2 payloads holds a text in data.text; there came "
            "1x {data: {words: string}, n: number}; 1x {k: [true]}. "
            'Set the adapter\'s content to where the text is, for example "data.words".',
        )
        error = Answer(sse({"data": {"words": "secret"}, "n": 1}), content="data.text").error
        assert error is not None
        self.assertIn("one payload holds no text in data.text", error.message)
        self.assertIn("{data: {words: string}, n: number}", error.message)
        self.assertIsNone(Answer(sse({"data": {"text": ""}}), content="data.text").error)
        filtered = Answer(sse({"candidates": [{"finishReason": "SAFETY"}]}))
        self.assertEqual((filtered.error, filtered.finish), (None, "content_filter"))

    def test_wrong_kind(self) -> None:
        """An expression that finds an object where a text should be says so."""
        error = Answer(sse({"data": {"text": {"x": 1}}}), content="data.text").error
        assert error is not None
        self.assertIn("content expression found an object", error.message)

    def test_tool_calls(self) -> None:
        """Tool calls in pieces pass; whole calls without an index or id get both."""
        piece = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
        rest = {"index": 0, "function": {"arguments": "{}"}}
        answer = Answer(
            sse(
                {"choices": [{"delta": {"tool_calls": [piece]}}]},
                {"choices": [{"delta": {"tool_calls": [rest]}}]},
            )
        )
        self.assertEqual(answer.deltas("tool_calls"), [[piece], [rest]])
        self.assertEqual(answer.finish, "tool_calls")
        self.assertIsNone(answer.whole()["choices"][0]["message"]["content"])
        calls = [{"function": {"name": "f", "arguments": {"x": 1}}}, {"function": {"name": "g"}}]
        answer = Answer(
            sse({"message": {"content": "", "tool_calls": calls}, "done": True, "done_reason": "stop"})
        )
        self.assertEqual(
            answer.whole()["choices"][0]["message"]["tool_calls"],
            [
                {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
                {"id": "call_1", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ],
        )
        self.assertEqual(answer.finish, "tool_calls")

    def test_call_indexes(self) -> None:
        """Indexes count from 0 without a gap, whatever the service's are."""
        calls = [
            {"index": index, "id": f"c{index}", "function": {"name": "f", "arguments": text}}
            for index, text in ((3, "a"), (7, "b"), (3, "c"))
        ]
        answer = Answer(sse(*({"choices": [{"delta": {"tool_calls": [call]}}]} for call in calls)))
        deltas = [delta for (delta,) in answer.deltas("tool_calls")]
        found = [(delta["index"], delta.get("id"), delta["function"]["arguments"]) for delta in deltas]
        self.assertEqual(found, [(0, "c3", "a"), (1, "c7", "b"), (0, None, "c")])

    def test_calls_of_another_kind(self) -> None:
        """Without tool calls, their finish reason becomes ``stop``: clients would look for calls."""
        self.assertEqual(Answer(sse({"text": "a", "stop_reason": "tool_use"})).finish, "stop")

    def test_cumulative_calls(self) -> None:
        """Tool calls that are resent whole are sent once."""
        calls = [{"id": "c", "function": {"name": "f", "arguments": "{"}}]
        more = [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]
        answer = Answer(
            sse(*({"message": {"tool_calls": each}} for each in (calls, more, more))), mode="cumulative"
        )
        found = answer.whole()["choices"][0]["message"]["tool_calls"]
        self.assertEqual(
            found, [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
        )

    def test_too_large(self) -> None:
        """The size of a payload is bounded."""
        for body, media in (
            (sse({"text": "x" * 200}), SSE),
            (b'{"text": "' + b"x" * 200 + b'"}\n', b"application/x-ndjson"),
            (b'{"text": "' + b"x" * 200, b"application/json"),
        ):
            error = Answer(body, media=media, max_bytes=100).error
            assert error is not None
            self.assertIn("maxEventBytes", error.message)

    @given(st.lists(st.text(max_size=8), min_size=1, max_size=6), st.data())
    def test_any_splitting(self, texts: list[str], data: st.DataObject) -> None:
        """The deltas do not depend on how the bytes are cut."""
        for body, media in (
            (sse(*({"data": {"content": text}} for text in texts), "[DONE]"), SSE),
            (
                "".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts).encode(),
                b"application/x-ndjson",
            ),
        ):
            cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
            reads = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
            answer = Answer(*reads, media=media, mode="delta")
            self.assertEqual(answer.chunks, Answer(body, media=media, mode="delta").chunks)
            self.assertEqual(answer.text, "".join(texts))

    def test_separators(self) -> None:
        """Record separators before the body do not decide its format, even if they come alone."""
        records = b'\x1e{"text": "a"}\n\x1e{"text": "b"}\n'
        for media in (b"", SSE):
            for at in range(4):
                self.assertEqual(Answer(records[:at], records[at:], media=media).text, "ab", at)
        torn = b"\xef\n["  # no BOM, and so no array either
        for body in ((torn,), (torn[:2], torn[2:])):
            self.assertRegex(str(Answer(*body, media=b"").error), "no stream of events")


class ServiceTests(TestCase):
    """Undocumented behaviour of services."""

    def assert_fails(self, body: bytes, text: str, message: str, **keys: Any) -> None:
        """Assert that an error with `message` follows `text`."""
        answer = Answer(body, **keys)
        assert answer.error is not None, body
        self.assertEqual((answer.text, answer.complete), (text, False))
        self.assertIn(message, answer.error.message)

    def test_failed_runs(self) -> None:
        """A run that fails after it has begun never ends cleanly."""
        coze = sse(
            {"status": "failed", "last_error": {"code": 4008, "msg": "boom"}},
            event="conversation.chat.failed",
        )
        for begun, end in (
            (
                {"event": "text_chunk", "data": {"text": "Hel"}},
                {"event": "workflow_finished", "data": {"status": "failed", "error": "boom"}},
            ),
            (
                {"type": "response.output_text.delta", "delta": "Hel"},
                {
                    "type": "response.failed",
                    "response": {"error": {"code": "server_error", "message": "boom"}},
                },
            ),
            ({"content": "Hel"}, {"choices": None, "base_resp": {"status_code": 1004, "status_msg": "boom"}}),
            ({"result": "Hel"}, {"error_code": 336003, "error_msg": "boom"}),
            ({"content": "Hel"}, {"success": False, "message": "boom"}),
            ({"content": "Hel"}, {"type": "error", "errorText": "boom"}),
        ):
            self.assert_fails(sse(begun, end), "Hel", "boom")
        self.assert_fails(
            sse({"type": "answer", "content": "Hel"}, event="conversation.message.delta") + coze,
            "Hel",
            "boom",
        )
        ended = {"choices": [{"delta": {"content": "Hel"}, "finish_reason": "error"}]}
        self.assertIsNotNone(Answer(sse(ended)).error)

    def test_no_errors(self) -> None:
        """Envelopes that report success are no errors."""
        for payload in (
            {"error": {"code": 0, "message": "ok"}, "content": "x"},
            {"code": 20000, "message": "success", "data": {"content": "x"}},
            {"base_resp": {"status_code": 0, "status_msg": ""}, "content": "x"},
            {"event": {"a": 1}, "content": "x"},
            {"role": "", "content": "x"},
        ):
            self.assertEqual((Answer(sse(payload)).error, Answer(sse(payload)).text), (None, "x"), payload)

    def test_repeated_whole(self) -> None:
        """A text that is repeated whole at the end is sent once."""
        for payloads in (
            [
                {"token": {"text": "Hel"}, "generated_text": None},
                {"token": {"text": "lo"}, "generated_text": None},
                {
                    "token": {"text": "</s>", "special": True},
                    "generated_text": "Hello",
                    "details": {"finish_reason": "length"},
                },
            ],
            [
                {"choices": [{"delta": {"content": "Hel"}}]},
                {"choices": [{"delta": {"content": "lo"}}]},
                {
                    "choices": [{"finish_reason": "stop", "message": {"content": "Hello"}}],
                    "object": "chat.completion",
                },
            ],
            [{"content": "Hel"}, {"content": "lo"}, {"content": "Hello", "done": True}],
        ):
            self.assertEqual(Answer(sse(*payloads)).text, "Hello")
        self.assertEqual(Answer(sse({"content": "ha"}, {"content": "ha"}, {"content": "!"})).text, "haha!")
        coze = b"".join(
            sse({"type": kind, "content": text}, event=f"conversation.message.{event}")
            for event, kind, text in (
                ("delta", "answer", "Hel"),
                ("delta", "answer", "lo"),
                ("completed", "answer", "Hello"),
                ("completed", "verbose", "{}"),
                ("completed", "follow_up", "What else?"),
            )
        )
        usage = sse(
            {"usage": {"token_count": 5, "output_count": 2, "input_count": 3}},
            event="conversation.chat.completed",
        )
        answer = Answer(coze + usage + sse('"[DONE]"', event="done"))
        self.assertEqual((answer.text, answer.error), ("Hello", None))
        assert answer.usage is not None
        self.assertEqual(answer.usage["total_tokens"], 5)

    def test_wrong_media(self) -> None:
        """The first bytes of a body take precedence over its media type."""
        for body, media in (
            (sse({"content": "He"}, "[DONE]"), b"application/json"),
            (b'{"content": "H"}\n{"content": "e"}\n', b"application/json"),
            (b'{"content": "H"}\n{"content": "e"}\n', SSE),
            (b'{\n"content": "He"\n}\n', SSE),
        ):
            for size in (1, 7, 1000):
                reads = [body[at : at + size] for at in range(0, len(body), size)]
                self.assertEqual(Answer(*reads, media=media).text, "He", (body, media, size))

    def test_heartbeats(self) -> None:
        """Empty events, and named events without JSON, are skipped."""
        beats = b"data:\n\nevent: ping\ndata: 2024-01-01\n\nevent: beat\ndata: 1700000000\n\n"
        for keys in ({}, {"content": "a"}, {"payload": "json", "content": "a"}):
            answer = Answer(sse({"a": "x", "text": "x"}) + beats + sse({"a": "y", "text": "y"}), **keys)
            self.assertEqual((answer.text, answer.error), ("xy", None), keys)
        self.assertIsNotNone(Answer(b"data:\n\n").error)

    def test_text_like_json(self) -> None:
        """Text that happens to be JSON stays text."""
        self.assertEqual(Answer(sse({"result": "A"}, {"result": "[0]"}, {"result": "{}"})).text, "A[0]{}")
        self.assertEqual(
            Answer(sse("The list ", "[1]", "{}", '{"', "[[", '"a"', " end")).text, 'The list [1]{}{"[["a" end'
        )

    def test_types(self) -> None:
        """Reasoning and tools are recognised by their type."""
        payloads = [
            {"type": "thinking", "content": "hm"},
            {"type": "tool_call", "content": "search(x)"},
            {"type": "text", "content": "A"},
            {"event": "human_input_required", "task_id": "t", "data": {"text": "no"}},
        ]
        answer = Answer(sse(*payloads))
        self.assertEqual((answer.text, answer.reasoning), ("A", "hm"))

    def test_cut_between(self) -> None:
        """A stream of a shape that marks its end is an error without the mark."""
        for payload in (
            {"choices": [{"delta": {"content": "he"}, "finish_reason": None}]},
            {"message": {"content": "he"}, "done": False},
        ):
            self.assert_fails(sse(payload), "he", "before it said that it was at its end")

    def test_ends_and_counts(self) -> None:
        """Finish reason and usage are found where services put them."""
        incomplete = {
            "type": "response.incomplete",
            "response": {"incomplete_details": {"reason": "max_output_tokens"}},
        }
        body = sse({"type": "response.output_text.delta", "delta": "a"}, incomplete)
        self.assertEqual(Answer(body).finish, "length")
        self.assertEqual(Answer(sse({"content": "a", "stopped_limit": True})).finish, "length")
        blocked = Answer(sse({"promptFeedback": {"blockReason": "SAFETY"}}))
        self.assertEqual((blocked.error, blocked.finish), (None, "content_filter"))
        usage = Answer(
            sse({"text": "a"}, {"usage": {"tokens": {"input_tokens": 1, "output_tokens": 2}}})
        ).usage
        assert usage is not None
        self.assertEqual(usage["total_tokens"], 3)
        counts = {
            "prompt_tokens": 100,
            "completion_tokens": 5,
            "total_tokens": 105,
            "cache_read_input_tokens": 80,
        }
        self.assertEqual((openai_usage(counts) or {})["prompt_tokens"], 100)

    def test_calls_in_pieces(self) -> None:
        """Pieces belong to a call by index, id, or order; parallel calls may share an index."""

        def calls(*deltas: dict[str, Any]) -> list[tuple[str, str]]:
            body = sse(*({"choices": [{"delta": {"tool_calls": [delta]}}]} for delta in deltas))
            found = Answer(body).whole()["choices"][0]["message"]["tool_calls"]
            return [(call["function"]["name"], call["function"]["arguments"]) for call in found]

        parallel = [
            {"index": 0, "id": name, "function": {"name": name, "arguments": "{}"}} for name in ("f", "g")
        ]
        self.assertEqual(calls(*parallel), [("f", "{}"), ("g", "{}")])
        pieces: list[dict[str, Any]] = [
            {"id": "a", "function": {"name": "f", "arguments": ""}},
            {"function": {"arguments": '{"x":'}},
            {"id": "a", "function": {"arguments": "1}"}},
        ]
        self.assertEqual(calls(*pieces), [("f", '{"x":1}')])
        late: list[dict[str, Any]] = [
            {"index": 0, "id": "a", "function": {"arguments": ""}},
            {"index": 0, "function": {"name": "f", "arguments": "{}"}},
        ]
        self.assertEqual(calls(*late), [("f", "{}")])

    def test_halves(self) -> None:
        """Half a character at the end of a cumulative text waits for the other half."""
        answer = Answer(sse({"text": "a\ud83d"}, {"text": "a\U0001f600"}), mode="cumulative")
        self.assertEqual((answer.text, answer.error), ("a\U0001f600", None))

    def test_same_again(self) -> None:
        """A last delta that equals the text before it is new all the same."""
        for payloads in (
            [
                {"choices": [{"delta": {"content": "ha"}}]},
                {"choices": [{"delta": {"content": "ha"}, "finish_reason": "stop"}]},
            ],
            [
                {"candidates": [{"content": {"parts": [{"text": "ha"}]}, "finishReason": end}]}
                for end in ("", "STOP")
            ],
            [{"message": {"content": "ha"}, "done": end} for end in (False, True)],
            [{"token": {"text": "ha"}, "generated_text": end} for end in (None, "haha")],
            [{"text": "ha"}, {"text": "ha", "finish_reason": "stop"}],
        ):
            self.assertEqual(Answer(sse(*payloads)).text, "haha", payloads)

    def test_blank_tokens(self) -> None:
        """Blanks are text among plain text."""
        body = b"data: Hello\n\ndata:  \n\ndata: world\n\ndata:\ndata:\n\ndata: !\n\n"
        self.assertEqual(Answer(body).text, "Hello world\n!")

    def test_odd_errors(self) -> None:
        """Errors of other types, and statuses in other spellings, are recognised."""
        for end in (
            {"error": 500, "message": "boom"},
            {"ok": False, "message": "boom"},
            {"error": [{"message": "boom"}]},
            {"status": "FAILED", "message": "boom"},
            {"code": 500, "msg": "boom", "data": {"content": ""}},
        ):
            self.assert_fails(sse({"text": "Hel"}, end), "Hel", "boom")

    def test_shape_is_not_logged(self) -> None:
        """Names of a service's fields are shown to the client only, not logged."""
        error = Answer(sse({"secret words": 1})).error
        assert error is not None
        self.assertIn("secret words", error.message)
        self.assertNotIn("secret words", error.for_log)
