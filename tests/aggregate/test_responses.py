"""Tests of the Responses accumulator: the terminal event, the output that fills it, and errors."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.aggregate.responses import ResponseAccumulator
from stream_proxy.aggregate.sse import ServerSentEvent
from stream_proxy.errors import APIError, IncompleteStreamError


def event(type: str | None, fields: Any = None, *, named: bool = True, **more: Any) -> ServerSentEvent:
    body = {**({} if type is None else {"type": type}), **(fields or {}), **more}
    return ServerSentEvent(type if named and type else "message", json.dumps(body).encode())


def raw(data: bytes, name: str = "message") -> ServerSentEvent:
    return ServerSentEvent(name, data)


def terminal(status: str = "completed", **response: Any) -> ServerSentEvent:
    return event(f"response.{status}", response={"id": "resp_1", "status": status, **response})


def item(index: int | None, text: str) -> ServerSentEvent:
    fields = {} if index is None else {"output_index": index}
    return event("response.output_item.done", fields, item={"id": text})


def text(value: str, output: int = 0, part: int = 0, **more: Any) -> ServerSentEvent:
    place = {"output_index": output, "content_index": part, "item_id": "msg_9", "text": value}
    return event("response.output_text.done", place, **more)


def accumulate(*events: ServerSentEvent, **options: Any) -> ResponseAccumulator:
    accumulator = ResponseAccumulator(**options)
    for each in events:
        accumulator.feed(each)
    return accumulator


class ResponsesTestCase(SynchronousTestCase):
    def assertBreaks(self, *events: ServerSentEvent, **options: Any) -> APIError:
        """Check that the last of `events` raises, and that the error stays."""
        accumulator = accumulate(*events[:-1], **options)
        error = self.assertRaises(APIError, accumulator.feed, events[-1])
        assert isinstance(error, APIError)
        self.assertIs(self.assertRaises(APIError, accumulator.result), error)
        accumulator.feed(terminal())
        accumulator.end()
        self.assertFalse(accumulator.complete)
        return error


class ResultTests(ResponsesTestCase):
    BODY = b'{ "id":"r", "n": 1.50,"s":"\\u00e9", "output":[ {"a": 1} ] }'

    def test_byte_for_byte(self) -> None:
        """The result is the terminal event's response, byte for byte, with or without event lines."""
        for status in (b"completed", b"incomplete", b"failed"):
            data = b'{"type":"response.%s", "response" : %s , "sequence_number":1}' % (status, self.BODY)
            for name in ("message", "response." + status.decode(), "custom"):
                self.assertEqual(accumulate(item(0, "x"), raw(data, name)).result_bytes(), self.BODY)

    def test_lone_surrogate_byte_for_byte(self) -> None:
        """The bytes stay the same even if only the lenient parser accepts them."""
        body = self.BODY.replace(b"\\u00e9", b"\\ud83d")
        accumulator = accumulate(raw(b'{"type":"response.completed","response":' + body + b"}"))
        self.assertEqual(accumulator.result_bytes(), body)
        self.assertEqual(accumulator.result()["s"], "\ud83d")

    def test_event_line_first(self) -> None:
        """The event line decides the type if it is one of the API; else the JSON does."""
        self.assertFalse(accumulate(raw(terminal().data, "response.created")).complete)
        self.assertTrue(accumulate(raw(terminal("in_progress").data, "response.completed")).complete)

    def test_items_fill_empty_output(self) -> None:
        """An empty, null or missing output is filled with the finished items, by index, then arrival."""
        events = [item(2, "d"), text("ignored"), item(0, "a"), item(1, "b"), item(1, "c"), item(1, "c")]
        for status in ("completed", "incomplete", "failed"):
            outputs: list[Any] = [{"output": []}, {"output": None}, {}]
            for output in outputs:
                result = accumulate(*events, terminal(status, **output, z=1)).result()
                self.assertEqual(result["output"], [{"id": id} for id in "abcd"])
                self.assertEqual((result["id"], result["z"]), ("resp_1", 1))
        spaced = raw(b'{"type":"response.completed","response":{"x":1.0,"output":[ ]}}')
        self.assertEqual(
            accumulate(item(None, "a"), item(None, "b"), spaced).result_bytes(),
            b'{"x":1.0,"output":[{"id": "a"},{"id": "b"}]}',
        )  # fmt: skip

    def test_full_output_stays(self) -> None:
        """An output that is not empty stays as it is."""
        self.assertEqual(accumulate(item(0, "a"), terminal(output=[1])).result()["output"], [1])

    def test_texts_fill(self) -> None:
        """Without items the finished texts become one assistant message."""
        result = accumulate(
            text("b", 1), text("a2", 0, 1, logprobs=[1]), text("a1"), terminal(output=[])
        ).result()
        parts = [("a1", []), ("a2", [1]), ("b", [])]
        self.assertEqual(result["output"], [{
            "id": "msg_9", "type": "message", "status": "completed", "role": "assistant",
            "content": [{"type": "output_text", "annotations": [], "logprobs": lp, "text": t}
                        for t, lp in parts],
        }])  # fmt: skip
        anonymous = event("response.output_text.done", text="a")
        made = accumulate(anonymous, terminal("incomplete")).result()["output"][0]
        self.assertEqual((made["id"], made["status"]), ("msg_1", "incomplete"))

    def test_nothing_to_fill_with(self) -> None:
        """An empty output stays if the stream finished neither items nor texts."""
        self.assertEqual(accumulate(terminal(output=[])).result()["output"], [])

    def test_done(self) -> None:
        """response.done is terminal, whatever the status; the Response's own tells whether it failed."""
        for status in ("completed", "incomplete", "failed", None):
            body: Any = {"id": "r", "status": status, "output": []}
            made = accumulate(item(0, "a"), event("response.done", response=body)).result()
            self.assertEqual((made["status"], made["output"]), (status, [{"id": "a"}]))
        failed = {"id": "r", "status": "failed", "error": {"code": "slow_down", "message": "m"}}
        self.assertEqual(self.assertBreaks(event("response.done", response=failed)).status, 503)

    def test_failed_without_error(self) -> None:
        """A failed Response is a result if its error is missing or has no code and no telling type."""
        for fields in ({}, {"error": None}, {"error": {"message": "m"}}, {"error": {"code": None}}):
            self.assertEqual(accumulate(terminal("failed", **fields)).result()["status"], "failed")

    def test_unneeded_events(self) -> None:
        """Events that the result does not need are not parsed; invalid ones with other names are ignored."""
        accumulator = accumulate(
            raw(b"rubbish", "response.output_text.delta"),
            raw(b"rubbish", "ping"),
            raw(b"[1]", "ping"),
            raw(b"rubbish", "response.output_item.done"),
            raw(b""),
            raw(b" "),
            raw(b"null"),
            raw(b"", "error"),
            raw(b"null", "error"),
            event("ping", named=False),
            event("keepalive", named=False, sequence_number=3),
            event("codex.rate_limits", {"plan_type": "plus", "rate_limits": {"allowed": True}}, named=False),
            event("codex.news", {"message": "new models"}, named=False),
            event("response.created", named=False),
            event(None, x=1),
            raw(b'{"type":["x"]}'),
            event("response.output_item.done", item=5),
            event("response.output_text.done", text=5),
        )
        self.assertRaises(IncompleteStreamError, accumulator.result_bytes)
        accumulator.feed(terminal())
        before = accumulator.result_bytes()
        for later in (terminal("failed", error={"code": "x"}), raw(b"[DONE]"), raw(b"rubbish")):
            accumulator.feed(later)
        accumulator.end(b'{"error":"x"}', clean=False)
        self.assertEqual(accumulator.result_bytes(), before)


