"""Clients that stop reading, under a clock that only the test advances."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock, LoopingCall
from twisted.web.resource import IResource

from stream_proxy import ProxyResource
from stream_proxy.downstream import stall
from stream_proxy.downstream.channel import DownstreamChannel
from stream_proxy.request_log import RequestLog
from stream_proxy.transport.eager_write import unsent
from tests.support.flood import MIB, small_buffers
from tests.support.loopback import Script, reactor, turns, until
from tests.support.payloads import CHAT, CHAT_BODY, DONE, chunk
from tests.support.sites import LimitsTestCase
from tests.support.wire import Stream

Step = Callable[[], Awaitable[object]]
NOTHING = "The client took nothing for 600 seconds."


#: Two events, because one may be no larger than maxEventBytes.
LARGE = chunk({"content": "x" * 8 * MIB}) + chunk({"content": "x" * 8 * MIB}, "stop") + DONE


ASK = {**CHAT_BODY, "model": "gpt-3.5-turbo"}


EVENTS = [("Content-Type", "text/event-stream")]


class StallTestCase(LimitsTestCase):
    """Sites under a clock that only the test advances; calls that are due are made while it stands still."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        turning = LoopingCall(self.clock.advance, 0)
        turning.start(0.01)
        self.addCleanup(turning.stop)

    async def serve(self, resource: IResource | None = None, tls: CertificateOptions | None = None) -> int:
        """Start a site and return its port."""
        self.served, port = await self.site(resource, tls, self.clock)
        return port

    async def between(
        self, script: Script, kind: Callable[..., Any] = ProxyResource, *, own_clock: bool = False
    ) -> int:
        """Start a proxy in front of an upstream and return its port.

        :param own_clock: the flows use the reactor's time instead of the test's.
        """
        upstream = await self.upstream(script)
        resource = kind(upstream.url, reactor=reactor, log=RequestLog(observer=self.log))
        if not own_clock:
            resource.clock = self.clock
        self.addCleanup(resource.close)
        return await self.serve(resource)

    @property
    def channel(self) -> DownstreamChannel:
        """The only connection."""
        (channel,) = self.served.channels
        return channel

    async def deaf(self, port: int, *requests: bytes, read: bool = False) -> Stream:
        """Return a client that has sent these requests and reads nothing, or with `read` the first bytes."""
        client = await self.client(port)
        small_buffers(client)
        if not read:
            client.transport.pauseProducing()
        for request in requests:
            client.write(request)
        if read:
            await client.some()
            client.transport.pauseProducing()
        return client

    async def stuck(self) -> None:
        """Wait until bytes are waiting for the client and none of them moves."""
        while not self.served.channels:
            await turns(1)
        await stands_still(self.channel.outbox._connection)

    async def at_rest(self) -> None:
        """Wait until nothing is left for the next turn, however long one looks."""
        quiet = 0
        while quiet < 50:
            now = self.clock.seconds()
            due = any(call.getTime() <= now for call in self.clock.getDelayedCalls())
            quiet = 0 if due else quiet + 1
            await turns(1)

    async def passes(self, seconds: int, each: Step | None = None) -> None:
        """Let time pass in steps of 10 seconds, and call `each` after each step."""
        for _ in range(seconds // 10):
            self.clock.advance(10)
            if each is not None:
                await each()

    async def told(self, each: Step | None = None) -> None:
        """Let time pass until the log reports it; a kernel may have accepted a last packet meanwhile."""
        while not any(NOTHING in line for line in self.log.lines):
            await self.passes(10, each)
            await turns(1)

    async def dropped(self, client: Stream, line: str, each: Step | None = None) -> None:
        """Fail unless the client is disconnected in time, but not early, and logs one line that matches."""
        await self.stuck()
        await self.passes(590, each)
        await turns(3)
        self.assertEqual(len(self.served.channels), 1)
        await self.told(each)
        self.assertRegex(await self.log.match(NOTHING), line)
        self.assertEqual(len([told for told in self.log.lines if NOTHING in told]), 1)
        while self.served.channels:
            await turns(1)
        client.transport.resumeProducing()
        await client.gone()

    async def takes_something(self, client: Stream) -> None:
        """Let the client read until the other end has noticed."""
        if not self.served.channels:
            return
        outbox = self.channel.outbox

        def taken() -> int:
            return outbox._given - stall._unacknowledged(outbox._connection)

        before = taken()
        client.transport.resumeProducing()
        await until(lambda: not outbox.waiting or taken() != before)
        client.transport.pauseProducing()


async def stands_still(connection: Any) -> None:
    """Wait until bytes are waiting to be sent and none of them moves."""
    still, last = 0, (0, 0)
    while still < 30:
        await turns(1)
        now = (unsent(connection), stall._unacknowledged(connection))
        still = still + 1 if now[0] and now == last else 0
        last = now


def call(body: object = CHAT_BODY) -> bytes:
    """Return the bytes of a chat call."""
    data = json.dumps(body).encode()
    fields = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return f"POST {CHAT} HTTP/1.1\r\n{fields}".encode() + data
