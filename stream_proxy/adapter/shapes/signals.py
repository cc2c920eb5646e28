"""Facts about the whole response that a payload gives away: its end, finish reason, usage and error."""

from __future__ import annotations

from collections.abc import Iterator

from stream_proxy.adapter.shapes.fields import (
    MAX_DEPTH,
    embedded_json,
    first_object,
    first_string,
    has_remark,
    is_error_code,
    is_success_word,
    with_message,
)
from stream_proxy.adapter.shapes.finishes import is_finish
from stream_proxy.adapter.shapes.kinds import TAGS, Kind, is_delta_name, kind_of_payload
from stream_proxy.adapter.shapes.usage import openai_usage
from stream_proxy.adapter.shapes.vendors import VENDORS
from stream_proxy.lenient_json import JSON, JSONObject, is_integer

_FINISH_FIELDS = ("finish_reason", "finishReason", "stop_reason", "stopReason", "done_reason", "finish")
_USAGES = ("usage", "usageMetadata", "usage_metadata", "metrics")
_ENVELOPES = ("delta", "data", "message", "output", "result", "response", "details")
# Envelopes that may be JSON in a string; a string in the others is text, whatever it looks like.
_STRINGS = ("data", "message", "output", "result")
# Fields of services whose texts are pieces, even where one begins with all before it.
_OF_PIECES = frozenset({"choices", "candidates", "delta", "token", "chunk", "done", "stop"})

# The table by columns: each payload is asked about several.
_ANNOUNCES_END = [vendor.announces_end for vendor in VENDORS if vendor.announces_end]
_ENDS = [vendor.ends for vendor in VENDORS if vendor.ends]
_IS_DELTA = [vendor.is_delta for vendor in VENDORS if vendor.is_delta]
_REPLACEMENT = [vendor.replacement for vendor in VENDORS if vendor.replacement]
_FINISH = [vendor.finish for vendor in VENDORS if vendor.finish]
_USAGE = [vendor.usage for vendor in VENDORS if vendor.usage]
_ERROR = [vendor.error for vendor in VENDORS if vendor.error]


def announces_end(payload: JSON) -> bool:
    """Report whether streams with such a payload mark their end."""
    if not isinstance(payload, dict):
        return False
    return next((told for known in _ANNOUNCES_END if (told := known(payload)) is not None), False)


def ends(payload: JSON) -> bool:
    """Report whether a payload says that it is the last."""
    return isinstance(payload, dict) and any(known(payload) for known in _ENDS)


def replacement_of(payload: JSON) -> str | None:
    """Return the text with which a payload replaces all before it."""
    if not isinstance(payload, dict):
        return None
    return next((text for known in _REPLACEMENT if (text := known(payload)) is not None), None)


def may_grow(payload: JSON, event: str) -> bool:
    """Report whether the text of a payload may be the whole text so far; that of most services is new."""
    if is_delta_name(event):
        return False
    if not isinstance(payload, dict):
        return True
    tags = (payload.get(key) for key in TAGS)
    if payload.keys() & _OF_PIECES or any(isinstance(tag, str) and is_delta_name(tag) for tag in tags):
        return False
    return not any(known(payload) for known in _IS_DELTA)


def may_repeat(payload: JSON, *, in_strings: bool = True) -> bool:
    """Report whether the text of a payload may be the whole text, which came in pieces before.

    :param in_strings: search for JSON in strings too.
    """
    if not isinstance(payload, dict) or any(known(payload) for known in _IS_DELTA):
        return False
    if payload.get("final") is True or payload.get("object") == "chat.completion":
        return True
    return ends(payload) or bool(finish_of(payload, in_strings=in_strings))


def finish_of(payload: JSON, *, in_strings: bool = True) -> JSON:
    """Return the reason why the response ended, in the service's own word.

    :param in_strings: search for JSON in strings too.
    """
    for part in _parts(payload, in_strings):
        for key in _FINISH_FIELDS:
            if isinstance(reason := part.get(key), str) and reason:
                return reason
        for known in _FINISH:
            if reason := known(part):
                return reason
    return None


