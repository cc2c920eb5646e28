"""Configurations of ``examples/adapter``, each in front of a service of its shape."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy import APIError, SSEDecoder
from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.adapter.dialect import Dialect
from stream_proxy.adapter.resource import AdapterResource
from stream_proxy.service.configuration.loading import load_config
from stream_proxy.service.configuration.types import Rule
from tests.support import transcripts
from tests.support.loopback import LoopbackTestCase, Script
from tests.support.properties import examples
from tests.support.transcripts import Transcript
from tests.support.wire import JSON, Message, Stream, head, read_request, respond

FOLDER = Path(__file__).parent.parent.parent / "examples" / "adapter"
KEYS = {
    "DIFY_API_KEY": "app-1",
    "ANTHROPIC_API_KEY": "sk-ant-1",
    "GEMINI_API_KEY": "AIza1",
    "FLOWISE_API_KEY": "flowise-1",
    "LANGFLOW_API_KEY": "sk-langflow-1",
    "RAGFLOW_API_KEY": "ragflow-1",
    "COZE_API_TOKEN": "pat_1",
    "FASTGPT_API_KEY": "fastgpt-1",
    "COHERE_API_KEY": "cohere-1",
    "OPEN_WEBUI_API_KEY": "sk-webui-1",
}
ALL = transcripts.ALL
STREAMED = tuple(transcript for transcript in ALL if transcript.replacement is None)
REPLACED = tuple(transcript for transcript in ALL if transcript.replacement is not None)
#: A second question in a conversation, with all that the examples pass on but tools.
MESSAGES = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
    {
        "role": "user",
        "content": [{"type": "text", "text": "Why is"}, {"type": "text", "text": "it blue & é?"}],
    },
]
FULL = {
    "messages": MESSAGES,
    "temperature": 0,
    "top_p": 0.9,
    "seed": 7,
    "stop": "END",
    "max_completion_tokens": 256,
    "user": "ann",
}
SHORT = {"messages": [{"role": "user", "content": "Why?"}]}
TOOLS = [{"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}]


def rule(example: str) -> Rule:
    """Return the one rule of an example."""
    with patch.dict(os.environ, KEYS):
        config, warnings = load_config(FOLDER / f"{example}.json")
    assert not warnings, warnings
    (only,) = config.rules
    assert only.listen_port == 28081
    return only


def replay(transcript: Transcript, flushes: Sequence[bytes] | None = None, *, cut: bool = False) -> Script:
    """Respond to every request with these flushes, by default all; `cut`: then abort the connection."""

    async def script(stream: Stream) -> None:
        while True:
            await read_request(stream)
            stream.write(head(200, [("Content-Type", transcript.media), ("Transfer-Encoding", "chunked")]))
            for flush in transcript.flushes if flushes is None else flushes:
                stream.chunk(flush)
            if cut:
                stream.close()
                return
            stream.chunk(b"")

    return script


def told(chunks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the content of chunks, and check that the members they must share are equal."""
    text, reasoning, finish, usage = "", "", None, None
    calls: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            delta = choice["delta"]
            text += delta.get("content") or ""
            reasoning += delta.get("reasoning_content") or ""
            finish = choice["finish_reason"] or finish
            for call in delta.get("tool_calls", ()):
                known = calls.setdefault(call["index"], {key: call[key] for key in call if key != "index"})
                if "id" not in call:
                    known["function"]["arguments"] += call["function"]["arguments"]
    return {
        "text": text,
        "reasoning": reasoning,
        "tool_calls": [calls[index] for index in sorted(calls)],
        "finish": finish,
        "usage": usage,
    }


def expected(transcript: Transcript) -> dict[str, Any]:
    """Return the same for a transcript."""
    return {
        "text": transcript.text or "",
        "reasoning": transcript.reasoning,
        "tool_calls": list(transcript.tool_calls),
        "finish": transcript.finish,
        "usage": transcript.usage,
    }


