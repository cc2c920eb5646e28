"""Calls: actions that send requests and check the responses."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace

from kits.soak import expected
from kits.soak.actor import Actor, call_body, chat_request
from kits.soak.cases import COMMON_FAULTS, Case
from kits.soak.client import Connection, Response, request
from kits.soak.expected import check

_CHAT_FAULTS = (*COMMON_FAULTS, "nousage", "nostream", "nousage", "nostream")
_UPLOAD_FAULTS = (
    "fine",
    "fine",
    "fine",
    "drip",
    "s500",
    "s429",
    "early",
    "torn",
    "reset",
    "close",
    "garbage",
)


async def chat(actor: Actor) -> None:
    case = Case.draw(actor.chance, actor.some(_CHAT_FAULTS))
    response = await actor.ask(actor.ports.proxy, case, chat_request(case, None))
    expected.converted(case, response, "chat")


async def responses(actor: Actor) -> None:
    case = Case.draw(actor.chance)
    data = request("POST", "/v1/responses", case, call_body(case, input="hello"))
    expected.converted(case, await actor.ask(actor.ports.proxy, case, data), "responses")


async def too_large(actor: Actor) -> None:
    case = Case.draw(actor.chance, ("toolarge",))
    response = await actor.ask(actor.ports.proxy, case, chat_request(case, False))
    expected.converted(case, response, "chat")


async def stream(actor: Actor) -> None:
    case = Case.draw(actor.chance)
    if actor.chance.random() < 0.5:
        data, kind = chat_request(case, True), "chat"
    else:
        data = request("POST", "/v1/responses", case, call_body(case, input="hello", stream=True))
        kind = "responses"
    expected.relayed(case, await actor.ask(actor.ports.proxy, case, data), kind)


async def adapter(actor: Actor, *, stream: bool = False) -> None:
    case = Case.draw(actor.chance)
    response = await actor.ask(actor.ports.adapter, case, chat_request(case, stream))
    expected.adapted(case, response, stream=stream)


async def adapter_stream(actor: Actor) -> None:
    await adapter(actor, stream=True)


async def data(actor: Actor) -> None:
    case = _with_data(Case.draw(actor.chance))
    data = request("GET", f"/v1/files/{case.token}?a=b", case)
    expected.relayed(case, await actor.ask(actor.ports.proxy, case, data, "GET"), "data")


async def head(actor: Actor) -> None:
    case = _with_data(Case.draw(actor.chance, ("fine",)))
    response = await actor.ask(actor.ports.proxy, case, request("HEAD", "/v1/files/x", case), "HEAD")
    length = response.head.get("content-length") if response.head is not None else None
    check(response.status == 200 and length == str(len(case.data)), "head", case, response.head)


async def pipelined(actor: Actor) -> None:
    """Send several requests at once on a new connection, and check the order of the responses."""
    faults = ("fine", "drip", "gzip", "s429", "huge", "close", "error")
    cases = [Case.draw(actor.chance, faults) for _ in range(actor.chance.randrange(2, 6))]
    connection = await Connection.open(actor.ports.proxy)
    try:
        await connection.send(b"".join(chat_request(case, None) for case in cases))
        for case in cases:
            actor.tally.faults[case.fault] += 1
            response = await connection.response()
            actor.tally.statuses[response.status] += 1
            if response.head is None and actor.replaced:
                return
            expected.converted(case, response, "chat")
    finally:
        await connection.close()


async def slow_reader(actor: Actor) -> None:
    """Read a response slowly."""
    case = _with_data(Case.draw(actor.chance, ("fine", "drop")), 40, 60_000)
    taken: list[bytes] = []

    async def slowly(data: bytes) -> None:
        taken.append(data)
        await asyncio.sleep(0.03)

    connection = await Connection.open(actor.ports.proxy)
    try:
        await connection.send(request("GET", "/v1/files/slow", case))
        response = await connection.response("GET", slowly)
        actor.tally.statuses[response.status] += 1
        expected.relayed(case, replace(response, body=b"".join(taken)), "data")
    finally:
        await connection.close()


async def upload(actor: Actor) -> None:
    """Send some megabytes; the response may arrive before the end."""
    case = Case.draw(actor.chance, actor.some(_UPLOAD_FAULTS))
    actor.tally.faults[case.fault] += 1
    size = actor.chance.choice([10_000, 1_000_000, 5_000_000])
    body = replace(case, count=1, pad=size).data
    chunked = actor.chance.random() < 0.5
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    connection = await Connection.open(actor.ports.proxy)

    async def send() -> None:
        await connection.send(request("POST", "/v1/upload", case, fields=(framing,)))
        for start in range(0, size, 100_000):
            piece = body[start : start + 100_000]
            await connection.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            await connection.send(b"0\r\n\r\n")

    sending = asyncio.ensure_future(send())
    try:
        try:
            response = await connection.response()
        except OSError:
            response = Response(None)
        actor.tally.statuses[response.status] += 1
        if response.status == 502 and not actor.reached(case.token):
            # The upload met a kept connection that the upstream was closing; a streamed body cannot be sent
            # again.
            actor.tally.stale += 1
            return
        expected.uploaded(case, response, hashlib.sha256(body).hexdigest())
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        connection.leave()


def _with_data(case: Case, count: int = 20, pad: int = 2000) -> Case:
    return case if case.pad else replace(case, count=count, pad=pad)
