"""Every place at which an answer or a request can be cut off, in every flow."""

from __future__ import annotations

from tests.support.faults import (
    ADAPT_STREAM,
    ANSWER,
    BODY,
    CONVERT,
    FLOWS,
    RELAY,
    FaultTestCase,
    half_close,
    says,
)
from tests.support.loopback import turns
from tests.support.wire import Stream, head

EVENTS = ("Content-Type", "text/event-stream")
ANSWERS = {
    "chunks": ANSWER,
    "a length": head(200, [EVENTS, ("Content-Length", str(len(BODY)))]) + BODY,
    "no framing": head(200, [EVENTS]) + BODY,
}


class HeavyOffsetTests(FaultTestCase):
    """Cut at each byte."""

    timeout = 600

    async def test_answers(self) -> None:
        """The outcome is an error, a broken connection or the whole answer, never a part that looks whole."""
        for framing, answer in ANSWERS.items():
            for flow in FLOWS:
                for way in (Stream.close, half_close, Stream.abort):
                    allowed = {"502 upstream_error", "complete"}
                    if framing == "no framing" and flow is not CONVERT:
                        continue  # an orderly close is the end; plain text may end anywhere
                    if flow is RELAY:
                        allowed.add("broken")
                    if flow is ADAPT_STREAM:
                        allowed.add("error chunk")
                    found = await self.offsets(flow, answer, way)
                    self.assertLessEqual(set(found), allowed, f"{framing}, {flow.name}, {way.__name__}")
                    if way is not Stream.abort:
                        self.assertEqual(found[-1], "complete", f"{framing}, {flow.name}")

    async def test_requests(self) -> None:
        """A client that leaves after any byte of its request has caused nothing that stays."""
        for flow in FLOWS:
            request = flow.request()
            for place in range(len(request)):
                for way in (Stream.close, half_close, Stream.abort):
                    async with self.stage(flow, says(ANSWER)) as stage:
                        assert stage.upstream is not None
                        client = await self.client(stage.port)
                        client.write(request[:place])
                        await turns(place % 3)
                        way(client)
                        await client.gone()
                        self.assertEqual(stage.upstream.connections, [])
