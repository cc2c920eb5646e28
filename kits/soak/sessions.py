"""Sessions, and clients that leave: actions on a connection of their own."""

from __future__ import annotations

import asyncio

from kits.soak import expected
from kits.soak.actor import Actor, chat_request
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
