"""Aggregated streams of the mock, compared with its own non-streaming responses."""

from __future__ import annotations

import json
from typing import Any

from stream_proxy import Limits
from tests.support.loopback import LoopbackTestCase
from tests.support.payloads import CHAT, RESPONSES, tool

STREAM_ONLY = ("X-Mock-Require-Stream", "1")


def flat_tool(name: str) -> dict[str, Any]:
    """Return a function tool of the Responses API."""
    function: dict[str, Any] = tool(name)["function"]
    return {"type": "function", **function}


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
CHAT_KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "parallel tools": {"tools": [tool("weather"), tool("time")]},
    "one tool": {"tools": [tool("weather"), tool("time")], "parallel_tool_calls": False},
    "choices": {"n": 3},
    "reasoning": {"reasoning_effort": "low"},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA}}},
    "cut short": {"max_tokens": 3},
    "tools in choices": {"n": 2, "tools": [tool("weather"), tool("time")], "reasoning_effort": "low"},
    "stream is null": {"stream": None},
    "stream is false": {"stream": False},
    "a tool's result": {
        "tools": [tool("weather")],
        "messages": [{"role": "tool", "tool_call_id": "call_1", "content": "rain"}],
    },
    "everything": {
        "n": 3,
        "reasoning_effort": "high",
        "logprobs": True,
        "top_logprobs": 3,
        "max_completion_tokens": 7,
        "response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA}},
    },
}
RESPONSES_KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tools": {"tools": [flat_tool("weather"), flat_tool("time")]},
    "one tool": {"tools": [flat_tool("weather"), flat_tool("time")], "parallel_tool_calls": False},
    "reasoning": {"reasoning": {"effort": "low"}},
    "reasoning summary": {"reasoning": {"effort": "low", "summary": "auto"}},
    "incomplete": {"max_output_tokens": 3},
    "logprobs": {"include": ["message.output_text.logprobs"]},
    "schema": {"text": {"format": {"type": "json_schema", "name": "p", "schema": SCHEMA}}},
    "everything": {
        "reasoning": {"effort": "high", "summary": "detailed"},
        "include": ["message.output_text.logprobs", "reasoning.encrypted_content"],
        "top_logprobs": 3,
        "max_output_tokens": 4,
        "text": {"format": {"type": "json_schema", "name": "p", "schema": SCHEMA}},
    },
    "reasoned tools": {"reasoning": {"effort": "low", "summary": "auto"}, "tools": [flat_tool("weather")]},
}


