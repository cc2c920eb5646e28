"""Stalls: the longest wait of small requests while one client moves a large body or response."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from kits.benchmarks.load import Generator
from kits.benchmarks.results import Stall
from kits.benchmarks.stage import Running, Stage
from kits.benchmarks.workloads import KEY, MIB, Workload, request_of

#: The seconds after which the large transfer is cut off, and those of the control without one.
STALL_SECONDS, CONTROL_SECONDS = 15.0, 2.0
#: Microseconds between two small requests, and those before the measurement.
PAUSE_US, WARM = 1000, 200
_READ_BYTES = 256 * 1024
#: Chunks of a stream of 96 MB.
_MANY_CHUNKS = 330_000


@dataclass(frozen=True)
class StallCase:
    """A large transfer.

    :ivar target: the request's target; none for the control.
    :ivar body: makes its body.
    """

    about: str
    target: str | None = None
    body: Callable[[], bytes] = bytes


def _call(content: str, **members: str) -> bytes:
    """Return a call whose content, and further members, are given as JSON."""
    more = "".join(f",{json.dumps(name)}:{text}" for name, text in members.items())
    return f'{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":{content}}}]{more}}}'.encode()


def _streamed() -> bytes:
    return _call('"Hi"', stream="true")


def _string() -> bytes:
    return _call(f'"{"a" * (95 * MIB)}"')


def _messages() -> bytes:
    one = f'{{"role":"user","content":"{"a" * 3600}"}}'
    return f'{{"model":"gpt-4o-mini","messages":[{",".join([one] * 25_000)}]}}'.encode()


def _objects() -> bytes:
    one = '{"name":"value","number":123,"list":[1,2,3]}'
    return _call('"Hi"', metadata=f"[{','.join([one] * 1_500_000)}]")


def _escapes() -> bytes:
    return _call('"' + "\\u00e9" * (11 * MIB) + '"')


CASES: Mapping[str, StallCase] = {
    "nothing": StallCase("nothing else"),
    "upload": StallCase("an upload of 95 MiB, relayed", "/upload", lambda: bytes(95 * MIB)),
    "download": StallCase("a stream of 96 MB, relayed", f"/n{_MANY_CHUNKS}/v1/chat/completions", _streamed),
    "answer": StallCase(
        "a completion out of 96 MB", f"/n{_MANY_CHUNKS}/v1/chat/completions", lambda: _call('"Hi"')
    ),
    "string": StallCase("a call to convert, one string of 95 MiB", "/n200/v1/chat/completions", _string),
    "messages": StallCase(
        "a call to convert, 25,000 messages, 91 MB", "/n200/v1/chat/completions", _messages
    ),
    "objects": StallCase(
        "a call to convert, 1.5 million objects, 66 MB", "/n200/v1/chat/completions", _objects
    ),
    "escapes": StallCase(
        "a call to convert, 11 million escapes, 66 MiB", "/n200/v1/chat/completions", _escapes
    ),
}


def measure_stall(case: StallCase, running: Running, stage: Stage) -> Stall:
    """Send small requests one after the other while the large transfer runs.

    :raises Failed: if a small request went wrong.
    """
    port = running.ports["tcp"]
    small = stage.folder / "small"
    workload = Workload("small", "", "http", "/small", method="GET")
    small.write_bytes(request_of(workload, "/small", None).wire())
    body = case.body()
    if case.target is not None:
        _prepare(stage.upstreams.tcp_port, case.target)
    probe = Generator("probe", port, PAUSE_US, WARM, small, limit=3 * STALL_SECONDS)
    probe.expect("warm")
    begun = time.monotonic()
    if case.target is None:
        time.sleep(CONTROL_SECONDS)
        outcome = "-"
    else:
        outcome = _transfer(port, case.target, body)
    seconds = time.monotonic() - begun
    probe.release()
    result = probe.result()
    return Stall(result["longest"] / 1e6, result["p99"] / 1e6, seconds, outcome)


def _prepare(port: int, target: str) -> None:
    """Have the upstream make the answer, for which it leaves everything else waiting."""
    head = f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), STALL_SECONDS) as connection:
        connection.sendall(head.encode())
        connection.recv(1)


def _transfer(port: int, target: str, body: bytes) -> str:
    """Send a request and read the response to its end; return its status, or what became of it."""
    head = (
        f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    end = time.monotonic() + STALL_SECONDS
    received = bytearray(_READ_BYTES)
    start = b""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(STALL_SECONDS)
        try:
            with suppress(ConnectionError):  # refused early: the response says why
                connection.sendall(head.encode())
                connection.sendall(body)
            while count := connection.recv_into(received):
                start = start or bytes(received[:count])
                if time.monotonic() > end:
                    return f"cut off after {STALL_SECONDS:.0f} s"
        except TimeoutError:
            return f"cut off after {STALL_SECONDS:.0f} s"
        except ConnectionError as error:
            return f"broken off: {error.strerror}"
    return start[9:12].decode() if start else "no response"
