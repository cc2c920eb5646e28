"""Large relayed bodies, during which the proxy's memory stays flat."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from heavy_tests.memory import peak_memory
from tests.support.flood import MIB, Pour, numbered, small_buffers
from tests.support.loopback import reactor
from tests.support.twistd import ProcessTestCase
from tests.support.wire import GET, UPLOAD, Stream, head, read_response, respond

TOTAL = 256 * MIB
#: The growth allowed to a process that relays 256 MiB.
GROWTH = 32 * MIB


async def still(pour: Pour) -> int:
    """Wait long enough for the other processes to read all they will; return the number of pieces sent."""
    calm, last = 0, -1
    while calm < 10:
        await deferLater(reactor, 0.05)
        calm = calm + 1 if pour.taken == last else 0
        last = pour.taken
    return pour.taken


class FlatTests(ProcessTestCase):
    """256 MiB through a process, past a peer that stops reading, and on to the end."""

    timeout = 300

    async def warm(self, port: int) -> None:
        """Let the process load the code that its first requests need."""
        for _ in range(3):
            await self.request(port, "GET", "/v1/warm")

    async def read_all(self, stream: Stream, pieces: list[bytes]) -> None:
        """Read all pieces, which must be in order."""
        for piece in pieces:
            self.assertTrue(await stream.exactly(len(piece)) == piece)

    async def test_download(self) -> None:
        """A download is paused by its client, and then complete."""
        pieces = numbered(TOTAL)
        pouring: Deferred[Pour] = Deferred()

        async def script(stream: Stream) -> None:
            while b"warm" in await stream.until(b"\r\n\r\n"):
                respond(stream, 200, b"warm")
            small_buffers(stream)
            stream.write(head(200))
            pouring.callback(Pour(stream, pieces, stream.close))
            await stream.rest()

        upstream = await self.upstream(script)
        process, (port,) = await self.serve(upstream.url)
        await self.warm(port)
        before = peak_memory(process.pid)
        client = await self.client(port)
        small_buffers(client)
        client.write(GET.replace(b"1.1", b"1.0"))
        await client.until(b"\r\n\r\n")
        client.transport.pauseProducing()
        pour = await pouring
        self.assertLess(await still(pour) * 65536, TOTAL // 2)
        self.assertLess(peak_memory(process.pid) - before, GROWTH)
        client.transport.resumeProducing()
        await self.read_all(client, pieces)
        self.assertLess(peak_memory(process.pid) - before, GROWTH)

    async def test_upload(self) -> None:
        """An upload is paused by its upstream, and then complete."""
        pieces = numbered(TOTAL)
        begun: Deferred[Stream] = Deferred()
        stuck: Deferred[None] = Deferred()

        async def script(stream: Stream) -> None:
            while b"warm" in await stream.until(b"\r\n\r\n"):
                respond(stream, 200, b"warm")
            small_buffers(stream)
            stream.transport.pauseProducing()
            begun.callback(stream)
            await stuck
            stream.transport.resumeProducing()
            await self.read_all(stream, pieces)
            respond(stream, 200, b"ok")

        upstream = await self.upstream(script)
        process, (port,) = await self.serve(upstream.url)
        await self.warm(port)
        before = peak_memory(process.pid)
        client = await self.client(port)
        small_buffers(client)
        client.write(UPLOAD % TOTAL)
        await begun
        pour = Pour(client, pieces)
        self.assertLess(await still(pour) * 65536, TOTAL // 2)
        self.assertLess(peak_memory(process.pid) - before, GROWTH)
        stuck.callback(None)
        self.assertEqual((await read_response(client)).body, b"ok")
        self.assertLess(peak_memory(process.pid) - before, GROWTH)