def events(body: bytes) -> list[bytes]:
    """Return the data of a response's events."""
    decoder = SSEDecoder()
    found = [event.data for event in decoder.feed(body)]
    assert not decoder.stray()
    return found


class ExampleTestCase(LoopbackTestCase):
    """An adapter as an example configures it, in front of a scripted service."""

    async def adapter(self, example: str, script: Script) -> int:
        """Start both, and return the adapter's port."""
        configured = rule(example)
        service = await self.upstream(script)
        self.service_port = service.port
        url = re.sub(r"https?://[^/]+", service.url, configured.upstream_url)
        with patch.dict(os.environ, KEYS):
            return await self.proxy(url, resource=AdapterResource, config=configured.adapter)

    async def stream(self, port: int, model: str, **more: Any) -> list[bytes]:
        """Return the events of the response to a streaming call."""
        body = {**SHORT, "model": model, "stream": True, **more}
        response = await self.request(port, body=body)
        self.assertEqual(
            (response.status, response.get("content-type")), (200, "text/event-stream; charset=utf-8")
        )
        self.assertTrue(response.complete)
        return events(response.body)


class RequestTests(ExampleTestCase):
    """Requests to each service."""

    async def sent(
        self, transcript: Transcript, call: dict[str, Any], authorization: str | None = None
    ) -> tuple[str, dict[str, str], Any]:
        """Return the request line, headers other than framing, and body for an OpenAI `call`."""
        requests: list[Message] = []

        async def script(stream: Stream) -> None:
            requests.append(await read_request(stream))
            respond(stream, 200, transcript.body, [("Content-Type", transcript.media)])

        port = await self.adapter(transcript.example, script)
        fields = [] if authorization is None else [("Authorization", authorization)]
        body = {"model": transcript.model, **call}
        response = await self.request(port, body=body, headers=fields)
        self.assertEqual(response.status, 200, response.body)
        (request,) = requests
        headers = {name.lower(): value for name, value in request.headers}
        self.assertEqual(len(headers), len(request.headers))
        self.assertEqual(headers.pop("host"), f"127.0.0.1:{self.service_port}")
        headers.pop("connection", None)
        self.assertEqual(int(headers.pop("content-length", "0")), len(request.body))
        return request.line, headers, json.loads(request.body) if request.body else None

    def headers(self, **own: str) -> dict[str, str]:
        """Return the headers that every service gets, with those of this one."""
        common = {
            "accept": "text/event-stream",
            "accept-encoding": "identity",
            "content-type": "application/json",
        }
        return {**common, **{name.replace("_", "-"): value for name, value in own.items()}}

    async def test_dify(self) -> None:
        """The whole conversation is the query; a client without a user is anonymous."""
        line, headers, body = await self.sent(transcripts.DIFY, FULL, "Bearer the-client's")
        self.assertEqual(line, "POST /v1/chat-messages HTTP/1.1")
        self.assertEqual(headers, self.headers(authorization="Bearer app-1"))
        query = "developer: Be brief.\n\nuser: Hi\n\nassistant: Hello!\n\nuser: Why is\nit blue & é?"
        streaming = {"inputs": {}, "response_mode": "streaming"}
        self.assertEqual(body, {**streaming, "query": query, "user": "ann"})
        *_, body = await self.sent(transcripts.DIFY, SHORT)
        self.assertEqual(body, {**streaming, "query": "Why?", "user": "anonymous"})

    async def test_ollama(self) -> None:
        """Messages are plain text under Ollama's roles; options that the client did not set are left out."""
        line, headers, body = await self.sent(transcripts.OLLAMA, FULL)
        self.assertEqual(line, "POST /api/chat HTTP/1.1")
        self.assertEqual(headers, self.headers(accept="application/x-ndjson"))
        none = {"tool_calls": None, "tool_call_id": None}
        self.assertEqual(
            body,
            {
                "model": "qwen3",
                "messages": [
                    {"role": "system", "content": "Be brief.", **none},
                    {"role": "user", "content": "Hi", **none},
                    {"role": "assistant", "content": "Hello!", **none},
                    {"role": "user", "content": "Why is\nit blue & é?", **none},
                ],
                "options": {"temperature": 0, "top_p": 0.9, "seed": 7, "stop": ["END"], "num_predict": 256},
                "stream": True,
            },
        )
        *_, body = await self.sent(transcripts.OLLAMA, SHORT)
        messages = [{"role": "user", "content": "Why?", **none}]
        self.assertEqual(body, {"model": "qwen3", "messages": messages, "options": {}, "stream": True})

    async def test_ollama_tools(self) -> None:
        """Arguments of earlier calls become objects; tools and a JSON schema pass unchanged."""
        function = {"name": "get_time", "arguments": '{"zone": "UTC"}'}
        call = {"id": "call_0", "type": "function", "function": function}
        messages = [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_0", "content": "noon"},
        ]
        schema = {"type": "object", "properties": {"time": {"type": "string"}}}
        wanted = {"type": "json_schema", "json_schema": {"name": "time", "schema": schema}}
        asked = {"messages": messages, "tools": TOOLS, "response_format": wanted, "stop": ["a", "b"]}
        *_, body = await self.sent(transcripts.OLLAMA_TOOLS, asked)
        called = [{"id": "call_0", "function": {"name": "get_time", "arguments": {"zone": "UTC"}}}]
        self.assertEqual(
            body,
            {
                "model": "llama3.2",
                "messages": [
                    {"role": "assistant", "content": "", "tool_calls": called, "tool_call_id": None},
                    {"role": "tool", "content": "noon", "tool_calls": None, "tool_call_id": "call_0"},
                ],
                "tools": TOOLS,
                "format": schema,
                "options": {"stop": ["a", "b"]},
                "stream": True,
            },
        )
        *_, body = await self.sent(transcripts.OLLAMA, {**SHORT, "response_format": {"type": "json_object"}})
        self.assertEqual(body["format"], "json")
        *_, body = await self.sent(transcripts.OLLAMA, {**SHORT, "response_format": {"type": "text"}})
        self.assertNotIn("format", body)

    async def test_anthropic(self) -> None:
        """The system prompt stands apart from the messages; ``max_tokens`` is always set."""
        thinking = {"type": "adaptive"}
        line, headers, body = await self.sent(transcripts.ANTHROPIC, {**FULL, "thinking": thinking})
        self.assertEqual(line, "POST /v1/messages HTTP/1.1")
        own = {"x_api_key": "sk-ant-1", "anthropic_version": "2023-06-01"}
        self.assertEqual(headers, self.headers(**own))
        self.assertEqual(
            body,
            {
                "model": "claude-sonnet-4-6",
                "system": "Be brief.",
                "messages": [
                    {"role": "user", "content": "Hi"},
                    {"role": "assistant", "content": "Hello!"},
                    {"role": "user", "content": "Why is\nit blue & é?"},
                ],
                "max_tokens": 256,
                "temperature": 0,
                "top_p": 0.9,
                "stop_sequences": ["END"],
                "thinking": thinking,
                "stream": True,
            },
        )
        base = {
            "model": "claude-sonnet-4-6",
            "messages": [{"role": "user", "content": "Why?"}],
            "stream": True,
        }
        *_, body = await self.sent(transcripts.ANTHROPIC, SHORT)
        self.assertEqual(body, {**base, "max_tokens": 4096})
        *_, body = await self.sent(transcripts.ANTHROPIC, {**SHORT, "max_tokens": 10})
        self.assertEqual(body, {**base, "max_tokens": 10})

    async def test_gemini(self) -> None:
        """The model is in the URL, and messages have Gemini's roles and parts."""
        line, headers, body = await self.sent(transcripts.GEMINI, FULL)
        self.assertEqual(line, "POST /v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse HTTP/1.1")
        self.assertEqual(headers, self.headers(x_goog_api_key="AIza1"))
        thoughts = {"thinkingConfig": {"includeThoughts": True}}
        self.assertEqual(
            body,
            {
                "systemInstruction": {"parts": [{"text": "Be brief."}]},
                "contents": [
                    {"role": "user", "parts": [{"text": "Hi"}]},
                    {"role": "model", "parts": [{"text": "Hello!"}]},
                    {"role": "user", "parts": [{"text": "Why is\nit blue & é?"}]},
                ],
                "generationConfig": {
                    "temperature": 0,
                    "topP": 0.9,
                    "seed": 7,
                    "stopSequences": ["END"],
                    "maxOutputTokens": 256,
                    **thoughts,
                },
            },
        )
        *_, body = await self.sent(transcripts.GEMINI, SHORT)
        contents = [{"role": "user", "parts": [{"text": "Why?"}]}]
        self.assertEqual(body, {"contents": contents, "generationConfig": thoughts})

    async def test_cumulative(self) -> None:
        """The question is in the query of a GET."""
        line, headers, body = await self.sent(transcripts.CUMULATIVE, FULL)
        question = "question=Why+is%0Ait+blue+%26+%C3%A9%3F"
        self.assertEqual(line, f"GET /ask?{question}&rules=Be+brief.&caller=ann HTTP/1.1")
        self.assertEqual((headers, body), (self.headers(), None))
        line, *_ = await self.sent(transcripts.CUMULATIVE, SHORT)
        self.assertEqual(line, "GET /ask?question=Why%3F&caller=anonymous HTTP/1.1")

    async def test_nested(self) -> None:
        """Members are renamed; tools and the client's own key pass."""
        line, headers, body = await self.sent(transcripts.NESTED, {**FULL, "tools": TOOLS}, "Bearer mine")
        self.assertEqual(line, "POST /agents/support/run HTTP/1.1")
        self.assertEqual(headers, self.headers(authorization="Bearer mine"))
        self.assertEqual(
            body,
            {
                "session": {"user": "ann", "channel": "openai"},
                "dialog": [
                    {"from": "developer", "text": "Be brief."},
                    {"from": "user", "text": "Hi"},
                    {"from": "assistant", "text": "Hello!"},
                    {"from": "user", "text": "Why is\nit blue & é?"},
                ],
                "tools": TOOLS,
            },
        )
        _, headers, body = await self.sent(transcripts.NESTED, SHORT)
        self.assertEqual(headers, self.headers())
        dialog = [{"from": "user", "text": "Why?"}]
        self.assertEqual(body, {"session": {"user": "anonymous", "channel": "openai"}, "dialog": dialog})

    async def test_platforms(self) -> None:
        """Platforms get the conversation in the form that each takes, and its key."""
        said = "Why is\nit blue & é?"
        query = f"developer: Be brief.\n\nuser: Hi\n\nassistant: Hello!\n\nuser: {said}"
        turns = [("developer", "Be brief."), ("user", "Hi"), ("assistant", "Hello!"), ("user", said)]
        plain = [{"role": role, "content": text} for role, text in turns]
        for transcript, target, key, expected in (
            (
                transcripts.FLOWISE,
                "/api/v1/prediction/YOUR-CHATFLOW",
                ("authorization", "Bearer flowise-1"),
                {
                    "question": said,
                    "history": [
                        {"role": "userMessage", "content": "Be brief."},
                        {"role": "userMessage", "content": "Hi"},
                        {"role": "apiMessage", "content": "Hello!"},
                    ],
                    "streaming": True,
                },
            ),
            (
                transcripts.LANGFLOW,
                "/api/v1/run/YOUR-FLOW?stream=true",
                ("x-api-key", "sk-langflow-1"),
                {"input_value": query, "input_type": "chat", "output_type": "chat", "session_id": "ann"},
            ),
            (
                transcripts.LANGGRAPH,
                "/runs/stream",
                None,
                {"assistant_id": "agent", "input": {"messages": plain}, "stream_mode": ["messages"]},
            ),
            (
                transcripts.RAGFLOW,
                "/api/v1/chats/YOUR-CHAT/completions",
                ("authorization", "Bearer ragflow-1"),
                {"question": query, "stream": True},
            ),
            (
                transcripts.AG_UI,
                "/agent",
                None,
                {
                    "threadId": "ann",
                    "runId": "run",
                    "state": {},
                    "messages": [{"id": each["role"], **each} for each in plain],
                    "tools": [],
                    "context": [],
                    "forwardedProps": {},
                },
            ),
            (
                transcripts.AI_SDK,
                "/api/chat",
                None,
                {
                    "id": "ann",
                    "messages": [
                        {"id": role, "role": role, "parts": [{"type": "text", "text": text}]}
                        for role, text in turns
                    ],
                },
            ),
            (
                transcripts.BEDROCK,
                "/converse-stream",
                None,
                {
                    "modelId": "claude",
                    "system": [{"text": "Be brief."}],
                    "messages": [
                        {"role": role, "content": [{"text": text}]}
                        for role, text in turns
                        if role != "developer"
                    ],
                    "inferenceConfig": {"maxTokens": 256, "temperature": 0, "topP": 0.9},
                },
            ),
            (transcripts.SPRING, "/chat/stream?message=Why+is%0Ait+blue+%26+%C3%A9%3F", None, None),
        ):
            line, headers, body = await self.sent(transcript, FULL)
            self.assertEqual(line.split()[1], target)
            self.assertEqual(body, expected, transcript.name)
            if key is not None:
                self.assertEqual(headers[key[0]], key[1])

    async def test_named_events(self) -> None:
        """A field of the client's request is sent on."""
        requests: list[Message] = []

        async def script(stream: Stream) -> None:
            requests.append(await read_request(stream))
            respond(stream, 200, transcripts.NAMED_EVENTS.body, [("Content-Type", transcripts.EVENTS)])

        port = await self.adapter("named-events", script)
        body = {**SHORT, "model": "assistant"}
        await self.request(port, body=body, headers=[("X-TEAM", "blue")])
        self.assertEqual(requests[0].get("x-team"), "blue")

    async def test_mock(self) -> None:
        """Model and messages pass as the client wrote them."""
        line, headers, body = await self.sent(transcripts.MOCK, FULL)
        self.assertEqual(line, "POST /stream HTTP/1.1")
        self.assertEqual(headers, self.headers())
        self.assertEqual(body, {"model": "gpt-3.5-turbo", "messages": MESSAGES})


