"""Names and readers of fields that payloads of many services have in common."""

from __future__ import annotations

from stream_proxy.adapter.shapes.extracted import Extracted
from stream_proxy.adapter.shapes.kinds import Kind, kind_of_payload
from stream_proxy.json_bounds import OBJECT_WEIGHT, most_searched
from stream_proxy.json_steps import LONG_BYTES, Steps, count_values_steps, decode_steps, values_exceed_steps
from stream_proxy.lenient_json import JSON, JSONObject, decode_json, is_integer

#: How deep payloads are searched.
MAX_DEPTH = 6
REASONING = ("reasoning_content", "reasoning", "thinking", "thought")
# Fields that may hold an error in words.
_REMARKS = (
    "message",
    "msg",
    "detail",
    "error_message",
    "error_msg",
    "errorMessage",
    "errorText",
    "err_msg",
    "errmsg",
    "statusText",
    "reason",
    "description",
    "content",
    "error",
    "data",
    "text",
)
_CODES = ("code", "error_code", "errorCode", "err_code")
# Roles that a response has. A payload may also repeat messages of others.
_RESPONSE_ROLES = frozenset({"", "assistant", "ai", "model", "bot"})
_USERS = frozenset({"user", "human", "customer"})
_SENDERS = ("role", "sender", "sender_type", "author", "from", "type")
_SENDER_FIELDS = frozenset(_SENDERS)
_SUCCESS_CODES = frozenset({"", "0", "200", "ok", "success", "succeed", "succeeded"})


def first_string(payload: JSONObject, keys: tuple[str, ...]) -> str | None:
    """Return the first string under one of `keys`."""
    for key in keys:
        if isinstance(value := payload.get(key), str):
            return value
    return None


def object_at(payload: JSONObject, key: str) -> JSONObject:
    """Return the object under `key`, or an empty one."""
    value = payload.get(key)
    return value if isinstance(value, dict) else {}


def first_object(payload: JSONObject, key: str) -> JSONObject | None:
    """Return the object with which the list under `key` begins."""
    entries = payload.get(key)
    first = entries[0] if isinstance(entries, list) and entries else None
    return first if isinstance(first, dict) else None


def text_of(content: JSON) -> str | None:
    """Return the text of a message's content: a string, or a list of strings and of parts with a ``text``."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    parts = [_part_text(part) if isinstance(part, dict) else part for part in content]
    texts = [part for part in parts if isinstance(part, str)]
    return "".join(texts) if texts else None


def _part_text(part: JSONObject) -> JSON:
    kind = kind_of_payload(part)
    return part.get("text") if kind in (Kind.ANSWER, Kind.UNNAMED) else None


def is_of_others(payload: JSONObject, *, users: bool = False) -> bool:
    """Report whether a payload is a message of others than the one who responds; `users`: of the user."""
    if _SENDER_FIELDS.isdisjoint(payload):
        return False
    senders = {sender.lower() for key in _SENDERS if isinstance(sender := payload.get(key), str)}
    if users or senders & _USERS:
        return bool(senders & _USERS)
    return str(payload.get("role") or "").lower() not in _RESPONSE_ROLES


def message_of(message: JSONObject, text: str | None) -> Extracted:
    """Return `text` with the reasoning and the tool calls that stand beside it in `message`."""
    calls = message.get("tool_calls")
    return Extracted(
        text,
        reasoning=first_string(message, REASONING),
        tool_calls=calls if isinstance(calls, list) and calls else None,
    )


def embedded_json(text: str) -> JSONObject | list[JSON] | None:
    """Return the object or list that a string holds as JSON."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        value: JSONObject | list[JSON] = decode_json(text.encode("utf-8", "surrogatepass"))
    except ValueError:
        return None
    return value


def is_crowded(payload: JSON) -> Steps[bool]:
    """Report, in steps, whether the strings of a payload hold more JSON than is searched at once."""
    left = most_searched()
    pending: list[JSON] = [payload]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list):
            pending += value
        elif isinstance(value, str) and value.lstrip().startswith(("{", "[")):
            data = value.encode("utf-8", "surrogatepass")
            if (yield from values_exceed_steps(data, left, object_weight=OBJECT_WEIGHT)):
                return True
            left -= yield from count_values_steps(data, object_weight=OBJECT_WEIGHT)
            try:
                pending.append((yield from decode_steps(data)))
            except ValueError:
                continue
            if len(data) > LONG_BYTES:
                yield
    return False


def is_success_word(text: str) -> bool:
    """Report whether `text` is a code or message of success."""
    return text.lower() in _SUCCESS_CODES


def is_error_code(code: JSON) -> bool:
    """Report whether `code` is a code, and not one of success."""
    if is_integer(code):
        return code not in (0, 200)
    return isinstance(code, str) and not is_success_word(code)


def coded_error(code: JSON, message: JSON) -> JSONObject | None:
    """Return an error object with `code` and `message`, if `code` is one of an error."""
    return {"code": str(code), "message": message} if is_error_code(code) else None


def with_message(error: JSONObject) -> JSONObject:
    """Return `error` with its words and its code where readers of errors look for them."""
    code = next((code for key in _CODES if (code := error.get(key)) is not None), None)
    if code is not None and "code" not in error and is_error_code(code):
        error = {**error, "code": code}
    if any(error.get(key) for key in ("message", "detail", "msg")) or isinstance(error.get("error"), dict):
        return error
    words = _words_of(error, 0)
    return error if words is None else {**error, "message": words}


def has_remark(payload: JSONObject) -> bool:
    """Report whether `payload` says anything in words."""
    return _words_of(payload, 0) is not None


def _words_of(payload: JSONObject, depth: int) -> str | None:
    for key in _REMARKS:
        value = payload.get(key)
        if isinstance(value, str) and value.strip():
            return value
        if isinstance(value, dict) and depth < MAX_DEPTH and (words := _words_of(value, depth + 1)):
            return words
    return None
