"""Requests of converted calls: which calls are converted, and what is sent upstream."""

from __future__ import annotations

import json
from typing import Any

from stream_proxy import ChatCompletionsApiProxy, PassthroughApiProxy, ResponsesApiProxy
from tests.support.conversion import RecordedCallsTestCase, stream_body
from tests.support.payloads import CHAT, CHAT_BODY, HELLO, RESPONSES, RESPONSES_BODY
from tests.support.wire import JSON, Stream, read_request


class WhichTests(RecordedCallsTestCase):
    """Requests that are converted, and requests that are not."""

    async def assert_converted(self, expected: bool, target: str, body: object, **kwargs: Any) -> None:
        """Check whether the upstream is asked for a stream although the client asked for none."""
        port = await self.start()
        response = await self.request(port, target=target, body=body, **kwargs)
        self.assertEqual(response.status, 200)
        stream = json.loads(self.asked[-1].body).get("stream") is True
        self.assertEqual(stream, expected, (target, body))

    async def test_converted(self) -> None:
        """Chat and Responses calls without ``stream`` are converted, whatever surrounds their path."""
        for target in (CHAT, "/chat/completions", CHAT + "///", CHAT + "?a=1", "/x" + CHAT):
            await self.assert_converted(True, target, CHAT_BODY)
        for stream in (False, None):
            await self.assert_converted(True, CHAT, {**CHAT_BODY, "stream": stream})
        await self.assert_converted(True, RESPONSES, RESPONSES_BODY)
        await self.assert_converted(True, RESPONSES, {**RESPONSES_BODY, "background": False})
        await self.assert_converted(True, "/openai/deployments/d/chat/completions", {"messages": []})
        for audio in ("pcm16", "wav"):
            await self.assert_converted(True, CHAT, {**CHAT_BODY, "audio": {"format": audio}})

    async def test_passed(self) -> None:
        """Other paths, calls without a model, and calls whose result cannot be streamed are relayed."""
        for target in ("/v1/completions", CHAT + "/x", "/v1/responses/r1", "/v1/chatcompletions"):
            await self.assert_converted(False, target, CHAT_BODY)
        await self.assert_converted(False, CHAT, {"messages": []})
        await self.assert_converted(False, CHAT, {**CHAT_BODY, "stream": 0})
        await self.assert_converted(False, RESPONSES, {**RESPONSES_BODY, "background": True})

    async def test_content_type(self) -> None:
        """The media type counts in any case, with any parameters; other types and codings are relayed."""
        data = json.dumps(CHAT_BODY).encode()
        for value in ("application/json", "Application/JSON; charset=utf-8"):
            await self.assert_converted(True, CHAT, data, headers=[("Content-Type", value)])
        await self.assert_converted(False, CHAT, data, headers=[("Content-Type", "text/plain")])
        await self.assert_converted(False, CHAT, data)
        await self.assert_converted(False, CHAT, data, headers=[JSON, ("Content-Encoding", "x")])

    async def test_method(self) -> None:
        """Only POST is converted."""
        port = await self.start()
        for method in ("PUT", "PATCH", "post"):
            await self.request(port, method, body=CHAT_BODY)
            self.assertEqual((self.asked[-1].method, self.asked[-1].json()), (method, CHAT_BODY))

    async def test_streaming_calls(self) -> None:
        """A streaming call is relayed; its body, its response and the headers of both are unchanged."""
        port = await self.start()
        body = b'{"model": "m",  "messages": [], "stream":true}'
        response = await self.request(port, body=body, headers=[JSON, ("Accept", "a/b")])
        self.assertEqual((response.body, response.get("content-type")), (HELLO, "text/event-stream"))
        self.assertEqual((self.asked[-1].body, self.asked[-1].all("accept")), (body, ["a/b"]))

    async def test_bodies_that_are_no_call(self) -> None:
        """A body that is not a JSON object is relayed byte for byte."""
        port = await self.start()
        for body in (b"", b"[1]", b'{"model": "m"', b"\xff\xfe", b'"text"'):
            response = await self.request(port, body=body, headers=[JSON])
            self.assertEqual((response.status, self.asked[-1].body), (200, body))

    async def test_single_purpose_proxies(self) -> None:
        """Each of the single-purpose proxies converts its own kind of call and relays the other."""
        for resource, chat, responses in (
            (ChatCompletionsApiProxy, True, False),
            (ResponsesApiProxy, False, True),
            (PassthroughApiProxy, False, False),
        ):
            port = await self.start(resource=resource)
            await self.request(port, body=CHAT_BODY)
            self.assertEqual(b'"stream":true' in self.asked[-1].body, chat)
            await self.request(port, target=RESPONSES, body=RESPONSES_BODY)
            self.assertEqual(b'"stream":true' in self.asked[-1].body, responses)


class RequestTests(RecordedCallsTestCase):
    """The request that goes upstream."""

    async def test_body(self) -> None:
        """Everything except ``stream`` and ``stream_options`` keeps the client's order and spelling."""
        port = await self.start()
        body = b'{ "z": 1.50, "stream": false, "model":"m" ,"n": 1e2, "a": [ 1, {"b":"\\u00e9"} ]}'
        await self.request(port, body=body, headers=[JSON])
        sent = self.asked[0].body
        expected = (
            b'{"z":1.50,"stream":true,"model":"m","n":1e2,"a":[ 1, {"b":"\\u00e9"} ],'
            b'"stream_options":{"include_usage":true}}'
        )
        self.assertEqual(sent, expected)
        self.assertEqual(self.asked[0].all("content-length"), [str(len(sent))])

    async def test_target(self) -> None:
        """Path and query follow the upstream's own path, byte for byte."""
        self.asked = []

        async def script(stream: Stream) -> None:
            while True:
                self.asked.append(await read_request(stream))
                stream_body(stream)

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url + "/base/")
        for target in (CHAT + "//?a[]=%2f;|&b?#", "/a//b/%2e%2E/chat/completions?"):
            response = await self.request(port, target=target, body=CHAT_BODY)
            self.assertEqual((response.status, self.asked[-1].target), (200, "/base" + target))

    async def test_stream_options(self) -> None:
        """The client's other ``stream_options`` are kept; a Responses call gets none."""
        port = await self.start()
        options = {"include_obfuscation": False, "include_usage": False}
        await self.request(port, body={**CHAT_BODY, "stream_options": options})
        sent = self.asked[0].json()["stream_options"]
        self.assertEqual(sent, {"include_obfuscation": False, "include_usage": True})
        await self.request(port, target=RESPONSES, body=RESPONSES_BODY)
        self.assertEqual(self.asked[1].json(), {**RESPONSES_BODY, "stream": True})

    async def test_headers(self) -> None:
        """The client's fields are relayed, except hop-by-hop ones; an unencoded event stream is requested."""
        port = await self.start()
        fields = [
            ("Authorization", "Bearer sk"),
            ("Accept", "application/json"),
            ("Accept-Encoding", "gzip, br"),
            ("Connection", "x-drop"),
            ("X-Drop", "1"),
            ("X-Keep", "1"),
            ("X-Keep", "2"),
        ]
        await self.request(port, body=CHAT_BODY, headers=fields)
        request = self.asked[0]
        self.assertEqual(request.all("accept"), ["text/event-stream"])
        self.assertEqual(request.all("accept-encoding"), ["identity"])
        self.assertEqual(request.all("authorization"), ["Bearer sk"])
        self.assertEqual(request.all("x-keep"), ["1", "2"])
        self.assertEqual(request.all("x-drop") + request.all("connection"), [])
        self.assertRegex(request.get("host") or "", r"^127\.0\.0\.1:\d+$")
