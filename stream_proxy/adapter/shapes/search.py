"""A search for the text of a payload: by the table of vendors, else in the fields where services put it."""

from __future__ import annotations

from stream_proxy.adapter.shapes.extracted import Extracted
from stream_proxy.adapter.shapes.fields import MAX_DEPTH, embedded_json, message_of, text_of
from stream_proxy.adapter.shapes.signals import has_signal, is_error_envelope, objects_in, stated_error
from stream_proxy.adapter.shapes.vendors import VENDORS
from stream_proxy.lenient_json import JSON, JSONObject

# Fields that hold the text itself, those first that are surest.
_TEXTS = ("delta", "content", "text", "answer", "output_text", "token", "response", "generated_text", "reply")
# Fields in which the text is nested. A string here is JSON if it parses as such, else the text.
_CONTAINERS = (
    "data",
    "message",
    "delta",
    "output",
    "result",
    "response",
    "payload",
    "content",
    "token",
    "body",
)
# Roles that a response has. A payload may also repeat messages of others.
_RESPONSE_ROLES = frozenset({"", "assistant", "ai", "model", "bot"})
_EXTRACT = [vendor.extract for vendor in VENDORS if vendor.extract]


def extract(payload: JSON, depth: int = 0) -> Extracted:
    """Return the text, reasoning and tool calls in a payload of any known or common shape."""
    if depth > MAX_DEPTH:
        return Extracted()
    if isinstance(payload, str):
        return _extract_string(payload, depth)
    if isinstance(payload, list):
        return _extract_all(payload, depth)
    if not isinstance(payload, dict) or str(payload.get("role") or "").lower() not in _RESPONSE_ROLES:
        return Extracted()
    for known in _EXTRACT:
        if (found := known(payload)) is not None:
            return found
    return _search(payload, depth)


def is_about_response(payload: JSON) -> bool:
    """Report whether a payload is an object of a stream, rather than a text that happens to be JSON."""
    return isinstance(payload, dict) and (extract(payload).found or has_signal(payload))


def error_of(payload: JSON) -> JSON:
    """Return the error that a payload reports; one that is a list does so with one of its objects."""
    for each in objects_in(payload):
        if (error := stated_error(each)) is not None:
            return error
        if is_error_envelope(each):
            rest = {key: value for key, value in each.items() if key != "message"}
            if not extract(rest).text:
                return each
    return None


def _extract_string(text: str, depth: int) -> Extracted:
    """Return what the JSON in a string holds; the string itself is the text if that is about no response."""
    inner = embedded_json(text)
    if inner is None:
        return Extracted(text)
    found = extract(inner, depth + 1)
    return found if found.found or has_signal(inner) else Extracted(text)


def _extract_all(items: list[JSON], depth: int) -> Extracted:
    whole = Extracted()
    for item in items:
        whole.add(extract(item, depth + 1))
    return whole


def _search(payload: JSONObject, depth: int) -> Extracted:
    text = next((text for key in _TEXTS if (text := text_of(payload.get(key))) is not None), None)
    found = message_of(payload, text)
    if text is not None:
        return found
    if isinstance(messages := payload.get("messages"), list):
        found.add(_extract_all(messages, depth))
        return found
    for key in _CONTAINERS:
        value = payload.get(key)
        if key == "message" and isinstance(value, str) and payload.keys() & {"code", "status", "event"}:
            continue  # words about the payload, such as "success"
        if isinstance(value, str | dict | list) and value and (inner := extract(value, depth + 1)).found:
            found.add(inner)
            break
    return found
