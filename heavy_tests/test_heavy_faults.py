"""Responses and requests cut off at every byte, in every flow."""

from __future__ import annotations

from tests.support.faults import ADAPT_STREAM, BODY, CONVERT, FLOWS, RELAY, RESPONSE, half_close, sends
from tests.support.loopback import turns
from tests.support.stage import FaultTestCase
from tests.support.wire import Stream, head

EVENTS = ("Content-Type", "text/event-stream")
RESPONSES = {
    "chunks": RESPONSE,
    "a length": head(200, [EVENTS, ("Content-Length", str(len(BODY)))]) + BODY,
    "no framing": head(200, [EVENTS]) + BODY,
}


class HeavyOffsetTests(FaultTestCase):
    """Responses and requests cut off at every byte."""

    timeout = 600

    async def test_responses(self) -> None:
        """The outcome is an error, a broken connection or the whole response, never an undetected part."""
        for framing, response in RESPONSES.items():
            for flow in FLOWS:
                for way in (Stream.close, half_close, Stream.abort):
                    allowed = {"502 upstream_error", "complete"}
                    if framing == "no framing" and flow is not CONVERT:
                        continue  # an orderly close ends the body, and plain text may end anywhere
                    if flow is RELAY:
                        allowed.add("broken")
                    if flow is ADAPT_STREAM:
                        allowed.add("error chunk")
                    found = await self.offsets(flow, response, way)
                    self.assertLessEqual(set(found), allowed, f"{framing}, {flow.name}, {way.__name__}")
                    if way is not Stream.abort:
                        self.assertEqual(found[-1], "complete", f"{framing}, {flow.name}")

    async def test_requests(self) -> None:
        """A client that leaves after any byte of its request leaves nothing behind."""
        for flow in FLOWS:
            request = flow.request()
            for place in range(len(request)):
                for way in (Stream.close, half_close, Stream.abort):
                    async with self.stage(flow, sends(RESPONSE)) as stage:
                        assert stage.upstream is not None
                        client = await self.client(stage.port)
                        client.write(request[:place])
                        await turns(place % 3)
                        way(client)
                        await client.gone()
                        self.assertEqual(stage.upstream.connections, [])
