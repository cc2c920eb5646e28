"""TLS in front of the upstream: ``python tls_upstream.py UPSTREAM_PORT CERTIFICATE``; prints its port.

Bytes are relayed as they arrive. This takes more CPU time than the upstream itself, but none of it is
counted.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import cast


class Leg(asyncio.Protocol):
    """One of the two connections; `peer` is the other one."""

    peer: Leg | None = None
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's TLS transports do not derive from it

    def data_received(self, data: bytes) -> None:
        assert self.peer is not None
        self.peer.transport.write(data)

    def pause_writing(self) -> None:
        if self.peer is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None:
            self.peer.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self.peer is not None:
            self.peer.transport.close()


class Front(Leg):
    """The TLS side, which connects to the upstream at once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._waiting: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connecting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        _, back = await asyncio.get_running_loop().create_connection(Leg, "127.0.0.1", self._port)
        back.peer, self.peer = self, back
        for data in self._waiting:
            back.transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self.peer is None:
            self._waiting.append(data)
        else:
            self.peer.transport.write(data)


async def main(upstream: int, certificate: str) -> None:
    """Serve until killed."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Front(upstream), "127.0.0.1", 0, ssl=context, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    serving = main(int(sys.argv[1]), sys.argv[2])
    try:
        import uvloop
    except ImportError:
        asyncio.run(serving)
    else:
        uvloop.run(serving)
