"""Chat requests of clients, checked, and OpenAI's errors for those that the adapter cannot serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, invalid_request, proxy_error
from stream_proxy.json_bounds import MAX_DEPTH, check_request
from stream_proxy.lenient_json import JSONObject, decode_json
from stream_proxy.limits import MAX_REQUEST_VALUES


@dataclass(frozen=True)
class ChatRequest:
    """A chat completion request, with the fields that the adapter itself needs."""

    body: JSONObject
    model: str
    stream: bool
    include_usage: bool


def parse_chat(data: bytes, models: Sequence[str], max_values: int = MAX_REQUEST_VALUES) -> ChatRequest:
    """Parse the body of a chat completion request for one of `models`.

    :raises APIError: 400 for a malformed request, 404 for an unknown model, 413 for too many values.
    """
    check_request(data, max_values, most_deep=MAX_DEPTH)
    try:
        body = decode_json(data)
    except ValueError:
        raise invalid_request(
            "We could not parse the JSON body of your request.", ErrorCode.INVALID_JSON
        ) from None
    if not isinstance(body, dict):
        raise invalid_request("The request body must be a JSON object.", ErrorCode.INVALID_JSON)
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise _missing("model", "a string") if model is None else _wrong("model", "a string")
    if model not in models:
        raise unknown_model(model, models)
    messages = body.get("messages")
    if messages is None:
        raise _missing("messages", "an array of messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise _wrong("messages", "an array of objects")
    if not messages:
        raise invalid_request(
            "messages must hold at least one message.", ErrorCode.INVALID_VALUE, param="messages"
        )
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise _wrong("stream", "a boolean")
    number = body.get("n")
    if number is not None and number != 1:
        raise invalid_request("This model gives one choice; leave out n.", ErrorCode.INVALID_VALUE, param="n")
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise _wrong("stream_options", "an object")
    include_usage = options.get("include_usage") is True
    return ChatRequest(body, model, stream is True, include_usage)


def unknown_model(model: str, models: Sequence[str]) -> APIError:
    """Return a 404 for a model that the adapter does not offer."""
    return proxy_error(
        ErrorCode.MODEL_NOT_FOUND,
        f"The model {model[:100]!r} does not exist; there is {', '.join(models[:10])}.",
        param="model",
        for_log="there is no such model",
    )


def unknown_path(method: str, path: str) -> APIError:
    """Return a 404 for a path that the API does not have."""
    return proxy_error(
        ErrorCode.UNKNOWN_URL,
        f"Invalid URL ({method} {path}); the base URL of this server ends with /v1, and it serves "
        "/v1/chat/completions and /v1/models.",
    )


def wrong_method(method: str, path: str, allowed: str) -> APIError:
    """Return a 405 for a path that takes other methods."""
    return proxy_error(ErrorCode.METHOD_NOT_SUPPORTED, f"Not allowed to {method} on {path}; use {allowed}.")


def _missing(param: str, kind: str) -> APIError:
    error = f"Missing required parameter: '{param}', {kind}."
    return invalid_request(error, ErrorCode.MISSING_REQUIRED_PARAMETER, param=param)


def _wrong(param: str, kind: str) -> APIError:
    error = f"Invalid type for '{param}': it must be {kind}."
    return invalid_request(error, ErrorCode.INVALID_TYPE, param=param)
