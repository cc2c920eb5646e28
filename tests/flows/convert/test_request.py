"""Converted calls on their way up: which are converted, what is sent, and what is sent again."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock

from stream_proxy import ChatCompletionsApiProxy, PassthroughApiProxy, ProxyResource, ResponsesApiProxy
from stream_proxy.flows.fallbacks import REMEMBER_SECONDS
from stream_proxy.request_log import RequestLog
from tests.support.loopback import LoopbackTestCase
from tests.support.payloads import CHAT, CHAT_BODY, HELLO, RESPONSES, RESPONSES_BODY, event
from tests.support.wire import JSON, Message, Stream, event_stream_head, read_request, respond

RESPONSE_DONE = event(
    {"type": "response.completed", "response": {"id": "r", "output": [1]}}, "response.completed"
)
Answer = Callable[[Stream, Message], None]


def stream_answer(stream: Stream, data: bytes = HELLO) -> None:
    """Answer with a whole event stream."""
    stream.write(event_stream_head())
    stream.chunk(data)
    stream.chunk(b"")


def stream_or_json(stream: Stream, request: Message) -> None:
    """Answer as a provider that can do both."""
    try:
        wants_stream = b'"stream":true' in request.body.replace(b" ", b"")
    except ValueError:
        wants_stream = False
    if not wants_stream:
        respond(stream, 200, b'{"passed": true}', [JSON])
    elif "/responses" in request.target:
        stream_answer(stream, RESPONSE_DONE)
    else:
        stream_answer(stream)


class ConvertTestCase(LoopbackTestCase):
    """A proxy in front of an upstream that keeps what it was asked."""

    async def start(self, answer: Answer = stream_or_json, **kwargs: Any) -> int:
        """Start both; the requests are in ``self.asked``."""
        self.asked: list[Message] = []

        async def script(stream: Stream) -> None:
            while True:
                request = await read_request(stream)
                self.asked.append(request)
                answer(stream, request)

        upstream = await self.upstream(script)
        self.resources: list[ProxyResource] = []
        kind = kwargs.pop("resource", ProxyResource)

        def make(*args: Any, **more: Any) -> ProxyResource:
            resource: ProxyResource = kind(*args, **more)
            self.resources.append(resource)
            return resource

        return await self.proxy(upstream.url, resource=make, **kwargs)


class WhichTests(ConvertTestCase):
    """Which requests are converted."""

    async def assert_converted(self, expected: bool, target: str, body: object, **kwargs: Any) -> None:
        """Whether the upstream sees a stream asked for where the client asked for none."""
        port = await self.start()
        response = await self.request(port, target=target, body=body, **kwargs)
        self.assertEqual(response.status, 200)
        stream = json.loads(self.asked[-1].body).get("stream") is True
        self.assertEqual(stream, expected, (target, body))

    async def test_converted(self) -> None:
        """Chat and Responses calls without ``stream``, whatever is before their path and behind it."""
        for target in (CHAT, "/chat/completions", CHAT + "///", CHAT + "?a=1", "/x" + CHAT):
            await self.assert_converted(True, target, CHAT_BODY)
        for stream in (False, None):
            await self.assert_converted(True, CHAT, {**CHAT_BODY, "stream": stream})
        await self.assert_converted(True, RESPONSES, RESPONSES_BODY)
        await self.assert_converted(True, RESPONSES, {**RESPONSES_BODY, "background": False})
        await self.assert_converted(True, "/openai/deployments/d/chat/completions", {"messages": []})
        await self.assert_converted(True, CHAT, {**CHAT_BODY, "audio": {"format": "pcm16"}})

    async def test_passed(self) -> None:
        """Other paths, calls without a model, and calls that have no stream with the same result."""
        for target in ("/v1/completions", CHAT + "/x", "/v1/responses/r1", "/v1/chatcompletions"):
            await self.assert_converted(False, target, CHAT_BODY)
        await self.assert_converted(False, CHAT, {"messages": []})
        await self.assert_converted(False, CHAT, {**CHAT_BODY, "stream": 0})
        await self.assert_converted(False, RESPONSES, {**RESPONSES_BODY, "background": True})
        await self.assert_converted(False, CHAT, {**CHAT_BODY, "audio": {"format": "wav"}})

    async def test_content_type(self) -> None:
        """The type counts without case and parameters; any other, or a coding, passes."""
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
        """A call for a stream passes, with its body, its answer and their headers as they are."""
        port = await self.start()
        body = b'{"model": "m",  "messages": [], "stream":true}'
        response = await self.request(port, body=body, headers=[JSON, ("Accept", "a/b")])
        self.assertEqual((response.body, response.get("content-type")), (HELLO, "text/event-stream"))
        self.assertEqual((self.asked[-1].body, self.asked[-1].all("accept")), (body, ["a/b"]))

    async def test_bodies_that_are_no_call(self) -> None:
        """What is not a JSON object passes byte for byte."""
        port = await self.start()
        for body in (b"", b"[1]", b'{"model": "m"', b"\xff\xfe", b'"text"'):
            response = await self.request(port, body=body, headers=[JSON])
            self.assertEqual((response.status, self.asked[-1].body), (200, body))

    async def test_single_purpose_proxies(self) -> None:
        """Each of the special proxies converts its own kind and passes the other."""
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


class RequestTests(ConvertTestCase):
    """What goes upstream."""

    async def test_body(self) -> None:
        """All but ``stream`` and ``stream_options`` is as the client wrote it, in its order and spelling."""
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
        """Path and query go behind the upstream's own path, byte for byte."""
        self.asked = []

        async def script(stream: Stream) -> None:
            while True:
                self.asked.append(await read_request(stream))
                stream_answer(stream)

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url + "/base/")
        for target in (CHAT + "//?a[]=%2f;|&b?#", "/a//b/%2e%2E/chat/completions?"):
            response = await self.request(port, target=target, body=CHAT_BODY)
            self.assertEqual((response.status, self.asked[-1].target), (200, "/base" + target))

    async def test_stream_options(self) -> None:
        """The client's other ``stream_options`` stay; Responses get none."""
        port = await self.start()
        options = {"include_obfuscation": False, "include_usage": False}
        await self.request(port, body={**CHAT_BODY, "stream_options": options})
        sent = self.asked[0].json()["stream_options"]
        self.assertEqual(sent, {"include_obfuscation": False, "include_usage": True})
        await self.request(port, target=RESPONSES, body=RESPONSES_BODY)
        self.assertEqual(self.asked[1].json(), {**RESPONSES_BODY, "stream": True})

    async def test_headers(self) -> None:
        """The client's fields travel but for those of the connection; a plain event stream is asked for."""
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


