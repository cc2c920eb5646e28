"""Calls of the real ``openai`` SDK."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import openai
from pydantic import BaseModel

from tests.support.loopback import LoopbackTestCase, in_thread
from tests.support.payloads import tool

T = TypeVar("T")
MESSAGES: Any = [{"role": "user", "content": "Hello!"}]
ONLY = {"X-Mock-Require-Stream": "1"}


class Person(BaseModel):
    """The model that a structured output is parsed into."""

    name: str
    age: int


class SDKTestCase(LoopbackTestCase):
    """An SDK client of a proxy in front of the mock."""

    async def sdk(self, call: Callable[[openai.OpenAI], T]) -> T:
        """Run `call` with such a client, in a thread."""
        port = await self.proxy(await self.mock())

        def run() -> T:
            base = f"http://127.0.0.1:{port}/v1"
            with openai.OpenAI(base_url=base, api_key="sk-test", max_retries=0) as client:
                return call(client)

        result: T = await in_thread(run)
        return result


class SDKTests(SDKTestCase):
    """Calls that work as if the provider had answered them."""

    async def test_create(self) -> None:
        """A plain call gets its text and usage from an upstream that only streams."""
        response = await self.sdk(
            lambda c: c.chat.completions.create(model="m", messages=MESSAGES, extra_headers=ONLY)
        )
        self.assertIn("Hello!", response.choices[0].message.content or "")
        self.assertEqual(response.choices[0].finish_reason, "stop")
        assert response.usage is not None
        self.assertGreater(response.usage.total_tokens, 0)

    async def test_tools(self) -> None:
        """Parallel tool calls arrive with their names, ids and complete arguments."""
        tools: Any = [tool("weather"), tool("time")]
        response = await self.sdk(
            lambda c: c.chat.completions.create(model="m", messages=MESSAGES, tools=tools, extra_headers=ONLY)
        )
        calls: Any = response.choices[0].message.tool_calls
        self.assertEqual([call.function.name for call in calls], ["weather", "time"])
        self.assertEqual(len({call.id for call in calls}), 2)
        self.assertTrue(all(call.function.arguments.startswith("{") for call in calls))

    async def test_choices_and_logprobs(self) -> None:
        """Several choices stay separate, each with its log probabilities."""
        response = await self.sdk(
            lambda c: c.chat.completions.create(
                model="m", messages=MESSAGES, n=2, logprobs=True, top_logprobs=2, extra_headers=ONLY
            )
        )
        self.assertEqual([choice.index for choice in response.choices], [0, 1])
        for choice in response.choices:
            assert choice.logprobs is not None
            tokens = "".join(entry.token for entry in choice.logprobs.content or [])
            self.assertEqual(tokens, choice.message.content)

    async def test_parse(self) -> None:
        """A structured output is parsed into its model."""
        response = await self.sdk(
            lambda c: c.chat.completions.parse(
                model="m", messages=MESSAGES, response_format=Person, extra_headers=ONLY
            )
        )
        self.assertIsInstance(response.choices[0].message.parsed, Person)

    async def test_streams(self) -> None:
        """Streaming calls are relayed, with both of the SDK's interfaces."""

        def run(client: openai.OpenAI) -> tuple[str, str | None]:
            stream = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
            with client.chat.completions.stream(model="m", messages=MESSAGES) as events:
                return text, events.get_final_completion().choices[0].message.content

        text, final = await self.sdk(run)
        self.assertIn("Hello!", text)
        self.assertEqual(text, final)

    async def test_responses(self) -> None:
        """``responses.create`` and ``responses.stream`` give the same text."""

        def run(client: openai.OpenAI) -> tuple[str, str]:
            response = client.responses.create(model="m", input="Hello!", extra_headers=ONLY)
            with client.responses.stream(model="m", input="Hello!") as events:
                return response.output_text, events.get_final_response().output_text

        text, streamed = await self.sdk(run)
        self.assertIn("Hello!", text)
        self.assertEqual(text, streamed)

    async def test_other_calls(self) -> None:
        """Calls for embeddings, models and files are relayed."""

        def run(client: openai.OpenAI) -> tuple[int, bool, bytes]:
            vectors = client.embeddings.create(model="m", input=["a", "b"])
            models = client.models.list()
            file = client.files.create(file=("a.txt", b"content of a file"), purpose="assistants")
            return len(vectors.data), bool(models.data), client.files.content(file.id).content

        self.assertEqual(await self.sdk(run), (2, True, b"content of a file"))


class SDKErrorTests(SDKTestCase):
    """Failures, each of which raises the SDK's exception for it."""

    async def assert_raises(self, kind: type[openai.APIStatusError], api: str, **controls: str) -> None:
        """Check that a call with these mock headers raises `kind`."""
        headers = {f"X-Mock-{name.capitalize()}": value for name, value in controls.items()}

        def run(client: openai.OpenAI) -> Any:
            try:
                if api == "chat":
                    client.chat.completions.create(model="m", messages=MESSAGES, extra_headers=headers)
                else:
                    client.responses.create(model="m", input="x", extra_headers=headers)
            except openai.APIStatusError as error:
                return error
            return None

        self.assertIs(type(await self.sdk(run)), kind)

    async def test_rate_limit_before_the_stream(self) -> None:
        """A 429 in place of the stream is a RateLimitError."""
        await self.assert_raises(openai.RateLimitError, "chat", status="429")

    async def test_failed_response(self) -> None:
        """``response.failed`` with ``rate_limit_exceeded`` is a RateLimitError."""
        await self.assert_raises(
            openai.RateLimitError, "responses", fail="failed", code="rate_limit_exceeded"
        )

    async def test_error_chunk(self) -> None:
        """An error chunk raises the exception of its status."""
        await self.assert_raises(openai.AuthenticationError, "chat", fail="error-chunk", code="401")
        await self.assert_raises(openai.InternalServerError, "chat", fail="error-chunk")

    async def test_broken_stream(self) -> None:
        """A stream that breaks is an InternalServerError, which the SDK would retry."""
        await self.assert_raises(openai.InternalServerError, "chat", fail="break", after="2")
        await self.assert_raises(openai.InternalServerError, "responses", fail="break", after="2")