class SameResponseTests(LoopbackTestCase):
    """Responses that do not show that there was a stream."""

    async def assert_same(self, path: str, body: dict[str, Any], *controls: tuple[str, str]) -> None:
        """Check that the response through the proxy equals the mock's own response without a stream."""
        mock = await self.mock()
        direct = await self.request(int(mock.rsplit(":", 1)[1]), target=path, body=body, headers=controls)
        self.assertEqual(direct.status, 200)
        port = await self.proxy(mock)
        converted = await self.request(port, target=path, body=body, headers=[STREAM_ONLY, *controls])
        self.assertEqual(converted.status, 200, converted.body)
        self.assertEqual(converted.json(), direct.json())
        # Compare as text too: 1, 1.0 and True are equal in Python.
        self.assertEqual(
            json.dumps(converted.json(), sort_keys=True), json.dumps(direct.json(), sort_keys=True)
        )
        self.assertEqual(converted.get("content-type"), "application/json")
        self.assertEqual(converted.get("x-request-id"), direct.get("x-request-id"))

    async def test_chat(self) -> None:
        """Every kind of chat completion is equal, field by field."""
        for name, more in CHAT_KINDS.items():
            body = {"model": "m", "messages": [{"role": "user", "content": f"Grüße {name} 🌍"}], **more}
            await self.assert_same(CHAT, body)

    async def test_responses(self) -> None:
        """Every kind of Response is equal, field by field."""
        for name, more in RESPONSES_KINDS.items():
            await self.assert_same(RESPONSES, {"model": "m", "input": f"Grüße {name}", **more})

    async def test_azure_path(self) -> None:
        """A deployment in the path replaces the model."""
        body = {"messages": [{"role": "user", "content": "hi"}]}
        await self.assert_same("/openai/deployments/gpt/chat/completions?api-version=1", body)

    async def test_long(self) -> None:
        """Ten thousand events make one response."""
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "input": "hi"}
        for path in (CHAT, RESPONSES):
            await self.assert_same(path, body, ("X-Mock-Words", "3000"))

    async def test_stream_only_model(self) -> None:
        """A model that only streams works through the proxy, and only through it."""
        mock = await self.mock()
        port = await self.proxy(mock)
        body = {"model": "stream-only", "messages": [{"role": "user", "content": "hi"}], "input": "hi"}
        for path in (CHAT, RESPONSES):
            direct = await self.request(int(mock.rsplit(":", 1)[1]), target=path, body=body)
            self.assertEqual((direct.status, direct.json()["error"]["param"]), (400, "stream"))
            converted = await self.request(port, target=path, body=body)
            self.assertEqual((converted.status, converted.json()["model"]), (200, "stream-only"))

    async def test_refusals(self) -> None:
        """An upstream that refuses to stream, or to send usage, still yields a response."""
        mock = await self.mock()
        port = await self.proxy(mock)
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "input": "hi"}
        for path in (CHAT, RESPONSES):
            direct = await self.request(int(mock.rsplit(":", 1)[1]), target=path, body=body)
            refused = [("X-Mock-Refuse", "stream")]
            converted = await self.request(port, target=path, body=body, headers=refused)
            self.assertEqual((converted.status, converted.json()), (200, direct.json()))
        without = [STREAM_ONLY, ("X-Mock-Refuse", "stream_options")]
        fresh = await self.proxy(mock)
        direct = await self.request(int(mock.rsplit(":", 1)[1]), body=body)
        converted = await self.request(fresh, body=body, headers=without)
        expected = direct.json()
        del expected["usage"]
        found = converted.json()
        found.pop("usage", None)
        self.assertEqual((converted.status, found), (200, expected))