class AnswerTests(ExampleTestCase):
    """Responses to clients, compared with the services' transcripts."""

    async def test_streamed(self) -> None:
        """A stream has text, reasoning, calls, finish reason, usage on request, and ``[DONE]`` at its end."""
        for transcript in STREAMED:
            port = await self.adapter(transcript.example, replay(transcript))
            for options, usage in (({"include_usage": True}, transcript.usage), (None, None)):
                *data, last = await self.stream(port, transcript.model, stream_options=options)
                self.assertEqual(last, b"[DONE]", transcript.name)
                chunks = [json.loads(item) for item in data]
                self.assertEqual(told(chunks), {**expected(transcript), "usage": usage}, transcript.name)
                heads = {(c["id"], c["created"], c["model"], c["object"]) for c in chunks}
                ((identity, _, model, kind),) = heads
                self.assertRegex(identity, "^chatcmpl-")
                self.assertEqual((model, kind), (transcript.model, "chat.completion.chunk"))
                self.assertEqual(chunks[0]["choices"][0]["delta"].get("role"), "assistant")
                if usage is not None:
                    self.assertEqual(chunks[-1]["choices"], [])
                self.assertEqual([c for c in chunks[:-1] if c.get("usage") is not None], [])

    async def test_whole(self) -> None:
        """Without streaming it is a ``chat.completion``, always with the usage."""
        for transcript in ALL:
            port = await self.adapter(transcript.example, replay(transcript))
            response = await self.request(port, body={**SHORT, "model": transcript.model})
            self.assertEqual((response.status, response.get("content-type")), (200, "application/json"))
            completion = response.json()
            self.assertRegex(completion.pop("id"), "^chatcmpl-")
            self.assertIsInstance(completion.pop("created"), int)
            text = transcript.text if transcript.replacement is None else transcript.replacement
            message: dict[str, Any] = {"role": "assistant", "content": text}
            if transcript.reasoning:
                message["reasoning_content"] = transcript.reasoning
            if transcript.tool_calls:
                message["tool_calls"] = list(transcript.tool_calls)
            choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": transcript.finish}
            self.assertEqual(
                completion,
                {
                    "object": "chat.completion",
                    "model": transcript.model,
                    "choices": [choice],
                    "usage": transcript.usage,
                },
                transcript.name,
            )

    async def test_replaced(self) -> None:
        """A stream whose text is replaced ends with an error that says so."""
        self.assertTrue(REPLACED)
        for transcript in REPLACED:
            port = await self.adapter(transcript.example, replay(transcript))
            *data, last = await self.stream(port, transcript.model)
            self.assertRegex(json.loads(last)["error"]["message"], "(replaced|changed) text that")
            self.assertEqual(told(json.loads(item) for item in data)["text"], transcript.text)

    async def test_the_mock_itself(self) -> None:
        """The mock's text is the same through its example as without it."""
        mock = await self.mock()
        accept = [("Accept", transcripts.EVENTS)]
        direct = await self.request(
            int(mock.rpartition(":")[2]),
            target="/stream",
            body={**SHORT, "model": "gpt-3.5-turbo"},
            headers=accept,
        )
        payloads = [json.loads(item) for item in events(direct.body)]
        port = await self.proxy(f"{mock}/stream", resource=AdapterResource, config=rule("mock").adapter)
        *data, last = await self.stream(port, "gpt-3.5-turbo", stream_options={"include_usage": True})
        self.assertEqual(last, b"[DONE]")
        got = told(json.loads(item) for item in data)
        self.assertEqual(got["text"], "".join(payload["data"]["content"] for payload in payloads))
        self.assertEqual(got["finish"], payloads[-1]["finish"])
        counts = (got["usage"]["prompt_tokens"], got["usage"]["completion_tokens"])
        self.assertEqual(counts, tuple(payloads[-1]["usage"].values()))


