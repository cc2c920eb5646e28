"""The real ``openai`` SDK for Python, whose clock cuts a call, and whose retry gets the answer."""

from __future__ import annotations

from typing import Any

import openai
from twisted.internet.defer import Deferred

from stream_proxy import Limits, ProxyResource
from stream_proxy.observe.ledger import Ledger
from tests.support.loopback import LoopbackTestCase, in_thread
from tests.support.payloads import HELLO
from tests.support.resuming import RESUMED
from tests.support.wire import Message, Stream, read_request, respond

EVENTS = ("Content-Type", "text/event-stream")
MESSAGES: Any = [{"role": "user", "content": "hi"}]


class SDKTests(LoopbackTestCase):
    """Tries of one call, which the upstream sees once."""

    async def test_cut(self) -> None:
        """The upstream answers only after the first try was cut: one call, one answer, which a retry gets."""
        requests: list[Message] = []
        ledger, left = Ledger(lambda: 0.0), Deferred[None]()
        ledger.ended_hooks.append(lambda record: None if left.called else left.callback(None))

        async def script(stream: Stream) -> None:
            while True:
                requests.append(await read_request(stream))
                await left
                respond(stream, 200, HELLO, [EVENTS])

        upstream = await self.upstream(script)
        limits = Limits(keep_alive_seconds=0, resume_seconds=60)
        port = await self.proxy(upstream.url, resource=ProxyResource, limits=limits, ledger=ledger)

        def run() -> tuple[str | None, str | None, int]:
            base = f"http://127.0.0.1:{port}/v1"
            with openai.OpenAI(base_url=base, api_key="sk-test", timeout=0.4, max_retries=2) as client:
                raw = client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES)
                content = raw.parse().choices[0].message.content
                return content, raw.headers.get(RESUMED), raw.retries_taken

        content, resumed, retries = await in_thread(run)
        self.assertEqual((content, resumed, len(requests)), ("Hello", "true", 1))
        self.assertGreater(retries, 0)
