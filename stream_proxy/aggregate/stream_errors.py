"""Errors inside event streams: where they are, and the errors that the client gets for them.

Providers report them as OpenAI's error object, as an object of their own in place of a chunk, as a string, or
on a line that is no field of an event stream. Nothing that an upstream may send raises here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Literal

from stream_proxy.aggregate.reported_error import (
    ReportedError,
    as_json,
    further_fields,
    http_status,
    shortened,
    status_of,
    type_of,
)
from stream_proxy.lenient_json import decode_json, is_integer

# Gateways wrap one error envelope into another; the bound stops at absurd nesting.
_MAX_NESTING = 4
_UPSTREAM_SAID = "the upstream reported an error in its stream"
_INT64 = 2**63
# A line that may be an error, and how many of these are looked at.
_STRAY_LINE = re.compile(rb"^[ \t]*(?:[\[{]|error:).*", re.IGNORECASE | re.MULTILINE)
_MAX_LINES = 16
_MESSAGE_KEYS = ("message", "detail", "details", "msg", "error_message", "reason", "status_msg")
# Those that make an object in place of a chunk an error.
_FLAT_KEYS = ("message", "detail", "details", "msg", "reason")
_STATUS_KEYS = ("code", "status", "status_code", "http_status_code")
#: Keys of which an object has at least one if it reports an error.
ERROR_KEYS = frozenset({"base_resp", "error", "errors", "object", *_FLAT_KEYS, *_STATUS_KEYS})
_EVENT_KEYS = frozenset({"choices", "error", "object", "sequence_number"})
_SUCCESS = (0, 200, "0", "200", "ok", "success")
_PINGS = frozenset({"ping", "keepalive", "keep-alive", "keep_alive", "heartbeat"})
_CHUNK_KEYS = frozenset(
    {"choices", "created", "error", "id", "model", "object", "service_tier", "system_fingerprint", "usage"}
)
# An event whose name is not "message" counts as a chunk only if it has one of these.
_TELLING_KEYS = frozenset({"choices", "error", "usage"})
_NOTHING: Mapping[str, object] = {}

_Layers = Sequence[Mapping[str, object]]


def chat_stream_error(error: object, *, status: int | None = None) -> ReportedError:
    """Return the error that `error` reports: an error object, a vendor's variation of one, or a string.

    It may be in an envelope, or in a chunk, whose ``status_code`` and the like count as well.

    :param status: the status, if it is known; else it is the one that the error tells, or 502.
    """
    layers = _layers(error)
    return _reported(layers, status or status_of(layers) or 502)


def response_error(
    error: object, *, event: Literal["failed", "error"], beside: Mapping[str, object] = _NOTHING
) -> ReportedError | None:
    """Return the error of a Responses stream, or ``None`` if the client gets a 200 with the Response.

    :param error: for ``"failed"`` the Response's ``error``; for ``"error"`` the event's JSON, flat
        (``{"type": "error", "code", "message", "param"}``) or nested (``{"type": "error", "error": {…}}``).
    :param event: ``response.failed``, which without a code or a telling type is a result, or ``error``,
        which never is.
    :param beside: the members of the event around a failed Response.
    """
    if event == "failed" and not isinstance(error, dict):
        return None
    layers = [*_layers(error), beside]
    status = status_of(layers)
    if status is None and _code(layers) is not None:
        status = 400
    if status is None and event == "failed":
        return None
    return _reported(layers, status or 502)


def error_in(value: object) -> ReportedError | None:
    """Return the error that is reported by a chunk, by what came in place of one, or by an array of one.

    Some servers send an empty ``error`` with every chunk, which says nothing.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        return None
    error = value.get("error")
    if error or isinstance(error, dict):
        return chat_stream_error(value)
    groq = value.get("x_groq")
    if isinstance(groq, dict) and groq.get("error"):  # why Groq stopped a stream early
        return chat_stream_error(groq["error"])
    if value.get("choices"):
        return None
    return chat_stream_error(value) if _is_flat_error(value) else None


def is_ping(chunk: Mapping[str, object], event: str) -> bool:
    """Report whether a chat stream's object is no chunk, as relays send them to keep connections alive."""
    if event != "message":  # news of a kind of its own, unless it has the status of an error
        telling = _is_flat_error(chunk) and status_of([chunk]) is not None
        return chunk.keys().isdisjoint(_TELLING_KEYS) and not telling
    keys = _TELLING_KEYS if _is_ping_type(chunk.get("type")) else _CHUNK_KEYS
    return chunk.keys().isdisjoint(keys) and not _is_flat_error(chunk)


def names_error(event: str) -> bool:
    """Report whether an event's name says that it is an error: ``error``, ``stream_error``, ``exception``."""
    return event == "error" or "error" in event.lower() or "exception" in event.lower()


