"""Silence over guessing: events that give text without expressions, and what is said of the others."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase as TestCase

from stream_proxy.adapter.shapes.kinds import Kind, kind_of_name
from stream_proxy.adapter.shapes.outline import Outlines
from stream_proxy.json_steps import done
from tests.adapter.test_translation import Answer, sse


class KindTests(TestCase):
    """Names of events."""

    def test_names(self) -> None:
        """Names are known by their words, in any spelling."""
        for kind, names in (
            (Kind.ANSWER, "text token message Message content answer text-delta TEXT_MESSAGE_CONTENT"),
            (Kind.ANSWER, "content_block_delta AIMessageChunk agent_message on_chat_model_stream llm.token"),
            (Kind.REASONING, "thinking reasoning-delta THINKING_TEXT_MESSAGE_CONTENT thought"),
            (Kind.END, "done end final finish stop message_end stream-end Done RUN_FINISHED final_answer"),
            (Kind.ERROR, "error Error RUN_ERROR exception"),
            (Kind.STEP, "tool_call tool-input-delta TOOL_CALL_ARGS node_finished function_call log"),
            (Kind.UNKNOWN, "status metadata agentFlowEvent custom message_start piece sources user"),
        ):
            for name in names.split():
                self.assertIs(kind_of_name(name), kind, name)

    @given(st.text(max_size=200))
    def test_any_name(self, name: str) -> None:
        """Any name is of some kind."""
        self.assertIsInstance(kind_of_name(name), Kind)


class SilenceTests(TestCase):
    """Events that are none of the answer."""

    def test_unknown_kinds(self) -> None:
        """Unknown kinds say nothing: no text, no finish reason, no end, wherever the kind is named."""
        for silent in (
            {"type": "tool_call", "content": "search(x)"},
            {"type": "tool_result", "output": {"content": "12 hits", "finish_reason": "length"}},
            {"type": "TOOL_CALL_ARGS", "delta": '{"city": "Rome"}'},
            {"type": "status", "data": "INPROGRESS"},
            {"event": "agentFlowEvent", "data": "FINISHED"},
            {"event": "metadata", "data": {"message": "Hi?"}},
            {"event_type": "search-results", "text": "nine"},
            {"kind": "progress", "message": "Working", "done": True},
            {"data": {"type": "custom", "content": "x"}},
            {"type": "tool_result", "done": True, "usage": {"total_tokens": 9}},
            {"type": "tool_result", "error": "no such file"},
            {"role": "user", "content": "What I asked"},
            {"type": "human", "content": "What I asked"},
            {"sender": "User", "text": "What I asked"},
            {"event": "end", "data": "[DONE]x"},
            {"data": "[DONE]"},
            {"content": "[DONE]"},
        ):
            answer = Answer(sse({"text": "A"}, silent, {"text": "B"}))
            self.assertEqual((answer.text, answer.error, answer.finish), ("AB", None, "stop"), silent)
            self.assertIsNone(answer.usage, silent)
            alone = Answer(sse(silent))
            self.assertIsNotNone(alone.error, silent)
            self.assertEqual(alone.chunks, [], silent)

    def test_unknown_events(self) -> None:
        """The same for the names of SSE events, whatever their payloads look like."""
        chunk = {"choices": [{"delta": {"content": "no"}, "finish_reason": "length"}]}
        for name in ("tool_call", "flowNodeStatus", "sources", "debug", "suggested_questions"):
            for payload in ({"text": "no"}, chunk, "no", '"no"', "7", {"done": True}):
                answer = Answer(sse({"text": "A"}) + sse(payload, event=name) + sse({"text": "B"}))
                self.assertEqual((answer.text, answer.error, answer.finish), ("AB", None, "stop"), name)

    def test_known_events(self) -> None:
        """Events with the names of text give text, and those of thoughts reasoning."""
        for name in ("content", "token", "answer", "Message", "delta", "text_chunk"):
            self.assertEqual(Answer(sse({"text": "A"}, event=name)).text, "A", name)
            self.assertEqual(Answer(sse("A", event=name)).text, "A", name)
        answer = Answer(sse("Let me see", event="thinking") + sse("A", event="content"))
        self.assertEqual((answer.reasoning, answer.text), ("Let me see", "A"))
        answer = Answer(sse({"type": "reasoning-delta", "delta": "hm"}, {"type": "text-delta", "delta": "A"}))
        self.assertEqual((answer.reasoning, answer.text), ("hm", "A"))

    def test_configured_events(self) -> None:
        """Events that the configuration names are known; thoughts stay thoughts."""
        body = sse({"text": "A"}, event="piece") + sse({"text": "hm"}, event="thinking")
        answer = Answer(body, events=("piece", "thinking"))
        self.assertEqual((answer.text, answer.reasoning), ("A", "hm"))

    def test_conversations(self) -> None:
        """Of a list of messages, only those after the user's last are the answer."""
        turns = [("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4")]
        messages = [{"role": role, "content": text} for role, text in turns]
        self.assertEqual(Answer(sse({"messages": messages})).text, "4")
        self.assertIsNotNone(Answer(sse({"messages": messages[:3]})).error)

    def test_parts(self) -> None:
        """Of the parts of a message only those of text are text."""
        parts = [{"type": "thinking", "text": "hm"}, {"type": "tool_use", "text": "f"}, {"text": "A"}]
        self.assertEqual(Answer(sse({"content": parts})).text, "A")

    def test_ends(self) -> None:
        """Events that end repeat the text; they only end."""
        for name in ("done", "end", "final", "message_end", "Complete"):
            for key in ("text", "answer", "content"):
                begun = sse({"text": "Two "}, {"text": "lines"})
                for last in (
                    sse({key: "Two lines", "id": 1}, event=name),
                    sse({"type": name, key: "Two lines."}),
                    sse({"event": name, "data": {key: "Two lines"}, "finish_reason": "length"}),
                ):
                    self.assertEqual(Answer(begun + last).text, "Two lines", last)
        finish = Answer(sse({"text": "A"}, {"type": "done", "finish_reason": "length"})).finish
        self.assertEqual(finish, "length")

    def test_end_events(self) -> None:
        """A configured end is no text either, with or without an expression, in JSON and in text."""
        body = sse({"text": "A"}, event="content") + sse(
            {"text": "A", "usage": {"total_tokens": 3}}, event="x"
        )
        for keys in ({}, {"content": "text"}, {"events": ("content",)}):
            answer = Answer(body, end_events=("x",), **keys)
            self.assertEqual((answer.text, answer.complete), ("A", True))
            assert answer.usage is not None
            self.assertEqual(answer.usage["total_tokens"], 3)
        body = sse("A", event="content") + sse('{"id": 1}', event="x")
        for events in (None, ("content",)):
            answer = Answer(body, payload="text", end_events=("x",), events=events)
            self.assertEqual((answer.text, answer.complete), ("A", True))
        empty = Answer(sse("A", event="content") + b"event: x\ndata:\n\n", end_events=("x",))
        self.assertEqual((empty.text, empty.complete), ("A", True))

    def test_json_that_a_model_writes(self) -> None:
        """JSON in the text is text: it ends nothing, counts nothing, and is no error."""
        written = '{"done": "x", "finish": "y", "usage": {"total_tokens": 9}, "error": "z"}'
        for begun in ([], ["The "]):
            for wrap in (
                lambda text: {"delta": text},
                lambda text: {"event": "token", "data": text},
                lambda text: {"choices": [{"delta": {"content": text}}]},
                lambda text: {"type": "text-delta", "delta": text},
                lambda text: {"response": text, "done": False},
            ):
                last = {"done": True, "choices": [{"finish_reason": "length", "delta": {}}]}
                answer = Answer(sse(*map(wrap, [*begun, written, '{"finish_reason": "stop"}']), last))
                expected = "".join(begun) + written + '{"finish_reason": "stop"}'
                self.assertEqual((answer.text, answer.error, answer.finish), (expected, None, "length"))
                self.assertIsNone(answer.usage)
        for written in ('{"done": "x", "finish": "y"}', '{"usage": {"a": 1}}', "[1]", "{}"):
            answer = Answer(sse({"data": written}))
            self.assertEqual((answer.text, answer.finish), (written, "stop"))
        after = ["The ", '{"content": "no"}', '{"finish_reason": "length"}']
        answer = Answer(sse(*({"data": text} for text in after)))
        self.assertEqual((answer.text, answer.finish), ("".join(after), "stop"))

    def test_nested_json(self) -> None:
        """JSON in a string is read where the service wraps its payloads so."""
        inner = [{"content": "A"}, {"finish_reason": "length", "usage": {"total_tokens": 3}}]
        answer = Answer(sse(*({"data": json.dumps(each)} for each in inner)))
        self.assertEqual((answer.text, answer.finish), ("A", "length"))
        assert answer.usage is not None
        self.assertEqual(answer.usage["total_tokens"], 3)


