"""Tests of the mock upstream over real sockets: the bytes on the wire, and the real ``openai`` SDK."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from openai import APIError, BadRequestError, OpenAI, RateLimitError
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.python.monkey import MonkeyPatcher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, HTTPConnectionPool, ResponseFailed, ResponseNeverReceived
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from twisted.web.server import Request

from stream_proxy.mock import EPOCH, mock_site
from stream_proxy.mock.delivery import Delivery
from stream_proxy.mock.files import FileStore
from stream_proxy.mock.text import instance, tokens
from stream_proxy.mock.wire import Ending, HTTPResponse, MockError

T = TypeVar("T")

ASK: dict[str, Any] = {"model": "mock", "messages": [{"role": "user", "content": "Hello there"}]}
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 2, "maximum": 5}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
CHAT_TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": WEATHER}} for name in ("now", "soon")
]
RESPONSE_TOOLS = [{"type": "function", "name": name, "parameters": WEATHER} for name in ("now", "soon")]
SCHEMA = {"type": "json_schema", "name": "weather", "schema": WEATHER, "strict": True}


def events_of(body: str) -> list[tuple[str | None, Any]]:
    """Return the name and the JSON (or text) of each event in a well-formed body of the mock."""
    found = []
    for block in body.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        data = fields["data"]
        found.append((fields.get("event"), json.loads(data) if data.startswith("{") else data))
    return found


class MockTestCase(TestCase):
    """A mock on a loopback port. A test ends once the mock has seen all of its clients leave."""

    def setUp(self) -> None:
        """Listen on a free port."""
        self.left: list[Deferred[None]] = []
        self.site = site = mock_site(reactor)
        build = site.buildProtocol

        def watched(address: IAddress | None) -> Any:
            channel: Any = build(address)
            left: Deferred[None] = Deferred()
            self.left.append(left)
            lost = channel.connectionLost

            def connection_lost(reason: Failure) -> None:
                lost(reason)
                left.callback(None)

            channel.connectionLost = connection_lost
            return channel

        self.patch(site, "buildProtocol", watched)
        self.port = reactor.listenTCP(0, site, interface="127.0.0.1")  # type: ignore[arg-type]
        address = self.port.getHost()
        assert isinstance(address, IPv4Address)
        self.base = f"http://127.0.0.1:{address.port}"

    async def tearDown(self) -> None:  # type: ignore[override]
        """Close the port, and wait for all connections to end."""
        await maybeDeferred(self.port.stopListening)
        for left in self.left:
            await left


class Leaver(Protocol):
    """A reader that closes the connection after `most` events of a body."""

    def __init__(self, most: int) -> None:
        self.body = b""
        self.most = most
        self.gone: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        """Close at once if no event is wanted."""
        self.dataReceived(b"")

    def dataReceived(self, data: bytes) -> None:
        """Count the events."""
        self.body += data
        if self.body.count(b"\n\n") >= self.most:
            assert self.transport is not None
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fire the Deferred of the test."""
        self.gone.callback(None)