class ErrorTests(ResponsesTestCase):
    def test_failed(self) -> None:
        """A failed Response with a code leads to the error for that code."""
        error = self.assertBreaks(terminal("failed", error={"code": "server_error", "message": "m"}))
        self.assertEqual(
            (error.status, error.type, error.code, error.message), (500, "server_error", "server_error", "m")
        )

    def test_error_event(self) -> None:
        """An error event is an error, flat or nested, identified by the event line or by its JSON."""
        for named in (True, False):
            for fields in (
                {"code": "slow_down", "message": "m", "param": "p"},
                {"error": {"code": "slow_down", "message": "m", "param": "p"}},
            ):
                error = self.assertBreaks(item(0, "a"), event("error", fields, named=named))
                self.assertEqual(
                    (error.status, error.type, error.message, error.param), (503, "server_error", "m", "p")
                )
        self.assertEqual(self.assertBreaks(event("error", message="m")).status, 502)
        self.assertEqual(self.assertBreaks(raw(b"plain words", "error")).message, "plain words")

    def test_untyped_error(self) -> None:
        """A gateway's error without a type is treated as in a chat stream."""
        self.assertEqual(self.assertBreaks(event(None, error={"code": 429, "message": "m"})).status, 429)

    def test_errors_by_other_names(self) -> None:
        """An error may come as an event of another name or type, flat, or in an array of one."""
        for broken, status in [
            (raw(b'{"message":"m","code":503}', "stream_error"), 503),
            (raw(b'{"type":"response.error","error":{"code":"slow_down"}}'), 503),
            (raw(b'{"type":"rate_limit_error","message":"m"}'), 429),
            (raw(b'{"type":"overloaded","detail":"m"}'), 503),
            (raw(b'{"detail":"m","status_code":404}'), 404),
            (raw(b'{"detail":"m"}'), 502),
            (raw(b'[{"error":{"message":"m","code":429}}]'), 429),
            (raw(b'{"error":"m","code":"insufficient_quota"}'), 429),
        ]:
            self.assertEqual(self.assertBreaks(broken).status, status, broken)

    def test_codex_usage_limit(self) -> None:
        """Codex tells a spent window with a status beside the error; the error's fields travel."""
        fields = {"type": "usage_limit_reached", "message": "m", "plan_type": "plus", "resets_in_seconds": 9}
        error = self.assertBreaks(event("error", {"error": fields, "status_code": 429}, headers={}))
        self.assertEqual((error.status, error.type), (429, "usage_limit_reached"))
        self.assertEqual(
            json.loads(error.envelope())["error"], {**fields, "param": None, "code": "usage_limit_reached"}
        )

    def test_not_json(self) -> None:
        """Message data other than a JSON object is an error."""
        for data in (b"rubbish", b"5", b"[]", b"[" * 100_000):
            self.assertEqual(self.assertBreaks(raw(data)).status, 502)

    def test_no_response(self) -> None:
        """A terminal event without a Response object is an error."""
        wrong: list[Any] = [{}, {"response": None}, {"response": []}, {"response": "x"}]
        for fields in wrong:
            error = self.assertBreaks(event("response.completed", fields))
            self.assertIn("no Response object", error.message)

    def test_ended_without(self) -> None:
        """An end before the terminal event is an error, clean or not, and so is [DONE]."""
        for clean in (True, False):
            accumulator = accumulate(item(0, "a"))
            error = self.assertRaises(APIError, accumulator.end, clean=clean)
            assert isinstance(error, APIError)
            self.assertEqual((error.status, error.type), (502, "upstream_error"))
            self.assertIn("ended without", error.message)
        self.assertIn("ended without", self.assertBreaks(raw(b" [DONE]")).message)

    def test_stray_error(self) -> None:
        """A bare JSON error at the end becomes the call's error."""
        for stray in (b'{"error":{"message":"m","code":429}}', b'{"message":"m","code":429}'):
            error = self.assertRaises(APIError, ResponseAccumulator().end, stray)
            assert isinstance(error, APIError)
            self.assertEqual((error.status, error.message), (429, "m"))


