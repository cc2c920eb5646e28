"""Pacing of an adapter: how much of a service's body is worked on in one reactor turn."""

from __future__ import annotations

import gzip
import json

from twisted.trial.unittest import SynchronousTestCase

from stream_proxy import Limits
from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.adapter.dialect import Dialect
from stream_proxy.adapter.shapes import fields, search, signals
from stream_proxy.adapter.translation import Step
from stream_proxy.errors import APIError
from stream_proxy.flows.pacing import TURN_BYTES
from tests.adapter.test_flow import ASK, STREAM, AdapterTestCase, chunks_of, says, text_of
from tests.support.payloads import event

#: One read of the network, at most.
READ = 65_536


def steps_of(body: bytes, *, stream: bool = True) -> list[Step]:
    """Return the steps of the work on a body of server-sent events, those on its end as well."""
    translation = Dialect("http://service/", AdapterConfig()).translation(
        b"text/event-stream", ("c", 1, "m"), include_usage=False, max_bytes=2**30, stream=stream
    )
    steps = [step for at in range(0, len(body), READ) for step in translation.steps(body[at : at + READ])]
    return steps + list(translation.last_steps())


def decline(text: str) -> None:
    """Stand for a search that is not to be made."""
    raise AssertionError(text[:100])


class StepTests(SynchronousTestCase):
    """Steps of a translation, counted rather than timed."""

    def test_tiny_payloads(self) -> None:
        """However small payloads are, a turn's budget is spent on few hundreds of them."""
        for payload in (b"data:1\n\n", b'data:{"text":"a"}\n\n', b"event: ping\ndata: {}\n\ndata: 1\n\n"):
            count = READ // len(payload)
            steps = steps_of(payload * count)
            self.assertGreater(len(steps), count)
            self.assertLess(TURN_BYTES * count / sum(cost for cost, _ in steps), 250)

    def test_many_values(self) -> None:
        """The values of a payload count more than its bytes."""
        many, few = ({"text": "a", "more": value} for value in ([1] * 5000, "1" * 10_000))
        costs = [sum(cost for cost, _ in steps_of(event(payload))) for payload in (many, few)]
        self.assertGreater(costs[0], 4 * costs[1])

    def test_long_texts(self) -> None:
        """A long text is written in chunks of about a megabyte, when it is held until the end as well."""
        text = "x" * (3 * 2**20) + "é"
        for stream in (True, False):
            for body in (event({"text": text}), b"".join(event({"text": part}) for part in (text[:-1], "é"))):
                chunks = [chunk for _, chunk in steps_of(body, stream=stream) if chunk]
                self.assertLess(max(map(len, chunks)), 2**20 + 1000)
                self.assertEqual(text_of([json.loads(chunk) for chunk in chunks]), text)

    def test_held_pieces(self) -> None:
        """Pieces of a text that is held until the end are not written one by one."""
        chunks = [chunk for _, chunk in steps_of(event({"text": "ab"}) * 1000, stream=False) if chunk]
        self.assertEqual(text_of([json.loads(chunk) for chunk in chunks]), "ab" * 1000)
        self.assertLess(len(chunks), 5)

    def test_long_payload(self) -> None:
        """A payload of 4 MiB takes many steps, whatever is odd about it and wherever it is in its body."""
        for text in (b"a" * 2**22, b"\xff" * 2**22, b"a" * 2**22 + b"\\ud800", b',\\"' * 2**20):
            payload = b'{"text":"%b"}' % text
            bodies = [b"data: %b\n\n" % payload, b"data: %b" % payload]
            if text.isascii():  # JSON that is no UTF-8 is none
                bodies += [payload + b"\n", b"\n" + payload]
            for body in bodies:
                costs = [cost for cost, chunk in steps_of(body) if not chunk]
                self.assertGreater(len([cost for cost in costs if cost >= TURN_BYTES]), 8)

    def test_json_in_strings(self) -> None:
        """JSON in strings is not decoded if it has too many values; then the strings are text."""
        lists = json.dumps([[]] * 20_000)
        inner = json.dumps([json.dumps([[]] * 500)] * 40)
        for data in (lists, inner, json.dumps([inner])):
            self.patch(fields, "embedded_json", decline)
            self.patch(search, "embedded_json", decline)
            self.patch(signals, "embedded_json", decline)
            chunks = [chunk for _, chunk in steps_of(event({"data": data})) if chunk]
            self.assertEqual(text_of([json.loads(chunk) for chunk in chunks]), data)

    def test_few_values_in_strings(self) -> None:
        """A long string of JSON is searched as a short one is."""
        for text in ("a", "a" * 2**20):
            data = json.dumps({"text": text, "finish_reason": "length"})
            chunks = [json.loads(chunk) for _, chunk in steps_of(event({"data": data})) if chunk]
            self.assertEqual((text_of(chunks), chunks[-1]["choices"][0]["finish_reason"]), (text, "length"))

    def test_objects(self) -> None:
        """Objects count more than other values against the bound of a payload."""
        steps_of(event({"text": "a", "more": [1] * 10_000}))
        with self.assertRaises(APIError) as raised:
            steps_of(event({"text": "a", "more": [{}] * 3000}))
        self.assertEqual(raised.exception.code, "response_too_many_values")

    def test_escapes(self) -> None:
        """A payload with millions of escapes is refused before it is decoded."""
        with self.assertRaises(APIError) as raised:
            steps_of(b'data: {"text":"%b"}\n\n' % (b"\\n" * 4_100_000))
        self.assertEqual(raised.exception.code, "response_too_many_values")


class FlowTests(AdapterTestCase):
    """Calls whose service sends much work in few bytes."""

    async def test_whole_answer(self) -> None:
        """Thousands of payloads in one read are all delivered in order, over many turns."""
        numbers = [str(number) for number in range(3000)]
        body = b"".join(event({"text": number + " "}) for number in numbers) + b"data: [DONE]\n\n"
        script = says(gzip.compress(body), 200, "text/event-stream", ("Content-Encoding", "gzip"))
        answer = await self.answer(script, STREAM)
        self.assertEqual(text_of(chunks_of(answer.body)).split(), numbers)
        whole = (await self.answer(script, ASK, limits=Limits(max_decoded_bytes=len(body)))).json()
        self.assertEqual(whole["choices"][0]["message"]["content"].split(), numbers)

    async def test_large_result(self) -> None:
        """A completion of megabytes is put together in steps, and arrives whole, one after the other."""
        text = "12345é\n" * 600_000
        parts = (text[at : at + 10_000] for at in range(0, len(text), 10_000))
        script = says(b"".join(event({"text": part}) for part in parts))
        for _ in range(2):
            answer = await self.answer(script, ASK)
            self.assertEqual(answer.get("content-length"), str(len(answer.body)))
            self.assertTrue(answer.json()["choices"][0]["message"]["content"] == text)

    async def test_error_behind_payloads(self) -> None:
        """An error is reported behind the chunks of all the payloads before it."""
        body = b"".join(event({"text": "a"}) for _ in range(2000)) + event({"error": {"message": "no"}})
        answer = await self.answer(says(body), STREAM)
        self.assertEqual(text_of(chunks_of(answer.body)), "a" * 2000)
        self.assertIn(b'"error":', answer.body)