def refusing(what: str, status: int = 400, padding: int = 0) -> Answer:
    """An upstream that refuses bodies with `what` in them."""

    def answer(stream: Stream, request: Message) -> None:
        if what.encode() in request.body:
            error = {"message": f"unknown field {what}" + " " * padding, "param": what.strip('"')}
            respond(stream, status, json.dumps({"error": error}).encode(), [JSON])
        else:
            stream_or_json(stream, request)

    return answer


class SecondAttemptTests(ConvertTestCase):
    """What is sent a second time, and what is not."""

    async def test_usage_refused(self) -> None:
        """A 400 or 422 that names the option: again without it, and no more for this model."""
        for status, name in ((400, "stream_options"), (422, "include_usage")):
            port = await self.start(refusing(name, status))
            for model, attempts in (("m", 2), ("m", 1), ("other", 2)):
                self.asked.clear()
                response = await self.request(port, body={**CHAT_BODY, "model": model})
                self.assertEqual((response.status, len(self.asked)), (200, attempts))
                self.assertEqual(self.asked[-1].json(), {**CHAT_BODY, "model": model, "stream": True})

    async def test_usage_refused_otherwise(self) -> None:
        """The client's other ``stream_options`` stay in the second attempt; a packed refusal is one, too."""

        def answer(stream: Stream, request: Message) -> None:
            if b"include_usage" in request.body:
                fields = [JSON, ("Content-Encoding", "gzip")]
                respond(stream, 400, gzip.compress(b'{"detail": "unknown field include_usage"}'), fields)
            else:
                stream_or_json(stream, request)

        port = await self.start(answer)
        response = await self.request(port, body={**CHAT_BODY, "stream_options": {"x": 1}})
        self.assertEqual((response.status, len(self.asked)), (200, 2))
        self.assertEqual(self.asked[-1].json(), {**CHAT_BODY, "stream_options": {"x": 1}, "stream": True})

    async def test_usage_refused_with_another_status(self) -> None:
        """What any other status says of the option is no refusal."""
        for status in (401, 404, 429, 500):
            port = await self.start(refusing("stream_options", status))
            response = await self.request(port, body=CHAT_BODY)
            self.assertEqual((response.status, len(self.asked)), (status, 1))

    async def test_usage_not_asked_for(self) -> None:
        """A Responses call, which did not name the option, is not sent again for it."""

        def answer(stream: Stream, request: Message) -> None:
            respond(stream, 400, b'{"error": {"message": "no stream_options here"}}', [JSON])

        port = await self.start(answer)
        response = await self.request(port, target=RESPONSES, body=RESPONSES_BODY)
        self.assertEqual((response.status, len(self.asked)), (400, 1))

    async def assert_tried_anew(self, refused: str) -> None:
        """What was refused for a model is asked for again after an hour, and not before."""
        port = await self.start(refusing(refused))
        clock = Clock()
        await self.request(port, body={"model": "first", "messages": []})
        self.resources[0].memory._seconds = clock.seconds
        await self.request(port, body=CHAT_BODY)
        for seconds, attempts in ((REMEMBER_SECONDS - 1, 1), (1, 2)):
            clock.advance(seconds)
            self.asked.clear()
            await self.request(port, body=CHAT_BODY)
            self.assertEqual(len(self.asked), attempts)

    async def test_usage_tried_anew(self) -> None:
        """After an hour the option is tried again."""
        await self.assert_tried_anew("stream_options")

    async def test_usage_not_to_blame(self) -> None:
        """An error that only quotes the request is no reason to do without usage in the next call."""

        def answer(stream: Stream, request: Message) -> None:
            if "messages" not in request.json():
                respond(
                    stream, 422, b'{"detail": "messages missing", "input": ' + request.body + b"}", [JSON]
                )
            else:
                stream_or_json(stream, request)

        port = await self.start(answer)
        response = await self.request(port, body={"model": "m"})
        self.assertEqual(response.status, 422)
        await self.request(port, body=CHAT_BODY)
        self.assertIn("stream_options", self.asked[-1].json())

    async def test_usage_settings(self) -> None:
        """``always`` relays the refusal, ``never`` does not ask for usage."""
        port = await self.start(refusing("stream_options"), include_usage="always")
        response = await self.request(port, body=CHAT_BODY)
        self.assertEqual((response.status, len(self.asked)), (400, 1))
        port = await self.start(refusing("stream_options"), include_usage="never")
        response = await self.request(port, body=CHAT_BODY)
        self.assertEqual((response.status, len(self.asked)), (200, 1))

    async def test_other_refusals(self) -> None:
        """Any other error is relayed as it is, also one that is larger than what is looked at."""
        for padding in (0, 200_000):
            port = await self.start(refusing('"messages"', padding=padding))
            response = await self.request(port, body=CHAT_BODY)
            self.assertEqual((response.status, len(self.asked)), (400, 1))
            self.assertEqual(len(response.json()["error"]["message"]), 24 + padding)

    async def test_stream_refused(self) -> None:
        """A model that cannot stream gets the client's own call, byte for byte, and from then on at once."""
        port = await self.start(refusing('"stream"'))
        body = b'{"model": "m",  "messages": []}'
        for attempts in (2, 1):
            self.asked.clear()
            response = await self.request(port, body=body, headers=[JSON, ("Accept", "a/b")])
            self.assertEqual(response.json(), {"passed": True})
            self.assertEqual(len(self.asked), attempts)
            self.assertEqual((self.asked[-1].body, self.asked[-1].all("accept")), (body, ["a/b"]))

    async def test_stream_refused_response(self) -> None:
        """So does a Responses call; a 422, or another ``param``, is relayed."""
        port = await self.start(refusing('"stream"'))
        response = await self.request(port, target=RESPONSES, body=RESPONSES_BODY)
        self.assertEqual((response.json(), self.asked[-1].json()), ({"passed": True}, RESPONSES_BODY))
        for answer in (refusing('"stream"', 422), refusing('"model"')):
            port = await self.start(answer)
            response = await self.request(port, target=RESPONSES, body=RESPONSES_BODY)
            self.assertGreaterEqual(response.status, 400)
            self.assertEqual(len(self.asked), 1)

    async def test_stream_refused_in_the_log(self) -> None:
        """The log says that the answer is the upstream's own."""
        events: list[dict[str, Any]] = []
        log = RequestLog(observer=events.append)  # type: ignore[arg-type]
        port = await self.start(refusing('"stream"'), log=log)
        response = await self.request(port, body=CHAT_BODY)
        (entry,) = events
        self.assertEqual((entry["status"], entry["how"], entry["sent"]), (200, "passed", len(response.body)))

    async def test_stream_tried_anew(self) -> None:
        """It is remembered for the model alone, and for an hour."""
        await self.assert_tried_anew('"stream"')

    async def test_both_refused(self) -> None:
        """First the option, then the stream: each once, the last answer counts."""

        def answer(stream: Stream, request: Message) -> None:
            refusing("stream_options" if b"stream_options" in request.body else '"stream"')(stream, request)

        port = await self.start(answer)
        response = await self.request(port, body=CHAT_BODY)
        self.assertEqual((response.json(), len(self.asked)), ({"passed": True}, 3))

    async def test_refused_for_ever(self) -> None:
        """An upstream that refuses everything is asked no more often than that."""

        def answer(stream: Stream, request: Message) -> None:
            respond(stream, 400, b'{"error": {"param": "stream", "message": "stream_options"}}', [JSON])

        port = await self.start(answer)
        response = await self.request(port, body=CHAT_BODY)
        self.assertEqual((response.status, len(self.asked)), (400, 2))

    async def test_stale_connection(self) -> None:
        """A kept connection that is dead when the call comes is replaced, once."""
        connections: list[Stream] = []

        async def script(stream: Stream) -> None:
            connections.append(stream)
            await read_request(stream)
            stream_answer(stream)
            await read_request(stream)
            stream.close()

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url)
        for _ in range(2):
            response = await self.request(port, body=CHAT_BODY)
            self.assertEqual(response.status, 200)
        self.assertEqual(len(connections), 2)