class ErrorWordTests(TestCase):
    """Errors in the services' own words."""

    def test_words(self) -> None:
        """The words of an error are found under any of the usual names, even nested."""
        for payload, event in (
            ({"error_code": 4000, "error_message": "boom"}, None),
            ({"error_code": 4000, "error_message": "boom"}, "Error"),
            ({"type": "RUN_ERROR", "message": "boom", "code": "E1"}, None),
            ({"type": "error", "content": "boom"}, None),
            ({"type": "error", "errorText": "boom"}, None),
            ({"event": "error", "data": "boom"}, None),
            ({"event": "error", "data": {"message": "boom"}}, None),
            ({"event": "error", "data": {"error": "boom"}}, None),
            ({"error": {"error_message": "boom", "code": 5}}, None),
            ({"error": "ValueError", "message": "boom"}, "error"),
            ({"statusText": "boom"}, "error"),
            ({"reason": "boom"}, "exception"),
            ("boom", "error"),
            ('"boom"', "Error"),
            ({"event": "add_message", "data": {"text": "boom", "error": True, "sender": "AI"}}, None),
            ({"internalServerException": {"message": "boom"}}, None),
            ({"code": 500, "message": "", "data": {"answer": "**ERROR**: boom", "reference": []}}, None),
        ):
            for begun in (b"", sse({"text": "A"})):
                error = Answer(begun + sse(payload, event=event)).error
                assert error is not None, payload
                self.assertIn("boom", error.message, payload)

    def test_codes(self) -> None:
        """A code under another name is the error's code."""
        error = Answer(sse({"error_code": 4000, "error_message": "boom"}, event="Error")).error
        assert error is not None
        self.assertEqual(str(error.code), "4000")


