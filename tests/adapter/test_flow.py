"""The adapter over real sockets: a scripted service on one side, raw clients on the other."""

from __future__ import annotations

import gzip
import json
import os
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from stream_proxy import Limits
from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.adapter.resource import AdapterResource
from stream_proxy.request_log import RequestLog
from tests.support.flood import Pour, small_buffers
from tests.support.loopback import LoopbackTestCase, Script, turns
from tests.support.payloads import CHAT, event
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

MODEL = "gpt-3.5-turbo"
ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
STREAM: dict[str, Any] = {**ASK, "stream": True}
HELLO = event({"text": "Hel"}) + event({"text": "lo"})
OFF = RequestLog(observer=cast(Any, lambda _: None))


def says(
    body: bytes, status: int = 200, media: str = "text/event-stream", *headers: tuple[str, str]
) -> Script:
    """Return a service that responds to every request with `body`."""

    async def script(stream: Stream) -> None:
        while True:
            await read_request(stream)
            respond(stream, status, body, [("Content-Type", media), *headers])

    return script


def chunks_of(body: bytes) -> list[Any]:
    """Return the data of a stream's events, as JSON except ``[DONE]``."""
    data = [block.removeprefix(b"data: ") for block in body.split(b"\n\n")[:-1]]
    return [text.decode() if text == b"[DONE]" else json.loads(text) for text in data]


def text_of(chunks: list[Any]) -> str:
    """Return the content of chunks."""
    return "".join(
        chunk["choices"][0]["delta"].get("content") or ""
        for chunk in chunks
        if isinstance(chunk, dict) and chunk.get("choices")
    )


class AdapterTestCase(LoopbackTestCase):
    """An adapter in front of a scripted service."""

    async def adapter(
        self, url: str, limits: Limits | None = None, log: RequestLog = OFF, **keys: Any
    ) -> int:
        """Start it, and return its port; `keys` are those of the configuration."""
        config = AdapterConfig(**keys)
        return await self.proxy(url, resource=AdapterResource, config=config, limits=limits, log=log)

    async def answer(self, script: Script, body: object = ASK, **keys: Any) -> Message:
        """Return the response that a client gets from a service that runs this script."""
        service = await self.upstream(script)
        return await self.request(await self.adapter(service.url + "/s", **keys), body=body)

    async def fails(self, script: Script, status: int, body: object = ASK, **keys: Any) -> dict[str, Any]:
        """Return the error that a client gets, which is the same with and without streaming."""
        answer = await self.answer(script, body, **keys)
        self.assertEqual(
            (answer.status, answer.get("content-type")), (status, "application/json"), answer.body
        )
        error: dict[str, Any] = answer.json()["error"]
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        return error