class CutTests(ExampleTestCase):
    """Streams that break off."""

    async def test_before_the_first_chunk(self) -> None:
        """Before the first chunk it is a 502, whether the body ends in order or the connection is lost."""
        for transcript in ALL:
            for cut in (False, True):
                begun = replay(transcript, transcript.flushes[: transcript.silent], cut=cut)
                port = await self.adapter(transcript.example, begun)
                for stream in (False, True):
                    body = {**SHORT, "model": transcript.model, "stream": stream}
                    response = await self.request(port, body=body)
                    self.assertEqual(response.status, 502, transcript.name)
                    self.assertEqual(set(response.json()), {"error"})

    async def test_after_the_first_chunk(self) -> None:
        """In a stream an error chunk follows the text as the last event; otherwise it is a 502."""
        for transcript in STREAMED:
            said = transcript.flushes[:-1]
            if len(said) == transcript.silent:
                continue
            # A service that does not announce its end can only be seen to break off by its framing.
            for cut in (False, True) if transcript.announced else (True,):
                port = await self.adapter(transcript.example, replay(transcript, said, cut=cut))
                *data, last = await self.stream(port, transcript.model)
                code = "upstream_cut" if cut else "upstream_incomplete"
                self.assertEqual(json.loads(last)["error"]["code"], code, transcript.name)
                got = told(json.loads(item) for item in data)
                self.assertEqual((got["text"], got["finish"]), (transcript.text or "", None), transcript.name)
                response = await self.request(port, body={**SHORT, "model": transcript.model})
                self.assertEqual(response.status, 502, transcript.name)


