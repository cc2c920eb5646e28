"""Large results of converted calls, which are put together and sent over many turns of the reactor."""

from __future__ import annotations

import json
from typing import Any, cast

from stream_proxy import Limits
from stream_proxy.request_log import RequestLog
from tests.support.loopback import Lines, LoopbackTestCase, Script, turns
from tests.support.payloads import CHAT, CHAT_BODY, event
from tests.support.wire import Stream, event_stream_head, read_request, read_response, send_request

#: Megabytes of text, more than the sockets between two processes hold.
TEXT = "12345é😀\n" * 600_000
RESPONSE = {"id": "r", "status": "completed", "output": []}


def chat() -> list[bytes]:
    """Return the events of a chat completion whose content is `TEXT`."""
    parts = (TEXT[at : at + 100_000] for at in range(0, len(TEXT), 100_000))
    chunks = [event({"id": "c", "choices": [{"index": 0, "delta": {"content": part}}]}) for part in parts]
    return [*chunks, b"data: [DONE]\n\n"]


def response() -> list[bytes]:
    """Return the events of a Response whose output is to be put together from deltas."""
    at = {"output_index": 0, "content_index": 0, "item_id": "m"}
    parts = (TEXT[start : start + 100_000] for start in range(0, len(TEXT), 100_000))
    deltas = [event({"type": "response.output_text.delta", **at, "delta": part}) for part in parts]
    return [*deltas, event({"type": "response.completed", "response": RESPONSE})]


class LargeResultTests(LoopbackTestCase):
    """Results of many pieces."""

    def script(self, events: list[bytes], begin: bytes = b"") -> Script:
        """Return an upstream that streams events; after `begin`, which has been sent, if there is one."""

        async def script(stream: Stream) -> None:
            while True:
                await read_request(stream)
                stream.write(event_stream_head())
                if begin:
                    stream.chunk(begin)
                    await turns(20)
                for each in events:
                    stream.chunk(each)
                stream.write(b"0\r\n\r\n")

        return script

    async def test_whole(self) -> None:
        """A chat completion and a Response of megabytes arrive whole, with a length, one after the other."""
        for target, events in ((CHAT, chat()), ("/v1/responses", response())):
            upstream = await self.upstream(self.script(events))
            lines = Lines()
            client = await self.client(
                await self.proxy(upstream.url, log=RequestLog(observer=cast(Any, lines)))
            )
            for _ in range(2):  # on one connection
                send_request(client, "POST", target, {**CHAT_BODY, "input": "x"})
                answer = await read_response(client)
                self.assertEqual(answer.get("content-length"), str(len(answer.body)))
                found = answer.json()
                content = (
                    found["output"][0]["content"][0] if "output" in found else found["choices"][0]["message"]
                )
                self.assertTrue(TEXT in (content.get("text"), content.get("content")))
            await lines.match(rf"\b200\b.*\b{len(answer.body)}\b")
            client.abort()

    async def test_early_head(self) -> None:
        """After blanks for a client that waits, the result is the rest of the response."""
        upstream = await self.upstream(self.script(chat(), begin=b": wait\n\n"))
        client = await self.client(await self.proxy(upstream.url, limits=Limits(keep_alive_seconds=0.001)))
        send_request(client, "POST", CHAT, CHAT_BODY)
        answer = await read_response(client)
        self.assertTrue(answer.body.startswith(b" "))
        self.assertTrue(json.loads(answer.body)["choices"][0]["message"]["content"] == TEXT)

    async def test_slow_client(self) -> None:
        """A client that reads late holds back no more than what the sockets hold, and gets every byte."""
        upstream = await self.upstream(self.script(chat()))
        lines = Lines()
        client = await self.client(await self.proxy(upstream.url, log=RequestLog(observer=cast(Any, lines))))
        send_request(client, "POST", CHAT, CHAT_BODY)
        begun = await client.some()
        transport: Any = client.transport
        transport.pauseProducing()
        await turns(200)
        self.assertEqual([line for line in lines.lines if " 200 " in line], [])
        transport.resumeProducing()
        length = int(begun.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        head_size = begun.index(b"\r\n\r\n") + 4
        body = begun[head_size:] + await client.exactly(length - len(begun) + head_size)
        self.assertTrue(json.loads(body)["choices"][0]["message"]["content"] == TEXT)
        await lines.match(r"\b200\b")

    async def test_client_leaves(self) -> None:
        """A client that leaves in the middle ends the call, which is logged as such."""
        upstream = await self.upstream(self.script(chat()))
        lines = Lines()
        client = await self.client(await self.proxy(upstream.url, log=RequestLog(observer=cast(Any, lines))))
        send_request(client, "POST", CHAT, CHAT_BODY)
        await client.some()
        client.abort()
        await lines.match(r"\b499\b")

    async def test_bound(self) -> None:
        """A result beyond a bound is an error, also after steps."""
        upstream = await self.upstream(self.script(chat()))
        client = await self.client(
            await self.proxy(upstream.url, limits=Limits(max_response_bytes=2_000_000))
        )
        send_request(client, "POST", CHAT, CHAT_BODY)
        self.assertEqual((await read_response(client)).json()["error"]["code"], "response_too_large")
