"""Pacing of bodies that need more work than one reactor turn should spend."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from typing import Any, cast
from unittest import TestCase

from twisted.internet.task import Clock
from twisted.python.failure import Failure

from stream_proxy.errors import APIError, upstream_error
from stream_proxy.flows.conversion.aggregation import StreamAggregation
from stream_proxy.flows.pacing import TURN_BYTES, PacedBody
from tests.support.loopback import LoopbackTestCase
from tests.support.payloads import CHAT, CHAT_BODY, DONE, HELLO, chunk
from tests.support.wire import Stream, read_request, respond


class Response:
    """A response that records whether it is paused, and how often it was."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def pause(self) -> None:
        """Pause, and count."""
        self.asked.append("pause")

    def resume(self) -> None:
        """Resume."""
        self.asked.append("resume")


class PacingTests(TestCase):
    """The order of the steps of work. A read is a sequence of numbers, the cost of each step."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.response = Response()
        self.done: list[int] = []
        self.ends: list[APIError | None] = []
        self.failures: list[Failure] = []
        self.body = PacedBody(self.clock, cast(Any, self.response), self.work, self.end, self.failures.append)

    def end(self, error: APIError | None) -> Iterator[int]:
        """Note the end, in one step."""
        self.ends.append(error)
        yield 0

    def work(self, data: bytes) -> Iterator[int]:
        """Do one step a byte: a number is quarters of a turn's budget, 0 raises, ``s`` stops the pacing."""
        for byte in data:
            self.done.append(byte)
            if byte == 0:
                raise upstream_error("no")
            if byte == ord("s"):
                self.body.stop()
            yield byte * TURN_BYTES // 4

    def test_little(self) -> None:
        """Little work is done as it arrives."""
        for _ in range(3):
            self.body.body_received(b"\1")
        self.body.body_ended(None)
        self.assertEqual((self.done, self.ends), ([1, 1, 1], [None]))
        self.assertEqual((self.response.asked, self.clock.getDelayedCalls()), ([], []))

    def test_much(self) -> None:
        """Much work is spread over turns; meanwhile the upstream is paused and other requests proceed."""
        self.body.body_received(b"\2" * 7)
        self.assertEqual((self.done, self.response.asked), ([2] * 2, ["pause"]))
        self.clock.advance(0)
        self.assertEqual((self.done, self.response.asked), ([2] * 7, ["pause", "resume"]))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.body.body_ended(None)
        self.assertEqual(self.ends, [None])

    def test_several_reads(self) -> None:
        """Several reads within one turn share its budget, and are processed in order."""
        for _ in range(4):
            self.body.body_received(b"\3")
        error = upstream_error("broken")
        self.body.body_ended(error)
        self.assertEqual((self.done, self.ends), ([3, 3], []))
        self.body.body_received(b"\1")
        self.assertEqual((self.done, self.ends), ([3, 3], []))
        self.clock.advance(0)
        self.assertEqual(
            (self.done, self.ends, self.response.asked), ([3, 3, 3, 3, 1], [error], ["pause", "resume"])
        )

    def test_as_much_as_came(self) -> None:
        """Work proportional to the bytes read never waits: the network already paces it."""
        body = PacedBody(
            self.clock,
            cast(Any, self.response),
            lambda data: iter([len(data)]),
            self.end,
            self.failures.append,
        )
        for _ in range(9):
            body.body_received(bytes(TURN_BYTES // 2))
        self.assertEqual((self.response.asked, self.clock.getDelayedCalls()), ([], []))

    def test_stop(self) -> None:
        """Nothing more is done once the pacing is stopped, from outside or by a step."""
        self.body.body_received(b"\4\4")
        self.body.stop()
        self.body.body_received(b"\1")
        self.body.body_ended(None)
        self.clock.advance(0)
        self.assertEqual((self.done, self.ends, self.clock.getDelayedCalls()), ([4], [], []))
        self.setUp()
        self.body.body_received(b"s\1")
        self.body.body_received(b"\1")
        self.body.body_ended(None)
        self.assertEqual((self.done, self.ends, self.clock.getDelayedCalls()), ([ord("s")], [], []))

    def test_failure(self) -> None:
        """An exception of a step is reported once and ends the work, in a later turn as well."""
        for before in (b"", b"\4"):
            self.setUp()
            self.body.body_received(before + b"\0\1")
            self.clock.advance(0)
            self.body.body_ended(None)
            self.assertEqual((self.done, self.ends), ([*before, 0], []))
            self.assertEqual([type(failure.value) for failure in self.failures], [APIError])
            self.assertEqual(self.response.asked, ["pause"] * len(before))


class TurnTests(LoopbackTestCase):
    """Turns of conversions, counted rather than timed."""

    async def turns(self, body: bytes) -> tuple[list[int], list[int], Any]:
        """Return how many bytes each turn fed, what the steps to the result cost in each, and the answer."""
        fed, spent = [0], [0]
        turn, feed, steps = PacedBody._turn, StreamAggregation.feed, StreamAggregation.steps

        def counted_turn(body: PacedBody) -> None:
            fed.append(0)
            spent.append(0)
            turn(body)

        def counted_feed(aggregation: StreamAggregation, piece: bytes) -> Iterable[int]:
            fed[-1] += len(piece)
            return feed(aggregation, piece)

        def counted_steps(aggregation: StreamAggregation) -> Iterator[int]:
            for cost in steps(aggregation):
                spent[-1] += cost
                yield cost

        self.patch(PacedBody, "_turn", counted_turn)
        self.patch(StreamAggregation, "feed", counted_feed)
        self.patch(StreamAggregation, "steps", counted_steps)

        async def script(stream: Stream) -> None:
            await read_request(stream)
            headers = [("Content-Type", "text/event-stream"), ("Content-Encoding", "gzip")]
            respond(stream, 200, gzip.compress(body), headers)

        upstream = await self.upstream(script)
        answer = await self.request(await self.proxy(upstream.url), "POST", CHAT, CHAT_BODY)
        return fed, spent, answer.json()

    async def test_tiny_events(self) -> None:
        """Tiny events in few compressed bytes take many turns, none of which takes many of them."""
        for tiny in (b"data:\n\n", b": 1\n\n", b'data:{"choices":[]}\n\n'):
            body = tiny * (2**20 // len(tiny))
            fed, _, answer = await self.turns(HELLO.removesuffix(DONE) + body + DONE)
            self.assertEqual(answer["choices"][0]["message"]["content"], "Hello")
            self.assertLess(max(fed), 3 * TURN_BYTES)
            self.assertGreater(len(fed), 2**20 // TURN_BYTES // 3)

    async def test_result(self) -> None:
        """A large result is put together over turns, whose steps cost no more than events do."""
        _, spent, answer = await self.turns(chunk({"content": "x" * 2**20}) * 8 + DONE)
        self.assertEqual(len(answer["choices"][0]["message"]["content"]), 2**23)
        self.assertGreater(len([cost for cost in spent if cost]), 8)
        self.assertLess(max(spent), 2 * TURN_BYTES)
