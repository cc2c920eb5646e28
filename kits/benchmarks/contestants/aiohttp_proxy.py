"""Aggregating proxy in a hundred lines of aiohttp: the obvious alternative to this product.

    python aiohttp_proxy.py [--tuned] PORT=UPSTREAM_URL…

`--tuned` runs the same lines on uvloop, with orjson instead of ``json``.

Chat completions and Responses without ``stream`` are requested as streams and aggregated. Everything else is
relayed as it arrives, WebSockets too.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from aiohttp import (
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ClientWebSocketResponse,
    TCPConnector,
    WSMsgType,
    web,
)

HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "proxy-connection",
}
HANDSHAKE = {
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
}
CONVERTED = ("/chat/completions", "/responses")


@dataclass(frozen=True)
class Codec:
    """How JSON is read and written."""

    loads: Callable[[bytes], Any]
    dumps: Callable[[Any], bytes]


def standard() -> Codec:
    """Return the codec of the standard library."""
    return Codec(json.loads, lambda value: json.dumps(value).encode())


def forwarded(headers: Any, *dropped: str) -> list[tuple[str, str]]:
    """Return the end-to-end headers."""
    return [(name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP.union(dropped)]


async def events(response: ClientResponse, loads: Callable[[bytes], Any]) -> AsyncIterator[Any]:
    """Yield the decoded data of each event of a response."""
    async for line in response.content:
        if line.startswith(b"data:"):
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            yield loads(data)


async def aggregate_chat(chunks: AsyncIterator[Any]) -> dict[str, Any]:
    """Aggregate the chunks of a stream into one ``chat.completion``."""
    result: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    async for chunk in chunks:
        for name, value in chunk.items():
            if name != "choices" and value is not None:
                result[name] = value
        for delta in chunk["choices"]:
            index = delta["index"]
            choice = choices.setdefault(
                index, {"index": index, "message": {"role": "assistant", "content": None}}
            )
            if delta.get("finish_reason"):
                choice["finish_reason"] = delta["finish_reason"]
            merge(choice["message"], delta["delta"])
    result["object"] = "chat.completion"
    result["choices"] = [choices[index] for index in sorted(choices)]
    return result


def merge(message: dict[str, Any], delta: dict[str, Any]) -> None:
    """Merge a delta into the message."""
    for name, value in delta.items():
        if name == "tool_calls":
            calls = message.setdefault(name, [])
            for call in value:
                while len(calls) <= call["index"]:
                    calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
                known = calls[call["index"]]
                known["id"] = call.get("id") or known["id"]
                for key, text in call.get("function", {}).items():
                    known["function"][key] += text or ""
        elif name != "role" and isinstance(value, str):
            message[name] = (message.get(name) or "") + value
        elif value is not None:
            message[name] = value


async def aggregate_responses(stream: AsyncIterator[Any]) -> Any:
    """Return the Response in the last event of a stream."""
    async for event in stream:
        if event["type"] in ("response.completed", "response.failed", "response.incomplete"):
            return event["response"]
    raise web.HTTPBadGateway(text="the stream ended too early")


class Proxy:
    """One port and the upstream behind it."""

    def __init__(self, upstream: str, session: ClientSession, codec: Codec) -> None:
        self.upstream = upstream
        self.session = session
        self.codec = codec

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Respond to any request."""
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self.websocket(request)
        if request.method == "POST" and request.path.endswith(CONVERTED):
            body = await request.read()
            data = self.codec.loads(body)
            if not data.get("stream"):
                return await self.convert(request, data)
            return await self.relay(request, body)
        return await self.relay(request, request.content if request.can_read_body else None)

    async def convert(self, request: web.Request, data: dict[str, Any]) -> web.StreamResponse:
        """Request a stream and respond with its aggregate."""
        data["stream"] = True
        chat = request.path.endswith("/chat/completions")
        if chat:
            data["stream_options"] = {"include_usage": True}
        headers = forwarded(request.headers, "content-length")
        url, body = self.upstream + request.path_qs, self.codec.dumps(data)
        async with self.session.post(url, headers=headers, data=body) as response:
            if response.content_type != "text/event-stream":
                kept = forwarded(response.headers, "content-length")
                return web.Response(status=response.status, headers=kept, body=await response.read())
            stream = events(response, self.codec.loads)
            result = await (aggregate_chat if chat else aggregate_responses)(stream)
            headers = forwarded(response.headers, "content-length", "content-type")
            body = self.codec.dumps(result)
            return web.Response(headers=headers, body=body, content_type="application/json")

    async def relay(self, request: web.Request, body: Any) -> web.StreamResponse:
        """Forward the request, and relay the response as it arrives."""
        url = self.upstream + request.path_qs
        headers = forwarded(request.headers)
        async with self.session.request(
            request.method, url, headers=headers, data=body, allow_redirects=False
        ) as upstream:
            response = web.StreamResponse(
                status=upstream.status, reason=upstream.reason, headers=forwarded(upstream.headers)
            )
            await response.prepare(request)
            async for data in upstream.content.iter_any():
                await response.write(data)
            await response.write_eof()
            return response

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        """Relay messages both ways."""
        offered = [
            name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if name
        ]
        headers = forwarded(request.headers, *HANDSHAKE)
        async with self.session.ws_connect(
            self.upstream + request.path_qs,
            headers=headers,
            protocols=offered,
            max_msg_size=0,
            autoping=False,
        ) as upstream:
            chosen = [upstream.protocol] if upstream.protocol else []
            client = web.WebSocketResponse(protocols=chosen, compress=False, max_msg_size=0, autoping=False)
            await client.prepare(request)
            ways = [asyncio.create_task(pump(client, upstream)), asyncio.create_task(pump(upstream, client))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await client.close(code=upstream.close_code or 1001)
            return client


Side: TypeAlias = web.WebSocketResponse | ClientWebSocketResponse


async def pump(source: Side, target: Side) -> None:
    """Relay the messages of one direction."""
    async for message in source:
        if message.type is WSMsgType.TEXT:
            await target.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await target.send_bytes(message.data)
        elif message.type is WSMsgType.PING:
            await target.ping(message.data)
        elif message.type is WSMsgType.PONG:
            await target.pong(message.data)
    await target.close(code=source.close_code or 1001)


async def main(rules: list[str], codec: Codec) -> None:
    """Serve until killed."""
    timeout = ClientTimeout(total=None, sock_read=600, sock_connect=10)
    connector = TCPConnector(limit=0)
    async with ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
        for rule in rules:
            port, _, upstream = rule.partition("=")
            proxy = Proxy(upstream, session, codec)
            app = web.Application(client_max_size=100 * 2**20)
            app.router.add_route("*", "/{path:.*}", proxy.handle)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", int(port), backlog=1024).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[0] == "--tuned":
        import orjson
        import uvloop

        uvloop.run(main(arguments[1:], Codec(orjson.loads, orjson.dumps)))
    else:
        asyncio.run(main(arguments, standard()))
