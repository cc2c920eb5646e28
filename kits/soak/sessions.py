"""Sessions, and clients that leave: actions on a connection of their own."""

from __future__ import annotations

import asyncio

from kits.soak import expected
from kits.soak.actor import Actor, call_body, chat_request
from kits.soak.cases import Case
from kits.soak.client import Connection, Response, handshake, request
from kits.soak.expected import check
from kits.soak.frames import CLOSE, TEXT, frame, read_frame

_SESSION_FAULTS = ("fine", "fine", "fine", "drip", "early", "torn", "s429", "close", "garbage")


async def session(actor: Actor) -> None:
    """Open a WebSocket whose messages are echoed with the token."""
    case = Case.draw(actor.chance, actor.some(_SESSION_FAULTS))
    actor.tally.faults[case.fault] += 1
    connection = await Connection.open(actor.ports.proxy)
    try:
        await connection.send(handshake("/v1/realtime?model=m", case))
        status = {"s429": 429, "close": 502, "garbage": 502, "silent": 504}.get(case.fault, 101)
        response = await connection.response("HEAD" if status == 101 else "GET")
        actor.tally.statuses[response.status] += 1
        check(response.status == status, "status", case, response.status, response.body)
        if status == 101:
            await _talk(actor, connection, case)
        else:
            expected.own(case, response)
    finally:
        await connection.close()


async def _talk(actor: Actor, connection: Connection, case: Case) -> None:
    for number in range(case.count):
        size = actor.chance.choice([0, 10, 1000, 70_000])
        message = b"%d " % number + b"y" * size
        await connection.send(frame(TEXT, message, masked=True))
        opcode, payload = await read_frame(connection.reader)
        echo = f"{case.token} ".encode() + message
        check((opcode, payload) == (TEXT, echo), "no echo", case, opcode, payload)
        if case.fault == "torn" and number == case.count // 2:
            opcode, payload = await read_frame(connection.reader)
            check((opcode, payload[:2]) == (CLOSE, b"\x03\xf3"), "no 1011", case, opcode, payload)
            return
    if case.fault == "early":
        said = b"\x0f\xa1" + case.token.encode()
    else:
        said = b"\x0f\xa0" + case.token.encode()
        await connection.send(frame(CLOSE, said, masked=True))
    opcode, payload = await read_frame(connection.reader)
    check((opcode, payload) == (CLOSE, said), "another close", case, opcode, payload)


async def leaving(actor: Actor) -> None:
    """Leave at some point: after a whole or a partial request, by a reset or a half-close."""
    case = Case.draw(actor.chance, ("fine", "drip", "stalled", "huge", "error", "silent", "torn"))
    actor.tally.faults[f"left {case.fault}"] += 1
    kind = actor.chance.randrange(5)
    port = actor.ports.proxy
    if kind == 0:
        data = chat_request(case, None)
    elif kind == 1:
        data = chat_request(case, True)
    elif kind == 2:
        data, port = chat_request(case, actor.chance.random() < 0.5), actor.ports.adapter
    elif kind == 3:
        data = request("POST", "/v1/upload", case, fields=("Content-Length: 1000000",)) + bytes(300_000)
    else:
        data = handshake("/v1/realtime", case) + frame(TEXT, b"hello", masked=True)
    connection = await Connection.open(port)
    try:
        said = data if actor.chance.random() < 0.7 else data[: actor.chance.randrange(len(data))]
        await connection.send(said)
        wait = actor.chance.choice([0.0, 0.001, 0.01, 0.1, 0.5])
        try:
            got = await asyncio.wait_for(connection.reader.read(1000), wait) if wait else b""
        except TimeoutError:
            got = b""
        expected.own(case, Response(None, got[: got.rfind(b" ") + 1]))
        if actor.chance.random() < 0.3 and connection.writer.can_write_eof():
            connection.writer.write_eof()
            while await connection.reader.read(65536):
                pass
    except ConnectionError:
        pass
    finally:
        connection.leave()


async def lost(actor: Actor) -> None:
    """Leave before the answer, and ask again, once or more; or never, so that the answer expires."""
    chance, calls = actor.chance, actor.lost
    case = Case.draw(chance, ("lost",))
    actor.tally.faults[case.fault] += 1
    picked, token = actor.tally.picked_up, case.token
    picked["lost"] += 1
    tries = chance.choice([0, 1, 1, 1, 2, 3])
    early = chance.random() < 0.5  # the answer comes before the last try
    connection = await _tried(actor, case, 0)
    while not calls.calls[token]:
        await asyncio.sleep(0.01)
    for number in range(1, tries + 1):
        connection.leave()
        await asyncio.sleep(chance.uniform(0.4, 0.8))  # as SDKs do
        if number == tries and early:
            calls.released[token].set()
            await asyncio.sleep(chance.uniform(0.0, 0.2))
        connection = await _tried(actor, case, number)
        if number < tries:
            await asyncio.sleep(chance.uniform(0.1, 0.4))
    if not tries:
        connection.leave()
        return
    impostor = await _tried(actor, case, 9, "other") if chance.random() < 0.2 else None
    calls.released[token].set()
    resumed = await _picked_up(actor, case, connection)
    check(resumed or not actor.joins, "not resumed", case)
    if impostor is not None:
        check(not await _picked_up(actor, case, impostor), "another key's answer", case)


async def _tried(actor: Actor, case: Case, number: int, key: str = "") -> Connection:
    """Send a try of a call on a connection of its own."""
    fields = (f"Authorization: Bearer {key or case.token}", f"X-Stainless-Retry-Count: {number}")
    body = call_body(case, messages=[{"role": "user", "content": "hello"}])
    connection = await Connection.open(actor.ports.proxy)
    await connection.send(request("POST", "/v1/chat/completions", case, body, fields=fields))
    return connection


async def _picked_up(actor: Actor, case: Case, connection: Connection) -> bool:
    """Read the answer to a lost call; return whether it was that of a call before."""
    try:
        response = await connection.response()
    finally:
        await connection.close()
    picked = actor.tally.picked_up
    actor.tally.statuses[response.status] += 1
    picked["answers"] += 1
    expected.converted(case, response, "chat")
    resumed = response.head is not None and response.head.get("x-stream-proxy-resumed") == "true"
    picked["resumed"] += resumed
    return resumed