class BoundTests(ResponsesTestCase):
    def test_final_size_is_exact(self) -> None:
        """A result of the maximum size passes, one byte more does not."""
        empty = event("response.output_item.added", item={"type": "message"})  # it makes no output
        for events in (
            [terminal(x="y" * 500)],
            [item(0, "y" * 500), terminal()],
            [empty, terminal(x="y" * 500)],
        ):
            size = len(accumulate(*events).result_bytes())
            self.assertTrue(accumulate(*events, max_bytes=size).complete)
            error = self.assertBreaks(*events, max_bytes=size - 1)
            self.assertEqual((error.status, error.should_retry), (502, False))
            self.assertIn("maxResponseBytes", error.message)

    def test_only_what_is_kept_counts(self) -> None:
        """Ignored events, replaced items and unused texts do not count."""
        ignored = [
            event("response.image_generation_call.partial_image", partial_image_b64="x" * 2000, named=n)
            for n in (True, False)
        ]
        accumulator = accumulate(
            *ignored * 10, *[item(0, "y" * 400)] * 5, text("z" * 300), text("z" * 300), max_bytes=600
        )
        accumulator.feed(terminal())
        self.assertTrue(accumulator.complete)
        self.assertTrue(accumulate(text("z" * 400), item(0, "y" * 400), max_bytes=600))

    def test_kept_items_are_bounded(self) -> None:
        """Items or texts that together exceed the bound end the call."""
        self.assertIs(
            self.assertBreaks(item(0, "y" * 400), item(1, "y" * 400), max_bytes=600).should_retry, False
        )
        self.assertIs(
            self.assertBreaks(text("y" * 300), text("y" * 300, 1), max_bytes=600).should_retry, False
        )
