"""Secrets: marked keys, sent everywhere, never appear in logs, errors or health checks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from tests.support.admin import OPEN, Viewer
from tests.support.loopback import turns
from tests.support.payloads import CHAT, CHAT_BODY, HELLO, RESPONSES, chunk
from tests.support.sessions import HANDSHAKE, accepted, handshake
from tests.support.twistd import Process, ProcessTestCase, free_port
from tests.support.wire import (
    JSON,
    Message,
    Stream,
    event_stream_head,
    head,
    read_head,
    read_request,
    read_response,
    respond,
    send_request,
)

#: The part that all keys have in common.
MARK = "s3cret"
CLIENT = f"client-{MARK}"
ENVIRONMENT = {
    "LOG_LEVEL": "debug",
    "UPSTREAM_KEY": f"upstream-{MARK}",
    "SERVICE_KEY": f"service-{MARK}",
    "PROXY_PASSWORD": f"proxy-{MARK}",
}
CREDENTIALS = [
    ("Authorization", f"Bearer {CLIENT}"),
    ("Cookie", f"session={MARK}"),
    ("Referer", f"http://x/?key={MARK}"),
    ("X-Custom", MARK),
    ("X-Note", f"it is upstream-{MARK}"),
]
BODY = {**CHAT_BODY, "model": "gpt-3.5-turbo", "user": MARK}
QUERY = f"?api-key={MARK}&x={MARK}"
#: An upstream's error text reaches the client unchanged, but not the log.
TOLD = f"told-{MARK}"
EVENTS = ("Content-Type", "text/event-stream")


def closes(data: bytes) -> Callable[[Stream], None]:
    """Return the behaviour of an upstream that sends `data` and closes the connection."""

    def answer(stream: Stream) -> None:
        stream.write(data)
        stream.close()

    return answer


ERROR_EVENT = b'data: {"error": {"message": "' + TOLD.encode() + b'", "code": "invalid_api_key"}}\n\n'
#: The behaviours of upstreams, with a request.
ANSWERS: dict[str, Callable[[Stream], None]] = {
    "stream": closes(event_stream_head() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(HELLO), HELLO)),
    "refusal": lambda stream: respond(stream, 401, json.dumps({"error": {"message": TOLD}}).encode(), [JSON]),
    "nothing": closes(b""),
    "cut": closes(head(200, [EVENTS]) + chunk({"content": MARK})),
    "no json": closes(head(200, [EVENTS]) + f"data: {MARK}\n\n".encode()),
    "error": closes(head(200, [EVENTS]) + ERROR_EVENT),
    "no http": closes(f"{MARK} {MARK}\r\n\r\n".encode()),
    "bad length": closes(head(200, [("Content-Length", MARK)])),
    "bad coding": closes(head(200, [EVENTS, ("Content-Encoding", "br")]) + b"x"),
}


class SecretTests(ProcessTestCase):
    """One process for all requests, at LOG_LEVEL=debug."""

    timeout = 60

    async def scripted(self, answer: Callable[[Stream], None]) -> str:
        """Start an upstream with one behaviour; the one that streams accepts WebSockets too."""

        async def script(stream: Stream) -> None:
            while True:
                request = await read_request(stream)
                if request.get("upgrade") and answer is ANSWERS["stream"]:
                    stream.write(accepted(request, [("Set-Cookie", MARK)]))
                    return
                answer(stream)

        return (await self.upstream(script)).url

    async def begin(self) -> tuple[Process, list[int], int]:
        """Start a proxy with two rules for each upstream: an ordinary one, and one with an adapter."""
        directory = self.directory()
        (directory / "keys").write_text(f"{CLIENT}\n")
        (directory / "keys").chmod(0o600)
        urls = [await self.scripted(answer) for answer in ANSWERS.values()]
        urls += [f"http://127.0.0.1:{free_port()}", "https://127.0.0.1:9"]
        keys = {"clientKeys": {"file": str(directory / "keys")}}
        rules: list[dict[str, Any]] = []
        for url in urls:
            own = {**keys, "upstreamKey": {"environment": "UPSTREAM_KEY"}}
            rules.append({"listenPort": free_port(), "upstreamUrl": url, **own})
            adapter = {"headers": {"X-Service": "${SERVICE_KEY}"}}
            rules.append(
                {
                    "listenPort": free_port(),
                    "upstreamUrl": f"{url}/run?token={MARK}",
                    "adapter": adapter,
                    **keys,
                }
            )
        far = {"listenPort": free_port(), "upstreamUrl": "https://upstream.example", **keys}
        rules.append({**far, "proxy": f"http://user:${{PROXY_PASSWORD}}@127.0.0.1:{free_port()}"})
        admin = free_port()
        config = {"rules": rules, "admin": {"listenPort": admin}}
        process = self.twistd("-c", str(self.write_config(config, directory)), env=ENVIRONMENT)
        await process.line(f"listening on port {far['listenPort']}")
        return process, [rule["listenPort"] for rule in rules], admin

    def assert_clean(self, answer: Message) -> None:
        """Check that an error contains no key."""
        if answer.status >= 400:
            self.assertNotIn(MARK.encode(), answer.body.replace(TOLD.encode(), b""))

    async def use(self, port: int) -> None:
        """Make requests of every kind to one rule."""
        for method, target, body in (
            ("POST", CHAT + QUERY, BODY),
            ("POST", CHAT + QUERY, {**BODY, "stream": True}),
            ("POST", RESPONSES + QUERY, {"model": "m", "input": MARK}),
            ("POST", CHAT, f'{{"model": "{MARK}'.encode()),
            ("GET", "/v1/models" + QUERY, None),
            ("CONNECT", f"{MARK}:443", None),
            ("GET", f"ftp://{MARK}/", None),
        ):
            stream = await self.client(port)
            send_request(stream, method, target, body, CREDENTIALS)
            try:
                self.assert_clean(await read_response(stream, method))
            except EOFError:
                self.fail(f"{method} {target} had no answer")
            stream.close()
        protocols = ("Sec-WebSocket-Protocol", f"realtime, openai-insecure-api-key.{CLIENT}")
        for fields in (
            [*HANDSHAKE, protocols, *CREDENTIALS],
            [*HANDSHAKE[:2], ("Sec-WebSocket-Key", MARK), ("Sec-WebSocket-Version", "13"), *CREDENTIALS],
            [*HANDSHAKE, ("Sec-WebSocket-Protocol", f"wrong-{MARK}")],
        ):
            stream = await self.client(port)
            stream.write(handshake(fields, f"/v1/realtime{QUERY}"))
            answer = await read_response(stream, "GET")
            if answer.status != 101:
                self.assert_clean(answer)
            stream.abort()
        for junk in (
            f"{MARK}\r\n\r\n",
            f"GET / HTTP/1.1\r\n{MARK}\r\n\r\n",
            f"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: {MARK}\r\n\r\n",
            f"GET / HTTP/1.1\r\nHost: x\r\nA: {MARK * 12_000}\r\n\r\n",
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{MARK}\r\n",
        ):
            stream = await self.client(port)
            stream.write(junk.encode())
            self.assertNotIn(MARK.encode(), await stream.rest())

    async def look(self, admin: int) -> None:
        """Look at all requests on the admin port, whose heads hold everything but secrets."""
        stream = await self.client(admin)
        stream.write(OPEN)
        viewer = Viewer(stream)
        await read_head(stream)
        await viewer.event()
        self.assertGreater(len(viewer.ended), 100)
        keys = [*(value.encode() for name, value in ENVIRONMENT.items() if MARK in value), CLIENT.encode()]
        asking = await self.client(admin)
        for row in viewer.ended:
            send_request(asking, "GET", f"/requests/{row['id']}")
            details = await read_response(asking, "GET")
            self.assertIn(b'"request":', details.body)
            for secret in (*keys, b"session=", f"key={MARK}".encode(), TOLD.encode()):
                self.assertNotIn(secret, details.body)
        stream.abort()

    async def test_nothing_comes_out(self) -> None:
        """No key appears after requests of every kind, good and bad, to upstreams of every kind."""
        process, ports, admin = await self.begin()
        await gatherResults([Deferred.fromCoroutine(self.use(port)) for port in ports], consumeErrors=True)
        for target in ("/healthz", "/readyz", f"/x{QUERY}"):
            health = await self.request(admin, "GET", target, headers=CREDENTIALS)
            self.assertNotIn(MARK.encode(), health.body)
        await self.look(admin)
        process.signal("HUP")
        await process.line("was read again")
        await turns()
        process.signal("TERM")
        await process.ended()
        self.assertNotIn(MARK, process.output)
        self.assertNotIn("Traceback", process.output)
        self.assertGreater(process.output.count(" POST "), 50)
