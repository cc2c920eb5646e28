"""Second attempts of converted calls, after a refusal or on a dead connection."""

from __future__ import annotations

import gzip
import json
from typing import Any

from twisted.internet.task import Clock

from stream_proxy.flows.conversion.refusals import REMEMBER_SECONDS
from stream_proxy.request_log import RequestLog
from tests.support.conversion import CallResponder, RecordedCallsTestCase, stream_body, stream_or_json
from tests.support.payloads import CHAT_BODY, RESPONSES, RESPONSES_BODY
from tests.support.wire import JSON, Message, Stream, read_request, respond


def refusing(what: str, status: int = 400, padding: int = 0) -> CallResponder:
    """Return an upstream that refuses bodies which contain `what`."""

    def responder(stream: Stream, request: Message) -> None:
        if what.encode() in request.body:
            error = {"message": f"unknown field {what}" + " " * padding, "param": what.strip('"')}
            respond(stream, status, json.dumps({"error": error}).encode(), [JSON])
        else:
            stream_or_json(stream, request)

    return responder


class SecondAttemptTests(RecordedCallsTestCase):
    """Calls that are sent a second time, and calls that are not."""

    async def test_usage_refused(self) -> None:
        """After a 400 or 422 that names the option, this call is repeated without it; later ones omit it."""
        for status, name in ((400, "stream_options"), (422, "include_usage")):
            port = await self.start(refusing(name, status))
            for model, attempts in (("m", 2), ("m", 1), ("other", 2)):
                self.asked.clear()
                response = await self.request(port, body={**CHAT_BODY, "model": model})
                self.assertEqual((response.status, len(self.asked)), (200, attempts))
                self.assertEqual(self.asked[-1].json(), {**CHAT_BODY, "model": model, "stream": True})

    async def test_usage_refused_otherwise(self) -> None:
        """The second attempt keeps the client's other ``stream_options``, also after a compressed refusal."""

        def responder(stream: Stream, request: Message) -> None:
            if b"include_usage" in request.body:
                fields = [JSON, ("Content-Encoding", "gzip")]
                respond(stream, 400, gzip.compress(b'{"detail": "unknown field include_usage"}'), fields)
            else:
                stream_or_json(stream, request)

        port = await self.start(responder)
        response = await self.request(port, body={**CHAT_BODY, "stream_options": {"x": 1}})
        self.assertEqual((response.status, len(self.asked)), (200, 2))
        self.assertEqual(self.asked[-1].json(), {**CHAT_BODY, "stream_options": {"x": 1}, "stream": True})

    async def test_usage_refused_with_another_status(self) -> None:
        """With any other status, a message about the option is not a refusal."""
        for status in (401, 404, 429, 500):
            port = await self.start(refusing("stream_options", status))
            response = await self.request(port, body=CHAT_BODY)
            self.assertEqual((response.status, len(self.asked)), (status, 1))

    async def test_usage_not_asked_for(self) -> None:
        """A Responses call, which never has the option, is not repeated because of it."""

        def responder(stream: Stream, request: Message) -> None:
            respond(stream, 400, b'{"error": {"message": "no stream_options here"}}', [JSON])

        port = await self.start(responder)
        response = await self.request(port, target=RESPONSES, body=RESPONSES_BODY)
        self.assertEqual((response.status, len(self.asked)), (400, 1))

    async def assert_tried_anew(self, refused: str) -> None:
        """Check that a refusal is remembered for an hour, and no longer."""
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
        """The option is tried again after an hour."""
        await self.assert_tried_anew("stream_options")

    async def test_usage_not_to_blame(self) -> None:
        """An error that merely quotes the request does not disable usage for later calls."""

        def responder(stream: Stream, request: Message) -> None:
            if "messages" not in request.json():
                respond(
                    stream, 422, b'{"detail": "messages missing", "input": ' + request.body + b"}", [JSON]
                )
            else:
                stream_or_json(stream, request)

        port = await self.start(responder)
        response = await self.request(port, body={"model": "m"})
        self.assertEqual(response.status, 422)
        await self.request(port, body=CHAT_BODY)
        self.assertIn("stream_options", self.asked[-1].json())

    async def test_usage_settings(self) -> None:
        """``always`` relays the refusal; ``never`` does not ask for usage."""
        port = await self.start(refusing("stream_options"), include_usage="always")
        response = await self.request(port, body=CHAT_BODY)
        self.assertEqual((response.status, len(self.asked)), (400, 1))
        port = await self.start(refusing("stream_options"), include_usage="never")
        response = await self.request(port, body=CHAT_BODY)
        self.assertEqual((response.status, len(self.asked)), (200, 1))

    async def test_other_refusals(self) -> None:
        """Any other error is relayed unchanged, even if it is larger than the inspected part."""
        for padding in (0, 200_000):
            port = await self.start(refusing('"messages"', padding=padding))
            response = await self.request(port, body=CHAT_BODY)
            self.assertEqual((response.status, len(self.asked)), (400, 1))
            self.assertEqual(len(response.json()["error"]["message"]), 24 + padding)

    async def test_stream_refused(self) -> None:
        """A model that cannot stream gets the client's own call, byte for byte; so do later calls."""
        port = await self.start(refusing('"stream"'))
        body = b'{"model": "m",  "messages": []}'
        for attempts in (2, 1):
            self.asked.clear()
            response = await self.request(port, body=body, headers=[JSON, ("Accept", "a/b")])
            self.assertEqual(response.json(), {"passed": True})
            self.assertEqual(len(self.asked), attempts)
            self.assertEqual((self.asked[-1].body, self.asked[-1].all("accept")), (body, ["a/b"]))

    async def test_audio_format_refused(self) -> None:
        """Audio that cannot be streamed in its format is asked for without; texts are still streamed."""

        def responder(stream: Stream, request: Message) -> None:
            if b'"wav"' in request.body and b'"stream"' in request.body:
                error = {"message": "Only 'pcm16' is supported when stream=true", "param": "audio.format"}
                respond(stream, 400, json.dumps({"error": error}).encode(), [JSON])
            else:
                respond(stream, 200, b'{"passed": true}', [JSON])

        port = await self.start(responder)
        audio = {**CHAT_BODY, "modalities": ["text", "audio"], "audio": {"voice": "x", "format": "wav"}}
        streamable = {**audio, "audio": {"voice": "x", "format": "pcm16"}}
        calls = ((audio, [True, None]), (CHAT_BODY, [True]), (streamable, [True]), (audio, [None]))
        for body, streamed in calls:
            self.asked.clear()
            response = await self.request(port, body=body)
            self.assertEqual(response.json(), {"passed": True})
            self.assertEqual([asked.json().get("stream") for asked in self.asked], streamed)

    async def test_stream_refused_response(self) -> None:
        """The same holds for a Responses call; a 422, or another ``param``, is relayed."""
        port = await self.start(refusing('"stream"'))
        response = await self.request(port, target=RESPONSES, body=RESPONSES_BODY)
        self.assertEqual((response.json(), self.asked[-1].json()), ({"passed": True}, RESPONSES_BODY))
        for responder in (refusing('"stream"', 422), refusing('"model"')):
            port = await self.start(responder)
            response = await self.request(port, target=RESPONSES, body=RESPONSES_BODY)
            self.assertGreaterEqual(response.status, 400)
            self.assertEqual(len(self.asked), 1)

    async def test_stream_refused_in_the_log(self) -> None:
        """The log states what is learned, and that the response is the upstream's own."""
        events: list[dict[str, Any]] = []
        log = RequestLog(observer=events.append)  # type: ignore[arg-type]
        port = await self.start(refusing('"stream"'), log=log)
        response = await self.request(port, body=CHAT_BODY)
        learned, entry = events
        self.assertIn('"m" refuses streams', learned["message"])
        self.assertEqual((entry["status"], entry["how"], entry["sent"]), (200, "passed", len(response.body)))

    async def test_stream_tried_anew(self) -> None:
        """The refusal is remembered for that model only, and for an hour."""
        await self.assert_tried_anew('"stream"')

    async def test_both_refused(self) -> None:
        """If the option and then the stream are refused, each is dropped once; the last response counts."""

        def responder(stream: Stream, request: Message) -> None:
            refusing("stream_options" if b"stream_options" in request.body else '"stream"')(stream, request)

        port = await self.start(responder)
        response = await self.request(port, body=CHAT_BODY)
        self.assertEqual((response.json(), len(self.asked)), ({"passed": True}, 3))

    async def test_refused_for_ever(self) -> None:
        """An upstream that refuses everything is asked no more often than that."""

        def responder(stream: Stream, request: Message) -> None:
            respond(stream, 400, b'{"error": {"param": "stream", "message": "stream_options"}}', [JSON])

        port = await self.start(responder)
        response = await self.request(port, body=CHAT_BODY)
        self.assertEqual((response.status, len(self.asked)), (400, 2))

    async def test_stale_connection(self) -> None:
        """A kept connection that turns out to be dead is replaced, once."""
        connections: list[Stream] = []

        async def script(stream: Stream) -> None:
            connections.append(stream)
            await read_request(stream)
            stream_body(stream)
            await read_request(stream)
            stream.close()

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url)
        for _ in range(2):
            response = await self.request(port, body=CHAT_BODY)
            self.assertEqual(response.status, 200)
        self.assertEqual(len(connections), 2)
