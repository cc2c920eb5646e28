"""Many open streams and sessions at once, and the memory of each: ``python -m kits.soak.crowd``."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kits.processes import free_ports
from kits.soak.cases import Case, chat_completion, chat_events
from kits.soak.client import Connection, handshake, request
from kits.soak.expected import check
from kits.soak.frames import CLOSE, TEXT, frame, read_frame, switching
from kits.soak.http import Head, Torn, read_body, read_head
from kits.soak.proxy import Proxy, Sample

_T = TypeVar("_T")

#: The number of connections opened at a time.
_BATCH = 100
_WARM = 100
_LIMIT_SECONDS = 240.0


@dataclass(frozen=True)
class Crowd:
    """The results; bytes are per open connection."""

    count: int
    stream_bytes: float
    session_bytes: float
    descriptors: int
    descriptors_after: int


def allow_descriptors(wanted: int) -> bool:
    """Raise the limit of open files, for child processes too; return whether that is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            return False
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return True


class _Holding:
    """An upstream that begins every response and ends all of them on request."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.begun = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (head := await read_head(reader)) is not None:
                case = Case.of(head.get("x-soak") or "")
                if head.get("upgrade") is not None:
                    await self._session(head, case, reader, writer)
                    return
                await read_body(reader, head)
                await self._stream(case, writer)
        except (ConnectionError, asyncio.IncompleteReadError, Torn):
            pass
        finally:
            writer.close()

    async def _stream(self, case: Case, writer: asyncio.StreamWriter) -> None:
        events = chat_events(case, usage=True)
        half = len(events) // 2
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for number, event in enumerate(events):
            if number == half:
                self.begun += 1
                await self.release.wait()
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _session(
        self, head: Head, case: Case, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(switching(head.get("sec-websocket-key") or ""))
        self.begun += 1
        while True:
            opcode, payload = await read_frame(reader)
            said = payload if opcode == CLOSE else f"{case.token} ".encode() + payload
            writer.write(frame(opcode, said, masked=False))
            await writer.drain()
            if opcode == CLOSE:
                return


def _case(number: int) -> Case:
    return Case(f"tk{number:016x}", count=20)


async def _open_stream(port: int, number: int) -> Connection:
    connection = await Connection.open(port)
    case = _case(number)
    body = json.dumps({"model": "m", "user": str(case), "messages": []}).encode()
    await connection.send(request("POST", "/v1/chat/completions", case, body))
    return connection


async def _end_stream(connection: Connection, number: int) -> None:
    response = await connection.response()
    case = _case(number)
    check(response.status == 200 and not response.torn, "status", case, response.status)
    check(json.loads(response.body) == chat_completion(case), "another response", case, response.body)
    await connection.close()


async def _open_session(port: int, number: int) -> Connection:
    connection = await Connection.open(port)
    await connection.send(handshake("/v1/realtime", _case(number)))
    response = await connection.response("HEAD")
    check(response.status == 101, "status", number, response.status)
    await _echo(connection, number, b"hello")
    return connection


async def _echo(connection: Connection, number: int, text: bytes) -> None:
    await connection.send(frame(TEXT, text, masked=True))
    got = await read_frame(connection.reader)
    check(got == (TEXT, f"{_case(number).token} ".encode() + text), "no echo", number, got)


async def _end_session(connection: Connection, number: int) -> None:
    await _echo(connection, number, b"still there")
    said = (4000 + number % 900).to_bytes(2, "big")
    await connection.send(frame(CLOSE, said, masked=True))
    got = await read_frame(connection.reader)
    check(got == (CLOSE, said), "another close", number, got)
    await connection.close()


async def _batches(count: int, one: Callable[[int], Awaitable[_T]]) -> list[_T]:
    done: list[_T] = []
    for start in range(0, count, _BATCH):
        done += await asyncio.gather(*(one(number) for number in range(start, min(count, start + _BATCH))))
    return done


class _Measured:
    """One proxy in front of one upstream, and the connections through them."""

    def __init__(self, proxy: Proxy, port: int, holding: _Holding) -> None:
        self._proxy = proxy
        self._port = port
        self._holding = holding

    async def open(self, count: int, how: Callable[[int, int], Awaitable[Connection]]) -> list[Connection]:
        """Open `count` connections, and wait until the upstream has begun to respond on all of them."""
        wanted = self._holding.begun + count
        opened = await _batches(count, lambda number: how(self._port, number))
        while self._holding.begun < wanted:
            await asyncio.sleep(0.05)
        return opened

    async def end(
        self, connections: list[Connection], how: Callable[[Connection, int], Awaitable[None]]
    ) -> None:
        """End the connections, and check how they end."""
        await _batches(len(connections), lambda number: how(connections[number], number))

    async def settled(self, baseline: int) -> Sample:
        """Return a sample once the process has no more than `baseline` descriptors, or after some time."""
        sample = self._proxy.sample()
        for _ in range(450):
            if sample.descriptors <= baseline:
                break
            await asyncio.sleep(0.1)
            sample = self._proxy.sample()
        return sample


@asynccontextmanager
async def _started(folder: Path) -> AsyncIterator[tuple[Proxy, int, _Holding]]:
    holding = _Holding()
    server = await asyncio.start_server(holding.serve, "127.0.0.1", 0, limit=2**16, backlog=4096)
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    proxy = Proxy(folder, {"rules": [{"listenPort": port, "upstreamUrl": url}]})
    try:
        await asyncio.to_thread(proxy.wait_for, [port])
        yield proxy, port, holding
    finally:
        proxy.stop()
        server.close()


async def crowd(count: int) -> Crowd:
    """Open `count` converted streams, then `count` WebSockets beside them, and end them all.

    :raises kits.soak.expected.Wrong: if one of them does not end correctly.
    """
    with tempfile.TemporaryDirectory(prefix="crowd-") as folder:
        async with _started(Path(folder)) as (proxy, port, holding), asyncio.timeout(_LIMIT_SECONDS):
            measured = _Measured(proxy, port, holding)
            baseline = proxy.sample().descriptors
            warm = await measured.open(
                _WARM, _open_stream
            )  # so that the code that the first ones load is not counted
            holding.release.set()
            await measured.end(warm, _end_stream)
            await measured.end(await measured.open(_WARM, _open_session), _end_session)
            holding.release.clear()
            before = proxy.sample()
            streams = await measured.open(count, _open_stream)
            with_streams = proxy.sample()
            sessions = await measured.open(count, _open_session)
            with_both = proxy.sample()
            holding.release.set()
            await asyncio.gather(measured.end(streams, _end_stream), measured.end(sessions, _end_session))
            after = await measured.settled(baseline)
        for complaint in proxy.complaints():
            check(False, "the log has", complaint)
    return Crowd(
        count,
        (with_streams.memory - before.memory) / count,
        (with_both.memory - with_streams.memory) / count,
        with_both.descriptors,
        after.descriptors - baseline,
    )


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    allow_descriptors(4 * number + 1000)
    print(asyncio.run(crowd(number)))