class FailureTests(LoopbackTestCase):
    """Failures inside a stream, which become errors with a status."""

    patience = 30.0

    async def fails(self, path: str, expected: tuple[int, str, object], *controls: tuple[str, str]) -> None:
        """Check that a call with these mock headers ends with this (status, type, code)."""
        port = await self.proxy(await self.mock(), limits=Limits(timeout_seconds=self.patience))
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "input": "hi"}
        response = await self.request(port, target=path, body=body, headers=controls)
        error = response.json()["error"]
        self.assertEqual((response.status, error["type"], error["code"]), expected)
        self.assertEqual(sorted(error), ["code", "message", "param", "type"])
        self.assertTrue(error["message"])

    async def test_status(self) -> None:
        """An error status in place of the stream is relayed, byte for byte and with its headers."""
        mock = await self.mock()
        port = await self.proxy(mock)
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "input": "hi"}
        for path in (CHAT, RESPONSES):
            for status in ("400", "401", "404", "429", "500", "503", "599"):
                controls = [("X-Mock-Status", status), ("X-Mock-Code", "a_code")]
                direct = await self.request(
                    int(mock.rsplit(":", 1)[1]), target=path, body=body, headers=controls
                )
                response = await self.request(port, target=path, body=body, headers=controls)
                self.assertEqual((response.status, response.body), (int(status), direct.body))
                self.assertEqual(response.json()["error"]["code"], "a_code")
                for name in ("retry-after", "content-type", "x-request-id"):
                    self.assertEqual(response.all(name), direct.all(name))
                self.assertEqual(response.get("retry-after"), "1" if status in ("429", "503") else None)

    async def test_chat_errors(self) -> None:
        """An error in a chat stream has the status of its code, and the upstream's own type and code."""
        for code, expected in (
            ("429", (429, "rate_limit_error", "429")),
            ("rate_limit_exceeded", (429, "rate_limit_error", "rate_limit_exceeded")),
            ("server_is_overloaded", (503, "server_error", "server_is_overloaded")),
            ("server_error", (500, "server_error", "server_error")),
            ("some_code", (400, "invalid_request_error", "some_code")),
        ):
            for kind in ("error-chunk", "error-event"):
                await self.fails(CHAT, expected, ("X-Mock-Fail", kind), ("X-Mock-Code", code))

    async def test_chat_error_places(self) -> None:
        """An error counts before the first chunk, and after the last one until ``[DONE]``."""
        expected = (500, "server_error", "server_error")
        for after in ("0", "5", "-1"):
            for kind in ("error-chunk", "error-event"):
                await self.fails(CHAT, expected, ("X-Mock-Fail", kind), ("X-Mock-After", after))

    async def test_response_error_event(self) -> None:
        """The status of an ``error`` event in a Responses stream comes from its code."""
        for code, expected in (
            ("rate_limit_exceeded", (429, "rate_limit_error", "rate_limit_exceeded")),
            ("server_error", (500, "server_error", "server_error")),
            ("some_code", (400, "invalid_request_error", "some_code")),
            ("none", (502, "upstream_error", "upstream_error")),
        ):
            await self.fails(RESPONSES, expected, ("X-Mock-Fail", "error-event"), ("X-Mock-Code", code))

    async def test_response_error_chunk(self) -> None:
        """A bare error envelope in a Responses stream is an error, never a 200."""
        expected = (500, "server_error", "server_error")
        for after in ("0", "3", "-1"):
            await self.fails(RESPONSES, expected, ("X-Mock-Fail", "error-chunk"), ("X-Mock-After", after))

    async def test_response_failed(self) -> None:
        """``response.failed`` with an error code becomes that error."""
        for code, expected in (
            ("rate_limit_exceeded", (429, "rate_limit_error", "rate_limit_exceeded")),
            ("insufficient_quota", (429, "rate_limit_error", "insufficient_quota")),
            ("server_error", (500, "server_error", "server_error")),
            ("slow_down", (503, "server_error", "slow_down")),
            ("vector_store_timeout", (504, "server_error", "vector_store_timeout")),
            ("invalid_prompt", (400, "invalid_request_error", "invalid_prompt")),
        ):
            await self.fails(RESPONSES, expected, ("X-Mock-Fail", "failed"), ("X-Mock-Code", code))

    async def test_response_failed_without_error(self) -> None:
        """``response.failed`` without an error object is relayed as the Response, with status 200."""
        port = await self.proxy(await self.mock())
        controls = [("X-Mock-Fail", "failed"), ("X-Mock-Code", "none")]
        body = {"model": "m", "input": "hi"}
        response = await self.request(port, target=RESPONSES, body=body, headers=controls)
        self.assertEqual((response.status, response.json()["status"]), (200, "failed"))

    async def test_broken_streams(self) -> None:
        """A stream that breaks, stops inside an event or is not JSON is a 502 in both APIs."""
        for path in (CHAT, RESPONSES):
            for kind in ("break", "break-mid-event", "not-json"):
                code = "upstream_malformed" if kind == "not-json" else "upstream_cut"
                expected = (502, "upstream_error", code)
                for after in ("0", "3", "-1"):
                    await self.fails(path, expected, ("X-Mock-Fail", kind), ("X-Mock-After", after))

    async def test_no_terminal_event(self) -> None:
        """A stream without the terminal event completes a finished chat, and is an error for Responses."""
        port = await self.proxy(await self.mock())
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        response = await self.request(port, body=body, headers=[("X-Mock-Fail", "no-done")])
        self.assertEqual(response.status, 200)
        self.assertEqual(response.json()["choices"][0]["finish_reason"], "stop")
        several = await self.request(port, body={**body, "n": 3}, headers=[("X-Mock-Fail", "no-done")])
        self.assertEqual((several.status, len(several.json()["choices"])), (200, 3))
        await self.fails(
            RESPONSES, (502, "upstream_error", "upstream_incomplete"), ("X-Mock-Fail", "no-done")
        )

    async def test_hang(self) -> None:
        """Silence inside a stream is a 504."""
        self.patience = 0.2
        for path in (CHAT, RESPONSES):
            await self.fails(path, (504, "upstream_timeout", "upstream_timeout"), ("X-Mock-Fail", "hang"))

    async def test_hang_before_the_end(self) -> None:
        """Silence between the last chunk and ``[DONE]`` is a 504 too: more chunks might have come."""
        self.patience = 0.2
        expected = (504, "upstream_timeout", "upstream_timeout")
        await self.fails(CHAT, expected, ("X-Mock-Fail", "hang"), ("X-Mock-After", "-1"))
