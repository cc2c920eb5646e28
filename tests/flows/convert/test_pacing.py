"""Bodies that mean more work than one turn of the reactor should take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast
from unittest import TestCase

from twisted.internet.task import Clock
from twisted.python.failure import Failure

from stream_proxy.errors import APIError, upstream_error
from stream_proxy.flows.pacing import TURN_BYTES, PacedBody


class Response:
    """What is paused, and how often it was asked to."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def pause(self) -> None:
        """Stop."""
        self.asked.append("pause")

    def resume(self) -> None:
        """Go on."""
        self.asked.append("resume")


class PacingTests(TestCase):
    """How the steps of the work follow each other. A read is the size of each of its steps, in numbers."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.response = Response()
        self.done: list[int] = []
        self.ends: list[APIError | None] = []
        self.failures: list[Failure] = []
        self.body = PacedBody(
            self.clock, cast(Any, self.response), self.work, self.ends.append, self.failures.append
        )

    def work(self, data: bytes) -> Iterator[int]:
        """Each byte is a step: so many quarters of a turn's work; 0 is a failure, ``s`` stops it all."""
        for byte in data:
            self.done.append(byte)
            if byte == 0:
                raise upstream_error("no")
            if byte == ord("s"):
                self.body.stop()
            yield byte * TURN_BYTES // 4

    def test_little(self) -> None:
        """Little work is done as it comes."""
        for _ in range(3):
            self.body.body_received(b"\1")
        self.body.body_ended(None)
        self.assertEqual((self.done, self.ends), ([1, 1, 1], [None]))
        self.assertEqual((self.response.asked, self.clock.getDelayedCalls()), ([], []))

    def test_much(self) -> None:
        """Much is done a turn's work at a time, while the upstream is paused and others have theirs."""
        self.body.body_received(b"\2" * 7)
        self.assertEqual((self.done, self.response.asked), ([2] * 2, ["pause"]))
        self.clock.advance(0)
        self.assertEqual((self.done, self.response.asked), ([2] * 7, ["pause"] * 3 + ["resume"]))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.body.body_ended(None)
        self.assertEqual(self.ends, [None])

    def test_several_reads(self) -> None:
        """Several reads of one turn share what a turn may take, and are worked on in their order."""
        for _ in range(4):
            self.body.body_received(b"\3")
        error = upstream_error("broken")
        self.body.body_ended(error)
        self.assertEqual((self.done, self.ends), ([3, 3], []))
        self.body.body_received(b"\1")
        self.assertEqual((self.done, self.ends), ([3, 3], []))
        self.clock.advance(0)
        self.assertEqual(
            (self.done, self.ends, self.response.asked), ([3, 3, 3, 3, 1], [error], ["pause"] * 2)
        )

    def test_as_much_as_came(self) -> None:
        """Work on no more than what came never waits: the network paces that."""
        body = PacedBody(
            self.clock,
            cast(Any, self.response),
            lambda data: iter([len(data)]),
            self.ends.append,
            self.failures.append,
        )
        for _ in range(9):
            body.body_received(bytes(TURN_BYTES // 2))
        self.assertEqual((self.response.asked, self.clock.getDelayedCalls()), ([], []))

    def test_stop(self) -> None:
        """Once it is stopped, from outside or inside, nothing more is done."""
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
        """What a step raises is told once, and ends it, in a later turn as well."""
        for before in (b"", b"\4"):
            self.setUp()
            self.body.body_received(before + b"\0\1")
            self.clock.advance(0)
            self.body.body_ended(None)
            self.assertEqual((self.done, self.ends), ([*before, 0], []))
            self.assertEqual([type(failure.value) for failure in self.failures], [APIError])
            self.assertEqual(self.response.asked, ["pause"] * len(before))
