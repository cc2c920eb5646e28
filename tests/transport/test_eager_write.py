"""Tests of writes that go out in their reactor turn, or after a poll where there is no room."""

from __future__ import annotations

import gc
import socket

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol

from stream_proxy.transport.eager_write import send_promptly
from tests.support.loopback import LoopbackTestCase, Upstream, reactor, turns
from tests.support.wire import Stream


class PromptTests(LoopbackTestCase):
    """Eager writes to one TCP connection."""

    async def pair(self) -> tuple[Stream, Stream]:
        """Return both ends of a connection, the first of which writes eagerly."""
        arrived: Deferred[Stream] = Deferred()

        async def script(stream: Stream) -> None:
            arrived.callback(stream)

        service: Upstream = await self.upstream(script)
        client = await self.client(service.port)
        send_promptly(client.transport)
        return client, await arrived

    async def test_together(self) -> None:
        """The writes of one turn make one segment, and the reactor never polls for room."""
        near, far = await self.pair()
        watched: list[object] = []
        self.patch(near.transport.reactor, "addWriter", watched.append)
        near.write(b"a")
        near.transport.writeSequence([b"b", b"c"])
        self.assertEqual(far.received, 0)
        await far.until(b"abc")
        self.assertEqual(watched, [])

    async def test_no_room(self) -> None:
        """Data that does not fit waits for room, and arrives whole and in order."""
        near, far = await self.pair()
        near.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        far.transport.pauseProducing()
        data = b"".join(b"%07d\n" % number for number in range(500_000))
        near.write(data)
        await turns(5)
        near.write(b"end")
        far.transport.resumeProducing()
        self.assertTrue(await far.until(b"end") == data + b"end")

    async def test_close(self) -> None:
        """A close comes after what was written before it."""
        near, far = await self.pair()
        near.write(b"last words")
        near.close()
        self.assertEqual(await far.rest(), b"last words")

    async def test_forgotten(self) -> None:
        """A pending write keeps its connection, which the reactor no longer watches once it is closing."""
        arrived: Deferred[Stream] = Deferred()

        async def script(stream: Stream) -> None:
            arrived.callback(stream)

        service = await self.upstream(script)
        near = await connectProtocol(HostnameEndpoint(reactor, "127.0.0.1", service.port), Stream())
        far = await arrived
        await turns(1)
        send_promptly(near.transport)
        near.write(b"last words")
        near.close()
        del near
        gc.collect()
        self.assertEqual(await far.rest(), b"last words")

    async def test_gone(self) -> None:
        """A connection that ends before its turn does is left alone."""
        near, far = await self.pair()
        near.write(b"never mind")
        near.abort()
        await far.gone()
        await near.gone()

    async def test_reset(self) -> None:
        """A connection that turns out to be broken ends as usual."""
        near, far = await self.pair()
        near.transport.pauseProducing()
        far.abort()
        await far.gone()
        near.write(b"x" * 100_000)
        await turns(5)
        near.transport.resumeProducing()
        near.write(b"x")
        await near.gone()

    async def test_at_once(self) -> None:
        """With `at_once` each write sends; a close still comes after it."""
        near, far = await self.pair()
        send_promptly(near.transport, at_once=True)
        watched: list[object] = []
        patch = self.patch(near.transport.reactor, "addWriter", watched.append)
        near.write(b"now")
        self.assertEqual(near.transport._tempDataLen + len(near.transport.dataBuffer), 0)
        await far.until(b"now")
        self.assertEqual(watched, [])
        near.write(b"later")
        patch.restore()
        near.close()
        self.assertEqual(await far.rest(), b"later")

    async def test_no_tcp(self) -> None:
        """A transport that is no TCP connection is left as it is."""
        send_promptly(object())