class WireTests(MockTestCase):
    """Requests through treq; each returns status, headers, body, and whether the body was complete."""

    def setUp(self) -> None:
        """Create a client."""
        super().setUp()
        self.pool = HTTPConnectionPool(reactor)
        self.http = HTTPClient(Agent(reactor, self.pool))

    async def tearDown(self) -> None:  # type: ignore[override]
        """Close the client's connections."""
        await self.pool.closeCachedConnections()
        await super().tearDown()

    async def ask(
        self, path: str, body: Any = None, method: str = "POST", **control: Any
    ) -> tuple[int, dict[str, str], str, bool]:
        """Send a request, with `control` as ``X-Mock-`` headers."""
        headers = Headers(
            {"X-Mock-" + name.replace("_", "-"): [str(value)] for name, value in control.items()}
        )
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        response = await self.http.request(
            method, self.base + path, headers=headers, data=data, unbuffered=True
        )
        pieces: list[bytes] = []
        whole = True
        try:
            await response.collect(pieces.append)
        except (ResponseFailed, PotentialDataLoss):
            whole = False
        found = {
            name.decode().lower(): value[0].decode() for name, value in response.headers.getAllRawHeaders()
        }
        # Agent removes this header from the response.
        found["content-length"] = str(response.length)
        return response.code, found, b"".join(pieces).decode(), whole

    async def chunks(self, body: dict[str, Any], **control: Any) -> list[Any]:
        """Return the chunks of a chat stream that ends with [DONE]."""
        code, headers, text, whole = await self.ask(
            "/v1/chat/completions", {**body, "stream": True}, **control
        )
        self.assertEqual(
            (code, headers["content-type"], whole), (200, "text/event-stream; charset=utf-8", True)
        )
        found = events_of(text)
        self.assertEqual(found.pop(), (None, "[DONE]"))
        self.assertTrue(all(name is None for name, _ in found))
        return [data for _, data in found]

    async def test_chat_stream_shape(self) -> None:
        """The role comes first with empty content, then pieces, finish and usage; all have the same id."""
        options = {"include_usage": True}
        found = await self.chunks({**ASK, "stream_options": options})
        *deltas, usage = found
        self.assertEqual(
            deltas[0]["choices"][0]["delta"], {"role": "assistant", "content": "", "refusal": None}
        )
        self.assertEqual(deltas[-1]["choices"][0]["delta"], {})
        self.assertEqual(deltas[-1]["choices"][0]["finish_reason"], "stop")
        self.assertTrue(all(chunk["usage"] is None for chunk in deltas))
        self.assertEqual(usage["choices"], [])
        self.assertEqual(len({(chunk["id"], chunk["created"], chunk["object"]) for chunk in found}), 1)
        self.assertEqual(found[0]["created"], EPOCH)

        _, _, text, _ = await self.ask("/v1/chat/completions", ASK)
        whole = json.loads(text)
        self.assertEqual(whole["id"], found[0]["id"])
        self.assertEqual(whole["usage"], usage["usage"])
        content = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in deltas)
        self.assertEqual(whole["choices"][0]["message"]["content"], content)
        self.assertIn("Hello there", content)

    async def test_no_usage_unless_asked(self) -> None:
        """There is no usage without ``include_usage``, and no padding with ``include_obfuscation: false``."""
        found = await self.chunks({**ASK, "stream_options": {"include_obfuscation": False}})
        self.assertFalse(any("usage" in chunk or "obfuscation" in chunk for chunk in found))
        self.assertTrue(all(chunk["choices"] for chunk in found))

    async def test_parallel_tool_calls(self) -> None:
        """A call begins with index, id, type and name; its arguments follow in pieces; both modes agree."""
        body = {**ASK, "tools": CHAT_TOOLS}
        parts = [
            call
            for chunk in await self.chunks(body)
            for call in chunk["choices"][0]["delta"].get("tool_calls", ())
        ]
        calls = json.loads((await self.ask("/v1/chat/completions", body))[2])["choices"][0]["message"][
            "tool_calls"
        ]
        self.assertEqual([call["function"]["name"] for call in calls], ["now", "soon"])
        for index, call in enumerate(calls):
            mine = [part for part in parts if part["index"] == index]
            function = {"name": call["function"]["name"], "arguments": ""}
            self.assertEqual(mine[0], {**call, "index": index, "function": function})
            self.assertTrue(all(set(part) == {"index", "function"} for part in mine[1:]))
            self.assertGreater(len(mine), 3)
            joined = "".join(part["function"]["arguments"] for part in mine)
            self.assertEqual(joined, call["function"]["arguments"])
            self.assertEqual(json.loads(joined)["days"], 2)

    async def test_which_tools(self) -> None:
        """``tool_choice``, ``parallel_tool_calls`` and a tool's result decide which functions are called."""

        async def names(**more: object) -> list[str]:
            _, _, text, _ = await self.ask("/v1/chat/completions", {**ASK, "tools": CHAT_TOOLS, **more})
            calls = json.loads(text)["choices"][0]["message"].get("tool_calls", [])
            return [call["function"]["name"] for call in calls]

        self.assertEqual(await names(tool_choice="none"), [])
        self.assertEqual(await names(parallel_tool_calls=False), ["now"])
        self.assertEqual(
            await names(tool_choice={"type": "function", "function": {"name": "soon"}}), ["soon"]
        )
        result = {"role": "tool", "tool_call_id": "call_1", "content": "rain"}
        self.assertEqual(await names(messages=[*ASK["messages"], result]), [])

    async def test_choices_interleave(self) -> None:
        """``n`` choices differ and interleave."""
        order = [chunk["choices"][0]["index"] for chunk in await self.chunks({**ASK, "n": 3})]
        self.assertEqual(order[:6], [0, 1, 2, 0, 1, 2])
        choices = json.loads((await self.ask("/v1/chat/completions", {**ASK, "n": 3}))[2])["choices"]
        self.assertEqual(len({choice["message"]["content"] for choice in choices}), 3)

    async def test_logprobs_and_reasoning(self) -> None:
        """Each piece carries its entry of the JSON response's ``logprobs``; reasoning comes first."""
        body = {**ASK, "logprobs": True, "top_logprobs": 2, "reasoning_effort": "low"}
        found = [chunk["choices"][0] for chunk in await self.chunks(body)]
        choice = json.loads((await self.ask("/v1/chat/completions", body))[2])["choices"][0]
        entries = [entry for part in found if part["logprobs"] for entry in part["logprobs"]["content"]]
        self.assertEqual(entries, choice["logprobs"]["content"])
        self.assertEqual(len(entries[0]["top_logprobs"]), 2)
        self.assertEqual("".join(entry["token"] for entry in entries), choice["message"]["content"])
        thought = "".join(part["delta"].get("reasoning_content", "") for part in found)
        self.assertEqual(thought, choice["message"]["reasoning_content"])
        self.assertIn("reasoning_content", found[1]["delta"])

    async def test_responses_stream_shape(self) -> None:
        """The events are numbered, named and in the API's order; the last one holds the JSON response."""
        body = {"model": "mock", "input": "Hello", "reasoning": {"effort": "low", "summary": "auto"}}
        code, _, text, whole = await self.ask("/v1/responses", {**body, "stream": True})
        self.assertEqual((code, whole), (200, True))
        found = events_of(text)
        self.assertEqual([name for name, _ in found], [data["type"] for _, data in found])
        self.assertEqual([data["sequence_number"] for _, data in found], list(range(len(found))))
        kinds = [name for name, _ in found if name is not None]
        self.assertEqual(
            [kind.removeprefix("response.") for at, kind in enumerate(kinds) if kinds[at - 1] != kind],
            ["created", "in_progress", "output_item.added", "reasoning_summary_part.added",
             "reasoning_summary_text.delta", "reasoning_summary_text.done", "reasoning_summary_part.done",
             "output_item.done", "output_item.added", "content_part.added", "output_text.delta",
             "output_text.done", "content_part.done", "output_item.done", "completed"],
        )  # fmt: skip
        response = json.loads((await self.ask("/v1/responses", body))[2])
        self.assertEqual(found[-1][1]["response"], response)
        done = [data["item"] for name, data in found if name == "response.output_item.done"]
        self.assertEqual(done, response["output"])
        text = "".join(data["delta"] for name, data in found if name == "response.output_text.delta")
        self.assertEqual(text, response["output"][1]["content"][0]["text"])

    async def test_text_length(self) -> None:
        """``X-Mock-Words`` is exact, and a token limit ends the text early in both APIs."""
        _, _, text, _ = await self.ask("/v1/chat/completions", ASK, Words=1000)
        self.assertEqual(len(json.loads(text)["choices"][0]["message"]["content"].split()), 1000)
        _, _, text, _ = await self.ask("/v1/chat/completions", {**ASK, "max_tokens": 3})
        self.assertEqual(json.loads(text)["choices"][0]["finish_reason"], "length")
        self.assertEqual(json.loads(text)["usage"]["completion_tokens"], 3)
        body = {"model": "mock", "input": "Hello", "max_output_tokens": 3, "stream": True}
        _, _, text, _ = await self.ask("/v1/responses", body)
        name, last = events_of(text)[-1]
        self.assertEqual(name, "response.incomplete")
        self.assertEqual(last["response"]["incomplete_details"], {"reason": "max_output_tokens"})

    async def test_failures_inside_chat(self) -> None:
        """Each failure comes after the events asked for, and only a break leaves the body incomplete."""

        async def fail(kind: str, after: int = 3) -> tuple[str, bool]:
            _, _, text, whole = await self.ask(
                "/v1/chat/completions", {**ASK, "stream": True}, Fail=kind, After=after
            )
            return text, whole

        text, whole = await fail("error-chunk")
        self.assertEqual((len(events_of(text)), whole), (4, True))
        self.assertEqual(events_of(text)[3][1]["error"]["code"], "server_error")
        text, whole = await fail("error-event")
        self.assertEqual((events_of(text)[3][0], whole), ("error", True))
        text, whole = await fail("break")
        self.assertEqual((len(events_of(text)), whole), (3, False))
        text, whole = await fail("break-mid-event", -1)
        self.assertEqual((text.endswith("\n\ndata: ["), whole), (True, False))
        text, whole = await fail("no-done")
        self.assertEqual(("[DONE]" in text, '"finish_reason":"stop"' in text, whole), (False, True, True))
        text, whole = await fail("not-json")
        self.assertEqual((events_of(text)[3][1][0], "[DONE]" in text, whole), ("<", True, True))

    async def test_failures_inside_responses(self) -> None:
        """Responses fail with a terminal event, with a flat error event, or without their last event."""
        body = {"model": "mock", "input": "Hello", "stream": True}
        for kind, code in (
            ("failed", "rate_limit_exceeded"),
            ("failed", "none"),
            ("error-event", "slow_down"),
        ):
            _, _, text, _ = await self.ask("/v1/responses", body, Fail=kind, Code=code, After=4)
            name, last = events_of(text)[-1]
            self.assertEqual((last["type"], last["sequence_number"]), (name, 4))
            if kind == "failed":
                error = last["response"]["error"]
                self.assertEqual(
                    (name, error and error["code"]), ("response.failed", None if code == "none" else code)
                )
            else:
                self.assertEqual((name, last["code"], last["param"]), ("error", "slow_down", None))
        _, _, text, whole = await self.ask("/v1/responses", body, Fail="no-done")
        self.assertEqual((events_of(text)[-1][0], whole), ("response.output_item.done", True))

    async def test_failures_outside_streams(self) -> None:
        """An error has the status of its code, a break cuts the body, and a failed Response may be a 200."""
        code, _, text, _ = await self.ask("/v1/chat/completions", ASK, Fail="error-chunk", Code="slow_down")
        self.assertEqual((code, json.loads(text)["error"]["code"]), (503, "slow_down"))
        code, headers, text, whole = await self.ask("/v1/models", method="GET", Fail="break")
        self.assertEqual((code, whole), (200, False))
        self.assertEqual(len(text), int(headers["content-length"]) // 2)
        _, headers, text, whole = await self.ask("/v1/chat/completions", ASK, Fail="not-json")
        self.assertEqual((headers["content-type"], text[0], whole), ("application/json", "<", True))
        body = {"model": "mock", "input": "Hello"}
        code, _, text, _ = await self.ask("/v1/responses", body, Fail="failed", Code="none")
        self.assertEqual((code, json.loads(text)["status"], json.loads(text)["error"]), (200, "failed", None))

    async def test_hang_ends_with_the_client(self) -> None:
        """A hanging stream sends its events and then nothing, and ends when its client leaves."""
        leaver = await self.leave(2, {"X-Mock-Fail": ["hang"], "X-Mock-After": ["2"]})
        self.assertEqual(leaver.body.count(b"\n\n"), 2)

    async def leave(self, most: int, headers: dict[str, list[str]]) -> Leaver:
        """Request a chat stream and close the connection after `most` events."""
        response = await self.http.post(
            self.base + "/v1/chat/completions",
            json={**ASK, "stream": True},
            headers=Headers(headers),
            unbuffered=True,
        )
        leaver = Leaver(most)
        response.deliverBody(leaver)
        await leaver.gone
        return leaver

    def next_request(self) -> Deferred[None]:
        """Return a Deferred that fires once the mock has begun to process a request."""
        arrived: Deferred[None] = Deferred()
        find = self.site.getResourceFor
        patch: MonkeyPatcher

        def watched(request: Request) -> IResource:
            patch.restore()
            reactor.callLater(0, arrived.callback, None)
            resource: IResource = find(request)
            return resource

        patch = MonkeyPatcher((self.site, "getResourceFor", watched))
        patch.patch()
        return arrived

    async def test_pace_and_delay_are_cancelled(self) -> None:
        """A client that leaves during the delay, or between two paced events, leaves no timer behind."""
        for control in ({"X-Mock-Delay": ["3000"]}, {"X-Mock-Fail": ["hang"]}):
            arrived = self.next_request()
            url = self.base + "/v1/chat/completions"
            waiting = self.http.post(url, json=ASK, headers=Headers(control))
            await arrived
            waiting.cancel()
            with self.assertRaises((CancelledError, ResponseNeverReceived)):
                await waiting
        await self.leave(0, {"X-Mock-Pace": ["3000"]})

    async def test_status(self) -> None:
        """``X-Mock-Status`` leads to OpenAI's envelope with the headers of such an error."""
        code, headers, text, _ = await self.ask("/v1/chat/completions", ASK, Status=429)
        self.assertEqual((code, headers["retry-after"]), (429, "1"))
        self.assertEqual(json.loads(text)["error"]["code"], "rate_limit_exceeded")
        self.assertEqual(json.loads(text)["error"]["type"], "rate_limit_error")
        for name in ("x-request-id", "openai-processing-ms", "x-ratelimit-remaining-tokens"):
            self.assertIn(name, headers)

    async def test_refusals(self) -> None:
        """Refusals of a missing ``stream``, of ``stream`` and of its options name the parameter."""
        streamed = {**ASK, "stream": True}
        optioned = {**streamed, "stream_options": {"include_usage": True}}
        for body, control, expected in (
            (ASK, {"Require_Stream": 1}, (400, "stream")),
            ({**ASK, "model": "stream-only"}, {}, (400, "stream")),
            (ASK, {"Refuse": "stream"}, (200, None)),
            (streamed, {"Refuse": "stream"}, (400, "stream")),
            (optioned, {"Refuse": "stream_options"}, (400, "stream_options")),
            (streamed, {"Refuse": "stream_options"}, (200, None)),
            ({**optioned, "stream": False}, {}, (400, "stream_options")),
        ):
            code, _, text, _ = await self.ask("/v1/chat/completions", body, **control)
            param = json.loads(text)["error"]["param"] if code == 400 else None
            self.assertEqual((code, param), expected, (body, control))
        code, _, text, _ = await self.ask("/v1/responses", {"model": "mock", "input": "x"}, Require_Stream=1)
        self.assertEqual(json.loads(text)["error"]["message"], "Stream must be set to true")
        await self.chunks({**ASK, "model": "stream-only"})

    async def test_malformed_requests(self) -> None:
        """An invalid request of any kind gets a 4xx in OpenAI's envelope."""
        chat = "/v1/chat/completions"
        for path, body, expected in (
            (chat, b"{", (400, None)),
            (chat, b"[]", (400, None)),
            (chat, b"[" * 100_000, (400, None)),
            (chat, {"messages": ASK["messages"]}, (400, "model")),
            (chat, {"model": "mock"}, (400, "messages")),
            (chat, {**ASK, "messages": ["x"]}, (400, "messages")),
            (chat, {**ASK, "stream": "yes"}, (400, "stream")),
            (chat, {**ASK, "n": 0}, (400, "n")),
            (chat, {**ASK, "n": True}, (400, "n")),
            (chat, {**ASK, "top_logprobs": 2}, (400, "top_logprobs")),
            (chat, {**ASK, "tools": [{"type": "function"}]}, (400, "tools[0].name")),
            (chat, {**ASK, "tools": CHAT_TOOLS, "tool_choice": {"type": "function"}}, (400, "tool_choice")),
            (chat, {**ASK, "response_format": {"type": "xml"}}, (400, "response_format.type")),
            (chat, {**ASK, "response_format": {"type": "json_schema"}}, (400, "response_format.schema")),
            ("/v1/responses", {"model": "mock"}, (400, "input")),
            ("/v1/responses", {"model": "mock", "input": ["x"]}, (400, "input")),
            ("/v1/embeddings", {"model": "mock"}, (400, "input")),
            ("/v1/files", b"x", (400, None)),
            ("/v1/nothing", {}, (404, None)),
            ("/", {}, (404, None)),
        ):
            code, headers, text, _ = await self.ask(path, body)
            error = json.loads(text)["error"]
            self.assertEqual((code, error["param"]), expected, (path, body))
            self.assertEqual(
                (set(error), error["type"]), ({"message", "type", "param", "code"}, "invalid_request_error")
            )
        code, headers, text, _ = await self.ask(chat, method="GET")
        self.assertEqual((code, headers["allow"]), (405, "POST"))
        for name in ("Status", "Delay", "Pace", "Words", "After", "Fail", "Refuse", "Require_Stream"):
            code, _, text, _ = await self.ask(chat, ASK, **{name: "nan"})
            self.assertEqual(
                (code, json.loads(text)["error"]["param"]), (400, f"X-Mock-{name.replace('_', '-')}")
            )

    async def test_paths(self) -> None:
        """Other prefixes, trailing slashes and Azure's deployments lead to the same endpoints."""
        for path in ("/chat/completions", "/api/v3/chat/completions/", "/v1/chat/completions?api-version=1"):
            self.assertEqual((await self.ask(path, ASK))[0], 200, path)
        path = "/openai/deployments/my%20gpt/chat/completions"
        _, _, text, _ = await self.ask(path, {"messages": ASK["messages"]})
        self.assertEqual(json.loads(text)["model"], "my gpt")
        code, headers, text, _ = await self.ask("/v1/models", method="HEAD")
        self.assertEqual((code, text, headers["content-type"]), (200, "", "application/json"))

    async def test_lone_surrogate(self) -> None:
        """A lone surrogate in a message is echoed as an escape."""
        body = b'{"model": "mock", "messages": [{"role": "user", "content": "half \\ud83d"}]}'
        code, _, text, _ = await self.ask("/v1/chat/completions", body)
        self.assertEqual(code, 200)
        self.assertIn("\\ud83d", text)


class SDKTests(MockTestCase):
    """The real SDK, in a thread, parses every kind of response."""

    def run_with_client(self, work: Callable[[OpenAI], T]) -> Deferred[T]:
        """Run `work` in a thread with a client of its own."""

        @contextmanager
        def client() -> Iterator[OpenAI]:
            made = OpenAI(api_key="none", base_url=self.base + "/v1", max_retries=0, timeout=10)
            try:
                yield made
            finally:
                made.close()

        def run() -> T:
            with client() as made:
                return work(made)

        return deferToThread(run)

    async def test_chat(self) -> None:
        """``create`` returns the same content and usage in both modes."""

        def work(client: OpenAI) -> None:
            plain = client.chat.completions.create(**ASK)
            content = ""
            usage = None
            for chunk in client.chat.completions.create(
                **ASK, stream=True, stream_options={"include_usage": True}
            ):
                usage = chunk.usage
                content += "".join(choice.delta.content or "" for choice in chunk.choices)
            self.assertEqual(content, plain.choices[0].message.content)
            self.assertEqual(usage, plain.usage)

        await self.run_with_client(work)

    async def test_chat_stream_helper(self) -> None:
        """The SDK's own accumulator rebuilds the JSON response from streams of every kind."""
        layout = {"type": "json_schema", "json_schema": {"name": "w", "schema": WEATHER, "strict": True}}
        bodies: list[dict[str, Any]] = [
            {},
            {"n": 2, "logprobs": True, "top_logprobs": 1},
            {"tools": CHAT_TOOLS},
            {"response_format": layout},
        ]

        def work(client: OpenAI) -> None:
            for more in bodies:
                plain = client.chat.completions.create(**ASK, **more)
                with client.chat.completions.stream(
                    **ASK,
                    **more,
                    stream_options={"include_usage": True},
                ) as stream:
                    whole = stream.get_final_completion()
                mine, theirs = plain.model_dump(), whole.model_dump()
                for choice in theirs["choices"]:
                    choice["message"].pop("parsed", None)
                    for call in choice["message"]["tool_calls"] or ():
                        call.pop("index", None)
                        call["function"].pop("parsed_arguments", None)
                for one, other in zip(mine["choices"], theirs["choices"], strict=True):
                    for key, value in one["message"].items():
                        self.assertEqual(other["message"].get(key), value, (more, key))
                    self.assertEqual(one["finish_reason"], other["finish_reason"])
                self.assertEqual(mine["usage"], theirs["usage"])
            data = json.loads(plain.choices[0].message.content)
            self.assertEqual((set(data), data["days"]), ({"city", "days"}, 2))

        await self.run_with_client(work)

    async def test_responses(self) -> None:
        """``responses`` agrees in both modes: text, tools, reasoning, a schema, an incomplete response."""
        bodies: list[dict[str, Any]] = [
            {},
            {"tools": RESPONSE_TOOLS, "reasoning": {"effort": "low", "summary": "auto"}},
            {"text": {"format": SCHEMA}},
            {"max_output_tokens": 2},
            {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
        ]

        def work(client: OpenAI) -> None:
            plain = []
            for more in bodies:
                body = {"model": "mock", "input": [{"role": "user", "content": "Hello"}], **more}
                plain.append(client.responses.create(**body))
                events = list(client.responses.create(**body, stream=True))
                self.assertEqual(events[-1].response.to_dict(), plain[-1].to_dict())
            self.assertIn("Hello", plain[0].output_text)
            self.assertEqual(
                [item.type for item in plain[1].output], ["reasoning", "function_call", "function_call"]
            )
            self.assertEqual(json.loads(plain[2].output_text)["days"], 2)
            self.assertEqual(plain[3].status, "incomplete")
            with client.responses.stream(model="mock", input="Hello") as stream:
                self.assertIn("Hello", stream.get_final_response().output_text)

        await self.run_with_client(work)

    async def test_models_and_embeddings(self) -> None:
        """Models can be listed and retrieved; embeddings are the same vector in either encoding."""

        def work(client: OpenAI) -> None:
            names = [one.id for one in client.models.list()]
            self.assertIn("stream-only", names)
            self.assertEqual(client.models.retrieve("stream-only").id, "stream-only")
            with self.assertRaises(APIError):
                client.models.retrieve("none")
            make = client.embeddings.create
            model = "text-embedding-3-small"
            base64 = make(model=model, input=["a", "b"], dimensions=16)
            floats = make(model=model, input=["a", "b"], dimensions=16, encoding_format="float")
            self.assertEqual([len(one.embedding) for one in base64.data], [16, 16])
            for one, other in zip(base64.data, floats.data, strict=True):
                for value, expected in zip(one.embedding, other.embedding, strict=True):
                    self.assertAlmostEqual(value, expected, 6)
            self.assertEqual(len(make(model=model, input=[1, 2]).data), 1)

        await self.run_with_client(work)

    async def test_files(self) -> None:
        """A file can be uploaded, listed, read, and deleted."""

        def work(client: OpenAI) -> None:
            content = b"\r\n--not a boundary\r\n" * 5000
            made = client.files.create(file=("data é.jsonl", io.BytesIO(content)), purpose="batch")
            self.assertEqual(
                (made.bytes, made.filename, made.purpose), (len(content), "data é.jsonl", "batch")
            )
            self.assertEqual([one.id for one in client.files.list(purpose="batch")], [made.id])
            self.assertEqual(list(client.files.list(purpose="vision")), [])
            self.assertEqual(client.files.retrieve(made.id), made)
            self.assertEqual(client.files.content(made.id).read(), content)
            self.assertTrue(client.files.delete(made.id).deleted)
            with self.assertRaises(APIError):
                client.files.retrieve(made.id)

        await self.run_with_client(work)

    async def test_errors(self) -> None:
        """The SDK raises its own errors for the mock's, before a stream and inside one."""

        def work(client: OpenAI) -> None:
            with self.assertRaises(RateLimitError) as limited:
                client.models.list(extra_headers={"X-Mock-Status": "429"})
            self.assertEqual(limited.exception.response.headers["retry-after"], "1")
            with self.assertRaises(BadRequestError) as refused:
                client.chat.completions.create(**{**ASK, "model": "stream-only"})
            self.assertEqual(refused.exception.param, "stream")
            for kind in ("error-chunk", "error-event"):
                stream = client.chat.completions.create(
                    **ASK, stream=True, extra_headers={"X-Mock-Fail": kind}
                )
                with self.assertRaises(APIError):
                    list(stream)

        await self.run_with_client(work)


class FakeRequest:
    """A server request that appends what is written to a list."""

    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred()
        self.written: list[bytes] = []
        self.finished = False

    def notifyFinish(self) -> Deferred[None]:
        """Return a Deferred that fires when the client has left."""
        return self.gone

    def setResponseCode(self, code: int) -> None:
        """Ignore the call."""

    def setHeader(self, name: str, value: str) -> None:
        """Ignore the call."""

    def write(self, data: bytes) -> None:
        """Record `data`."""
        self.written.append(data)

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Accept push producers only."""
        assert streaming

    def unregisterProducer(self) -> None:
        """Ignore the call."""

    def finish(self) -> None:
        """Record the call."""
        self.finished = True

    def loseConnection(self) -> None:
        """Ignore the call."""


class DeliveryTests(SynchronousTestCase):
    """Timing and backpressure, with a fake clock."""

    def start(self, response: HTTPResponse, delay: float = 0.0, pace: float = 0.0) -> None:
        """Deliver `response`."""
        self.clock = Clock()
        self.request = FakeRequest()
        self.delivery = Delivery(self.clock, self.request, response, delay, pace)

    def test_delay_and_pace(self) -> None:
        """Nothing is sent before the delay; then come the head and one event per pace."""
        self.start(HTTPResponse(iter((b"a", b"b"))), delay=5, pace=2)
        self.clock.advance(4.9)
        self.assertEqual(self.request.written, [])
        self.clock.pump((0.1, 0))
        self.assertEqual(self.request.written, [b"", b"a"])
        self.clock.advance(2)
        self.assertEqual(self.request.written, [b"", b"a", b"b"])
        self.clock.advance(2)
        self.assertTrue(self.request.finished)

    def test_paused(self) -> None:
        """A paused delivery reads no event from its iterator; a resumed one continues where it stopped."""
        events = iter([b"x"] * 1000)
        self.start(HTTPResponse(events))
        self.delivery.pauseProducing()
        self.clock.pump([0.0] * 100)
        self.assertEqual((len(self.request.written), self.clock.getDelayedCalls()), (1, []))
        self.delivery.resumeProducing()
        self.clock.pump([0.0] * 100)
        self.assertEqual((len(self.request.written), self.request.finished), (1001, True))

    def test_client_gone(self) -> None:
        """The timer is cancelled when the client leaves, before the head and after it."""
        for delay, pace in ((5, 0), (0, 5)):
            self.start(HTTPResponse(iter([b"x"] * 10)), delay, pace)
            self.clock.advance(0)
            self.request.gone.errback(ConnectionError())
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_hang(self) -> None:
        """A JSON response that hangs does not even send its head."""
        self.start(HTTPResponse(b"x", ending=Ending.HANG))
        self.assertEqual((self.request.written, self.request.finished), ([], False))


class FileTests(SynchronousTestCase):
    """Forms that are read in blocks."""

    def form(self, content: bytes, boundary: bytes = b"xyz") -> io.BytesIO:
        """Return a form with a purpose and a file."""
        field = b'--%b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
        parts = ((b"purpose", b"", b"batch"), (b"file", b'; filename="a.txt"', content))
        body = b"".join(field % (boundary, *part) for part in parts)
        return io.BytesIO(body + b"--" + boundary + b"--\r\n")

    def test_any_length(self) -> None:
        """Contents are read completely wherever the blocks end; only a bounded part is kept."""
        for length in (0, 1, 2, *range(65_536 - 230, 65_536 + 5), 200_000):
            content = (b"\r\n--xy" * (length // 6 + 1))[:length]
            store = FileStore(keep=1000)
            made = store.upload(self.form(content), "multipart/form-data; boundary=xyz")
            self.assertEqual((made["bytes"], store.get(made["id"])[1]), (length, content[:1000]))

    def test_oldest_go_first(self) -> None:
        """The number of files is bounded, and equal uploads get different ids."""
        store = FileStore(most=2)
        ids = [store.upload(self.form(b"x"), 'multipart/form-data; boundary="xyz"')["id"] for _ in range(3)]
        self.assertEqual([made["id"] for made in store.all(None)["data"]], ids[1:])
        self.assertRaises(MockError, store.get, ids[0])

    def test_malformed(self) -> None:
        """A form that is cut off, or has no boundary, no file or no names, gets a 400."""
        whole = self.form(b"x").getvalue()
        for content, kind in (
            (whole[:-20], "multipart/form-data; boundary=xyz"),
            (whole, "multipart/form-data; boundary=other"),
            (whole, "multipart/form-data"),
            (whole, "application/json"),
            (whole.replace(b"filename", b"x"), "multipart/form-data; boundary=xyz"),
            (whole.replace(b"name=", b"x="), "multipart/form-data; boundary=xyz"),
            (b"", "multipart/form-data; boundary=xyz"),
        ):
            with self.assertRaises(MockError) as caught:
                FileStore().upload(io.BytesIO(content), kind)
            self.assertEqual(caught.exception.status, 400)


class TextTests(SynchronousTestCase):
    """Tokens and schemas."""

    def test_tokens(self) -> None:
        """The tokens of any text, joined, are the text."""
        for text in ("", " ", "a\n\n b ", "“Größe” 東京 👩‍👩‍👧 ...", "x" * 100, "\t\t!!?? \u0301"):
            self.assertEqual("".join(tokens(text)), text)

    def test_schemas(self) -> None:
        """Simple schemas get a value that fits them, and recursive ones come to an end."""
        node: dict[str, Any] = {
            "type": "object",
            "properties": {
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["next", "kids"],
        }
        root = {"$ref": "#/$defs/node", "$defs": {"node": node}}
        self.assertIsInstance(json.dumps(instance(root, "x", root)), str)
        for schema, expected in (
            ({"const": 5}, 5),
            ({"enum": ["a", "b"]}, "a"),
            ({"type": ["string", "null"]}, "text"),
            ({"type": "string", "maxLength": 2}, "te"),
            ({"type": "string", "minLength": 6}, "text.."),
            ({"type": "string", "format": "date"}, "2025-06-15"),
            ({"type": "integer", "minimum": 3}, 3),
            ({"type": "integer", "exclusiveMinimum": 3, "multipleOf": 5}, 5),
            ({"type": "integer", "maximum": -3}, -3),
            ({"type": "number", "minimum": 0.5, "maximum": 0.7}, 0.7),
            ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [True, True]),
            ({"oneOf": [{"type": "null"}, {"type": "string"}]}, None),
            ({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}, {"a": "text", "b": "text"}),
        ):
            self.assertEqual(instance(schema, "text", {}), expected, schema)
