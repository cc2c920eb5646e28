"""Ends and errors of converted streams."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred

from stream_proxy import Limits, ProxyResource
from stream_proxy.flows.conversion import aggregation, inspection, staged_body
from stream_proxy.request_log import RequestLog
from tests.support.conversion import EVENTS, START, ConversionTestCase, streamed, whole
from tests.support.loopback import turns
from tests.support.payloads import CHAT, CHAT_BODY, DONE, HELLO, RESPONSES, chunk, event
from tests.support.wire import JSON, Stream, event_stream_head, head, read_request


class EndTests(ConversionTestCase):
    """Ends of streams."""

    async def test_terminal_event(self) -> None:
        """The client gets its response at the terminal event, even if the upstream sends more."""
        self.assert_hello(await self.asked(streamed(HELLO, end=False)))

    async def test_connection_is_reused(self) -> None:
        """The connection of an upstream that ends its body soon after is kept."""
        streams: list[Stream] = []
        answered: Deferred[None] = Deferred()

        async def script(stream: Stream) -> None:
            streams.append(stream)
            await read_request(stream)
            streamed(HELLO, end=False)(stream)
            await answered
            stream.chunk(b"")
            await read_request(stream)
            streamed(HELLO)(stream)

        upstream = await self.upstream(script)
        resources: list[ProxyResource] = []

        def make(*args: Any, **kwargs: Any) -> ProxyResource:
            resources.append(ProxyResource(*args, **kwargs))
            return resources[0]

        port = await self.proxy(upstream.url, resource=make)
        self.assert_hello(await self.request(port, body=CHAT_BODY))
        answered.callback(None)
        while not resources[0].upstream._connections.pool.count:
            await turns(1)
        self.assert_hello(await self.request(port, body=CHAT_BODY))
        self.assertEqual(len(streams), 1)

    async def test_clean_end_without_done(self) -> None:
        """A finished chat needs no ``[DONE]``, whatever the framing."""
        data = HELLO.removesuffix(DONE)
        self.assert_hello(await self.asked(streamed(data)))
        self.assert_hello(await self.asked(whole(data)))

        def until_close(stream: Stream) -> None:
            stream.write(head(200, [EVENTS]) + data)
            stream.close()

        self.assert_hello(await self.asked(until_close))

    async def test_clean_end_too_early(self) -> None:
        """A stream that ends without a finish_reason on every choice, or with choices missing, is a 502."""
        self.assert_error(await self.asked(streamed(START)), 502, "upstream_error")
        finished = streamed(HELLO.removesuffix(DONE))
        response = await self.asked(finished, body={**CHAT_BODY, "n": 2})
        self.assert_error(response, 502, "upstream_error")
        second = chunk({}, choices=[{"index": 1, "delta": {"content": "two"}, "finish_reason": "stop"}])
        data = HELLO.removesuffix(DONE) + second
        response = await self.asked(streamed(data), body={**CHAT_BODY, "n": 2})
        self.assertEqual(
            [choice["message"]["content"] for choice in response.json()["choices"]], ["Hello", "two"]
        )

    async def test_bare_error_at_the_end(self) -> None:
        """A JSON error after the events is the error, in both APIs."""
        created = event({"type": "response.created", "response": {}}, "response.created")
        error = b'{"error": {"message": "boom", "type": "server_error", "code": 503}}'
        response = await self.asked(streamed(created + error), target=RESPONSES)
        self.assertEqual(response.status, 503)
        self.assertEqual(response.json()["error"]["message"], "boom")
        data = START + b'{"error": {"message": "boom", "type": "server_error", "code": 503}}'
        self.assert_error(await self.asked(streamed(data)), 503, "server_error", "boom")

    async def test_unterminated(self) -> None:
        """A last event without its blank line counts if the body ended as its framing promised."""
        for data in (HELLO.rstrip(b"\n"), HELLO.removesuffix(DONE).rstrip(b"\n")):
            self.assert_hello(await self.asked(streamed(data)))
            self.assert_hello(await self.asked(whole(data)))
        data = HELLO.removesuffix(DONE).rstrip(b"\n")
        self.assert_error(await self.asked(streamed(data[:-1])), 502, "upstream_error")

        def broken(stream: Stream) -> None:
            stream.write(event_stream_head() + b"%x\r\n%b\r\n" % (len(data), data))
            stream.close()

        self.assert_error(await self.asked(broken), 502, "upstream_error")

    async def test_error_before_the_end(self) -> None:
        """An error on a line that is no field is an error although [DONE] follows, as llama.cpp writes it."""
        line = b'error: {"code": 500, "message": "m", "type": "server_error"}\n\n'
        for data in (line + DONE, START + line + DONE, HELLO.removesuffix(DONE) + line + DONE):
            self.assert_error(await self.asked(streamed(data)), 500, "server_error", "m")

    async def test_broken(self) -> None:
        """An upstream that breaks off anywhere is a 502, except after ``[DONE]``."""

        def broken(data: bytes) -> Any:
            def responder(stream: Stream) -> None:
                stream.write(data)
                stream.close()

            return responder

        begin = event_stream_head()
        framed = b"%x\r\n%b\r\n" % (len(START), START)
        for data in (
            b"",
            b"HTTP/1.1 200 OK\r\n",
            begin,
            begin + framed + b"20\r\ndata: {",
            begin + framed + b"2",
            begin + framed,
        ):
            self.assert_error(await self.asked(broken(data)), 502, "upstream_error")
        whole_stream = b"%x\r\n%b\r\n" % (len(HELLO), HELLO)
        self.assert_hello(await self.asked(broken(begin + whole_stream)))
        finished = HELLO.removesuffix(DONE)
        response = await self.asked(broken(begin + b"%x\r\n%b\r\n" % (len(finished), finished)))
        self.assert_error(response, 502, "upstream_error")

    async def test_broken_on_accept(self) -> None:
        """An upstream that closes before it reads the request is a 502."""

        async def script(stream: Stream) -> None:
            stream.close()

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url)
        self.assert_error(await self.request(port, body=CHAT_BODY), 502, "upstream_error")


class ErrorTests(ConversionTestCase):
    """Errors inside a stream, and the proxy's own."""

    async def test_chat_errors(self) -> None:
        """The status comes from the numeric code, else the named code, else the type, and else is 502."""
        for error, status in (
            ({"message": "m", "code": 418}, 418),
            ({"message": "m", "code": "429"}, 429),
            ({"message": "m", "status": 503}, 503),
            ({"message": "m", "code": "insufficient_quota"}, 429),
            ({"message": "m", "type": "authentication_error"}, 401),
            ({"message": "m", "type": "overloaded_error"}, 503),
            ({"message": "m", "code": 200}, 502),
            ("m", 502),
        ):
            response = await self.asked(streamed(START + event({"error": error}), [("x-request-id", "r")]))
            self.assertEqual(response.status, status, error)
            self.assertEqual(response.json()["error"]["message"], "m")
            self.assertEqual(response.get("x-request-id"), "r")

    async def test_response_errors(self) -> None:
        """An ``error`` event without a known code is a 502; a failed Response without an error is a 200."""
        for data, status in (
            (event({"type": "error", "message": "m"}, "error"), 502),
            (event({"type": "error", "message": "m", "code": "rate_limit_exceeded"}, "error"), 429),
            (
                event(
                    {"type": "response.failed", "response": {"error": {"code": "slow_down", "message": "m"}}}
                ),
                503,
            ),
            (event({"type": "response.failed", "response": {"error": None}}), 200),
        ):
            response = await self.asked(streamed(data), target=RESPONSES)
            self.assertEqual(response.status, status, data)

    async def test_no_json(self) -> None:
        """Data that is not JSON is a 502."""
        self.assert_error(await self.asked(streamed(START + event("{oops"))), 502, "upstream_error")

    async def test_too_large(self) -> None:
        """A response beyond the limit is a 502 that forbids a retry; one of exactly the limit is not."""
        size = len((await self.asked(streamed(HELLO))).body)
        response = await self.asked(streamed(HELLO), limits=Limits(max_response_bytes=size))
        self.assert_hello(response)
        response = await self.asked(streamed(HELLO), limits=Limits(max_response_bytes=size - 1))
        self.assert_error(response, 502, "upstream_error", "maxResponseBytes")
        self.assertEqual(response.all("x-should-retry"), ["false"])

    async def test_response_too_large(self) -> None:
        """The limit applies to a Response."""
        raw = b'{"id":"r","output":[1]}'
        data = b'data: {"type": "response.completed", "response": ' + raw + b"}\n\n"
        for size, status in ((len(raw), 200), (len(raw) - 1, 502)):
            response = await self.asked(
                streamed(data), target=RESPONSES, limits=Limits(max_response_bytes=size)
            )
            self.assertEqual(response.status, status)

    async def test_event_too_large(self) -> None:
        """An event beyond its own limit is a 502 that names it, even one that does not end."""
        for target in (CHAT, RESPONSES):
            for data in (b"x" * 200_000, b"x" * 1001 + b"\n\n"):
                response = await self.asked(
                    streamed(b"data: " + data, end=False),
                    target=target,
                    limits=Limits(max_event_bytes=1000),
                )
                self.assert_error(response, 502, "upstream_error", "maxEventBytes")
                self.assertEqual(response.all("x-should-retry"), ["false"])

    async def test_too_many_values(self) -> None:
        """A response with more values than the limit is a 502 that names it and forbids a retry."""
        document = {"choices": [{"index": 0, "delta": {"a": [[]] * 50}, "finish_reason": "stop"}]}
        answered = await self.asked(streamed(event(json.dumps(document)) + DONE))
        response = {"type": "response.completed", "response": {"output": [1], "a": [[]] * 50}}
        cases = (
            (CHAT, event(json.dumps(document)) + DONE, json.dumps(answered.json())),
            (RESPONSES, event(json.dumps(response)), json.dumps(response)),
        )
        for target, data, counted in cases:
            most = sum(map(counted.count, ",:[{"))
            for limit, status in ((most, 200), (most - 1, 502)):
                got = await self.asked(
                    streamed(data), target=target, limits=Limits(max_response_values=limit)
                )
                self.assertEqual(got.status, status, (target, limit))
            self.assert_error(got, 502, "upstream_error", "maxResponseValues")
            self.assertEqual(got.json()["error"]["code"], "response_too_many_values")
            self.assertEqual(got.all("x-should-retry"), ["false"])

    async def test_request_too_large(self) -> None:
        """A body of exactly the limit is accepted; one more byte is a 413, streaming or not."""
        body = json.dumps(CHAT_BODY).encode()
        limits = Limits(max_request_bytes=len(body))
        self.assert_hello(await self.asked(streamed(HELLO), body=body, headers=[JSON], limits=limits))
        for more in (body + b" ", json.dumps({**CHAT_BODY, "stream": True}).encode()):
            response = await self.asked(streamed(HELLO), body=more, headers=[JSON], limits=limits)
            self.assert_error(response, 413, "invalid_request_error", "maxRequestBytes")

    async def test_too_many_request_values(self) -> None:
        """So it is with its values: they are counted outside of strings, before anything is decoded."""
        text = '"[,],{:}' * 100
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
        for limit, status in ((9, 200), (8, 413)):
            limits = Limits(max_request_values=limit)
            response = await self.asked(streamed(HELLO), body=body, headers=[JSON], limits=limits)
            self.assertEqual(response.status, status)
        self.assert_error(response, 413, "invalid_request_error", "maxRequestValues")
        self.assertEqual(response.json()["error"]["code"], "request_too_many_values")
        self.assertEqual(response.all("x-should-retry"), ["false"])

    async def test_silence(self) -> None:
        """Silence is a 504, before the head and inside the stream."""
        limits = Limits(timeout_seconds=0.1)
        for responder in (lambda stream: None, streamed(START, end=False)):
            self.assert_error(await self.asked(responder, limits=limits), 504, "upstream_timeout")

    async def test_bug(self) -> None:
        """A bug in the proxy is a 500 with the error envelope, and is logged."""

        def broken(*args: object, **kwargs: object) -> None:
            raise ZeroDivisionError("a bug")

        for module, name in (
            (staged_body, "decoder_for"),
            (inspection, "sniff"),
            (aggregation, "SSEDecoder"),
            (aggregation, "ChatCompletionsAccumulator"),
        ):
            patched = self.patch(module, name, broken)
            logged: list[dict[str, Any]] = []
            log = RequestLog(observer=logged.append)  # type: ignore[arg-type]
            response = await self.asked(streamed(HELLO, end=False), log=log)
            patched.restore()
            self.assert_error(response, 500, "internal_error")
            self.assertNotIn(b"ZeroDivision", response.body)
            self.assertEqual([entry.get("status") for entry in logged], [None, 500], name)
            self.assertIsInstance(logged[0]["log_failure"].value, ZeroDivisionError)
