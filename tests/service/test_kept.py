"""Answers that one worker keeps, and another one's retry gets."""

from __future__ import annotations

import os
import signal

from twisted.trial.unittest import TestCase

from stream_proxy.service.workers.kept import KeptCalls
from stream_proxy.service.workers.messages import Command, Kept, KeptHere
from tests.service.test_workers import WorkersTestCase
from tests.support.loopback import until
from tests.support.payloads import CHAT, CHAT_BODY, HELLO
from tests.support.resuming import RESUMED, again
from tests.support.wire import Message, Stream, read_head, read_request, read_response, respond, send_request

EVENTS = ("Content-Type", "text/event-stream")
CALLS = 12


class KeptTests(WorkersTestCase):
    """Two workers between which connections are spread at random."""

    async def lost(self, **config: object) -> int:
        """Start the proxy, and lose the clients of some calls; return its port."""
        self.requests: list[Message] = []
        self.asked: list[Stream] = []

        async def script(stream: Stream) -> None:
            while True:
                self.requests.append(await read_request(stream))
                self.asked.append(stream)

        upstream = await self.upstream(script)
        self.process, (port,) = await self.serve(
            upstream.url, **{"resumeSeconds": 60, "keepAliveSeconds": 0, **config}
        )
        for number in range(CALLS):
            client = await self.call(port, number)
            await until(lambda: len(self.asked) == number + 1)  # noqa: B023 (awaited here)
            client.abort()
        # Once it is in the log the other worker has been told.
        await self.process.times("its answer waits for a retry", CALLS)
        return port

    async def call(self, port: int, number: int, *headers: tuple[str, str]) -> Stream:
        """Send one of the calls."""
        client = await self.client(port)
        key = ("Authorization", f"Bearer {number}")
        send_request(client, "POST", CHAT, {**CHAT_BODY, "user": str(number)}, [key, *headers])
        return client

    async def test_any_worker(self) -> None:
        """Whichever worker a retry comes to, it gets the answer, and the upstream is asked once a call."""
        port = await self.lost()
        for stream in self.asked:
            respond(stream, 200, HELLO, [EVENTS])
        for number in range(CALLS):
            response = await read_response(await self.call(port, number, again(1)))
            self.assertEqual((response.status, response.get(RESUMED)), (200, "true"))
        self.assertEqual(len(self.requests), CALLS)

    async def test_killed(self) -> None:
        """What a worker kept ends with it, without a trace: its retries ask the upstream again."""
        port = await self.lost()
        for pid in await self.pids(self.process):
            os.kill(pid, signal.SIGKILL)
        for stream in self.asked:
            await stream.gone()
        await self.process.times(r"worker \d of 2 is process", 4)
        for number in range(CALLS):
            client = await self.call(port, number, again(1))
            await until(lambda: len(self.asked) == CALLS + number + 1)  # noqa: B023 (awaited here)
            respond(self.asked[-1], 200, HELLO, [EVENTS])
            response = await read_response(client)
            self.assertEqual((response.status, response.get(RESUMED)), (200, None))

    async def test_stopped(self) -> None:
        """A retry that waits for its answer when the service stops gets it, from another worker as well."""
        port = await self.lost(keepAliveSeconds=0.05)
        retries = [await self.call(port, number, again(1)) for number in range(CALLS)]
        for retry in retries:
            self.assertEqual((await read_head(retry)).status, 200)  # it waits
        self.process.signal("TERM")
        await self.process.times(f"TCP Port {port} Closed", 2)
        for stream in self.asked:
            respond(stream, 200, HELLO, [EVENTS])
        for retry in retries:
            self.assertIn(b"Hello", await retry.until(b"0\r\n\r\n"))
        await self.process.ended()


class TableTests(TestCase):
    """What each worker is told of the others."""

    def setUp(self) -> None:
        self.sent: dict[int, list[Command]] = {1: [], 2: [], 3: []}
        self.kept = KeptCalls(lambda number: f"{number}.offer")
        self.kept.workers = {number: sent.append for number, sent in self.sent.items()}

    def test_told(self) -> None:
        """The others hear of a call that is kept, and of its end."""
        self.kept.told(1, KeptHere(b"d", True))
        self.kept.told(1, KeptHere(b"d", False))
        news = [Kept("1.offer", (b"d",), True), Kept("1.offer", (b"d",), False)]
        self.assertEqual(self.sent, {1: [], 2: news, 3: news})

    def test_new_process(self) -> None:
        """A new process hears what the others keep, and they that what its predecessor kept is gone."""
        self.kept.told(1, KeptHere(b"d", True))
        self.kept.told(2, KeptHere(b"e", True))
        for sent in self.sent.values():
            sent.clear()
        self.kept.ended(1)
        self.kept.ready(1)
        gone = Kept("1.offer", (b"d",), False)
        self.assertEqual(self.sent, {1: [Kept("2.offer", (b"e",), True)], 2: [gone], 3: [gone]})
