"""Calls whose clients leave, and their retries, between a scripted upstream and a clock of the test's."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from stream_proxy import Limits, ProxyResource
from stream_proxy.flows.resuming.resumption import LostCalls
from stream_proxy.observe.ledger import Ledger
from tests.support.loopback import LoopbackTestCase, Upstream
from tests.support.payloads import CHAT, CHAT_BODY
from tests.support.stage import eventually
from tests.support.wire import Message, Stream, read_request, send_request

KEY = ("Authorization", "Bearer a")
RESUMED = "x-stream-proxy-resumed"
SECONDS = 60.0


def again(count: int) -> tuple[str, str]:
    """Return the field by which SDKs count their attempts."""
    return "x-stainless-retry-count", str(count)


class ResumingTestCase(LoopbackTestCase):
    """A proxy that keeps what its clients left behind."""

    name = "main"
    lost: LostCalls
    resource: ProxyResource
    server: Upstream

    async def start(self, **limits: Any) -> int:
        """Start an upstream whose answers the test gives, and a proxy; return the proxy's port."""
        self.clock = Clock()
        self.ledger = Ledger(self.clock.seconds)
        #: The requests that the upstream got, and the connections that they came on.
        self.requests: list[Message] = []
        self.asked: list[Stream] = []

        async def script(stream: Stream) -> None:
            while True:
                self.requests.append(await read_request(stream))
                self.asked.append(stream)

        def make(*args: Any, **kwargs: Any) -> ProxyResource:
            resource = ProxyResource(*args, ledger=self.ledger, **kwargs)
            resource.clock = self.clock
            bounds = resource.limits
            resource.lost = LostCalls(self.clock, bounds.resume_max_calls, bounds.resume_max_bytes)
            self.lost, self.resource = resource.lost, resource
            return resource

        self.server = await self.upstream(script)
        self.addCleanup(lambda: self.lost.close())
        self.limits = Limits(**{"resume_seconds": SECONDS, "keep_alive_seconds": 0, **limits})
        return await self.proxy(self.server.url, resource=make, limits=self.limits, name=self.name)

    async def call(
        self, port: int, *headers: tuple[str, str], target: str = CHAT, body: object = CHAT_BODY
    ) -> Stream:
        """Send a call."""
        client = await self.client(port)
        send_request(client, "POST", target, body, list(headers))
        return client

    async def arrived(self, count: int) -> Stream:
        """Wait until the upstream was asked so many times, and return the connection of the last."""
        self.assertTrue(await eventually(lambda: self.due() or len(self.asked) >= count))
        self.assertEqual(len(self.asked), count)
        return self.asked[-1]

    def due(self) -> bool:
        """Let what is due now happen, and report that it did not suffice."""
        self.clock.advance(0)
        return False

    async def leave(self, client: Stream, orphans: int) -> None:
        """Let a client leave, and wait until so many calls go on without theirs."""
        client.abort()
        self.assertTrue(await eventually(lambda: not self.ledger.live and len(self.lost.orphans) == orphans))

    async def joined(self) -> None:
        """Wait until a retry has joined."""
        self.assertTrue(await eventually(lambda: any(r.mode == "resumed" for r in self.ledger.live.values())))

    async def nothing_left(self) -> None:
        """Fail unless all ends: no orphan, no byte that is counted, no timer."""
        self.assertTrue(await eventually(lambda: not self.ledger.live and not len(self.lost.orphans)))
        self.assertEqual(self.lost.orphans.held, 0)
        self.assertEqual([call for call in self.clock.getDelayedCalls() if call.active()], [])

    async def gone(self, stream: Stream) -> None:
        """Wait until the proxy has dropped a connection to the upstream."""
        await stream.gone()
