"""Resource of the proxy, where a flow or a connection breaks off."""

from __future__ import annotations

from typing import Any

from twisted.web.resource import Resource

from stream_proxy import ProxySite
from stream_proxy.downstream.response import start_response
from stream_proxy.flows import resource
from stream_proxy.flows.relay import Relay
from tests.support.loopback import LoopbackTestCase, reactor, turns
from tests.support.wire import Stream, head, read_head, read_response, send_request


class BrokenFlow(Relay):
    """A flow whose bug shows only after it has begun."""

    def start(self) -> None:
        super().start()
        raise ZeroDivisionError("a bug")


class BegunFlow(Relay):
    """A flow whose bug shows only after its response has begun."""

    def start(self) -> None:
        start_response(self.request, 200, None, [(b"Content-Length", b"9")])
        self.request.write(b"begun")
        raise ZeroDivisionError("a bug")


class BugTests(LoopbackTestCase):
    """Bugs, which are answered and logged."""

    async def test_flow_that_raises(self) -> None:
        """A bug in a flow under way is a 500 with the error envelope, and the flow is cancelled."""
        self.patch_relay(BrokenFlow)
        port = await self.proxy(await self.mock())
        response = await self.request(port, "GET", "/v1/models")
        self.assertEqual(response.status, 500)
        self.assertEqual(response.json()["error"]["type"], "internal_error")

    async def test_flow_that_has_begun(self) -> None:
        """A bug after the head of a response breaks the response off."""
        self.patch_relay(BegunFlow)
        client = await self.client(await self.proxy(await self.mock()))
        send_request(client, "GET", "/v1/models")
        response = await read_response(client)
        self.assertEqual((response.body, response.complete), (b"begun", False))

    def patch_relay(self, relay: Any) -> None:
        """Make the resource use `relay`."""
        self.patch(resource, "Relay", relay)


class EarlyResponseTests(LoopbackTestCase):
    """Responses that arrive before the upload ends."""

    async def test_until_close(self) -> None:
        """A close-delimited early response is complete, and logs no error."""

        async def script(stream: Stream) -> None:
            await read_head(stream)
            stream.write(head(413, [("Content-Type", "text/plain")]) + b"too big")
            stream.close()

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(
            b"POST /v1/files HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        )
        response = await read_response(client)
        self.assertEqual((response.status, response.body, response.complete), (413, b"too big", True))


class DrainTests(LoopbackTestCase):
    """Sites that are being drained."""

    async def test_twice(self) -> None:
        """Every caller of ``drain`` is notified when it is done, also if an earlier call is waiting."""
        site = ProxySite(Resource(), reactor=reactor)
        client = await self.client(await self.listen(site))
        client.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        while not site.channels or not next(iter(site.channels)).requests:
            await turns(1)
        first = site.drain(10)
        await site.drain(0)
        await first
