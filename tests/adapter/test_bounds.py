"""Bounds of what clients and services send to an adapter."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from stream_proxy import Limits
from tests.adapter.test_flow import ASK, AdapterTestCase, says
from tests.support.payloads import event


def nested(depth: int) -> Any:
    """Return arrays in arrays."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


class RequestTests(AdapterTestCase):
    """Requests, which are decoded, filled into templates and encoded again."""

    async def test_depth(self) -> None:
        """A request nested beyond 128 levels is a 400, wherever that is and whatever is made of it."""
        message = {"role": "user", "content": "x"}
        forms: tuple[tuple[dict[str, Any], Callable[[Any], object]], ...] = (
            ({}, lambda deep: {**ASK, "metadata": deep}),
            ({"request": {"q": "{{metadata}}"}}, lambda deep: {**ASK, "metadata": deep}),
            ({"request": {"q": "x {{metadata}}"}}, lambda deep: {**ASK, "metadata": deep}),
            ({"request": {"q": "{{history}}"}}, lambda deep: {**ASK, "messages": [{"role": deep}, message]}),
        )
        for config, make in forms:
            for depth in (100, 124, 200, 600, 800):
                body = make(nested(depth))
                answer = await self.answer(says(event({"text": "Hi"})), body, **config)
                expected = 400 if depth > 124 else 200
                self.assertEqual(answer.status, expected, (config, depth, answer.body))
                if expected == 400:
                    self.assertEqual(answer.json()["error"]["code"], "request_nested_too_deep")

    async def test_malformed(self) -> None:
        """Brackets that do not match are no JSON, rather than nested too deep."""
        answer = await self.answer(says(event({"text": "Hi"})), b"[" * 10_000)
        self.assertEqual((answer.status, answer.json()["error"]["code"]), (400, "invalid_json"))

    async def test_values(self) -> None:
        """A request with too many values is a 413 that names the limit."""
        body = {**ASK, "metadata": [[]] * 100}
        count = sum(map(json.dumps(body).count, ",:[{"))
        for most, status in ((count, 200), (count - 1, 413)):
            limits = Limits(max_request_values=most)
            answer = await self.answer(says(event({"text": "Hi"})), body, limits=limits)
            self.assertEqual(answer.status, status)
        self.assertIn("maxRequestValues", answer.json()["error"]["message"])
        self.assertEqual(answer.all("x-should-retry"), ["false"])


class PayloadTests(AdapterTestCase):
    """Payloads, whose values are searched one by one."""

    async def test_values(self) -> None:
        """A payload with too many values is a 502 that names the limit, in every format."""
        for media, body in (
            ("text/event-stream", event({"text": "Hi", "a": [[]] * 10_000})),
            ("application/x-ndjson", json.dumps({"a": [[]] * 10_000}).encode() + b"\n"),
            ("application/json", b"[\n" + json.dumps({"a": [{}] * 10_000}).encode() + b"\n]"),
            ("text/event-stream", event({"text": "Hi"}) + b"data: " + b"[]," * 10_000),
        ):
            answer = await self.answer(says(body, 200, media))
            error = answer.json()["error"]
            self.assertEqual((answer.status, error["code"]), (502, "response_too_many_values"))
            self.assertIn("maxResponseValues", error["message"])
            self.assertEqual(answer.all("x-should-retry"), ["false"])

    async def test_limit(self) -> None:
        """The limit can be raised."""
        body = event({"text": "Hi", "a": [[]] * 10_000})
        answer = await self.answer(says(body), limits=Limits(max_response_values=10**6))
        self.assertEqual(answer.json()["choices"][0]["message"]["content"], "Hi")

    async def test_depth(self) -> None:
        """A payload that is nested too deep is a 502, and no bug."""
        for depth in (200, 600, 800):
            body = event({"text": "Hi", "a": nested(depth)})
            configs: tuple[dict[str, Any], ...] = ({}, {"content": "text"})
            for config in configs:
                answer = await self.answer(says(body), **config)
                self.assertEqual((answer.status, answer.json()["error"]["code"]), (502, "upstream_malformed"))

    async def test_large(self) -> None:
        """A payload has the limit of an event."""
        answer = await self.answer(says(event({"text": "x" * 100})), limits=Limits(max_event_bytes=100))
        self.assertEqual((answer.status, answer.json()["error"]["code"]), (502, "event_too_large"))
