"""Peers that sleep for longer than a dead path may be silent, and then take every byte."""

from __future__ import annotations

import hashlib

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.support.flood import MIB, Pour, numbered, small_buffers
from tests.support.loopback import LoopbackTestCase, reactor
from tests.support.wire import GET, UPLOAD, Stream, head, read_head, read_request, read_response

SIZE = 32 * MIB
ASLEEP_SECONDS = 40


def digest() -> str:
    """Return the hash of all that :func:`numbered` makes."""
    found = hashlib.sha256()
    for piece in numbered(SIZE):
        found.update(piece)
    return found.hexdigest()


class HeavyAsleepTests(LoopbackTestCase):
    """TCP probes a closed window ever less often, which is no dead path."""

    timeout = 300

    async def read_all(self, stream: Stream) -> str:
        """Sleep, and return the hash of what comes then."""
        stream.transport.pauseProducing()
        await deferLater(reactor, ASLEEP_SECONDS)
        stream.transport.resumeProducing()
        found, left = hashlib.sha256(), SIZE
        while left:
            data = await stream.some()
            found.update(data)
            left -= len(data)
        return found.hexdigest()

    async def test_client(self) -> None:
        """A client that sleeps gets the whole relayed response."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(head(200, [("Content-Length", str(SIZE))]))
            Pour(stream, numbered(SIZE))
            await stream.rest()

        client = await self.client(await self.proxy((await self.upstream(script)).url))
        small_buffers(client)
        client.write(GET)
        await read_head(client)
        self.assertEqual(await self.read_all(client), digest())

    async def test_upstream(self) -> None:
        """An upstream that sleeps gets the whole upload."""
        got: Deferred[str] = Deferred()

        async def script(stream: Stream) -> None:
            small_buffers(stream)
            await stream.until(b"\r\n\r\n")
            got.callback(await self.read_all(stream))
            stream.write(head(200, [("Content-Length", "0")]))

        client = await self.client(await self.proxy((await self.upstream(script)).url))
        client.write(UPLOAD % SIZE)
        Pour(client, numbered(SIZE))
        self.assertEqual(await got, digest())
        self.assertEqual((await read_response(client)).status, 200)