class ErrorTests(ExampleTestCase):
    """Errors in the formats of the services."""

    async def check_payload(self, transcript: Transcript, payload: bytes, message: str) -> None:
        """An error payload is an error before the first chunk, and the last chunk after it."""
        port = await self.adapter(transcript.example, replay(transcript, [payload]))
        response = await self.request(port, body={**SHORT, "model": transcript.model, "stream": True})
        self.assertGreaterEqual(response.status, 400)
        self.assertEqual(response.json()["error"]["message"], message)
        flushes = [*transcript.flushes[: transcript.silent + 1], payload]
        port = await self.adapter(transcript.example, replay(transcript, flushes))
        *data, last = await self.stream(port, transcript.model)
        self.assertTrue(data)
        self.assertEqual(json.loads(last)["error"]["message"], message)

    async def test_dify(self) -> None:
        """``event: error``, with the message of the model's provider."""
        payload = (
            b'data: {"event": "error", "conversation_id": "c1", "message_id": "m1", '
            b'"created_at": 1679586595, "code": "completion_request_error", "status": 400, '
            b'"message": "The model is overloaded."}\n\n'
        )
        await self.check_payload(transcripts.DIFY, payload, "The model is overloaded.")

    async def test_ollama(self) -> None:
        """Ollama sends a line with only the error."""
        line = b'{"error":"an error was encountered while running the model"}\n'
        await self.check_payload(transcripts.OLLAMA, line, "an error was encountered while running the model")

    async def test_anthropic(self) -> None:
        """Anthropic sends an ``error`` event."""
        payload = (
            b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": '
            b'"Overloaded"}}\n\n'
        )
        await self.check_payload(transcripts.ANTHROPIC, payload, "Overloaded")

    async def test_gemini(self) -> None:
        """The error as a payload."""
        payload = (
            b'data: {"error": {"code": 503,"message": "The model is overloaded.",'
            b'"status": "UNAVAILABLE"}}\r\n\r\n'
        )
        await self.check_payload(transcripts.GEMINI, payload, "The model is overloaded.")

    async def test_cumulative(self) -> None:
        """The error as a payload, of a shape that most services share."""
        await self.check_payload(
            transcripts.CUMULATIVE, b'data: {"error":"No such turn."}\n\n', "No such turn."
        )

    async def test_nested(self) -> None:
        """The service sends a code other than 0."""
        payload = b'event: step\ndata: {"code":5003,"msg":"The agent is busy.","data":null}\n\n'
        await self.check_payload(transcripts.NESTED, payload, "The agent is busy.")

    async def test_mock(self) -> None:
        """The mock's error event."""
        payload = b'event: error\ndata: {"error": {"message": "Made to fail.", "code": "mock"}}\n\n'
        await self.check_payload(transcripts.MOCK, payload, "Made to fail.")

    async def test_refusals(self) -> None:
        """An error status is kept, with the message of its body."""
        bodies = {
            "dify": (400, b'{"code": "invalid_param", "message": "query is required", "status": 400}'),
            "ollama": (404, b'{"error":"model \'qwen3\' not found"}'),
            "anthropic": (
                401,
                b'{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}',
            ),
            "gemini": (
                429,
                b'{"error": {"code": 429,"message": "Quota exceeded.","status": "RESOURCE_EXHAUSTED"}}',
            ),
            "mock": (406, b'{"error": {"message": "Send the header.", "code": "not_acceptable"}}'),
        }
        messages = {
            "dify": "query is required",
            "ollama": "model 'qwen3' not found",
            "anthropic": "invalid x-api-key",
            "gemini": "Quota exceeded.",
            "mock": "Send the header.",
        }
        for example, (status, body) in bodies.items():

            async def script(stream: Stream, status: int = status, body: bytes = body) -> None:
                await read_request(stream)
                respond(stream, status, body, [JSON])

            port = await self.adapter(example, script)
            model = next(transcript.model for transcript in ALL if transcript.example == example)
            response = await self.request(port, body={**SHORT, "model": model, "stream": True})
            got = (response.status, response.json()["error"]["message"])
            self.assertEqual(got, (status, messages[example]), example)


