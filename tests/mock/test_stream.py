"""The mock's own SSE service: its events, what it asks of a request, and how it fails."""

from __future__ import annotations

import json
from typing import Any

from tests.support.loopback import LoopbackTestCase
from tests.support.payloads import CHAT
from tests.support.wire import Message, send_request
from tests.support.wire import read_response as read

TYPE, ACCEPT = ("Content-Type", "application/json"), ("Accept", "text/event-stream")
ASK = {"prompt": "Hello there"}


def events_of(message: Message) -> list[tuple[str | None, Any]]:
    """Name and JSON of each event in a body; data that is no JSON as text."""
    found: list[tuple[str | None, Any]] = []
    for block in message.body.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        data = fields["data"]
        found.append((fields.get("event"), json.loads(data) if data.startswith("{") else data))
    return found


def text_of(message: Message) -> str:
    """What the events of a stream say together."""
    return "".join(data["data"]["content"] for _, data in events_of(message))


class ServiceTests(LoopbackTestCase):
    """``/stream``."""

    async def asker(self) -> Any:
        """A function that sends a request to a mock for its answer; `control` is ``X-Mock-`` headers."""
        port = int((await self.mock()).rpartition(":")[2])

        async def ask(
            body: object = ASK,
            headers: tuple[tuple[str, str], ...] = (TYPE, ACCEPT),
            target: str = "/stream",
            method: str = "POST",
            **control: object,
        ) -> Message:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            asked = [("X-Mock-" + name.replace("_", "-"), str(value)) for name, value in control.items()]
            return await self.request(port, method, target, data, [*headers, *asked])

        return ask

    async def test_shape(self) -> None:
        """Numbered pieces without names, then an empty one with finish and usage; no [DONE]."""
        ask = await self.asker()
        answer = await ask()
        self.assertEqual((answer.status, answer.complete), (200, True))
        self.assertEqual(answer.get("content-type"), "text/event-stream; charset=utf-8")
        found = events_of(answer)
        self.assertEqual({name for name, _ in found}, {None})
        *pieces, last = [data for _, data in found]
        self.assertEqual([piece["seq"] for piece in pieces], list(range(1, len(pieces) + 1)))
        self.assertEqual({(len(piece), piece["final"]) for piece in pieces}, {(3, False)})
        self.assertTrue(all(piece["data"]["content"] for piece in pieces))
        self.assertEqual(
            last,
            {
                "seq": len(found),
                "data": {"content": ""},
                "final": True,
                "finish": "stop",
                "usage": {"input_tokens": 5, "output_tokens": len(pieces)},
            },
        )
        self.assertIn("“Hello there”. This is mock,", text_of(answer))
        self.assertEqual([name for name, _ in answer.headers if name.lower().startswith("openai-")], [])

    async def test_like_chat(self) -> None:
        """It says and counts what the chat completion for the same messages does, below any prefix."""
        ask = await self.asker()
        body = {
            "model": "demo",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "One"},
                {"role": "assistant", "content": "Two"},
                {"role": "user", "content": [{"type": "text", "text": "Three"}]},
                {"role": "assistant", "content": "Four"},
            ],
        }
        chat = (await ask(body, target=CHAT)).json()
        answer = await ask(body, target="/any/prefix/stream")
        self.assertEqual(text_of(answer), chat["choices"][0]["message"]["content"])
        usage = events_of(answer)[-1][1]["usage"]
        self.assertEqual(usage["input_tokens"], chat["usage"]["prompt_tokens"])
        self.assertEqual(usage["output_tokens"], chat["usage"]["completion_tokens"])
        self.assertIn("“Three”", text_of(answer))

    async def test_bodies(self) -> None:
        """A text under any of its names, even an empty one, is answered; messages come first."""
        ask = await self.asker()
        wanted = text_of(await ask())
        for body in (
            {"query": "Hello there"},
            {"input": "Hello there", "prompt": None},
            {"prompt": "other", "messages": [{"role": "user", "content": "Hello there"}]},
        ):
            self.assertEqual(text_of(await ask(body)), wanted)
        self.assertIn("“”", text_of(await ask({"prompt": ""})))
        self.assertIn("“”", text_of(await ask({"messages": [{"role": "system", "content": "x"}]})))

    async def test_headers(self) -> None:
        """Both headers must be there, in any writing; the error says which one is not."""
        ask = await self.asker()
        for headers, status, named in (
            ((ACCEPT,), 415, "Content-Type: application/json"),
            ((("Content-Type", "text/plain"), ACCEPT), 415, "Content-Type: application/json"),
            ((TYPE,), 406, "Accept: text/event-stream"),
            ((TYPE, ("Accept", "*/*")), 406, "Accept: text/event-stream"),
        ):
            answer = await ask(headers=headers)
            self.assertEqual(answer.status, status)
            self.assertEqual(list(answer.json()["error"]), ["message", "code"])
            self.assertIn(named, answer.json()["error"]["message"])
        fine: tuple[tuple[tuple[str, str], ...], ...] = (
            (("Content-Type", "Application/JSON; charset=utf-8"), ACCEPT),
            (TYPE, ("Accept", "application/json, text/event-stream;q=0.5")),
            (TYPE, ("Accept", "application/json"), ACCEPT),
        )
        for each in fine:
            self.assertEqual((await ask(headers=each)).status, 200)

    async def test_refused(self) -> None:
        """What is no request for it is refused in its own form."""
        ask = await self.asker()
        for body, named in (
            ({}, "'messages'.*'prompt', 'query' or 'input'"),
            ({"prompt": ["x"]}, "'prompt'"),
            ({"messages": []}, "'messages'"),
            ({"messages": ["x"]}, "'messages'"),
            ({**ASK, "model": 5}, "'model'"),
            (b"{", "JSON"),
            ([ASK], "not an object"),
        ):
            answer = await ask(body)
            self.assertEqual(answer.status, 400)
            self.assertEqual(list(answer.json()["error"]), ["message", "code"])
            self.assertRegex(answer.json()["error"]["message"], named)
        answer = await ask(method="GET")
        self.assertEqual((answer.status, answer.get("allow")), (405, "POST"))
        self.assertEqual((await ask(target="/stream/more")).status, 404)
        self.assertEqual((await ask(target="/upstream")).status, 404)

    async def test_control(self) -> None:
        """Status, code and length are chosen as everywhere in the mock; a wrong header is named."""
        ask = await self.asker()
        answer = await ask(Status=503)
        self.assertEqual((answer.status, answer.get("retry-after")), (503, "1"))
        self.assertEqual(
            answer.json(),
            {
                "error": {
                    "message": "The server is overloaded: please retry after a brief wait.",
                    "code": "server_is_overloaded",
                }
            },
        )
        self.assertEqual(len(text_of(await ask(Words=1000)).split()), 1000)
        answer = await ask(Fail="failed")
        self.assertEqual((answer.status, list(answer.json()["error"])), (400, ["message", "code"]))
        answer = await ask(Pace="slow")
        self.assertIn("X-Mock-Pace", answer.json()["error"]["message"])

    async def test_failures(self) -> None:
        """Each failure comes after the events asked for; only a break leaves the body unended."""
        ask = await self.asker()
        whole = events_of(await ask())
        error = {"error": {"message": "The mock was asked to fail here.", "code": "slow_down"}}
        for kind, named in (("error-chunk", None), ("error-event", "error")):
            answer = await ask(Fail=kind, After=3, Code="slow_down")
            self.assertEqual((answer.status, answer.complete), (200, True))
            self.assertEqual(events_of(answer), [*whole[:3], (named, error)])
        answer = await ask(Fail="break", After=-1)
        self.assertEqual((events_of(answer), answer.complete), (whole[:-1], False))
        answer = await ask(Fail="break-mid-event", After=2)
        self.assertEqual((events_of(answer), answer.complete), (whole[:2], False))
        self.assertRegex(answer.body, rb'\n\ndata: \{"seq":3[^\n]*\Z')
        answer = await ask(Fail="no-done")
        self.assertEqual((events_of(answer), answer.complete), (whole[:-1], True))
        answer = await ask(Fail="not-json")
        self.assertEqual((len(events_of(answer)), answer.complete), (len(whole) + 1, True))
        self.assertEqual(events_of(answer)[1], (None, "<html>Bad gateway</html>"))

    async def test_hang(self) -> None:
        """A stream that hangs has sent its first event and stays open until the client leaves."""
        port = int((await self.mock()).rpartition(":")[2])
        client = await self.client(port)
        headers = [ACCEPT, ("X-Mock-Fail", "hang")]
        send_request(client, "POST", "/stream", ASK, headers)
        await client.until(b'"final":false}\n\n\r\n')
        other = await self.client(port)
        send_request(other, "POST", "/stream", ASK, [ACCEPT])
        self.assertTrue((await read(other)).complete)
        self.assertEqual((bytes(client.buffer), client.lost), (b"", None))
