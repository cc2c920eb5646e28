"""An event stream that is not OpenAI's: the same sentences in JSON of a shape of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from stream_proxy.mock.chat import conversation, last_said, prompt_tokens
from stream_proxy.mock.checks import optional
from stream_proxy.mock.control import Control, spoil_stream
from stream_proxy.mock.text import Heard, sentence, tokens
from stream_proxy.mock.wire import ApiError, JSONObject, Reply, decode_object, encode, sse

_PROMPTS = ("prompt", "query", "input")
_JSON, _EVENTS = "application/json", "text/event-stream"


def is_service(path: bytes) -> bool:
    """Whether the service is at `path`: its last component is ``stream``."""
    return path.rstrip(b"/").rpartition(b"/")[2] == b"stream"


def answer(content: BinaryIO, content_type: str, accept: str, control: Control) -> Reply:
    """The stream that answers a request with this body and these two headers, failing as `control` asks.

    :raises ApiError: 415 or 406 for another header, 400 for a body that does not say what to answer.
    """
    if _JSON not in _media_types(content_type):
        raise ApiError(415, f"Send the header Content-Type: {_JSON}.", code="unsupported_media_type")
    if _EVENTS not in _media_types(accept):
        raise ApiError(406, f"Send the header Accept: {_EVENTS}.", code="not_acceptable")
    body = decode_object(content)
    messages = _messages(body)
    text = sentence(optional(body, "model", str) or "mock", Heard(last_said(messages)), control.words)
    event = "error" if control.fail == "error-event" else None
    return spoil_stream(
        control,
        (sse(encode(part)) for part in _parts(text, prompt_tokens(messages))),
        lambda _: sse(encode(_envelope(control.failure())), event),
    )


def refusal(error: ApiError) -> Reply:
    """`error` as a whole answer of the service."""
    return Reply(encode(_envelope(error)), error.status, headers=error.headers)


def _envelope(error: ApiError) -> JSONObject:
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
    raise ApiError(
        400,
        "Send 'messages' (objects with role and content), or a text as 'prompt', 'query' or 'input'.",
        code="missing_input",
    )


def _parts(text: str, asked: int) -> Iterator[JSONObject]:
    pieces = tokens(text)
    for number, piece in enumerate(pieces, 1):
        yield {"seq": number, "data": {"content": piece}, "final": False}
    yield {
        "seq": len(pieces) + 1,
        "data": {"content": ""},
        "final": True,
        "finish": "stop",
        "usage": {"input_tokens": asked, "output_tokens": len(pieces)},
    }
