"""Memory and descriptors after many small requests, and many that fail: ``python -m kits.soak.flat``."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kits.processes import free_ports
from kits.soak import expected
from kits.soak.actor import chat_request
from kits.soak.cases import Case
from kits.soak.client import Connection, request
from kits.soak.expected import check
from kits.soak.proxy import Proxy, Sample
from kits.soak.upstream import Upstream

_CLIENTS = 8
_FAULTS = ("early", "torn", "reset", "close", "garbage", "badchunk", "badjson", "error", "br", "s500")
_SETTLE_SECONDS = 45.0


@dataclass(frozen=True)
class Flat:
    """The growth of the process in bytes, and of its descriptors."""

    small: int
    failed: int
    descriptors: int


async def flat(small: int, failed: int) -> Flat:
    """Send half as many requests as a warm-up, then `small` successful ones, then `failed` failing ones.

    :raises kits.soak.expected.Wrong: if a response is not the expected one.
    """
    upstream = Upstream()
    url = f"http://127.0.0.1:{await upstream.start()}"
    proxy_port, adapter_port = free_ports(2)
    adapter = {"models": ["m"], "endMarker": "[DONE]"}
    rules = [
        {"listenPort": proxy_port, "upstreamUrl": url},
        {"listenPort": adapter_port, "upstreamUrl": f"{url}/service", "adapter": adapter},
    ]
    with tempfile.TemporaryDirectory(prefix="flat-") as folder:
        proxy = Proxy(Path(folder), {"rules": rules})
        try:
            await asyncio.to_thread(proxy.wait_for, [proxy_port, adapter_port])
            baseline = proxy.sample()
            client = _Client(proxy_port, adapter_port)
            await client.many(max(100, small // 2), ("fine",))
            await client.many(max(100, failed // 2), _FAULTS)
            warm = proxy.sample()
            await client.many(small, ("fine",))
            middle = proxy.sample()
            await client.many(failed, _FAULTS)
            end = await _settled(proxy, baseline.descriptors)
        finally:
            proxy.stop()
            await upstream.stop()
        for complaint in proxy.complaints():
            check(False, "the log has", complaint)
    return Flat(
        middle.memory - warm.memory, end.memory - middle.memory, end.descriptors - baseline.descriptors
    )


async def _settled(proxy: Proxy, descriptors: int) -> Sample:
    """Return a sample after idle upstream connections have been closed."""
    loop = asyncio.get_running_loop()
    end = loop.time() + _SETTLE_SECONDS
    while (sample := proxy.sample()).descriptors > descriptors and loop.time() < end:
        await asyncio.sleep(0.2)
    return sample


class _Client:
    def __init__(self, proxy: int, adapter: int) -> None:
        self._ports = (proxy, adapter)
        self._number = 0

    async def many(self, count: int, faults: tuple[str, ...]) -> None:
        """Send `count` requests, some of them at the same time."""
        await asyncio.gather(*(self._some(count // _CLIENTS, faults) for _ in range(_CLIENTS)))

    async def _some(self, count: int, faults: tuple[str, ...]) -> None:
        connections = [await Connection.open(port) for port in self._ports]
        try:
            for _ in range(count):
                await self._one(connections, faults)
        finally:
            for connection in connections:
                await connection.close()

    async def _one(self, connections: list[Connection], faults: tuple[str, ...]) -> None:
        """Send one request: converted, relayed or adapted, in turn."""
        self._number += 1
        number = self._number
        case = Case(f"tk{number:016x}", faults[number % len(faults)], count=3)
        how = number // len(faults) % 4
        place = 1 if how == 3 else 0
        if not connections[place].usable:
            await connections[place].close()
            connections[place] = await Connection.open(self._ports[place])
        connection = connections[place]
        if how == 2 and case.fault == "fine":
            case = Case(case.token, count=1, pad=100)
            await connection.send(request("GET", "/v1/files/x", case))
            expected.relayed(case, await connection.response("GET"), "data")
            return
        stream = how == 1
        await connection.send(chat_request(case, stream))
        response = await connection.response()
        if place:
            expected.adapted(case, response, stream=stream)
        elif stream:
            expected.relayed(case, response, "chat")
        else:
            expected.converted(case, response, "chat")


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]] or [10_000, 1_000]
    print(asyncio.run(flat(*numbers)))
