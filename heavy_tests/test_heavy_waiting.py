"""SDKs whose clocks are shorter than the answer takes: with bytes in time, and with an answer picked up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
from twisted.internet.defer import Deferred

from heavy_tests.calls import CLIENTS, MESSAGES, check_clients, whole_stream
from heavy_tests.hops import program
from stream_proxy import Limits
from tests.support.loopback import in_thread, reactor
from tests.support.resuming import RESUMED
from tests.support.twistd import Process, ProcessTestCase
from tests.support.wire import Message, Stream, read_request, respond

EVENTS = ("Content-Type", "text/event-stream")
#: What became of a call: the text, and whether it was that of a call before.
Result = tuple[str, bool]


class WaitingTestCase(ProcessTestCase):
    """One upstream that takes its time, and both SDKs, chat and Responses."""

    timeout = 300

    async def slow(self, seconds: float) -> str:
        """Start an upstream whose answers take so long; return its URL."""
        self.requests: list[Message] = []

        async def script(stream: Stream) -> None:
            while True:
                request = await read_request(stream)
                self.requests.append(request)
                await self.later(seconds)
                respond(stream, 200, whole_stream(request), [EVENTS])

        return (await self.upstream(script)).url

    def later(self, seconds: float) -> Deferred[None]:
        """Return what fires after so many seconds, unless the test ends before."""
        fires: Deferred[None] = Deferred()
        call = reactor.callLater(seconds, fires.callback, None)
        self.addCleanup(lambda: call.cancel() if call.active() else None)
        return fires

    async def python(self, port: int, seconds: float, retries: int) -> list[Result]:
        """Return the results of the SDK for Python."""
        return list(await in_thread(lambda: list(_python(port, seconds, retries))))

    async def node(self, port: int, seconds: float, retries: int) -> list[Result]:
        """Return the results of the SDK for Node, which announces the clocks of single calls alone."""
        check_clients()
        options = {"base": _base(port), "timeout": seconds * 1000, "retries": retries}
        node = Process([program("node"), str(CLIENTS / "wait.mjs"), json.dumps(options)])
        self.addCleanup(node.kill)
        self.assertEqual(await node.ended(), 0, node.output)
        results = [json.loads(line) for line in node.output.splitlines() if line.startswith("{")]
        return [(each.get("returned") or each["raised"], each.get("resumed") == "true") for each in results]

    async def check(self, port: int, seconds: float, retries: int, *, resumed: bool, calls: int) -> None:
        """Fail unless both SDKs get all answers, and the upstream got so many calls from each."""
        for sdk in (self.python, self.node):
            self.requests.clear()
            results = await sdk(port, seconds, retries)
            self.assertEqual(len(results), 2)
            for text, from_before in results:
                self.assertIn("Hello", text, sdk.__name__)
                self.assertIs(from_before, resumed, sdk.__name__)
            self.assertEqual(len(self.requests), calls, sdk.__name__)


class WaitingTests(WaitingTestCase):
    """What becomes of calls that take longer than their clients' clocks."""

    async def test_resumed(self) -> None:
        """A clock at 3 s against an answer after 8 s: one call upstream, and a later try gets the answer."""
        limits = Limits(keep_alive_seconds=0, resume_seconds=60)
        port = await self.proxy(await self.slow(8), limits=limits)
        await self.check(port, 3, 2, resumed=True, calls=2)

    async def test_workers(self) -> None:
        """The same with two workers, whichever a later try comes to."""
        self.workers = 2
        process, (port,) = await self.serve(await self.slow(8), keepAliveSeconds=0, resumeSeconds=60)
        for number in (1, 2):
            await process.line(rf"worker {number} of 2 is process")
        await self.check(port, 3, 2, resumed=True, calls=2)

    async def test_bytes_in_time(self) -> None:
        """The proxy's defaults against an answer after 20 s, with clocks at 10 s: one try each."""
        port = await self.proxy(await self.slow(20))
        await self.check(port, 10, 0, resumed=False, calls=2)

    async def test_without(self) -> None:
        """With neither, each try costs a call, and no answer comes."""
        port = await self.proxy(await self.slow(4), limits=Limits(keep_alive_seconds=0))
        for sdk in (self.python, self.node):
            self.requests.clear()
            results = await sdk(port, 1, 2)
            self.assertFalse(any("Hello" in text for text, _ in results), results)
            self.assertEqual(len(self.requests), 6, sdk.__name__)


def _base(port: int) -> str:
    return f"http://127.0.0.1:{port}/v1"


def _python(port: int, seconds: float, retries: int) -> Iterator[Result]:
    with openai.OpenAI(
        base_url=_base(port), api_key="sk-test", timeout=seconds, max_retries=retries
    ) as client:
        calls: tuple[Callable[[], Any], ...] = (
            lambda: client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES),
            lambda: client.responses.with_raw_response.create(model="m", input="hi"),
        )
        for call in calls:
            try:
                raw = call()
                yield repr(raw.parse()), raw.headers.get(RESUMED) == "true"
            except openai.APIError as error:
                yield repr(error), False
