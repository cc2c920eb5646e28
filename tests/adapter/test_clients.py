"""The real clients of an adapter: the ``openai`` SDK and LangChain, in front of the mock's own service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import openai
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from stream_proxy import Limits
from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.adapter.resource import AdapterResource
from tests.support.loopback import LoopbackTestCase, in_thread

T = TypeVar("T")
MODEL = "gpt-3.5-turbo"
MESSAGES: Any = [{"role": "user", "content": "Grüße!"}]


class ClientTestCase(LoopbackTestCase):
    """An adapter in front of the mock, whose failures the configuration chooses."""

    async def base(self, **controls: str) -> str:
        """Start both, and return the base URL; `controls` are the mock's headers, without their prefix."""
        headers = {"X-Mock-" + name: value for name, value in controls.items()}
        limits = Limits(timeout_seconds=0.2 if controls.get("Fail") == "hang" else 30)
        url = await self.mock() + "/stream"
        config = AdapterConfig(headers=headers)
        port = await self.proxy(url, resource=AdapterResource, config=config, limits=limits)
        return f"http://127.0.0.1:{port}/v1"

    async def sdk(self, call: Callable[[openai.OpenAI], T], **controls: str) -> T:
        """Run `call` with an SDK's client, in a thread."""
        base = await self.base(**controls)

        def run() -> T:
            with openai.OpenAI(base_url=base, api_key="any", max_retries=0) as client:
                return call(client)

        result: T = await in_thread(run)
        return result


def create(client: openai.OpenAI) -> openai.types.chat.ChatCompletion:
    """Make an ordinary call."""
    return client.chat.completions.create(model=MODEL, messages=MESSAGES)


def stream(client: openai.OpenAI) -> list[openai.types.chat.ChatCompletionChunk]:
    """Make a streaming call, and read it to its end."""
    options: Any = {"include_usage": True}
    return list(
        client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, stream_options=options)
    )


class SDKTests(ClientTestCase):
    """The SDK works as with OpenAI."""

    async def test_create_and_stream(self) -> None:
        """An ordinary and a streaming call return the service's text and its usage."""
        answer = await self.sdk(create)
        chunks = await self.sdk(stream)
        text = answer.choices[0].message.content
        assert text is not None
        self.assertIn("Grüße!", text)
        self.assertEqual("".join(c.choices[0].delta.content or "" for c in chunks if c.choices), text)
        self.assertEqual(
            (answer.choices[0].finish_reason, chunks[-2].choices[0].finish_reason), ("stop", "stop")
        )
        self.assertEqual(answer.usage, chunks[-1].usage)
        assert answer.usage is not None
        self.assertGreater(answer.usage.completion_tokens, 5)

    async def test_stream_helper(self) -> None:
        """The SDK's own accumulation builds the same response."""

        def run(client: openai.OpenAI) -> str | None:
            with client.chat.completions.stream(model=MODEL, messages=MESSAGES) as events:
                return events.get_final_completion().choices[0].message.content

        whole = (await self.sdk(create)).choices[0].message.content
        self.assertEqual(await self.sdk(run), whole)

    async def test_models(self) -> None:
        """Models can be listed and retrieved."""
        self.assertEqual([m.id for m in await self.sdk(lambda c: c.models.list().data)], [MODEL])
        self.assertEqual((await self.sdk(lambda c: c.models.retrieve(MODEL))).object, "model")

    async def test_exceptions(self) -> None:
        """Each failure is the exception that the SDK has for it."""
        unknown: Any = {"model": "none", "messages": MESSAGES}
        missing: Any = {"model": MODEL, "messages": None}
        cases: list[tuple[Callable[[openai.OpenAI], object], type[Exception], dict[str, str]]] = [
            (lambda c: c.chat.completions.create(**unknown), openai.NotFoundError, {}),
            (lambda c: c.models.retrieve("none"), openai.NotFoundError, {}),
            (lambda c: c.embeddings.create(model=MODEL, input="x"), openai.NotFoundError, {}),
            (lambda c: c.chat.completions.create(**missing), openai.BadRequestError, {}),
            (create, openai.RateLimitError, {"Status": "429"}),
            (create, openai.AuthenticationError, {"Status": "401"}),
            (create, openai.InternalServerError, {"Status": "500"}),
            (create, openai.RateLimitError, {"Fail": "error-chunk", "Code": "429", "After": "3"}),
            (
                stream,
                openai.RateLimitError,
                {"Fail": "error-event", "Code": "rate_limit_exceeded", "After": "0"},
            ),
            (stream, openai.APIError, {"Fail": "error-chunk", "After": "3"}),
            (stream, openai.APIError, {"Fail": "break", "After": "3"}),
            (stream, openai.APIError, {"Fail": "break-mid-event", "After": "3"}),
            (stream, openai.InternalServerError, {"Fail": "hang", "After": "0"}),
            (stream, openai.APIError, {"Fail": "hang", "After": "3"}),
            (create, openai.InternalServerError, {"Fail": "break", "After": "3"}),
            (create, openai.InternalServerError, {"Fail": "not-json", "After": "3"}),
        ]
        for call, error, controls in cases:
            with self.assertRaises(error, msg=str(controls)):
                await self.sdk(call, **controls)


class LangChainTests(ClientTestCase):
    """LangChain's chat model."""

    async def test_invoke_and_stream(self) -> None:
        """It can be invoked and streamed."""
        base = await self.base()

        def run() -> tuple[Any, list[Any]]:
            model = ChatOpenAI(model=MODEL, base_url=base, api_key=SecretStr("any"), max_retries=0)
            return model.invoke("Grüße!"), list(model.stream("Grüße!"))

        answer, chunks = await in_thread(run)
        self.assertIn("Grüße!", answer.content)
        self.assertEqual("".join(chunk.content for chunk in chunks), answer.content)
        self.assertEqual(answer.response_metadata["finish_reason"], "stop")
        self.assertGreater(answer.usage_metadata["output_tokens"], 5)
