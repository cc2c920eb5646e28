"""The resource where something in it breaks."""

from __future__ import annotations

from typing import Any

from stream_proxy import resource
from stream_proxy.relay import Relay
from tests.support import LoopbackTestCase


class BrokenFlow(Relay):
    """A flow with a bug, which shows once it has begun."""

    def start(self) -> None:
        super().start()
        raise ZeroDivisionError("a bug")


class BugTests(LoopbackTestCase):
    """A bug is answered, logged and over."""

    async def test_flow_that_raises(self) -> None:
        """A bug in a flow that has begun is a 500 with the envelope, and nothing of the flow is left."""
        self.patch_relay(BrokenFlow)
        port = await self.proxy(await self.mock())
        response = await self.request(port, "GET", "/v1/models")
        self.assertEqual(response.status, 500)
        self.assertEqual(response.json()["error"]["type"], "internal_error")

    def patch_relay(self, relay: Any) -> None:
        """Let the resource use `relay`."""
        self.patch(resource, "Relay", relay)
