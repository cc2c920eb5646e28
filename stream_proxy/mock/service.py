"""SSE service with a shape of its own, for the adapter: the same texts in events that are not OpenAI's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from stream_proxy.mock.chat import conversation, last_user_text, prompt_tokens
from stream_proxy.mock.checks import optional
from stream_proxy.mock.control import Control, failing_stream
from stream_proxy.mock.text import Prompt, tokens
from stream_proxy.mock.wire import HTTPResponse, JSONObject, MockError, decode_object, encode, sse

_PROMPTS = ("prompt", "query", "input")
_JSON, _EVENTS = "application/json", "text/event-stream"


def is_service(path: bytes) -> bool:
    """Report whether `path` leads to the service: its last component is ``stream``."""
    return path.rstrip(b"/").rpartition(b"/")[2] == b"stream"


def respond(content: BinaryIO, content_type: str, accept: str, control: Control) -> HTTPResponse:
    """Return the stream for a request with this body and these two headers, failing as `control` asks.

    :raises MockError: 415 or 406 for other headers, 400 for a body without a prompt.
    """
    if _JSON not in _media_types(content_type):
        raise MockError(415, f"Send the header Content-Type: {_JSON}.", code="unsupported_media_type")
    if _EVENTS not in _media_types(accept):
        raise MockError(406, f"Send the header Accept: {_EVENTS}.", code="not_acceptable")
    body = decode_object(content)
    messages = _messages(body)
    prompt = Prompt(last_user_text(messages))
    text = prompt.response(optional(body, "model", str) or "mock", control.words)
    event = "error" if control.fail == "error-event" else None
    return failing_stream(
        control,
        (sse(encode(part)) for part in _parts(text, prompt_tokens(messages))),
        lambda _: sse(encode(_envelope(control.failure())), event),
    )


def error_response(error: MockError) -> HTTPResponse:
    """Return `error` as a response of the service."""
    return HTTPResponse(encode(_envelope(error)), error.status, headers=error.headers)


def _envelope(error: MockError) -> JSONObject:
    return {"error": {"message": error.message, "code": error.code}}


def _media_types(header: str) -> list[str]:
    return [item.partition(";")[0].strip().lower() for item in header.split(",")]


def _messages(body: JSONObject) -> list[JSONObject]:
    if body.get("messages") is not None:
        return conversation(body)
    for name in _PROMPTS:
        prompt = optional(body, name, str)
        if prompt is not None:
            return [{"role": "user", "content": prompt}]
    raise MockError(
        400,
        "Send 'messages' (objects with role and content), or a text as 'prompt', 'query' or 'input'.",
        code="missing_input",
    )


def _parts(text: str, input_tokens: int) -> Iterator[JSONObject]:
    pieces = tokens(text)
    for number, piece in enumerate(pieces, 1):
        yield {"seq": number, "data": {"content": piece}, "final": False}
    yield {
        "seq": len(pieces) + 1,
        "data": {"content": ""},
        "final": True,
        "finish": "stop",
        "usage": {"input_tokens": input_tokens, "output_tokens": len(pieces)},
    }