class RequestTests(AdapterTestCase):
    """Requests to the service."""

    async def asked(
        self,
        body: object = ASK,
        headers: Any = (),
        path: str = "/s",
        own: dict[str, str] | None = None,
        **keys: Any,
    ) -> Message:
        """Return the request to the service; `headers` are the client's, `own` those of the configuration."""
        got: list[Message] = []

        async def script(stream: Stream) -> None:
            got.append(await read_request(stream))
            respond(stream, 200, HELLO, [("Content-Type", "text/event-stream")])

        service = await self.upstream(script)
        port = await self.adapter(service.url + path, headers=own or {}, **keys)
        answer = await self.request(port, body=body, headers=headers)
        self.assertEqual(answer.status, 200)
        return got[0]

    async def test_default(self) -> None:
        """The service gets the OpenAI request with ``stream`` set, and none of the client's headers."""
        secrets = [("Authorization", "Bearer sk-client"), ("Cookie", "a=b"), ("X-Own", "1")]
        got = await self.asked({**ASK, "stream": False, "seed": 5}, secrets, "/s?x=1")
        self.assertEqual(got.line, "POST /s?x=1 HTTP/1.1")
        self.assertEqual(got.json(), {**ASK, "stream": True, "seed": 5})
        names = sorted(name.lower() for name, _ in got.headers)
        self.assertEqual(names, ["accept", "accept-encoding", "content-length", "content-type", "host"])
        self.assertEqual(
            (got.get("accept"), got.get("content-type")), ("text/event-stream", "application/json")
        )

    async def test_template(self) -> None:
        """Templates fill the body, the path and the headers."""
        got = await self.asked(
            {**ASK, "user": "ü\r\nX-Evil: 1", "max_tokens": 5},
            path="/models/{{model}}/{{user}}:go?q={{last_user_message}}",
            request={"query": "{{last_user_message}}", "limit": "{{max_tokens}}", "n": 1},
        )
        self.assertEqual(got.target, f"/models/{MODEL}/%C3%BC%0D%0AX-Evil%3A%201:go?q=hi")
        self.assertEqual(got.json(), {"query": "hi", "limit": 5, "n": 1})

    async def test_headers(self) -> None:
        """Configured headers are sent; a client's value cannot add another one."""
        self.patch(os, "environ", {**os.environ, "SERVICE_KEY": "k{{1}}"})
        headers = {"X-Key": "Bearer ${SERVICE_KEY}", "x-user": "{{user}}", "ACCEPT": "text/plain"}
        got = await self.asked({**ASK, "user": " a\r\nX-Evil: 1\x00"}, own=headers)
        self.assertEqual(got.get("x-key"), "Bearer k{{1}}")
        self.assertEqual(got.get("x-user"), "a X-Evil: 1")
        self.assertEqual(got.all("accept"), ["text/plain"])
        self.assertEqual(got.all("x-evil"), [])

    async def test_authorization(self) -> None:
        """The client's key is forwarded only if configured so; a configured key takes precedence."""
        key = [("Authorization", "Bearer sk-client")]
        self.assertEqual((await self.asked(headers=key)).all("authorization"), [])
        got = await self.asked(headers=key, forward_authorization=True)
        self.assertEqual(got.all("authorization"), ["Bearer sk-client"])
        got = await self.asked(headers=key, own={"authorization": "Bearer own"}, forward_authorization=True)
        self.assertEqual(got.all("authorization"), ["Bearer own"])

    async def test_get(self) -> None:
        """A GET carries the template as its query."""
        got = await self.asked(
            path="/s?a=1",
            method="GET",
            request={"q": "{{last_user_message}}", "m": "{{messages}}", "n": 2, "none": "{{seed}}"},
        )
        self.assertEqual(got.line.split(" ")[0], "GET")
        messages = "%5B%7B%22role%22%3A%22user%22%2C%22content%22%3A%22hi%22%7D%5D"
        self.assertEqual(got.target, f"/s?a=1&q=hi&m={messages}&n=2")
        self.assertEqual((got.body, got.get("content-length")), (b"", None))
        self.assertEqual(got.get("content-type"), "application/json")

    async def test_ndjson(self) -> None:
        """A service of JSON lines is sent the matching Accept."""
        service = says(b'{"message": {"content": "Hello"}, "done": true}\n', media="application/x-ndjson")
        answer = await self.answer(service, format="ndjson")
        self.assertEqual(answer.json()["choices"][0]["message"]["content"], "Hello")

    async def test_connections_are_reused(self) -> None:
        """Consecutive calls use the same connection."""
        service = await self.upstream(says(HELLO))
        port = await self.adapter(service.url)
        for _ in range(3):
            self.assertEqual((await self.request(port, body=ASK)).status, 200)
            self.assertEqual((await self.request(port, body=STREAM)).status, 200)
        self.assertEqual(len(service.connections), 1)


