"""Tests of the mock's own SSE service: its events, the requests it accepts, and its failures."""

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
    """Return name and JSON of each event in a body; data that is not JSON as text."""
    found: list[tuple[str | None, Any]] = []
    for block in message.body.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        data = fields["data"]
        found.append((fields.get("event"), json.loads(data) if data.startswith("{") else data))
    return found


def text_of(message: Message) -> str:
    """Return the text of a stream's events."""
    return "".join(data["data"]["content"] for _, data in events_of(message))


class ServiceTests(LoopbackTestCase):
    """Requests to ``/stream``."""

    async def asker(self) -> Any:
        """Return a function that sends a request to a new mock; its `control` are ``X-Mock-`` headers."""
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
        """Events are numbered and nameless; the last is empty, with finish and usage; there is no [DONE]."""
        ask = await self.asker()
        response = await ask()
        self.assertEqual((response.status, response.complete), (200, True))
        self.assertEqual(response.get("content-type"), "text/event-stream; charset=utf-8")
        found = events_of(response)
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
        self.assertIn("“Hello there”. This is mock,", text_of(response))
        self.assertEqual([name for name, _ in response.headers if name.lower().startswith("openai-")], [])

    async def test_like_chat(self) -> None:
        """Text and usage are those of the chat completion for the same messages, below any prefix."""
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
        response = await ask(body, target="/any/prefix/stream")
        self.assertEqual(text_of(response), chat["choices"][0]["message"]["content"])
        usage = events_of(response)[-1][1]["usage"]
        self.assertEqual(usage["input_tokens"], chat["usage"]["prompt_tokens"])
        self.assertEqual(usage["output_tokens"], chat["usage"]["completion_tokens"])
        self.assertIn("“Three”", text_of(response))

    async def test_bodies(self) -> None:
        """A prompt under any of its names is accepted, even an empty one; messages take precedence."""
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
        """Both headers are required, in any spelling; the error names the one that is missing."""
        ask = await self.asker()
        for headers, status, named in (
            ((ACCEPT,), 415, "Content-Type: application/json"),
            ((("Content-Type", "text/plain"), ACCEPT), 415, "Content-Type: application/json"),
            ((TYPE,), 406, "Accept: text/event-stream"),
            ((TYPE, ("Accept", "*/*")), 406, "Accept: text/event-stream"),
        ):
            response = await ask(headers=headers)
            self.assertEqual(response.status, status)
            self.assertEqual(list(response.json()["error"]), ["message", "code"])
            self.assertIn(named, response.json()["error"]["message"])
        fine: tuple[tuple[tuple[str, str], ...], ...] = (
            (("Content-Type", "Application/JSON; charset=utf-8"), ACCEPT),
            (TYPE, ("Accept", "application/json, text/event-stream;q=0.5")),
            (TYPE, ("Accept", "application/json"), ACCEPT),
        )
        for each in fine:
            self.assertEqual((await ask(headers=each)).status, 200)

    async def test_refused(self) -> None:
        """Invalid requests are refused in the service's own format."""
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
            response = await ask(body)
            self.assertEqual(response.status, 400)
            self.assertEqual(list(response.json()["error"]), ["message", "code"])
            self.assertRegex(response.json()["error"]["message"], named)
        response = await ask(method="GET")
        self.assertEqual((response.status, response.get("allow")), (405, "POST"))
        self.assertEqual((await ask(target="/stream/more")).status, 404)
        self.assertEqual((await ask(target="/upstream")).status, 404)

    async def test_control(self) -> None:
        """Control headers choose status, code and length; an invalid one is named."""
        ask = await self.asker()
        response = await ask(Status=503)
        self.assertEqual((response.status, response.get("retry-after")), (503, "1"))
        self.assertEqual(
            response.json(),
            {
                "error": {
                    "message": "The server is overloaded: please retry after a brief wait.",
                    "code": "server_is_overloaded",
                }
            },
        )
        self.assertEqual(len(text_of(await ask(Words=1000)).split()), 1000)
        response = await ask(Fail="failed")
        self.assertEqual((response.status, list(response.json()["error"])), (400, ["message", "code"]))
        response = await ask(Pace="slow")
        self.assertIn("X-Mock-Pace", response.json()["error"]["message"])

    async def test_failures(self) -> None:
        """Each failure comes after the events asked for; only a break leaves the body incomplete."""
        ask = await self.asker()
        whole = events_of(await ask())
        error = {"error": {"message": "The mock was asked to fail here.", "code": "slow_down"}}
        for kind, named in (("error-chunk", None), ("error-event", "error")):
            response = await ask(Fail=kind, After=3, Code="slow_down")
            self.assertEqual((response.status, response.complete), (200, True))
            self.assertEqual(events_of(response), [*whole[:3], (named, error)])
        response = await ask(Fail="break", After=-1)
        self.assertEqual((events_of(response), response.complete), (whole[:-1], False))
        response = await ask(Fail="break-mid-event", After=2)
        self.assertEqual((events_of(response), response.complete), (whole[:2], False))
        self.assertRegex(response.body, rb'\n\ndata: \{"seq":3[^\n]*\Z')
        response = await ask(Fail="no-done")
        self.assertEqual((events_of(response), response.complete), (whole[:-1], True))
        response = await ask(Fail="not-json")
        self.assertEqual((len(events_of(response)), response.complete), (len(whole) + 1, True))
        self.assertEqual(events_of(response)[1], (None, "<html>Bad gateway</html>"))

    async def test_hang(self) -> None:
        """A hanging stream sends its first event and stays open until the client leaves."""
        port = int((await self.mock()).rpartition(":")[2])
        client = await self.client(port)
        headers = [ACCEPT, ("X-Mock-Fail", "hang")]
        send_request(client, "POST", "/stream", ASK, headers)
        await client.until(b'"final":false}\n\n\r\n')
        other = await self.client(port)
        send_request(other, "POST", "/stream", ASK, [ACCEPT])
        self.assertTrue((await read(other)).complete)
        self.assertEqual((bytes(client.buffer), client.lost), (b"", None))
