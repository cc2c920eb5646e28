"""Traffic of all kinds: requests to a proxy in front of the mock, and what their clients saw of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import cycle, islice

from twisted.internet.defer import Deferred, gatherResults

from tests.support.loopback import LoopbackTestCase
from tests.support.payloads import CHAT, CHAT_BODY, RESPONSES, RESPONSES_BODY
from tests.support.wire import JSON, Stream, read_head, read_response, send_request

#: A client's request; what it returns is the code that the proxy should have counted.
Act = Callable[[Stream], Awaitable[str]]

_STREAM = {**CHAT_BODY, "stream": True}
#: WebSocket frames of the client: the text `hi`, and a close frame with code 1000. The mask is 0.
_HI, _CLOSE = b"\x81\x82\0\0\0\0hi", b"\x88\x82\0\0\0\0\x03\xe8"


def _asks(method: str, target: str, body: object = None, **controls: object) -> Act:
    """Return a request that is answered; the keywords are headers that the mock obeys."""
    fields = [(f"X-Mock-{name}", str(value)) for name, value in controls.items()]

    async def act(stream: Stream) -> str:
        send_request(stream, method, target, body, fields)
        return str((await read_response(stream, method)).status)

    return act


async def _leaves_at_once(stream: Stream) -> str:
    """Leave before the upstream responds, but not before the proxy has taken the request."""
    body = json.dumps(CHAT_BODY).encode()
    length = ("Content-Length", str(len(body)))
    send_request(
        stream, "POST", CHAT, None, [JSON, length, ("Expect", "100-continue"), ("X-Mock-Delay", "30")]
    )
    await read_head(stream)
    stream.write(body[:10])
    stream.abort()
    return "499"


async def _leaves_a_stream(stream: Stream) -> str:
    """Leave in the middle of a stream that is relayed."""
    send_request(stream, "POST", CHAT, _STREAM, [("X-Mock-Words", "50"), ("X-Mock-Pace", "0.5")])
    await stream.until(b"data: ")
    stream.abort()
    return "499"


async def _talks(stream: Stream) -> str:
    """Open a WebSocket, and close it after an echo."""
    fields = (
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    )
    send_request(stream, "GET", "/v1/echo", None, fields)
    status = (await read_head(stream)).status
    stream.write(_HI)
    await stream.until(b"hi")
    stream.write(_CLOSE)
    await stream.gone()
    return str(status)


#: Every way in which a request ends.
ACTS: tuple[Act, ...] = (
    _asks("POST", CHAT, CHAT_BODY, Words=3),
    _asks("POST", RESPONSES, RESPONSES_BODY, Words=3),
    _asks("POST", CHAT, _STREAM, Words=3),
    _asks("GET", "/v1/models"),
    _asks("HEAD", "/v1/models"),
    _asks("POST", CHAT, b"{no json"),
    _asks("POST", CHAT, CHAT_BODY, Status=429),
    _asks("POST", CHAT, CHAT_BODY, Status=503),
    _asks("POST", CHAT, CHAT_BODY, Fail="error-chunk", Code="rate_limit_exceeded"),
    _asks("POST", CHAT, CHAT_BODY, Fail="break"),
    _asks("POST", CHAT, _STREAM, Fail="break", Words=3),
    _asks("POST", CHAT, CHAT_BODY, Fail="not-json"),
    _asks("POST", CHAT, CHAT_BODY, Refuse="stream_options", Words=3),
    _leaves_at_once,
    _leaves_a_stream,
    _talks,
)


class Traffic:
    """Requests to a port, each on a connection of its own.

    :param case: opens the connections.
    """

    def __init__(self, case: LoopbackTestCase, port: int) -> None:
        self._case = case
        self._port = port
        #: How many requests ended with each code.
        self.seen: Counter[str] = Counter()

    async def run(self, count: int, at_once: int = 8) -> None:
        """Make so many requests, of all kinds in turn."""
        acts = islice(cycle(ACTS), count)

        async def client() -> None:
            for act in acts:
                self.seen[await self._one(act)] += 1

        await gatherResults([Deferred.fromCoroutine(client()) for _ in range(at_once)])

    async def _one(self, act: Act) -> str:
        stream = await self._case.client(self._port)
        code = await act(stream)
        stream.abort()
        await stream.gone()
        return code