class AnswerTests(AdapterTestCase):
    """Responses to the client."""

    async def test_whole(self) -> None:
        """An ordinary call gets one chat completion."""
        answer = await self.answer(says(HELLO + event({"usage": {"input_tokens": 1, "output_tokens": 2}})))
        self.assertEqual((answer.status, answer.get("content-type")), (200, "application/json"))
        self.assertEqual(answer.get("access-control-allow-origin"), "*")
        completion = answer.json()
        self.assertTrue(completion.pop("id").startswith("chatcmpl-"))
        self.assertIsInstance(completion.pop("created"), int)
        self.assertEqual(
            completion,
            {
                "object": "chat.completion",
                "model": MODEL,
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": "Hello"},
                        "logprobs": None,
                        "finish_reason": "stop",
                    }
                ],
                "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
            },
        )

    async def test_event_by_event(self) -> None:
        """Each event is forwarded before the next has come; the connection stays open after the end."""
        asked: Deferred[Stream] = Deferred()

        async def script(stream: Stream) -> None:
            await read_request(stream)
            asked.callback(stream)
            await stream.rest()

        service = await self.upstream(script)
        client = await self.client(await self.adapter(service.url))
        send_request(client, "POST", CHAT, STREAM)
        stream = await asked
        stream.write(event_stream_head())
        for word in ("one", "two", "three"):
            stream.chunk(event({"text": word}))
            await client.until(f'"content":"{word}"'.encode())
            await client.until(b"\n\n")
        stream.chunk(b"")
        rest = await client.until(b"0\r\n\r\n")
        self.assertIn(b"data: [DONE]\n\n", rest)
        send_request(client, "GET", "/v1/models")
        self.assertEqual((await read_response(client)).status, 200)

    async def test_dify(self) -> None:
        """With ``include_usage`` the usage is the last chunk before ``[DONE]``."""
        body = {**STREAM, "stream_options": {"include_usage": True}, "temperature": 0.7, "user": "u"}
        usage = event({"usage": {"prompt_tokens": 1, "completion_tokens": 2}})
        answer = await self.answer(says(HELLO + usage), body)
        self.assertEqual(answer.get("content-type"), "text/event-stream; charset=utf-8")
        self.assertEqual(answer.get("cache-control"), "no-cache")
        *chunks, last, done = chunks_of(answer.body)
        self.assertEqual((text_of(chunks), done), ("Hello", "[DONE]"))
        self.assertEqual(chunks[0]["choices"][0]["delta"]["role"], "assistant")
        self.assertEqual({chunk["id"] for chunk in chunks}, {last["id"]})
        self.assertEqual([chunk["usage"] for chunk in chunks], [None] * len(chunks))
        self.assertEqual((last["choices"], last["usage"]["total_tokens"]), ([], 3))

    async def test_no_usage(self) -> None:
        """Without ``include_usage`` there is no usage."""
        answer = await self.answer(says(HELLO + event({"usage": {"input_tokens": 1}})), STREAM)
        self.assertNotIn(b"usage", answer.body)

    async def test_compressed(self) -> None:
        """A service may compress its response without being asked to."""
        script = says(gzip.compress(HELLO), 200, "text/event-stream", ("Content-Encoding", "gzip"))
        self.assertEqual(text_of(chunks_of((await self.answer(script, STREAM)).body)), "Hello")

    async def test_slow_client(self) -> None:
        """A service is slowed down to the client's pace, and all of its text arrives in order."""
        total = 400
        pieces = [event({"text": f"{number:05}" + "x" * 65536}) for number in range(total)]
        pour: Deferred[Pour] = Deferred()

        async def script(stream: Stream) -> None:
            small_buffers(stream)
            await read_request(stream)
            stream.write(head(200, [("Content-Type", "text/event-stream")]))
            pour.callback(Pour(stream, pieces, stream.close))
            await stream.rest()

        service = await self.upstream(script)
        client = await self.client(await self.adapter(service.url))
        small_buffers(client)
        send_request(client, "POST", CHAT, STREAM)
        await client.until(b"\r\n\r\n")
        client.transport.pauseProducing()
        self.assertLess(await (await pour).stopped(), total // 4)
        client.transport.resumeProducing()
        for number in range(total):
            await client.until(f'"content":"{number:05}'.encode())
        await client.until(b"[DONE]")


class ClientTests(AdapterTestCase):
    """Clients that disconnect."""

    async def leaves(self, body: object, begun: bytes) -> None:
        """A client that disconnects ends the call to the service, and the log says so."""
        asked: Deferred[Stream] = Deferred()
        lines: list[str] = []

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            if begun:
                stream.chunk(event({"text": "a"}))
            asked.callback(stream)
            await stream.rest()

        log = RequestLog(observer=cast(Any, lambda said: lines.append(str(said.get("status")))))
        service = await self.upstream(script)
        client = await self.client(await self.adapter(service.url, log=log))
        send_request(client, "POST", CHAT, body)
        stream = await asked
        if begun:
            await client.until(begun)
        client.abort()
        await stream.gone()
        await turns()
        self.assertEqual(lines, ["499"])

    async def test_before_the_head(self) -> None:
        """The service has sent nothing yet."""
        await self.leaves(STREAM, b"")
        await self.leaves(ASK, b"")

    async def test_in_the_stream(self) -> None:
        """The stream is running."""
        await self.leaves(STREAM, b'"content":"a"')


class FailureTests(AdapterTestCase):
    """Failures, each of which is an OpenAI error and never looks like a complete response."""

    async def test_down(self) -> None:
        """An unreachable service is a 502 that says what to check."""
        service = await self.upstream(says(b""))
        port = await self.adapter("http://127.0.0.1:1/s")
        for body in (ASK, STREAM):
            answer = await self.request(port, body=body)
            self.assertEqual((answer.status, answer.json()["error"]["type"]), (502, "upstream_error"))
            self.assertIn("upstreamUrl", answer.json()["error"]["message"])
        self.assertEqual(service.connections, [])

    async def test_status(self) -> None:
        """An error status is kept, with its message in any format and its ``Retry-After``."""
        for status, body, expected in (
            (500, {"error": {"message": "oops", "type": "boom", "code": "x"}}, ("oops", "boom", "x")),
            (500, {"detail": "oops"}, ("oops", "server_error", "server_error")),
            (429, {"error": "slow down"}, ("slow down", "rate_limit_error", "rate_limit_error")),
            (401, {"code": 40101, "msg": "bad key"}, ("bad key", "invalid_request_error", 40101)),
            (400, {"message": "no query"}, ("no query", "invalid_request_error", "invalid_request_error")),
        ):
            for asked in (ASK, STREAM):
                script = says(json.dumps(body).encode(), status, "application/json", ("Retry-After", "7"))
                error = await self.fails(script, status, asked)
                self.assertEqual((error["message"], error["type"], error["code"]), expected)
        answer = await self.answer(says(b"{}", 429, "application/json", ("Retry-After", "7")))
        self.assertEqual(answer.get("retry-after"), "7")
        self.assertEqual(answer.get("access-control-allow-origin"), "*")

    async def test_status_without_words(self) -> None:
        """Without a message in the body, the error names the service and the status."""
        error = await self.fails(says(b"<html>", 404, "text/html"), 404)
        self.assertIn("answered with status 404; check upstreamUrl", error["message"])
        error = await self.fails(says(b"", 302, "text/html", ("Location", "http://x/secret")), 502)
        self.assertIn("302", error["message"])
        self.assertNotIn("secret", error["message"])

    async def test_status_expression(self) -> None:
        """The configured expression finds the message of an error status, too."""
        script = says(b'{"fault": {"why": "because"}}', 503, "application/json")
        self.assertEqual((await self.fails(script, 503, error="fault.why"))["message"], "because")

    async def test_large_refusal(self) -> None:
        """Only the beginning of an endless error body is read."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(head(500, [("Content-Type", "text/plain")]) + b"x" * 200_000)
            await stream.rest()

        await self.fails(script, 500)

    async def test_error_first(self) -> None:
        """An error payload before any text is an error with its status."""
        for asked in (ASK, STREAM):
            script = says(event({"error": {"message": "full", "type": "overloaded_error"}}))
            self.assertEqual((await self.fails(script, 503, asked))["message"], "full")
            dify = says(event({"event": "error", "status": 400, "code": "invalid_param", "message": "m"}))
            self.assertEqual((await self.fails(dify, 400, asked))["code"], "invalid_param")

    async def test_error_in_the_middle(self) -> None:
        """After the first chunk it is the last chunk; a call without streaming fails with its status."""
        body = (
            event({"text": "a"}) + event({"error": {"message": "full", "code": 429}}) + event({"text": "b"})
        )
        answer = await self.answer(says(body), STREAM)
        *chunks, last = chunks_of(answer.body)
        self.assertEqual((answer.status, text_of(chunks), last["error"]["message"]), (200, "a", "full"))
        self.assertTrue(answer.complete)
        await self.fails(says(body), 429)

    async def test_cut(self) -> None:
        """A connection lost between events or within one is an error."""
        for rest in (b"", b'data: {"text": "b'):

            async def script(stream: Stream, rest: bytes = rest) -> None:
                await read_request(stream)
                stream.write(event_stream_head())
                stream.chunk(event({"text": "a"}) + rest)
                stream.close()

            answer = await self.answer(script, STREAM)
            *chunks, last = chunks_of(answer.body)
            self.assertEqual((text_of(chunks), last["error"]["type"]), ("a", "upstream_error"))
            await self.fails(script, 502)

    async def test_cut_in_the_head(self) -> None:
        """A connection lost before the first event is an error."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.close()

        for body in (ASK, STREAM):
            await self.fails(script, 502, body)

    async def test_mismatch(self) -> None:
        """Payloads that do not match the expressions are a 502 that shows the expression."""
        for body in (ASK, STREAM):
            error = await self.fails(says(HELLO), 502, body, content="data.answer")
            self.assertIn("data.answer", error["message"])
            self.assertIn("{text: string}", error["message"])

    async def test_not_a_stream(self) -> None:
        """A page of HTML is no stream."""
        error = await self.fails(says(b"<html></html>", media="text/html"), 502)
        self.assertIn("no stream of events", error["message"])

    async def silence(self, begun: bool, body: object) -> Message:
        """Return the response to a client whose service falls silent, at once or after a first event."""
        clock = Clock()
        asked: Deferred[None] = Deferred()

        async def script(stream: Stream) -> None:
            await read_request(stream)
            if begun:
                stream.write(event_stream_head())
                stream.chunk(event({"text": "a"}))
            asked.callback(None)
            await stream.rest()

        def resource(url: str, **keys: Any) -> AdapterResource:
            adapter = AdapterResource(url, **keys)
            adapter.clock = clock
            return adapter

        service = await self.upstream(script)
        client = await self.client(await self.proxy(service.url, resource=resource))
        send_request(client, "POST", CHAT, body)
        await asked
        if begun and body is STREAM:
            while b'"content":"a"' not in client.buffer:
                await turns(1)
        clock.advance(600)
        answer = await read_response(client)
        await service.connections[0].gone()
        self.assertEqual(clock.getDelayedCalls(), [])
        return answer

    async def test_silence(self) -> None:
        """A service that is silent for too long is a 504, or an error chunk; its connection is closed."""
        for begun, body in ((False, ASK), (False, STREAM), (True, ASK)):
            answer = await self.silence(begun, body)
            self.assertEqual((answer.status, answer.json()["error"]["type"]), (504, "upstream_timeout"))
        answer = await self.silence(True, STREAM)
        self.assertEqual(answer.status, 200)
        self.assertEqual(chunks_of(answer.body)[-1]["error"]["type"], "upstream_timeout")

    async def test_too_large(self) -> None:
        """A response beyond the bound is an error that clients do not retry."""
        limits = Limits(max_response_bytes=1000)
        body = b"".join(event({"text": "x" * 100}) for _ in range(20))
        answer = await self.answer(says(body), limits=limits)
        self.assertEqual((answer.status, answer.get("x-should-retry")), (502, "false"))
        self.assertEqual(chunks_of((await self.answer(says(body), STREAM, limits=limits)).body)[-1], "[DONE]")


class ApiTests(AdapterTestCase):
    """The API around chat: models, invalid requests, browsers."""

    async def ask(self, method: str, target: str, body: object = None, headers: Any = ()) -> Message:
        """Return the response to a request that needs no service."""
        port = await self.adapter("http://127.0.0.1:1", models=("one", "my/two"))
        return await self.request(port, method, target, body, headers)

    async def test_models(self) -> None:
        """Models are listed, for GET and POST, and each can be retrieved."""
        for method in ("GET", "POST"):
            listed = (await self.ask(method, "/v1/models", {} if method == "POST" else None)).json()
            self.assertEqual(listed["object"], "list")
            self.assertEqual([model["id"] for model in listed["data"]], ["one", "my/two"])
            self.assertEqual({model["object"] for model in listed["data"]}, {"model"})
        for target in ("/v1/models/my/two", "/v1/models/my%2Ftwo", "/v1/models/my/two?x=1"):
            self.assertEqual((await self.ask("GET", target)).json()["id"], "my/two")
        only_head = await self.ask("HEAD", "/v1/models")
        self.assertEqual((only_head.status, only_head.body), (200, b""))

    async def test_client_errors(self) -> None:
        """An invalid request gets the status, parameter and code that OpenAI would return."""
        messages = ASK["messages"]
        for method, target, body, status, param, code in (
            ("GET", "/v1/models/none", None, 404, "model", "model_not_found"),
            ("POST", CHAT, {"model": "none", "messages": messages}, 404, "model", "model_not_found"),
            ("GET", "/v1/nothing", None, 404, None, "unknown_url"),
            ("POST", "/chat/completions", ASK, 404, None, "unknown_url"),
            ("GET", CHAT, None, 405, None, "method_not_supported"),
            ("DELETE", "/v1/models/one", None, 405, None, "method_not_supported"),
            ("POST", CHAT, b'{"model": ', 400, None, "invalid_json"),
            ("POST", CHAT, b"", 400, None, "invalid_json"),
            ("POST", CHAT, [], 400, None, "invalid_json"),
            ("POST", CHAT, {"messages": messages}, 400, "model", "missing_required_parameter"),
            ("POST", CHAT, {"model": 1, "messages": messages}, 400, "model", "invalid_type"),
            ("POST", CHAT, {"model": "one"}, 400, "messages", "missing_required_parameter"),
            ("POST", CHAT, {"model": "one", "messages": []}, 400, "messages", "invalid_value"),
            ("POST", CHAT, {"model": "one", "messages": ["x"]}, 400, "messages", "invalid_type"),
            (
                "POST",
                CHAT,
                {"model": "one", "messages": messages, "stream": 1},
                400,
                "stream",
                "invalid_type",
            ),
            ("POST", CHAT, {"model": "one", "messages": messages, "n": 2}, 400, "n", "invalid_value"),
        ):
            answer = await self.ask(method, target, body)
            self.assertEqual(answer.status, status, (method, target, body))
            error = answer.json()["error"]
            self.assertEqual(
                (error["type"], error["param"], error["code"]), ("invalid_request_error", param, code)
            )
            self.assertEqual(answer.get("access-control-allow-origin"), "*")
        self.assertEqual((await self.ask("GET", CHAT)).get("allow"), "POST")

    async def test_body_too_large(self) -> None:
        """A request body beyond the bound is a 413."""
        port = await self.adapter("http://127.0.0.1:1", limits=Limits(max_request_bytes=100))
        answer = await self.request(port, body={**ASK, "x": "y" * 100})
        self.assertEqual((answer.status, answer.json()["error"]["type"]), (413, "invalid_request_error"))

    async def test_preflight(self) -> None:
        """A page of another origin may call, with the headers that its preflight names."""
        wanted = [
            ("Origin", "http://page.example"),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "authorization, content-type, x-stainless-os"),
        ]
        answer = await self.ask("OPTIONS", CHAT, headers=wanted)
        self.assertEqual((answer.status, answer.get("access-control-allow-origin")), (204, "*"))
        self.assertEqual(answer.get("access-control-allow-headers"), wanted[2][1])
        self.assertIn("POST", answer.get("access-control-allow-methods") or "")

    async def test_split_request(self) -> None:
        """A body may come in pieces, chunked, and after 100 Continue."""
        service = await self.upstream(says(HELLO))
        client = await self.client(await self.adapter(service.url))
        data = json.dumps(ASK).encode()
        fields = f"{JSON[0]}: {JSON[1]}\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
        client.write(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\n{fields}".encode())
        self.assertEqual((await read_head(client)).status, 100)
        for at in range(0, len(data), 10):
            client.chunk(data[at : at + 10])
            await turns(1)
        client.chunk(b"")
        self.assertEqual((await read_response(client)).status, 200)


class HostileTests(AdapterTestCase):
    """Hostile or broken clients and services."""

    async def test_dots(self) -> None:
        """A client's value cannot lead out of the service's path, however a server decodes it."""
        service = await self.upstream(says(HELLO))
        port = await self.adapter(service.url + "/v1/{{user_id}}/chat")
        for user in (
            "..",
            ".",
            "../admin",
            "x/../../admin",
            "../admin?",
            "../admin#",
            "..\\admin",
            "%2e%2e/admin",
            "..%2fadmin",
            "..;/admin",
            "../",
            ".. ",
            "..\0",
        ):
            answer = await self.request(port, body={**ASK, "user": user})
            self.assertEqual((answer.status, answer.json()["error"]["code"]), (400, "invalid_value"), user)
        self.assertEqual(service.connections, [])

    async def test_surrogates(self) -> None:
        """Half a character in a request causes no internal error, wherever it is filled in."""
        lone = b'{"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "\\ud800"}]}'
        cases: list[dict[str, Any]] = [{"method": "GET", "request": {"q": "{{last_user_message}}"}}, {}]
        for keys in cases:
            service = await self.upstream(says(HELLO))
            port = await self.adapter(service.url + "/s", **keys)
            self.assertEqual((await self.request(port, body=lone, headers=[JSON])).status, 200)

    async def test_echoed_key(self) -> None:
        """The adapter's key is removed from errors that quote it."""
        self.patch(os, "environ", {**os.environ, "SERVICE_KEY": "sk-SECRETKEY"})
        body = json.dumps({"error": {"message": "Incorrect API key: sk-SECRETKEY."}}).encode()
        script = says(body, 401, "application/json")
        error = await self.fails(script, 401, headers={"X-Key": "${SERVICE_KEY}"})
        self.assertEqual(error["message"], "Incorrect API key: ***.")

    async def test_unknown_coding(self) -> None:
        """An error status is kept even if its body has an unknown or broken content coding."""
        for coding in ("br", "gzip"):
            await self.fails(says(b"\x00broken", 401, "application/json", ("Content-Encoding", coding)), 401)

    async def test_bomb(self) -> None:
        """A decompression bomb is an error, and is not forwarded."""
        bomb = gzip.compress(b"data: 1\n\n" * 100_000)
        script = says(bomb, 200, "text/event-stream", ("Content-Encoding", "gzip"))
        bound = Limits(max_decoded_bytes=100_000)
        answer = await self.answer(script, STREAM, limits=bound)
        self.assertLess(len(answer.body), 64 * 100_000)
        self.assertNotIn(b"[DONE]", answer.body)
        await self.fails(script, 502, limits=bound)

    async def test_much_decoded(self) -> None:
        """All that a compressed response decodes to counts against the bound, even after its end."""
        body = gzip.compress(b": comment\n\n" * 20 + HELLO)
        script = says(body, 200, "text/event-stream", ("Content-Encoding", "gzip"))
        size = len(HELLO) + 220
        self.assertEqual((await self.answer(script, limits=Limits(max_decoded_bytes=size))).status, 200)
        error = await self.fails(script, 502, limits=Limits(max_decoded_bytes=size - 1))
        self.assertIn("maxDecodedBytes", error["message"])

    async def test_nested_lists(self) -> None:
        """Deeply nested lists as an error cause no internal error."""
        for depth in (600, 990, 100_000):
            lists = b"[" * depth + b"]" * depth
            for body in (lists, b'{"error": %b}' % lists, b'{"error": {"message": %b}}' % lists):
                error = await self.fails(says(body, 429, "application/json"), 429)
                self.assertNotEqual(error["type"], "internal_error")
                for data in (b"data: %b\n\n", b"event: error\ndata: %b\n\n"):
                    error = await self.fails(says(data % body), 502)
                    self.assertNotEqual(error["type"], "internal_error")

    async def test_status_that_is_none(self) -> None:
        """Other statuses than 2xx, 4xx and 5xx are a 502, with a hint only for redirects."""
        for status in (304, 302):
            message = (await self.fails(says(b"", status), 502))["message"]
            self.assertEqual("redirects" in message, status == 302, message)

    async def test_truncated_coding(self) -> None:
        """A compressed stream that was cut off is an error."""
        cut = gzip.compress(HELLO)[:-9]
        await self.fails(says(cut, 200, "text/event-stream", ("Content-Encoding", "gzip")), 502)


class LogTests(AdapterTestCase):
    """Log lines of calls."""

    async def test_warnings(self) -> None:
        """What seems wrong in a rule's configuration is one warning, however many calls show it."""
        lines: list[dict[str, Any]] = []
        log = RequestLog("warn", observer=cast(Any, lines.append))
        service = await self.upstream(says(event({"text": "A", "secret": 1}) + event("[DONE]")))
        port = await self.adapter(service.url, log=log, usage="counts", events=("message", "data"))
        for stream in (True, False, True):
            await self.request(port, body={**ASK, "stream": stream})
        self.assertEqual(
            [line["log_format"].format(**line) for line in lines],
            [
                f"{service.url}: adapter.usage found nothing in a whole stream: counts",
                f"{service.url}: adapter.events has an event that did not come in a whole stream: data",
            ],
        )

    async def test_lines(self) -> None:
        """Each call is one line, without text of the client's or the service's."""
        lines: list[dict[str, Any]] = []
        log = RequestLog("debug", observer=cast(Any, lines.append))
        service = await self.upstream(says(event({"error": {"message": "secret words"}})))
        port = await self.adapter(service.url + "/s?key=secret", log=log)
        await self.request(port, body={**ASK, "model": "secret model"})
        await self.request(port, body=ASK, headers=[("Authorization", "Bearer secret")])
        await self.request(port, "GET", "/v1/models?secret")
        texts = [line["log_format"].format(**line) for line in lines]
        self.assertEqual(
            [text.rsplit(" adapted ", 1)[0] for text in texts if " adapted " in text],
            [f"POST {CHAT} 404", f"POST {CHAT} 502", "GET /v1/models 200"],
        )
        self.assertNotIn("secret", " ".join(texts))
