"""A search for the text of a payload: by the table of vendors, else in the fields where services put it."""

from __future__ import annotations

from stream_proxy.adapter.shapes.extracted import Extracted, joined
from stream_proxy.adapter.shapes.fields import (
    MAX_DEPTH,
    embedded_json,
    is_of_others,
    message_of,
    text_of,
)
from stream_proxy.adapter.shapes.kinds import UNNAMED, Kind, kind_of_event, kind_of_payload
from stream_proxy.adapter.shapes.signals import has_signal, is_error_envelope, objects_in, stated_error
from stream_proxy.adapter.shapes.vendors import VENDORS
from stream_proxy.lenient_json import JSON, JSONObject

# Fields that hold the text itself, those first that are surest.
_TEXTS = (
    "delta",
    "content",
    "text",
    "answer",
    "output_text",
    "token",
    "chunk",
    "response",
    "generated_text",
    "reply",
)
# Fields in which the text is nested. A string here is JSON if it parses as such, else the text.
_CONTAINERS = (
    "data",
    "message",
    "delta",
    "chunk",
    "output",
    "result",
    "response",
    "payload",
    "content",
    "token",
    "body",
)
# Fields beside which a message is words about the payload, such as "success".
_STATES = frozenset({"code", "event", "progress", "stage", "state", "status", "step", "success"})
_MARK = "[DONE]"
_EXTRACT = [vendor.extract for vendor in VENDORS if vendor.extract]
_BY_EVENT = [vendor.by_event for vendor in VENDORS if vendor.by_event]


def extract(
    payload: JSON, event: str = UNNAMED, *, trusted: bool = False, strings_are_text: bool = False
) -> Extracted:
    """Return the text, reasoning and tool calls in a payload of a known shape under a known name.

    :param event: the name of the event that carried it.
    :param trusted: the name stands for text, known or not.
    :param strings_are_text: strings are not searched for JSON in them, since the stream's strings are text.
    """
    for row in _BY_EVENT:
        if (found := row(event, payload)) is not None:
            return found
    kind = kind_of_event(event, payload)
    if kind.is_silent and not trusted:
        return Extracted()
    found = _extract(payload, 0, strings_are_text)
    return _as_reasoning(found) if kind is Kind.REASONING else found


def is_about_response(payload: JSON, *, strings_are_text: bool = False) -> bool:
    """Report whether a payload is an object of a stream, rather than a text that happens to be JSON."""
    if not isinstance(payload, dict):
        return False
    found = extract(payload, strings_are_text=strings_are_text).found
    return found or has_signal(payload, in_strings=not strings_are_text)


def error_of(payload: JSON, event: str = UNNAMED, *, strings_are_text: bool = False) -> JSON:
    """Return the error that a payload reports; one that is a list does so with one of its objects."""
    if kind_of_event(event, payload) is Kind.STEP:
        return None
    for each in objects_in(payload):
        if (kind := kind_of_payload(each)) is Kind.STEP:
            continue
        if (error := stated_error(each, kind)) is not None:
            return error
        if is_error_envelope(each):
            rest = {key: value for key, value in each.items() if key != "message"}
            if not extract(rest, strings_are_text=strings_are_text).text:
                return each
    return None


def _extract(payload: JSON, depth: int, strings_are_text: bool) -> Extracted:
    if depth > MAX_DEPTH:
        return Extracted()
    if isinstance(payload, str):
        return _extract_string(payload, depth, strings_are_text)
    if isinstance(payload, list):
        return _extract_all(payload, depth, strings_are_text)
    if not isinstance(payload, dict) or is_of_others(payload):
        return Extracted()
    for known in _EXTRACT:
        if (found := known(payload)) is not None:
            return found
    kind = kind_of_payload(payload)
    if kind.is_silent or kind is Kind.ERROR:
        return Extracted()
    found = _search(payload, depth, strings_are_text)
    return _as_reasoning(found) if kind is Kind.REASONING else found


def _extract_string(text: str, depth: int, strings_are_text: bool) -> Extracted:
    """Return what the JSON in a string holds; the string itself is the text if that is about no response."""
    if text.strip() == _MARK:
        return Extracted()
    inner = None if strings_are_text else embedded_json(text)
    if inner is not None:
        found = _extract(inner, depth + 1, strings_are_text)
        if found.found or has_signal(inner, surely=True):
            found.nested = True
            return found
    return Extracted(text, bare=True)


def _extract_all(items: list[JSON], depth: int, strings_are_text: bool) -> Extracted:
    """Return what a list holds; of a conversation, what comes after the user's last message."""
    last = 0
    for position, item in enumerate(items):
        if isinstance(item, dict) and is_of_others(item, users=True):
            last = position
    return joined([_extract(item, depth + 1, strings_are_text) for item in items[last:]])


def _search(payload: JSONObject, depth: int, strings_are_text: bool) -> Extracted:
    text = next((text for key in _TEXTS if (text := text_of(payload.get(key))) is not None), None)
    if text is not None and text.strip() == _MARK:
        text = None
    found = message_of(payload, text)
    if text is not None:
        return found
    if isinstance(messages := payload.get("messages"), list):
        return joined([found, _extract_all(messages, depth, strings_are_text)])
    for key in _CONTAINERS:
        value = payload.get(key)
        if key == "message" and isinstance(value, str) and payload.keys() & _STATES:
            continue
        if not isinstance(value, str | dict | list) or not value:
            continue
        inner = _extract(value, depth + 1, strings_are_text)
        if inner.found:
            if not found.found:
                return inner
            return joined([found, inner])
    return found


def _as_reasoning(found: Extracted) -> Extracted:
    if found.text is None:
        return found
    return joined([Extracted(reasoning=found.text), Extracted(reasoning=found.reasoning)])