def usage_of(payload: JSON, *, in_strings: bool = True) -> JSONObject | None:
    """Return the token counts, under the service's own names.

    :param in_strings: search for JSON in strings too.
    """
    parts = list(_parts(payload, in_strings))
    found: JSONObject = {}
    nested = (part[key] for key in ("metadata", "meta") for part in parts if key in part)
    for part in (*parts, *(each for each in nested if isinstance(each, dict))):
        for key in _USAGES:
            if isinstance(counts := part.get(key), dict):
                if isinstance(tokens := counts.get("tokens"), dict):  # Cohere's, beside what it bills
                    counts = tokens
                found.update({name: count for name, count in counts.items() if count is not None})
        for known in _USAGE:
            found.update(known(part) or {})
    return found or None


def stated_error(payload: JSONObject, kind: Kind) -> JSON:
    """Return the error that an object states, as an ``error`` or in a way known of its service."""
    error = payload.get("error")
    if isinstance(error, dict) and error and not _is_fine(error.get("code")):
        return with_message(error)
    if isinstance(error, str) and error:
        return with_message(payload) if payload.keys() & {"message", "detail", "msg"} else error
    if isinstance(error, list) and error:
        return error[0] if isinstance(error[0], dict | str) else payload
    refused = payload.get("success") is False or payload.get("ok") is False
    failed = str(payload.get("status")).lower() in ("error", "failed")
    if (
        error is True
        or (is_integer(error) and is_error_code(error))
        or ((refused or failed) and has_remark(payload))
        or payload.get("object") == "error"
        or kind is Kind.ERROR
    ):
        return with_message(payload)
    return next((told for known in _ERROR if (told := known(payload)) is not None), None)


def is_error_envelope(payload: JSONObject) -> bool:
    """Report whether an object has an error's code and a message; with text beside them it is none yet."""
    words = first_string(payload, ("message", "msg")) or ""
    return is_error_code(payload.get("code")) and not is_success_word(words)


def has_signal(payload: JSON, *, surely: bool = False, in_strings: bool = True) -> bool:
    """Report whether a payload in which there is no text is about a response all the same.

    :param surely: words and names that are no service's do not count, since a model may have written them.
    :param in_strings: search for JSON in strings too.
    """
    finish = finish_of(payload, in_strings=in_strings)
    usage = usage_of(payload, in_strings=in_strings)
    if surely:
        finish = is_finish(finish)
        usage = openai_usage(usage or {})
    return (
        ends(payload)
        or bool(finish or usage)
        or any(
            stated_error(each, kind_of_payload(each)) or is_error_envelope(each)
            for each in objects_in(payload)
        )
    )


def objects_in(payload: JSON) -> list[JSONObject]:
    """Return the object that `payload` is, or those that it lists."""
    return [each for each in (payload if isinstance(payload, list) else [payload]) if isinstance(each, dict)]


def _is_fine(code: JSON) -> bool:
    """Report whether the code of an ``error`` object says that there is no error."""
    return code is not None and not isinstance(code, dict | list) and not is_error_code(code)


def _parts(payload: JSON, in_strings: bool, depth: int = 0) -> Iterator[JSONObject]:
    """Return the objects of a payload in which services speak of the response as a whole."""
    if isinstance(payload, str):
        payload = embedded_json(payload) if in_strings else None
    if isinstance(payload, list) and depth == 0:
        for item in payload:
            yield from _parts(item, in_strings, depth + 1)
    if not isinstance(payload, dict) or depth > MAX_DEPTH:
        return
    for key in ("choices", "candidates"):
        if key in payload and (first := first_object(payload, key)) is not None:
            yield first
    yield payload
    for key in _ENVELOPES:
        if key in payload:
            yield from _parts(payload[key], in_strings and key in _STRINGS, depth + 1)