def translate(transcript: Transcript, reads: Iterable[bytes], dialect: Dialect) -> dict[str, Any]:
    """Return the content of the chunks for a body that comes in these reads.

    :raises APIError: it is broken.
    """
    media = transcript.media.partition(";")[0].encode()
    identity = ("chatcmpl-1", 1750000000, transcript.model)
    translation = dialect.translation(media, identity, include_usage=True, max_bytes=2**20)
    chunks = [chunk for read in reads for chunk in translation.feed(read)]
    chunks += translation.end()
    return told(map(json.loads, chunks))


@cache
def dialect_of(example: str) -> Dialect:
    """Return an example, compiled."""
    configured = rule(example)
    assert configured.adapter is not None
    return Dialect(configured.upstream_url, configured.adapter, KEYS)


class FileTests(SynchronousTestCase):
    """The folder as a whole."""

    def test_all_are_tested(self) -> None:
        """Each file has a transcript here, except the one that the container's test covers."""
        files = {path.stem for path in FOLDER.glob("*.json")}
        self.assertEqual(files - {"compose"}, {transcript.example for transcript in ALL})


class GuessTests(SynchronousTestCase):
    """The same bodies without a configuration."""

    #: Services whose format nothing can know without being told.
    UNKNOWN = frozenset({"cumulative", "nested", "nested tools"})

    def test_never_another_text(self) -> None:
        """Without expressions the text is the right one, or there is an error."""
        dialect = Dialect("http://service", AdapterConfig())
        for transcript in STREAMED:
            try:
                got = translate(transcript, transcript.flushes, dialect)
            except APIError as error:
                self.assertIn(transcript.name, self.UNKNOWN, error)
            else:
                self.assertNotIn(transcript.name, self.UNKNOWN)
                said = (got["text"], got["reasoning"])
                self.assertEqual(said, (transcript.text or "", transcript.reasoning), transcript.name)


