"""Late errors as SDKs see them, directly and behind real gateways: each raises, none returns a result."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
from twisted.internet.defer import Deferred

from heavy_tests.calls import CLIENTS, MESSAGES, check_clients, whole_stream
from heavy_tests.hops import HOPS, HopTestCase, program
from stream_proxy import Limits
from stream_proxy.downstream.heartbeat import Heartbeat
from stream_proxy.flows import exchange
from tests.support.loopback import in_thread
from tests.support.payloads import chunk, event
from tests.support.twistd import Process
from tests.support.wire import JSON, Message, Stream, event_stream_head, read_request, respond

DIRECT = "no hop"
#: The models whose calls succeed, and end because the service stops.
WHOLE, STOPPING = "whole", "stopping"

_ERROR = b'{"error": {"message": "no", "type": "t", "param": null, "code": null}}'


def _begun(request: Message) -> bytes:
    """Return the beginning of a stream."""
    if request.target.endswith("/responses"):
        return event({"type": "response.created", "response": {"id": "r", "status": "in_progress"}})
    return chunk({"role": "assistant", "content": "Hel"})


def _failed(request: Message) -> bytes:
    """Return the event of an error in a stream."""
    error = {"message": "no", "code": "server_error"}
    if request.target.endswith("/responses"):
        return event({"type": "response.failed", "response": {"id": "r", "status": "failed", "error": error}})
    return event({"error": error})


def _streamed(*parts: Callable[[Message], bytes], end: bool) -> Callable[[Stream, Message], None]:
    def act(stream: Stream, request: Message) -> None:
        stream.write(event_stream_head())
        stream.chunk(b"".join(part(request) for part in parts))
        if end:
            stream.chunk(b"")
        else:
            stream.close()

    return act


#: What the upstream does once the early head is out, by the model that is asked for.
WAYS: dict[str, Callable[[Stream, Message], object]] = {
    "status": lambda stream, request: respond(stream, 429, _ERROR, [JSON]),
    "fault": lambda stream, request: respond(stream, 400, _ERROR, [JSON]),
    "page": lambda stream, request: respond(stream, 503, b"<html>", [("Content-Type", "text/html")]),
    "cut": _streamed(_begun, end=False),
    "unfinished": _streamed(_begun, end=True),
    "failed": _streamed(_begun, _failed, end=True),
    "silent": lambda stream, request: None,
    WHOLE: _streamed(whole_stream, end=True),
}
ERRORS = [*(way for way in WAYS if way != WHOLE), STOPPING]


class LateErrorTests(HopTestCase):
    """SDKs in front of a proxy whose responses begin before there is one."""

    timeout = 1200

    async def begin(self) -> dict[str, int]:
        """Start an upstream, a proxy and the hops; return the ports to call by the hops' names."""
        self.heads: list[Deferred[Heartbeat]] = []
        self.calls = 0
        heads = self.heads

        class Watched(Heartbeat):
            """Heartbeat that tells when its head is out."""

            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                self.out: Deferred[Heartbeat] = Deferred()
                heads.append(self.out)

            def begin(self, *args: Any) -> None:
                super().begin(*args)
                self.out.callback(self)

        async def script(stream: Stream) -> None:
            while True:
                request = await read_request(stream)
                self.calls += 1
                heartbeat = await heads[-1]
                self.act(stream, request, heartbeat)

        self.patch(exchange, "Heartbeat", Watched)
        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url, limits=Limits(keep_alive_seconds=0.05, timeout_seconds=2))
        ports = {DIRECT: port}
        for name in HOPS:
            ports[name] = await self.hop(name, port)
        return ports

    def act(self, stream: Stream, request: Message, heartbeat: Heartbeat) -> None:
        """Do what the model's name says."""
        model = request.json()["model"]
        if model == STOPPING:
            channel: Any = heartbeat._request.channel
            channel.site.abort()
        else:
            WAYS[model](stream, request)

    async def test_python(self) -> None:
        """The ``openai`` SDK for Python, sync and async, chat and Responses."""
        ports = await self.begin()
        for name, port in ports.items():
            for model in ERRORS:
                for call in (_sync, _async):
                    for result in await in_thread(lambda: list(call(port, model))):  # noqa: B023
                        self.assertIsInstance(
                            result, (openai.APIError, ValueError), f"{name}, {model}, {call.__name__}"
                        )
            for result in await in_thread(lambda: list(_sync(port, WHOLE))):  # noqa: B023
                self.assertIn("Hello", repr(result), name)

    async def test_python_again(self) -> None:
        """The SDK for Python tries a cut response again, where the hop shows the cut."""
        ports = await self.begin()
        acts = iter([WAYS["status"], WAYS[WHOLE]] * 2)
        self.patch(self, "act", lambda stream, request, heartbeat: next(acts)(stream, request))
        for name in (DIRECT, "haproxy"):
            self.calls = 0

            def run() -> str | None:
                with openai.OpenAI(base_url=_base(ports[name]), api_key="sk-test", max_retries=1) as client:  # noqa: B023
                    completion = client.chat.completions.create(model="m", messages=MESSAGES)
                return completion.choices[0].message.content

            self.assertEqual((await in_thread(run), self.calls), ("Hello", 2), name)

    async def test_node(self) -> None:
        """The ``openai`` SDK for Node and Vercel's ``ai``, chat and Responses."""
        check_clients()
        ports = await self.begin()
        names = {_base(port): name for name, port in ports.items()}
        places = [{"base": base, "model": model} for base in names for model in (*ERRORS, WHOLE)]
        node = Process([program("node"), str(CLIENTS / "call.mjs"), json.dumps(places)])
        self.addCleanup(node.kill)
        self.assertEqual(await node.ended(), 0, node.output)
        results = [json.loads(line) for line in node.output.splitlines() if line.startswith("{")]
        self.assertEqual(len(results), 4 * len(places), node.output)
        for result in results:
            if result["model"] == WHOLE:
                self.assertIn("Hello", result.get("returned", ""), (names[result["base"]], result))
            else:
                self.assertIn("raised", result, (names[result["base"]], result))


def _base(port: int) -> str:
    return f"http://127.0.0.1:{port}/v1"


def _sync(port: int, model: str) -> Iterator[Any]:
    """Yield what becomes of a call to each API: the result, or the exception."""
    with openai.OpenAI(base_url=_base(port), api_key="sk-test", max_retries=0) as client:
        for call in (
            lambda: client.chat.completions.create(model=model, messages=MESSAGES),
            lambda: client.responses.create(model=model, input="hi"),
        ):
            try:
                yield call()
            except Exception as error:
                yield error


def _async(port: int, model: str) -> Iterator[Any]:
    """Yield the same for the async client."""

    async def run() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=_base(port), api_key="sk-test", max_retries=0) as client:
            results: list[Any] = []
            for call in (
                client.chat.completions.create(model=model, messages=MESSAGES),
                client.responses.create(model=model, input="hi"),
            ):
                results += await asyncio.gather(call, return_exceptions=True)
            return results

    yield from asyncio.run(run())
