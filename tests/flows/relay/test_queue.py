"""Requests that end while they wait for a slot."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from stream_proxy import Limits
from tests.support.loopback import LoopbackTestCase, reactor
from tests.support.wire import Stream, head, read_request, read_response, send_request


class QueueTests(LoopbackTestCase):
    """One connection to the upstream, and one place in the queue for it."""

    async def test_pipelined(self) -> None:
        """A request that timed out gives up its place before the next one of its client starts."""
        over: Deferred[None] = Deferred()

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(head(200, [("Content-Length", "1000000000")]))
            while stream.lost is None:
                stream.write(b"x")
                await deferLater(reactor, 0.01)
            over.callback(None)

        upstream = await self.upstream(script)
        limits = Limits(timeout_seconds=0.2, max_upstream_connections=1, max_upstream_waiting=1)
        port = await self.proxy(upstream.url, limits=limits)
        busy = await self.client(port)
        send_request(busy, "GET", "/busy")
        await busy.until(b"\r\n\r\n")
        client = await self.client(port)
        for target in ("/first", "/second"):
            send_request(client, "GET", target)
        codes = [(await read_response(client)).json()["error"]["code"] for _ in range(2)]
        busy.abort()
        await over
        self.assertEqual(codes, ["no_connection_free"] * 2)