def find_error(stray: bytes) -> bytes | None:
    """Return the error among the lines of an event stream that are no fields, or ``None``.

    llama.cpp wrote ``error: {…}`` until 2025; others end a stream with a bare JSON error.
    """
    if not stray.isascii():
        stray = stray.decode("utf-8", "replace").encode()
    lines = islice(_STRAY_LINE.finditer(stray), _MAX_LINES)
    for text in dict.fromkeys([stray, *(line[0] for line in lines)]):
        text = text.strip()
        labelled = text[:6].lower() == b"error:"
        if labelled:
            text = text[6:].strip()
        elif not text.startswith((b"{", b"[")):
            continue
        try:
            value = decode_json(text)
        except ValueError:
            value = None
            if labelled and text and b"\n" not in text:
                return text
        if value is not None and (labelled or error_in(value) is not None):
            return text
    return None


def _is_flat_error(value: Mapping[str, object]) -> bool:
    """Report whether an object in place of a chunk, one without an ``error``, is an error itself."""
    choices = value.get("choices")
    if not choices and _failed_base(value) is not None:
        return True
    if choices is not None:
        return False
    kind = value.get("object")
    if kind == "error" or value.get("type") == "error":  # the former in vLLM's
        return True
    if kind == "chat.completion.chunk" or value.get("usage") or _is_ping_type(value.get("type")):
        return False
    if any(http_status(value.get(key)) is not None for key in _STATUS_KEYS):
        return True
    if value.get("code") in _SUCCESS:  # {"code": 200, "msg": "success"} precedes some streams
        return False
    return any(_is_told(value.get(key)) for key in _FLAT_KEYS) or bool(value.get("errors"))


def _is_ping_type(kind: object) -> bool:
    return isinstance(kind, str) and kind.lower() in _PINGS


def _is_told(value: object) -> bool:
    if isinstance(value, dict):
        return bool(value) and "role" not in value  # Ollama's own chunks have a message with a role
    return bool(value) and isinstance(value, str | list)


def _failed_base(value: Mapping[str, object]) -> Mapping[str, object] | None:
    """Return MiniMax's error, which is in every chunk, with the code 0 as long as nothing failed."""
    base = value.get("base_resp")
    if isinstance(base, dict) and base.get("status_code") not in (None, 0, "0", ""):
        return {"code": base["status_code"], "message": base.get("status_msg")}
    return None


def _layers(value: object) -> list[Mapping[str, object]]:
    """Return the error object and the objects around it, from the inside out; a bare string is a message."""
    layers: list[Mapping[str, object]] = []
    while len(layers) < _MAX_NESTING:
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if not isinstance(value, dict):
            layers.append({"message": value})
            break
        layers.append(value)
        value = _inner(value)
        if value is None:
            break
    layers.reverse()
    return layers


def _inner(layer: Mapping[str, object]) -> object:
    """Return the error that an object is the envelope of, or ``None`` if it is the error itself."""
    error = layer.get("error")
    if error and isinstance(error, dict | list):
        return error
    told = _own_message(layer) is not None
    if isinstance(error, str) and error.strip():
        # NestJS writes {"error": "Bad Request", "message": "…", "statusCode": 400}.
        return None if told else error
    base = _failed_base(layer)
    if base is not None:
        return base
    if told:
        return None
    errors = layer.get("errors")
    if isinstance(errors, list) and errors:
        return errors[0]
    for inner in (errors, layer.get("detail"), layer.get("details")):
        if inner and isinstance(inner, dict):
            return inner
    return error if error and not isinstance(error, bool) else None


def _reported(layers: _Layers, status: int) -> ReportedError:
    """Return the error with a status, and with what the error object and the objects around it say."""
    type, code = type_of(layers, status), _code(layers)
    told = next(filter(None, map(_message, layers)), None)
    if told is None:
        details = f"type {type}" if code is None else f"type {type}, code {code}"
        told = "", f"The upstream reported an error in its stream and gave no message ({details})."
    key, message = told
    return ReportedError(
        status,
        shortened(message),
        type,
        param=next((shortened(text) for layer in layers if (text := _text(layer.get("param")))), None),
        code=code,
        for_log=_UPSTREAM_SAID,
        details=further_fields(dict(_further(layers, key, status))),
    )


def _further(layers: _Layers, message_key: str, status: int) -> Iterator[tuple[str, object]]:
    """Yield the fields of the error object, but for what is its message, or its event's where it is flat."""
    for key, value in layers[0].items():
        flat = len(layers) == 1 and (value == "error" or http_status(value) == status)
        if key not in _EVENT_KEYS and not flat and not (key == message_key and isinstance(value, str)):
            yield key, value


def _message(layer: Mapping[str, object]) -> tuple[str, str] | None:
    """Return the message of a layer, after the key that has it."""
    return _own_message(layer) or next(
        ((key, text) for key in _MESSAGE_KEYS if (text := _as_text(layer.get(key)))), None
    )


def _own_message(layer: Mapping[str, object]) -> tuple[str, str] | None:
    return next(((key, text) for key in _MESSAGE_KEYS if (text := _text(layer.get(key)))), None)


def _as_text(value: object) -> str | None:
    if value in (None, "", True, False, [], {}) or isinstance(value, str):
        return None
    return as_json(value)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _code(layers: _Layers) -> str | int | None:
    """Return the code of an error. Most clients could not read an integer beyond 64 bits."""
    for layer in layers:
        value = layer.get("code")
        if is_integer(value) and -_INT64 <= value < _INT64:
            return value
        if isinstance(value, str) and value.strip():
            return shortened(value)
    return None
