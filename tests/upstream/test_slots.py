"""Tests of ``maxUpstreamConnections``: the bound, the queue, and every slot freed exactly once."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.adapter.resource import AdapterResource
from stream_proxy.errors import APIError
from stream_proxy.flows.resource import ProxyResource
from stream_proxy.limits import Limits
from stream_proxy.upstream.slots import Occupant, Slot, Slots
from tests.support.certificates import server_context, trust
from tests.support.loopback import LoopbackTestCase, Script, turns, until
from tests.support.payloads import CHAT_BODY, HELLO
from tests.support.sessions import TEXT, accepted, close_frame, frame, handshake
from tests.support.wire import (
    Message,
    Stream,
    event_stream_head,
    head,
    read_head,
    read_request,
    read_response,
    respond,
    send_request,
)

ORIGIN = "https://api.example"
Kind = Callable[..., ProxyResource | AdapterResource]
PLAIN, CONVERTED, SOCKET = "plain", "converted", "socket"


def adapter(url: str, **kwargs: Any) -> AdapterResource:
    """Return an adapter for the model of the tests."""
    return AdapterResource(url, AdapterConfig(models=("m",)), **kwargs)


class SlotsTests(SynchronousTestCase):
    """Slots and their queue."""

    def setUp(self) -> None:
        """Make two slots, with a queue for two."""
        self.clock = Clock()
        self.slots = Slots(self.clock, 2, 2, ORIGIN)

    def taken(self) -> Slot:
        """Take a slot that is free."""
        return self.successResultOf(self.slots.take())

    def test_order(self) -> None:
        """Slots are given in the order of asking, each in a reactor turn of its own."""
        first, _ = self.taken(), self.taken()
        waiting = [self.slots.take(), self.slots.take()]
        self.assertEqual((self.slots.in_use, self.slots.waiting), (2, 2))
        first.free()
        self.assertNoResult(waiting[0])
        self.clock.advance(0)
        second = self.successResultOf(waiting[0])
        self.assertNoResult(waiting[1])
        second.free()
        self.clock.advance(0)
        self.successResultOf(waiting[1]).free()
        self.assertEqual((self.slots.in_use, self.slots.waiting), (1, 0))

    def test_no_overtaking(self) -> None:
        """A slot that was promised is not given to a later request."""
        first, _ = self.taken(), self.taken()
        early = self.slots.take()
        first.free()
        late = self.slots.take()
        self.clock.advance(0)
        self.successResultOf(early)
        self.assertNoResult(late)

    def test_freed_once(self) -> None:
        """Freeing a slot twice frees it once."""
        first, _ = self.taken(), self.taken()
        first.free()
        first.free()
        self.assertEqual(self.slots.in_use, 1)

    def test_cancelled(self) -> None:
        """A cancelled request leaves the queue, even one that was promised a slot."""
        first, _ = self.taken(), self.taken()
        waiting = [self.slots.take(), self.slots.take()]
        waiting[0].cancel()
        self.failureResultOf(waiting[0], CancelledError)
        self.assertEqual(self.slots.waiting, 1)
        first.free()
        waiting[1].cancel()
        self.failureResultOf(waiting[1], CancelledError)
        self.assertEqual((self.slots.in_use, self.clock.getDelayedCalls()), (1, []))

    def test_full(self) -> None:
        """A full queue makes a 503 that names the setting."""
        for _ in range(2):
            self.taken()
        for _ in range(2):
            self.slots.take()
        error = self.assertRaises(APIError, self.slots.take)
        self.assertEqual(
            (error.status, error.type, error.code, error.retry_after),
            (503, "server_error", "server_is_overloaded", 1),
        )
        self.assertEqual(
            error.message,
            "All 2 connections to https://api.example that maxUpstreamConnections allows are in use, and 2 "
            "more requests wait for one; try again later, or raise maxUpstreamConnections.",
        )

    def test_occupant(self) -> None:
        """A connection frees its slot when its use ends, or at once if that was earlier."""
        occupant = Occupant()
        occupant.occupy(self.taken())
        self.assertEqual(self.slots.in_use, 1)
        occupant.vacate()
        occupant.vacate()
        self.assertEqual(self.slots.in_use, 0)
        occupant.occupy(self.taken())
        self.assertEqual(self.slots.in_use, 0)


class SlotTestCase(LoopbackTestCase):
    """Proxies with few connections."""

    resource: ProxyResource | AdapterResource

    async def bound(self, url: str, limit: int = 1, waiting: int = 10, kind: Kind = ProxyResource) -> int:
        """Start a proxy with so many slots as `self.resource`, and return its port."""

        def make(*args: Any, **kwargs: Any) -> ProxyResource | AdapterResource:
            self.resource = kind(*args, **kwargs)
            return self.resource

        numbers = Limits(keep_alive_seconds=0, max_upstream_connections=limit, max_upstream_waiting=waiting)
        return await self.proxy(url, resource=make, limits=numbers)

    @property
    def slots(self) -> Slots:
        """The proxy's slots."""
        return self.resource.upstream._connections.slots

    async def freed(self) -> None:
        """Wait until no slot is taken, and check that one can be."""
        await until(lambda: self.slots.in_use == 0)
        await turns(3)
        self.assertEqual((self.slots.in_use, self.slots.waiting), (0, 0))

    async def sent(self, port: int, what: str = PLAIN, target: str = "/v1/x") -> Stream:
        """Return a client that has sent a request."""
        client = await self.client(port)
        if what == SOCKET:
            client.write(handshake(target=target))
        elif what == CONVERTED:
            send_request(client, "POST", "/v1/chat/completions", CHAT_BODY)
        else:
            send_request(client, "GET", target)
        return client