class SplitTests(SynchronousTestCase):
    """Bodies cut into reads, or cut off, at any byte; sans-I/O."""

    @examples(150)
    @given(st.sampled_from(STREAMED), st.data())
    def test_reads(self, transcript: Transcript, data: st.DataObject) -> None:
        """The chunks do not depend on how the body is cut into reads."""
        body = transcript.body
        cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=12)))
        reads = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        got = translate(transcript, reads, dialect_of(transcript.example))
        self.assertEqual(got, expected(transcript))

    def test_single_bytes(self) -> None:
        """Reads of one byte each change nothing."""
        for transcript in STREAMED:
            reads = (bytes([byte]) for byte in transcript.body)
            got = translate(transcript, reads, dialect_of(transcript.example))
            self.assertEqual(got, expected(transcript), transcript.name)

    @examples(100)
    @given(st.sampled_from([transcript for transcript in ALL if transcript.announced]), st.data())
    def test_cut_anywhere(self, transcript: Transcript, data: st.DataObject) -> None:
        """A body that ends anywhere before the event that marks its end is an error."""
        before = sum(map(len, transcript.flushes[:-1]))
        body = transcript.body[: data.draw(st.integers(0, before))]
        with self.assertRaises(APIError):
            translate(transcript, [body], dialect_of(transcript.example))

    @examples(50)
    @given(st.data())
    def test_cut_in_a_payload(self, data: st.DataObject) -> None:
        """Without such a mark, an end inside a payload is an error all the same."""
        flushes = transcripts.GEMINI.flushes
        number = data.draw(st.integers(0, len(flushes) - 1))
        last = flushes[number]
        first, end = last.index(b"{") + 2, last.rindex(b"}")
        part = last[: data.draw(st.integers(first, end))]
        with self.assertRaises(APIError):
            translate(transcripts.GEMINI, [*flushes[:number], part], dialect_of("gemini"))
