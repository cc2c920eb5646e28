"""Memory of sessions: no part of one waits for the cycle collector."""

from __future__ import annotations

import gc
from typing import Any
from weakref import ref

from twisted.internet.defer import Deferred

from tests.support.loopback import turns
from tests.support.sessions import (
    KEY,
    TEXT,
    Pair,
    WebSocketTestCase,
    accepted,
    close_frame,
    frame,
    handshake,
    read_frame,
)
from tests.support.wire import Message, Stream, head, read_head


class MemoryTests(WebSocketTestCase):
    """The parts of a session are freed as soon as both of its connections have ended."""

    def setUp(self) -> None:
        super().setUp()
        gc.disable()
        self.addCleanup(gc.enable)

    def parts(self) -> dict[str, ref[Any]]:
        """Return weak references to what the latest flow consists of, the flow itself excepted."""
        flow: Any = self.relays[-1]
        found = {"upstream's connection": flow._handshake}
        if flow._session is None:
            found["client's handshake"] = flow._client
            found["its factory"] = flow._client.factory
            found["upstream's handshake"] = flow._handshake._check
            found["its factory, too"] = flow._handshake._check.factory
            found["head of the response"] = flow._handshake._head
        else:
            found["client's channel"] = flow._session._client.connection
            found["its transport"] = flow._session._client.connection.transport
            found["session"] = flow._session
            found["client's side"] = flow._session._client
            found["upstream's side"] = flow._session._upstream
        return {name: ref(part) for name, part in found.items()}

    async def assert_freed(self, parts: dict[str, ref[Any]]) -> None:
        """Expect the flow to end and its parts to be gone."""
        await self.ended()
        self.relays.clear()
        await turns(2)
        self.assertEqual([name for name, part in parts.items() if part() is not None], [])

    async def test_closing_handshake(self) -> None:
        """Both sides have sent a close frame."""
        early = frame(TEXT, b"early")
        pair = await self.open(answer=lambda request: accepted(request) + early)
        parts = self.parts()
        self.assertEqual(await pair.client.exactly(len(early)), early)
        await self.assert_passes(pair.client, pair.server, frame(TEXT, b"x", key=KEY))
        await self.assert_passes(pair.client, pair.server, close_frame(1000, client=True))
        await self.assert_passes(pair.server, pair.client, close_frame(1000))
        pair.server.close()
        await pair.client.rest()
        await self.assert_freed(parts)

    async def test_handshakes(self) -> None:
        """An open WebSocket keeps nothing of the handshakes but its two connections."""
        found: list[dict[str, ref[Any]]] = []

        def answer(request: Message) -> bytes:
            found.append(self.parts())
            return accepted(request)

        pair = await self.open(answer=answer)
        await self.assert_passes(pair.client, pair.server, frame(TEXT, b"x", key=KEY))
        alive = [name for name, part in found[0].items() if part() is not None]
        self.assertEqual(alive, ["upstream's connection"])

    async def test_loss(self) -> None:
        """Either side has vanished, with or without a reset."""

        def client_first(pair: Pair) -> tuple[Stream, Stream]:
            return pair.client, pair.server

        def server_first(pair: Pair) -> tuple[Stream, Stream]:
            return pair.server, pair.client

        for order in (client_first, server_first):
            for vanish in (Stream.close, Stream.abort):
                pair = await self.open()
                parts = self.parts()
                gone, left = order(pair)
                vanish(gone)
                await read_frame(left)
                left.close()
                await self.assert_freed(parts)

    async def test_plain_site(self) -> None:
        """The client's channel belongs to a site that is not ours."""
        upstream, came = await self.accepting()
        pair = await self.join(await self.plain_site(upstream), came)
        parts = self.parts()
        pair.client.abort()
        await read_frame(pair.server)
        pair.server.close()
        await self.assert_freed(parts)

    async def test_refusal(self) -> None:
        """The upstream has refused the handshake, with a body that its length or its end delimits."""
        for fields in ([("Content-Length", "4")], []):
            await self.assert_freed(await self.parts_when_answered(head(403, fields, "No") + b"body"))

    async def test_invalid_response(self) -> None:
        """The upstream's response is no valid HTTP."""
        await self.assert_freed(await self.parts_when_answered(b"nonsense\r\n\r\n"))

    async def test_client_leaves_early(self) -> None:
        """The client has left before the upstream has responded."""
        await self.assert_freed(await self.parts_when_answered(None))

    async def parts_when_answered(self, response: bytes | None) -> dict[str, ref[Any]]:
        """Return the parts of a flow whose upstream sends `response` and closes; or whose client leaves."""
        found: Deferred[dict[str, ref[Any]]] = Deferred()

        async def script(stream: Stream) -> None:
            await read_head(stream)
            found.callback(self.parts())
            if response is None:
                client.abort()
            else:
                stream.write(response)
                stream.close()

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(handshake())
        return await found