class Held:
    """Upstream whose responses wait to be released."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.open: list[Deferred[None]] = []

    async def script(self, stream: Stream) -> None:
        """Serve one connection."""
        while True:
            request = await read_request(stream)
            self.asked.append(request.target)
            release: Deferred[None] = Deferred()
            self.open.append(release)
            await release
            if request.get("upgrade"):
                stream.write(accepted(request))
                await stream.rest()
            elif request.target.endswith("/completions"):
                stream.write(event_stream_head())
                stream.chunk(HELLO)
                stream.chunk(b"")
            else:
                respond(stream, 200, request.target.encode())
                if request.target == "/close":
                    stream.close()

    def release(self) -> None:
        """Release the oldest response."""
        self.open.pop(0).callback(None)


class BoundTests(SlotTestCase):
    """The bound on connections, with the others waiting in order."""

    async def test_requests(self) -> None:
        """With two slots four requests are served two at a time."""
        held = Held()
        upstream = await self.upstream(held.script)
        port = await self.bound(upstream.url, 2)
        clients = []
        for number in range(4):
            clients.append(await self.sent(port, target=f"/{number}"))
            await until(lambda number=number: self.slots.in_use + self.slots.waiting > number)  # type: ignore[misc]
            await until(lambda number=number: len(held.asked) == min(number + 1, 2))  # type: ignore[misc]
        self.assertEqual((self.slots.in_use, self.slots.waiting), (2, 2))
        for number, client in enumerate(clients):
            held.release()
            self.assertEqual((await read_response(client, "GET")).body, f"/{number}".encode())
            await until(lambda number=number: len(held.asked) == min(4, 3 + number))  # type: ignore[misc]
        self.assertEqual(held.asked, ["/0", "/1", "/2", "/3"])
        self.assertEqual(len(upstream.connections), 2)
        await self.freed()

    async def test_together(self) -> None:
        """Calls and WebSockets share the slots."""
        held = Held()
        upstream = await self.upstream(held.script)
        port = await self.bound(upstream.url)
        kinds = (SOCKET, PLAIN, CONVERTED, SOCKET, PLAIN)
        clients = []
        for number, kind in enumerate(kinds):
            clients.append(await self.sent(port, kind))
            await until(lambda number=number: self.slots.in_use + self.slots.waiting > number)  # type: ignore[misc]
        for number, (kind, client) in enumerate(zip(kinds, clients, strict=True), 1):
            await until(lambda number=number: len(held.asked) == number)  # type: ignore[misc]
            self.assertEqual(self.slots.in_use, 1)
            held.release()
            answer = await read_response(client, "GET")
            self.assertEqual(answer.status, 101 if kind == SOCKET else 200)
            open_now = [one for one in upstream.connections if one.lost is None]
            self.assertLessEqual(len(open_now), 2)  # one of them has been told to go
            if kind == SOCKET:
                client.close()
        await self.freed()

    async def test_idle_ones_count(self) -> None:
        """An idle connection makes room for a WebSocket, which needs one of its own."""
        held = Held()
        upstream = await self.upstream(held.script)
        port = await self.bound(upstream.url)
        client = await self.sent(port)
        await until(lambda: bool(held.open))
        held.release()
        await read_response(client, "GET")
        self.assertIsNone(upstream.connections[0].lost)
        socket = await self.sent(port, SOCKET)
        await upstream.connections[0].gone()
        await until(lambda: bool(held.open))
        held.release()
        self.assertEqual((await read_head(socket)).status, 101)
        self.assertEqual(len(upstream.connections), 2)

    async def test_idle_ones_stay(self) -> None:
        """An idle connection stays where there is room for both."""
        held = Held()
        upstream = await self.upstream(held.script)
        port = await self.bound(upstream.url, 2)
        client = await self.sent(port)
        await until(lambda: bool(held.open))
        held.release()
        await read_response(client, "GET")
        await self.sent(port, SOCKET)
        await until(lambda: bool(held.open))
        await turns(5)
        self.assertIsNone(upstream.connections[0].lost)

    async def test_overloaded(self) -> None:
        """A request that finds the queue full gets its 503 at once, in every flow."""
        held = Held()
        upstream = await self.upstream(held.script)
        for kind, asks in ((ProxyResource, (PLAIN, CONVERTED, SOCKET)), (adapter, (CONVERTED,))):
            port = await self.bound(upstream.url, waiting=0, kind=kind)
            await self.sent(port, asks[0])
            await until(lambda: self.slots.in_use == 1)
            for what in asks:
                answer = await read_response(await self.sent(port, what))
                self.assertEqual((answer.status, answer.get("retry-after")), (503, "1"))
                error = answer.json()["error"]
                self.assertEqual((error["type"], error["code"]), ("server_error", "server_is_overloaded"))
                self.assertIn("raise maxUpstreamConnections", error["message"])

    async def test_cancelled(self) -> None:
        """A client that leaves while it waits leaves the queue, and nothing is sent for it."""
        held = Held()
        upstream = await self.upstream(held.script)
        port = await self.bound(upstream.url)
        first = await self.sent(port)
        await until(lambda: bool(held.asked))
        for what in (PLAIN, CONVERTED, SOCKET):
            client = await self.sent(port, what, "/gone")
            await until(lambda: self.slots.waiting == 1)
            client.close()
            await until(lambda: self.slots.waiting == 0)
        held.release()
        self.assertEqual((await read_response(first, "GET")).status, 200)
        await self.freed()
        self.assertEqual(held.asked, ["/v1/x"])

    async def test_waited_too_long(self) -> None:
        """Waiting counts as silence, and the error names what was waited for."""
        held = Held()
        upstream = await self.upstream(held.script)
        for kind, asks in ((ProxyResource, (PLAIN, CONVERTED, SOCKET)), (adapter, (CONVERTED,))):
            port = await self.bound(upstream.url, kind=kind)
            await self.sent(port, asks[0])
            await until(lambda: self.slots.in_use == 1)
            clock = self.resource.clock = Clock()
            for what in asks:
                client = await self.sent(port, what)
                await until(lambda: self.slots.waiting == 1)
                clock.advance(599)
                self.assertEqual(self.slots.waiting, 1)
                clock.advance(1)
                answer = await read_response(client)
                self.assertEqual(answer.status, 504)
                message = answer.json()["error"]["message"]
                self.assertIn("None of the 1 connections to", message)
                self.assertIn("within 600 seconds; try again later, or raise maxUpstreamConnections", message)
                self.assertEqual((self.slots.waiting, clock.getDelayedCalls()), (0, []))

    async def test_connect_limit(self) -> None:
        """``connectSeconds`` begin with the slot, not with the wait for it."""
        held = Held()
        upstream = await self.upstream(held.script)
        for what in (PLAIN, SOCKET):
            port = await self.bound(upstream.url)
            clock = Clock()
            self.resource.clock = self.resource.upstream._connections.clock = clock
            await self.sent(port, target="/close")
            await until(lambda: bool(held.open))
            client = await self.sent(port, what)
            await until(lambda: self.slots.waiting == 1)
            clock.advance(100)
            held.release()
            await until(lambda: bool(held.open))
            held.release()
            self.assertEqual((await read_response(client, "GET")).status, 200 if what == PLAIN else 101)


class FreedTests(SlotTestCase):
    """Ends of requests, each of which frees the slot."""

    async def ended(self, script: Script, what: str = PLAIN, tls: Any = None) -> Message:
        """Return the response to one request, and check that its slot is free afterwards."""
        upstream = await self.upstream(script, tls)
        port = await self.bound(upstream.url, waiting=0)
        answer = await read_response(await self.sent(port, what), "GET")
        await self.freed()
        return answer

    async def test_framings(self) -> None:
        """Responses without a body, with a length, chunked, until the close; connections kept or not."""
        for data in (
            head(204),
            head(304),
            head(200, [("Content-Length", "0")]),
            head(200, [("Content-Length", "2")]) + b"ok",
            head(200, [("Content-Length", "2"), ("Connection", "close")]) + b"ok",
            head(200, [("Transfer-Encoding", "chunked")]) + b"2\r\nok\r\n0\r\n\r\n",
            head(200, [("Content-Length", "2")]) + b"ok and more",
        ):

            async def script(stream: Stream, data: bytes = data) -> None:
                await read_request(stream)
                stream.write(data)
                await stream.rest()

            self.assertIn((await self.ended(script)).status, (200, 204, 304))

        async def closes(stream: Stream) -> None:
            await read_request(stream)
            stream.write(head(200) + b"ok")
            stream.close()

        self.assertEqual((await self.ended(closes)).body, b"ok")

    async def test_tls_that_stays_open(self) -> None:
        """The end of the response is enough: over TLS the server need not close."""
        trust(self)

        async def script(stream: Stream) -> None:
            await read_request(stream)
            respond(stream, 200, b"ok", [("Connection", "close")])
            stream.transport.pauseProducing()

        self.assertEqual((await self.ended(script, tls=server_context("127.0.0.1"))).body, b"ok")

    async def test_failures(self) -> None:
        """Connections that are closed, reset, garbage, or broken in the body."""

        async def closes(stream: Stream) -> None:
            stream.close()

        async def resets(stream: Stream) -> None:
            await read_request(stream)
            stream.abort()

        async def garbles(stream: Stream) -> None:
            await read_request(stream)
            stream.write(b"garbage\r\n\r\n")
            await stream.rest()

        for script in (closes, resets, garbles):
            for what in (PLAIN, CONVERTED, SOCKET):
                self.assertEqual((await self.ended(script, what)).status, 502)

        async def breaks(stream: Stream) -> None:
            await read_request(stream)
            stream.write(head(200, [("Content-Length", "9")]) + b"ok")
            stream.close()

        self.assertFalse((await self.ended(breaks)).complete)

    async def test_unreachable(self) -> None:
        """Nobody listens, or TLS fails."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = await self.bound(f"http://127.0.0.1:{probe.getsockname()[1]}", waiting=0)
            for what in (PLAIN, CONVERTED, SOCKET):
                self.assertEqual((await read_response(await self.sent(port, what), "GET")).status, 502)
                await self.freed()
        trust(self)

        async def script(stream: Stream) -> None:
            await stream.rest()

        for what in (PLAIN, SOCKET):
            answer = await self.ended(script, what, server_context("127.0.0.1", expired=True))
            self.assertEqual(answer.status, 502)

    async def test_client_gone(self) -> None:
        """A client that leaves before the head, within the body, or in a session."""
        trust(self)

        async def silent(stream: Stream) -> None:
            await read_head(stream)
            await stream.rest()

        async def streams(stream: Stream) -> None:
            await read_head(stream)
            stream.write(event_stream_head())
            stream.chunk(b"data: {}\n\n")
            await stream.rest()

        async def opens(stream: Stream) -> None:
            stream.write(accepted(await read_head(stream)))
            await stream.rest()

        for tls in (None, server_context("127.0.0.1")):
            for script, what, word in (
                (silent, PLAIN, b""),
                (silent, CONVERTED, b""),
                (silent, SOCKET, b""),
                (streams, PLAIN, b"data"),
                (streams, CONVERTED, b""),
                (opens, SOCKET, b"\r\n\r\n"),
            ):
                upstream = await self.upstream(script, tls)
                port = await self.bound(upstream.url, waiting=0)
                client, there = await self.sent(port, what), upstream.connections
                await until(lambda there=there: any(one.received for one in there))  # type: ignore[misc]
                await client.until(word)
                self.assertEqual(self.slots.in_use, 1)
                client.close()
                await self.freed()

    async def test_cancelled_while_connecting(self) -> None:
        """A client that leaves in the TLS handshake."""

        async def script(stream: Stream) -> None:
            await stream.rest()

        upstream = await self.upstream(script)
        for what in (PLAIN, CONVERTED, SOCKET):
            port = await self.bound(upstream.url.replace("http", "https"), waiting=0)
            there = len(upstream.connections)
            client = await self.sent(port, what)
            await until(lambda there=there: len(upstream.connections) > there)  # type: ignore[misc]
            self.assertEqual(self.slots.in_use, 1)
            client.close()
            await self.freed()

    async def test_early_answer(self) -> None:
        """A response that comes before the upload has ended ends both."""

        async def script(stream: Stream) -> None:
            await read_head(stream)
            respond(stream, 413, b"no")
            await stream.rest()

        upstream = await self.upstream(script)
        port = await self.bound(upstream.url, waiting=0)
        client = await self.client(port)
        client.write(b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nup")
        self.assertEqual((await read_response(client)).status, 413)
        await self.freed()

    async def test_stale(self) -> None:
        """A request that goes out again on a fresh connection keeps its slot."""

        async def script(stream: Stream) -> None:
            request = await read_request(stream)
            respond(stream, 200, b"ok")
            if request.target == "/first":
                await read_request(stream)
                self.in_use = self.slots.in_use
                stream.abort()

        upstream = await self.upstream(script)
        port = await self.bound(upstream.url, waiting=0)
        for target in ("/first", "/second"):
            answer = await read_response(await self.sent(port, target=target), "GET")
            self.assertEqual(answer.body, b"ok")
        self.assertEqual((self.in_use, len(upstream.connections)), (1, 2))
        await self.freed()

    async def test_second_attempt(self) -> None:
        """A fallback needs no second slot."""

        async def script(stream: Stream) -> None:
            while True:
                request = await read_request(stream)
                if "stream_options" in request.json():
                    respond(stream, 400, b'{"error": {"message": "stream_options is unknown"}}')
                else:
                    stream.write(event_stream_head())
                    stream.chunk(HELLO)
                    stream.chunk(b"")

        self.assertEqual((await self.ended(script, CONVERTED)).status, 200)

    async def test_drained(self) -> None:
        """A drained connection keeps its slot until it ends, although the call has been answered."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            stream.chunk(HELLO)
            await stream.rest()

        upstream = await self.upstream(script)
        port = await self.bound(upstream.url, waiting=0)
        clock = self.resource.upstream._connections.clock = Clock()
        client = await self.sent(port, CONVERTED)
        self.assertEqual((await read_response(client)).status, 200)
        self.assertEqual(self.slots.in_use, 1)
        clock.advance(1)
        await self.freed()

    async def test_sessions(self) -> None:
        """WebSockets that are refused, closed by either side, or lost."""

        async def refuses(stream: Stream) -> None:
            await read_head(stream)
            respond(stream, 403, b"no")
            await stream.rest()

        self.assertEqual((await self.ended(refuses, SOCKET)).status, 403)

        async def closes(stream: Stream) -> None:
            stream.write(accepted(await read_head(stream)) + close_frame(1000))
            await stream.rest()

        async def vanishes(stream: Stream) -> None:
            stream.write(accepted(await read_head(stream)) + frame(TEXT, b"x"))
            stream.close()

        for script in (closes, vanishes):
            upstream = await self.upstream(script)
            port = await self.bound(upstream.url, waiting=0)
            client = await self.sent(port, SOCKET)
            self.assertEqual((await read_head(client)).status, 101)
            client.write(close_frame(1000, client=True))
            await self.freed()


class ClosedTests(SlotTestCase):
    """Closed resources."""

    async def test_under_way(self) -> None:
        """A connection in use is dropped when its response has ended, over TLS too."""
        trust(self)
        for tls in (None, server_context("127.0.0.1")):
            held = Held()
            upstream = await self.upstream(held.script, tls)
            port = await self.bound(upstream.url)
            for what in (PLAIN, CONVERTED):
                client = await self.sent(port, what)
                await until(lambda: bool(held.open))  # noqa: B023
                await self.resource.close()
                held.release()
                self.assertEqual((await read_response(client, "GET")).status, 200)
                await upstream.connections[-1].gone()
                await self.freed()


class HeadTests(SlotTestCase):
    """The bound on the fields of an upstream's head."""

    async def test_count(self) -> None:
        """500 fields are relayed, 501 make a 502, also in the response to a WebSocket handshake."""
        for count, statuses in ((500, (200, 101, 403)), (501, (502, 502, 502))):
            for kind, status in zip((PLAIN, SOCKET, "refused"), statuses, strict=True):

                async def script(stream: Stream, kind: str = kind, count: int = count) -> None:
                    request = await read_head(stream)
                    if kind == SOCKET:
                        stream.write(accepted(request, [("X", "y")] * (count - 3)))
                    else:
                        code = 200 if kind == PLAIN else 403
                        respond(stream, code, b"", [("X", "y")] * (count - 1))
                    await stream.rest()

                upstream = await self.upstream(script)
                port = await self.bound(upstream.url)
                asking = await self.sent(port, PLAIN if kind == PLAIN else SOCKET)
                answer = await read_response(asking, "GET")
                self.assertEqual(answer.status, status, (kind, count))
                if status == 502:
                    self.assertIn("too large", answer.json()["error"]["message"])
