"""A retry that comes to another process than the call before it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from stream_proxy import ProxyResource, ProxySite
from stream_proxy.errors import APIError
from stream_proxy.flows.resuming.offering import OfferResource, packed, unpacked
from stream_proxy.flows.resuming.orphan import Result
from stream_proxy.flows.resuming.resumption import LostCalls
from tests.support.loopback import reactor
from tests.support.payloads import CHAT_BODY, HELLO, chunk
from tests.support.properties import examples
from tests.support.resuming import KEY, RESUMED, ResumingTestCase, again
from tests.support.stage import eventually
from tests.support.wire import event_stream_head, read_response, respond

EVENTS = ("Content-Type", "text/event-stream")


class ElsewhereTests(ResumingTestCase):
    """Two proxies that share nothing but a socket."""

    async def pair(self) -> tuple[int, int]:
        """Start one proxy that keeps calls and another that knows of its socket; return their ports."""
        first = await self.start()
        path = self.mktemp()[-60:].replace("/", "-")  # a socket's path must be short
        site = ProxySite(OfferResource(self.clock, self.lost), reactor=reactor)
        port = reactor.listenUNIX(path, site, mode=0o600)

        async def finish() -> None:
            await port.stopListening()
            await site.drain(0)

        self.addCleanup(lambda: Deferred.fromCoroutine(finish()))
        self.path, self.site = path, site

        def make(*args: Any, **kwargs: Any) -> ProxyResource:
            resource = ProxyResource(*args, ledger=self.ledger, lost=LostCalls(self.clock), **kwargs)
            self.other = resource.lost
            return resource

        second = await self.proxy(self.server.url, resource=make, limits=self.limits, name=self.name)
        return first, second

    def tell(self) -> None:
        """Let the other proxy know what the first one keeps."""
        self.other.elsewhere = dict.fromkeys(self.lost.orphans.digests(), self.path)

    async def test_fetched(self) -> None:
        """The retry gets the answer as if it was kept here, small or large, before or after it is there."""
        large = chunk({"role": "assistant", "content": "x" * 3_000_000}, "stop") + b"data: [DONE]\n\n"
        for events in (HELLO, large):
            for early in (True, False):
                first, second = await self.pair()
                client = await self.call(first, KEY)
                stream = await self.arrived(1)
                stream.write(event_stream_head())
                await self.leave(client, 1)
                self.tell()
                if not early:
                    stream.chunk(events)
                    stream.chunk(b"")
                retry = await self.call(second, KEY, again(1))
                if early:
                    await self.joined()
                    stream.chunk(events)
                    stream.chunk(b"")
                response = await self.read(retry)
                self.assertEqual((response.status, response.get(RESUMED)), (200, "true"))
                self.assertIn("content", response.json()["choices"][0]["message"])
                self.assertEqual(len(self.requests), 1)
                await self.nothing_left()

    async def read(self, client: Any) -> Any:
        """Read a response while the clock of the first proxy goes on."""
        response = Deferred.fromCoroutine(read_response(client))
        self.assertTrue(await eventually(lambda: self.due() or response.called))
        return await response

    async def test_error(self) -> None:
        """An error has its status there, too."""
        first, second = await self.pair()
        client = await self.call(first, KEY)
        stream = await self.arrived(1)
        await self.leave(client, 1)
        self.tell()
        stream.close()
        response = await self.read(await self.call(second, KEY, again(1)))
        self.assertEqual((response.status, response.json()["error"]["code"]), (502, "upstream_cut"))
        self.assertEqual((response.get(RESUMED), len(self.requests)), ("true", 1))

    async def test_leaves(self) -> None:
        """A retry that leaves there, too, leaves the answer to the next one."""
        first, second = await self.pair()
        client = await self.call(first, KEY)
        stream = await self.arrived(1)
        await self.leave(client, 1)
        self.tell()
        joiner = await self.call(second, KEY, again(1))
        await self.joined()
        joiner.abort()
        self.assertTrue(await eventually(lambda: not self.ledger.live and not self.site.channels))
        respond(stream, 200, HELLO, [EVENTS])
        response = await self.read(await self.call(second, KEY, again(2)))
        self.assertEqual((response.status, len(self.requests)), (200, 1))

    async def test_not_kept(self) -> None:
        """A call that is not kept there any more, or whose process is gone, is made anew."""
        for gone in (False, True):
            first, second = await self.pair()
            client = await self.call(first, KEY)
            await self.arrived(1)
            await self.leave(client, 1)
            self.tell()
            self.lost.forget()
            if gone:
                self.other.elsewhere = dict.fromkeys(self.other.elsewhere, self.path + "-none")
            retry = await self.call(second, KEY, again(1))
            respond(await self.arrived(2), 200, HELLO, [EVENTS])
            response = await read_response(retry)
            self.assertEqual((response.status, response.get(RESUMED)), (200, None))

    async def test_no_retry(self) -> None:
        """An equal call that does not say that it is a retry does not even ask."""
        first, second = await self.pair()
        client = await self.call(first, KEY)
        await self.arrived(1)
        await self.leave(client, 1)
        self.tell()
        await self.call(second, KEY, again(0), body=CHAT_BODY)
        await self.arrived(2)
        self.assertEqual(len(self.site.channels), 0)


class TravelTests(ResumingTestCase):
    """A result is the same on the other side."""

    @examples(100)
    @given(
        st.integers(200, 599),
        st.none() | st.binary(max_size=9),
        st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), max_size=4),
        st.lists(st.binary(max_size=40), max_size=4),
    )
    def test_any(self, status: int, reason: bytes | None, headers: Any, pieces: list[bytes]) -> None:
        """Status, reason, fields and body of a response travel, whatever they hold."""
        result = Result(status, reason, headers, pieces)
        there = unpacked(b" " + b"".join(packed(result)))
        self.assertEqual((there.status, there.reason, there.headers), (status, reason, headers))
        self.assertEqual(b"".join(there.pieces), b"".join(pieces))

    def test_error(self) -> None:
        """So does an error of ours."""
        error = APIError(502, "why", "upstream_error", param="p", code="c", should_retry=False)
        there = unpacked(b"".join(packed(Result(502, None, [], [], error)))).error
        assert there is not None
        self.assertEqual((there.status, there.envelope(), there.should_retry), (502, error.envelope(), False))

    def test_cut(self) -> None:
        """What is cut off is no result."""
        for data in (b"", b" ", b"{", b"{}\n"):
            self.assertRaises(ValueError, unpacked, data)