class OutlineTests(TestCase):
    """The list of what came in a stream without text."""

    def message(self, body: bytes, **keys: Any) -> str:
        """Return the error for a stream in which there is no text."""
        error = Answer(body, **keys).error
        assert error is not None
        self.assertEqual(error.code, "content_not_found")
        return error.message

    def test_list(self) -> None:
        """Names and shapes are listed with their counts, and an expression is suggested."""
        body = sse({"type": "step", "note": "a"}, {"type": "step", "note": "a longer text"})
        body += sse({"run_id": "r"}, event="metadata") + sse("beat", event="ping")
        self.assertEqual(
            self.message(body),
            "None of the service's 4 payloads holds a text in any place that the adapter knows; there came "
            '2x {type: "step", note: string}; 1x event metadata {run_id: string}; 1x event ping plain text. '
            "Set the adapter's content to where the text is, for example "
            "\"type == 'step' && note || null\".",
        )

    def test_plain_text(self) -> None:
        """Of plain text under unknown names the names are listed, to choose from."""
        body = sse("Hello", "!", event="piece") + sse("beat", event="ping")
        message = self.message(body)
        self.assertIn("2x event piece plain text; 1x event ping plain text", message)
        self.assertIn('Set the adapter\'s events to those with the text, for example ["piece"].', message)
        self.assertEqual(Answer(body, events=("piece",)).text, "Hello!")
        self.assertIn("2x event piece plain text", self.message(body, payload="text"))
        self.assertIn("1x event ping", self.message(body, events=("x",), payload="text"))

    def test_suggestion_works(self) -> None:
        """What is suggested finds the text."""
        body = sse({"kind": "say", "v": {"odd name": "Hello"}}, {"kind": "say", "v": {"odd name": "!"}})
        found = json.loads(self.message(body).partition("for example ")[2].rstrip("."))
        self.assertEqual(Answer(body, content=found).text, "Hello!")

    def test_nothing(self) -> None:
        """A stream that only ends says so."""
        self.assertIn("holds nothing but its end", self.message(sse("[DONE]")))

    def test_values_are_not_shown(self) -> None:
        """Of values only names of kinds are shown."""
        message = self.message(sse({"type": "my secret words", "x": "secret"}, {"type": "a" * 99}))
        self.assertNotIn("secret", message)
        self.assertNotIn("aaa", message)

    def test_bounded(self) -> None:
        """However many shapes come, few are listed."""
        outlines = Outlines()
        for number in range(5000):
            done(outlines.add("message", json.dumps({f"k{number}": {"v" * 300: 1}}).encode()))
        self.assertLess(len(outlines.summary()), 2000)
        self.assertIn("more shapes", outlines.summary())


class RemarkTests(TestCase):
    """Warnings about configurations."""

    def test_remarks(self) -> None:
        """Expressions without a match, events that did not come, and uncounted usage are remarked."""
        body = sse({"text": "A", "n": {"seconds": 3}, "m": 4}, event="content")
        for keys, expected in (
            ({}, []),
            ({"content": "text"}, []),
            ({"reasoning": "thoughts"}, ["adapter.reasoning found nothing in a whole stream: thoughts"]),
            ({"finish_reason": "why"}, ["adapter.finishReason found nothing in a whole stream: why"]),
            ({"usage": "x.y"}, ["adapter.usage found nothing in a whole stream: x.y"]),
            ({"usage": "n"}, ["adapter.usage: what the service sends as usage has no count of a known name"]),
            ({"usage": "m"}, ["adapter.usage: what the service sends as usage has no count of a known name"]),
            (
                {"events": ("content", "text")},
                ["adapter.events has an event that did not come in a whole stream: text"],
            ),
            (
                {"end_events": ("fin",)},
                ["adapter.endEvents has an event that did not come in a whole stream: fin"],
            ),
            # These find nothing in most streams.
            ({"error": "problem", "tool_calls": "calls", "replace": "instead"}, []),
        ):
            self.assertEqual(Answer(body, **keys).remarks, expected, keys)
