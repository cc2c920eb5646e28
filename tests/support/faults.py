"""Faults of upstreams and clients: the four flows that meet them, and the outcome in each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stream_proxy import ProxyResource
from stream_proxy.adapter.resource import AdapterResource
from tests.support.loopback import Script
from tests.support.payloads import CHAT
from tests.support.strict import read_responses
from tests.support.wire import Stream, event_stream_head, read_request

MODEL = "gpt-3.5-turbo"


FIRST = b'data: {"choices": [{"index": 0, "delta": {"content": "Hel"}}]}\n\n'


REST = b'data: {"choices": [{"index": 0, "delta": {"content": "lo"}, "finish_reason": "stop"}]}\n\n'


DONE = b"data: [DONE]\n\n"


#: The body of a good response.
BODY = FIRST + REST + DONE


HEAD = event_stream_head()


def chunked(*pieces: bytes) -> bytes:
    """Return chunks of a body, without the last one."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def text_chunk(text: bytes, finish: bytes = b"null") -> bytes:
    """Return an event with this text in a JSON string."""
    return b'data: {"choices": [{"index": 0, "delta": {"content": "%b"}, "finish_reason": %b}]}\n\n' % (
        text,
        finish,
    )


#: A good response.
RESPONSE = HEAD + chunked(FIRST, REST, DONE) + b"0\r\n\r\n"


#: The beginning of one, with some of the text.
BEGUN = HEAD + chunked(FIRST)


@dataclass(frozen=True)
class Flow:
    """One way through the proxy: the resource that takes the request, and the mode that the body asks for."""

    name: str
    resource: Callable[..., Any]
    stream: bool

    def body(self, padding: int = 0) -> bytes:
        """Return the body of a request."""
        messages = [{"role": "user", "content": "x" * padding}]
        return json.dumps({"model": MODEL, "stream": self.stream, "messages": messages}).encode()

    def request(self, padding: int = 0, close: bool = True) -> bytes:
        """Return a whole request; with `close` the connection ends after the response."""
        body = self.body(padding)
        return self.head(len(body), close=close) + body

    def head(self, length: int, close: bool = True) -> bytes:
        """Return the head of a request."""
        fields = ["Host: x", "Content-Type: application/json", f"Content-Length: {length}"]
        if close:
            fields.append("Connection: close")
        return "\r\n".join([f"POST {CHAT} HTTP/1.1", *fields, "", ""]).encode()

    def outcome(self, data: bytes) -> str:
        """Classify what a client received until its connection ended.

        The result is ``complete``, ``broken``, ``error chunk``, ``nothing``, an error's status and type, or a
        description.
        """
        if not data:
            return "nothing"
        responses = read_responses(data, closed=True)
        if len(responses) != 1:
            return f"{len(responses)} responses"
        [response] = responses
        if not response.complete:
            return "broken" if response.status == 200 else f"broken {response.status}"
        if response.status != 200:
            error = json.loads(response.body)["error"]
            return f"{response.status} {error['type']}"
        return self._meaning(response.body)

    def _meaning(self, body: bytes) -> str:
        if self.resource is ProxyResource and self.stream:
            text = body.decode("latin-1")
            return "complete" if body == BODY else f"a body of its own: {text!r}"
        if not self.stream:
            text = json.loads(body)["choices"][0]["message"]["content"]
            return "complete" if text == "Hello" else f"another text: {text!r}"
        chunks = [block.removeprefix(b"data: ") for block in body.split(b"\n\n")[:-1]]
        if b'"error"' in chunks[-1]:
            return "error chunk"
        text = "".join(
            choice["delta"].get("content") or ""
            for chunk in chunks[:-1]
            for choice in json.loads(chunk)["choices"]
        )
        return "complete" if text == "Hello" and chunks[-1] == b"[DONE]" else f"another text: {text!r}"


CONVERT = Flow("convert", ProxyResource, stream=False)


RELAY = Flow("relay", ProxyResource, stream=True)


ADAPT = Flow("adapter", AdapterResource, stream=False)


ADAPT_STREAM = Flow("adapter's stream", AdapterResource, stream=True)


FLOWS = (CONVERT, RELAY, ADAPT, ADAPT_STREAM)


#: The outcome of a fault in each flow, in the order of `FLOWS`; ``|`` separates those that timing decides
#: between.
Outcomes = tuple[str, str, str, str]


E502, E504 = "502 upstream_error", "504 upstream_timeout"


NO_RESPONSE: Outcomes = (E502, E502, E502, E502)


TIMED_OUT: Outcomes = (E504, E504, E504, E504)


#: For a fault after the head, before any text.
CUT_AT_ONCE: Outcomes = (E502, "broken", E502, E502)


SILENT_AT_ONCE: Outcomes = (E504, "broken", E504, E504)


#: For a fault after some text.
CUT: Outcomes = (E502, "broken", E502, "error chunk")


SILENT: Outcomes = (E504, "broken", E504, "error chunk")


#: A reset may destroy bytes that were sent before it.
RESET: Outcomes = (E502, f"broken|{E502}", E502, f"error chunk|{E502}")


COMPLETE: Outcomes = ("complete", "complete", "complete", "complete")


@dataclass(frozen=True)
class Fault:
    """An upstream's script, and the outcomes that it leads to."""

    name: str
    script: Script
    outcomes: Outcomes


def sends(data: bytes, end: Callable[[Stream], object] = Stream.close, reading: bool = True) -> Script:
    """Return an upstream that reads a request, sends these bytes and ends the connection.

    :param reading: whether it reads the request first.
    """

    async def script(stream: Stream) -> None:
        if reading:
            await read_request(stream)
        if data:
            stream.write(data)
        end(stream)
        await stream.rest()

    return script


def half_close(stream: Stream) -> None:
    """Shut down the sending side."""
    stream.transport.loseWriteConnection()


def stay(stream: Stream) -> None:
    """Leave the connection open."""
