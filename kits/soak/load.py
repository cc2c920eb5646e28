"""The load: clients that do one thing after the other and check what comes of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from kits.soak import expected
from kits.soak.cases import COMMON_FAULTS, Case
from kits.soak.client import Answer, Connection, Connections, request
from kits.soak.expected import Wrong, check
from kits.soak.frames import CLOSE, KEY, TEXT, frame, read_frame

#: How long one thing may take: several times what its slowest fault takes.
DEADLINE_SECONDS = 60.0
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
_SESSION_FAULTS = ("fine", "fine", "fine", "drip", "early", "torn", "s429", "close", "garbage")
_MOST_PROBLEMS = 50


@dataclass
class Tally:
    """What has been done, and what was not right."""

    done: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    stale: int = 0
    problems: list[str] = field(default_factory=list)
    wrong: int = 0

    def problem(self, text: str) -> None:
        """Something was not right."""
        self.wrong += 1
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(text)


@dataclass(frozen=True)
class Ports:
    """Where the proxy listens."""

    proxy: int
    adapter: int


class Client:
    """One client.

    :param reached: whether the upload with a token has come to the upstream.
    :param chance: what it does.
    :param pause: how long it waits between two things, on average.
    :param replaced: rules are replaced under way: a kept connection may end before it is used.
    """

    def __init__(
        self,
        ports: Ports,
        tally: Tally,
        reached: Callable[[str], bool],
        chance: random.Random,
        *,
        pause: float,
        replaced: bool,
    ) -> None:
        self._reached = reached
        self._ports = ports
        self._tally = tally
        self._chance = chance
        self._pause = pause
        self._replaced = replaced
        self._connections = Connections()
        self._things: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (20, self._chat),
            (12, self._responses),
            (12, self._stream),
            (8, self._adapter),
            (8, self._adapter_stream),
            (10, self._data),
            (4, self._head),
            (5, self._pipelined),
            (4, self._upload),
            (6, self._session),
            (2, self._slow_reader),
            (9, self._leaving),
            (1, self._too_large),
        ]

    async def run(self, until: Callable[[], bool]) -> None:
        """Do one thing after the other."""
        weights = [weight for weight, _ in self._things]
        things = [thing for _, thing in self._things]
        try:
            while not until():
                thing = self._chance.choices(things, weights)[0]
                name = thing.__name__.strip("_")
                try:
                    await asyncio.wait_for(thing(), DEADLINE_SECONDS)
                except Wrong as wrong:
                    self._tally.problem(f"{name}: {wrong}")
                except TimeoutError:
                    self._tally.problem(f"{name}: hangs for {DEADLINE_SECONDS:g} s")
                except (OSError, asyncio.IncompleteReadError) as error:
                    self._tally.problem(f"{name}: {type(error).__name__}: {error}")
                self._tally.done[name] += 1
                await asyncio.sleep(self._chance.expovariate(1 / self._pause) if self._pause else 0)
        finally:
            await self._connections.close()

    # Calls

    async def _ask(self, port: int, case: Case, data: bytes, method: str = "POST") -> Answer:
        self._tally.faults[case.fault] += 1
        connection = await self._connections.take(port)
        try:
            await connection.send(data)
            answer = await connection.answer(method)
            if answer.head is None and connection.requests > 1 and self._replaced:
                await connection.close()
                connection = await Connection.open(port)
                await connection.send(data)
                answer = await connection.answer(method)
            self._tally.statuses[answer.status] += 1
        finally:
            await self._connections.give_back(port, connection)
        return answer

    async def _chat(self) -> None:
        case = Case.draw(self._chance, self._some(_CHAT_FAULTS))
        answer = await self._ask(self._ports.proxy, case, chat_request(case, None))
        expected.converted(case, answer, "chat")

    async def _responses(self) -> None:
        case = Case.draw(self._chance)
        data = request("POST", "/v1/responses", case, _body(case, input="hello"))
        expected.converted(case, await self._ask(self._ports.proxy, case, data), "responses")

    async def _too_large(self) -> None:
        case = Case.draw(self._chance, ("toolarge",))
        answer = await self._ask(self._ports.proxy, case, chat_request(case, False))
        expected.converted(case, answer, "chat")

    async def _stream(self) -> None:
        case = Case.draw(self._chance)
        if self._chance.random() < 0.5:
            data, kind = chat_request(case, True), "chat"
        else:
            data = request("POST", "/v1/responses", case, _body(case, input="hello", stream=True))
            kind = "responses"
        expected.relayed(case, await self._ask(self._ports.proxy, case, data), kind)

    async def _adapter(self, *, stream: bool = False) -> None:
        case = Case.draw(self._chance)
        answer = await self._ask(self._ports.adapter, case, chat_request(case, stream))
        expected.adapted(case, answer, stream=stream)

    async def _adapter_stream(self) -> None:
        await self._adapter(stream=True)

    async def _data(self) -> None:
        case = _with_data(Case.draw(self._chance))
        data = request("GET", f"/v1/files/{case.token}?a=b", case)
        expected.relayed(case, await self._ask(self._ports.proxy, case, data, "GET"), "data")

    async def _head(self) -> None:
        case = _with_data(Case.draw(self._chance, ("fine",)))
        answer = await self._ask(self._ports.proxy, case, request("HEAD", "/v1/files/x", case), "HEAD")
        length = answer.head.get("content-length") if answer.head is not None else None
        check(answer.status == 200 and length == str(len(case.data)), "head", case, answer.head)

    async def _pipelined(self) -> None:
        """Several requests at once on a new connection, answered in their order."""
        faults = ("fine", "drip", "gzip", "s429", "huge", "close", "error")
        cases = [Case.draw(self._chance, faults) for _ in range(self._chance.randrange(2, 6))]
        connection = await Connection.open(self._ports.proxy)
        try:
            await connection.send(b"".join(chat_request(case, None) for case in cases))
            for case in cases:
                self._tally.faults[case.fault] += 1
                answer = await connection.answer()
                self._tally.statuses[answer.status] += 1
                if answer.head is None and self._replaced:
                    return
                expected.converted(case, answer, "chat")
        finally:
            await connection.close()

    async def _slow_reader(self) -> None:
        """A client that takes little at a time."""
        case = _with_data(Case.draw(self._chance, ("fine", "drop")), 40, 60_000)
        taken: list[bytes] = []

        async def slowly(data: bytes) -> None:
            taken.append(data)
            await asyncio.sleep(0.03)

        connection = await Connection.open(self._ports.proxy)
        try:
            await connection.send(request("GET", "/v1/files/slow", case))
            answer = await connection.answer("GET", slowly)
            self._tally.statuses[answer.status] += 1
            expected.relayed(case, replace(answer, body=b"".join(taken)), "data")
        finally:
            await connection.close()

    async def _upload(self) -> None:
        """Some megabytes, sent while the answer may come."""
        case = Case.draw(self._chance, self._some(_UPLOAD_FAULTS))
        self._tally.faults[case.fault] += 1
        size = self._chance.choice([10_000, 1_000_000, 5_000_000])
        body = replace(case, count=1, pad=size).data
        chunked = self._chance.random() < 0.5
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        connection = await Connection.open(self._ports.proxy)

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
                answer = await connection.answer()
            except OSError:
                answer = Answer(None)
            self._tally.statuses[answer.status] += 1
            if answer.status == 502 and not self._reached(case.token):
                # It met a kept connection that the upstream was closing, and flowed through: no second try.
                self._tally.stale += 1
                return
            expected.uploaded(case, answer, hashlib.sha256(body).hexdigest())
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            connection.leave()

    # Sessions

    async def _session(self) -> None:
        """A WebSocket whose messages are echoed with the token."""
        case = Case.draw(self._chance, self._some(_SESSION_FAULTS))
        self._tally.faults[case.fault] += 1
        connection = await Connection.open(self._ports.proxy)
        try:
            upgrade = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {KEY}")
            fields = (*upgrade, "Sec-WebSocket-Version: 13")
            await connection.send(request("GET", "/v1/realtime?model=m", case, fields=fields))
            status = {"s429": 429, "close": 502, "garbage": 502, "silent": 504}.get(case.fault, 101)
            answer = await connection.answer("HEAD" if status == 101 else "GET")
            self._tally.statuses[answer.status] += 1
            check(answer.status == status, "status", case, answer.status, answer.body)
            if status == 101:
                await self._talk(connection, case)
            else:
                expected.own(case, answer)
        finally:
            await connection.close()

    async def _talk(self, connection: Connection, case: Case) -> None:
        for number in range(case.count):
            size = self._chance.choice([0, 10, 1000, 70_000])
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

    # Leaving

    async def _leaving(self) -> None:
        """A client that goes at some point, with or without having said all, or closes one half only."""
        case = Case.draw(self._chance, ("fine", "drip", "stalled", "huge", "error", "silent", "torn"))
        self._tally.faults[f"left {case.fault}"] += 1
        kind = self._chance.randrange(5)
        port = self._ports.proxy
        if kind == 0:
            data = chat_request(case, None)
        elif kind == 1:
            data = chat_request(case, True)
        elif kind == 2:
            data, port = chat_request(case, self._chance.random() < 0.5), self._ports.adapter
        elif kind == 3:
            data = request("POST", "/v1/upload", case, fields=("Content-Length: 1000000",)) + bytes(300_000)
        else:
            upgrade = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {KEY}")
            data = request("GET", "/v1/realtime", case, fields=(*upgrade, "Sec-WebSocket-Version: 13"))
            data += frame(TEXT, b"hello", masked=True)
        connection = await Connection.open(port)
        try:
            said = data if self._chance.random() < 0.7 else data[: self._chance.randrange(len(data))]
            await connection.send(said)
            wait = self._chance.choice([0.0, 0.001, 0.01, 0.1, 0.5])
            try:
                got = await asyncio.wait_for(connection.reader.read(1000), wait) if wait else b""
            except TimeoutError:
                got = b""
            expected.own(case, Answer(None, got[: got.rfind(b" ") + 1]))
            if self._chance.random() < 0.3 and connection.writer.can_write_eof():
                connection.writer.write_eof()
                while await connection.reader.read(65536):
                    pass
        except ConnectionError:
            pass
        finally:
            connection.leave()

    def _some(self, faults: tuple[str, ...]) -> tuple[str, ...]:
        return ("silent",) if self._chance.random() < 0.005 else faults


def _with_data(case: Case, count: int = 20, pad: int = 2000) -> Case:
    return case if case.pad else replace(case, count=count, pad=pad)


def _body(case: Case, **more: object) -> bytes:
    model = f"m-{case.fault}" if case.fault in ("nousage", "nostream") else "m"
    return json.dumps({"model": model, "user": str(case), **more}).encode()


def chat_request(case: Case, stream: bool | None) -> bytes:
    """The bytes of a chat call that says so of ``stream``, or nothing."""
    more = {} if stream is None else {"stream": stream}
    messages = [{"role": "user", "content": "hello"}]
    return request("POST", "/v1/chat/completions", case, _body(case, messages=messages, **more))
