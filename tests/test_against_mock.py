"""What the proxy makes of a stream, against what the same upstream answers without one."""

from __future__ import annotations

from typing import Any

from stream_proxy import Limits
from tests.support import CHAT, RESPONSES, LoopbackTestCase

STREAM_ONLY = ("X-Mock-Require-Stream", "1")


def tool(name: str) -> dict[str, Any]:
    """A function tool of the chat API."""
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def flat_tool(name: str) -> dict[str, Any]:
    """The same of the Responses API."""
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
}
RESPONSES_KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tools": {"tools": [flat_tool("weather"), flat_tool("time")]},
    "reasoning": {"reasoning": {"effort": "low"}},
    "reasoning summary": {"reasoning": {"effort": "low", "summary": "auto"}},
    "incomplete": {"max_output_tokens": 3},
    "logprobs": {"include": ["message.output_text.logprobs"]},
    "schema": {"text": {"format": {"type": "json_schema", "name": "p", "schema": SCHEMA}}},
}


class SameAnswerTests(LoopbackTestCase):
    """The client cannot tell that there was a stream."""

    async def assert_same(self, path: str, body: dict[str, Any]) -> None:
        """The answer through the proxy, out of a stream, is the mock's own answer without one."""
        mock = await self.mock()
        direct = await self.request(int(mock.rsplit(":", 1)[1]), target=path, body=body)
        self.assertEqual(direct.status, 200)
        port = await self.proxy(mock)
        converted = await self.request(port, target=path, body=body, headers=[STREAM_ONLY])
        self.assertEqual(converted.status, 200)
        self.assertEqual(converted.json(), direct.json())
        self.assertEqual(converted.get("content-type"), "application/json")

    async def test_chat(self) -> None:
        """Every kind of chat completion is the same, field by field."""
        for name, more in CHAT_KINDS.items():
            body = {"model": "m", "messages": [{"role": "user", "content": f"Grüße {name}"}], **more}
            await self.assert_same(CHAT, body)

    async def test_responses(self) -> None:
        """Every kind of Response is the same, field by field."""
        for name, more in RESPONSES_KINDS.items():
            await self.assert_same(RESPONSES, {"model": "m", "input": f"Grüße {name}", **more})

    async def test_azure_path(self) -> None:
        """A deployment in the path takes the place of the model."""
        body = {"messages": [{"role": "user", "content": "hi"}]}
        await self.assert_same("/openai/deployments/gpt/chat/completions?api-version=1", body)


class FailureTests(LoopbackTestCase):
    """What goes wrong in a stream is an error with a status."""

    async def fails(self, path: str, expected: tuple[int, str, object], *controls: tuple[str, str]) -> None:
        """A call with these mock headers ends with (status, type, code)."""
        port = await self.proxy(await self.mock(), limits=Limits(timeout_seconds=0.3))
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "input": "hi"}
        response = await self.request(port, target=path, body=body, headers=controls)
        error = response.json()["error"]
        self.assertEqual((response.status, error["type"], error["code"]), expected)
        self.assertEqual(sorted(error), ["code", "message", "param", "type"])
        self.assertTrue(error["message"])

    async def test_status(self) -> None:
        """An error status before the stream is relayed with its body and headers."""
        port = await self.proxy(await self.mock())
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        response = await self.request(port, body=body, headers=[("X-Mock-Status", "429")])
        self.assertEqual(response.status, 429)
        self.assertEqual(response.get("retry-after"), "1")
        self.assertIn("message", response.json()["error"])

    async def test_chat_errors(self) -> None:
        """An error in a chat stream has the status of its code."""
        for code, status in (("429", 429), ("rate_limit_exceeded", 429), ("server_is_overloaded", 503)):
            for kind in ("error-chunk", "error-event"):
                controls = (("X-Mock-Fail", kind), ("X-Mock-Code", code))
                port = await self.proxy(await self.mock())
                body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
                response = await self.request(port, body=body, headers=controls)
                self.assertEqual(response.status, status, (kind, code))

    async def test_response_failed(self) -> None:
        """``response.failed`` with an error code is that error."""
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
        """``response.failed`` without an error object is the Response, with status 200."""
        port = await self.proxy(await self.mock())
        controls = [("X-Mock-Fail", "failed"), ("X-Mock-Code", "none")]
        body = {"model": "m", "input": "hi"}
        response = await self.request(port, target=RESPONSES, body=body, headers=controls)
        self.assertEqual((response.status, response.json()["status"]), (200, "failed"))

    async def test_broken_streams(self) -> None:
        """A stream that breaks, stops inside an event or holds no JSON is a 502 for both APIs."""
        expected = (502, "upstream_error", "upstream_error")
        for path in (CHAT, RESPONSES):
            for kind in ("break", "break-mid-event", "not-json"):
                await self.fails(path, expected, ("X-Mock-Fail", kind), ("X-Mock-After", "3"))

    async def test_no_terminal_event(self) -> None:
        """A clean end without the terminal event is an answer for a finished chat, an error for Responses."""
        port = await self.proxy(await self.mock())
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        response = await self.request(port, body=body, headers=[("X-Mock-Fail", "no-done")])
        self.assertEqual(response.status, 200)
        self.assertEqual(response.json()["choices"][0]["finish_reason"], "stop")
        await self.fails(RESPONSES, (502, "upstream_error", "upstream_error"), ("X-Mock-Fail", "no-done"))

    async def test_hang(self) -> None:
        """Silence inside a stream is a 504."""
        for path in (CHAT, RESPONSES):
            await self.fails(path, (504, "upstream_timeout", "upstream_timeout"), ("X-Mock-Fail", "hang"))
