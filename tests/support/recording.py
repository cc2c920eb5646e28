"""Recording upstream behind a proxy: tests compare what each side sees of the other on the wire."""

from __future__ import annotations

from tests.support.loopback import LoopbackTestCase
from tests.support.wire import Message, Stream, head, read_request

OK = head(200, [("Content-Length", "2")]) + b"ok"


class Recorder:
    """A keep-alive upstream that gives every request the same response and records the requests."""

    def __init__(self, response: bytes = OK) -> None:
        self.response = response
        self.requests: list[Message] = []

    async def __call__(self, stream: Stream) -> None:
        while True:
            self.requests.append(await read_request(stream))
            stream.write(self.response)

    @property
    def last(self) -> Message:
        """The latest request."""
        return self.requests[-1]


class RelayTestCase(LoopbackTestCase):
    """A proxy in front of a recording upstream."""

    async def between(self, response: bytes = OK, prefix: str = "", **kwargs: object) -> tuple[Recorder, int]:
        """Start both; return the upstream and the proxy's port. `kwargs` go to ProxyResource."""
        recorder = Recorder(response)
        self.server = await self.upstream(recorder)
        return recorder, await self.proxy(self.server.url + prefix, **kwargs)

    async def response_to(self, response: bytes, method: str = "GET", close: bool = False) -> Message:
        """Return what a client receives when the upstream sends `response` (and closes)."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(response)
            if close:
                stream.close()

        upstream = await self.upstream(script)
        return await self.request(await self.proxy(upstream.url), method, "/v1/models")
