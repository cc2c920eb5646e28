"""The shapes that streaming services have in common: where each says what, if nobody told us.

Each function looks at one payload, a JSON value. ``None`` means that it does not say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stream_proxy.adapter.usage import NAMES as USAGE_NAMES
from stream_proxy.lenient_json import decode_json

_DEPTH = 6

# Where the text itself is, in the order of preference.
_TEXTS = ("delta", "content", "text", "answer", "output_text", "token", "response", "generated_text", "reply")
# What the text may be inside of. A string here is JSON if it can be read as such, else the text.
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
_REASONINGS = ("reasoning_content", "reasoning", "thinking", "thought")
_FINISHES = ("finish_reason", "finishReason", "stop_reason", "done_reason", "finish")
_USAGES = ("usage", "usageMetadata", "usage_metadata", "metrics")
# Where a payload may say in words what went wrong.
_REMARKS = ("message", "msg", "detail", "content", "errorText", "data", "text")
_SUCCESSES = frozenset({"", "0", "200", "ok", "success", "succeed", "succeeded"})
# The roles of the one whose answer it is; a payload may also repeat what others said.
_SPEAKERS = frozenset({"", "assistant", "ai", "model", "bot"})
# Dify tells with "event" what a payload is; these carry the answer.
_DIFY_ANSWERS = frozenset({"message", "agent_message", "text_chunk"})
_DIFY_OTHERS = frozenset(
    {
        "agent_log",
        "agent_thought",
        "iteration_completed",
        "iteration_next",
        "iteration_started",
        "loop_completed",
        "loop_next",
        "loop_started",
        "message_end",
        "message_file",
        "message_replace",
        "node_finished",
        "node_retry",
        "node_started",
        "parallel_branch_finished",
        "parallel_branch_started",
        "ping",
        "tts_message",
        "tts_message_end",
        "workflow_finished",
        "workflow_started",
    }
)
_ANTHROPIC = frozenset(
    {
        "content_block_delta",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_start",
        "message_stop",
        "ping",
    }
)


@dataclass(slots=True)
class Said:
    """What a payload says of the answer: each ``None`` where it has no place for it."""

    text: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None

    @property
    def something(self) -> bool:
        """Whether it says anything."""
        return self.text is not None or self.reasoning is not None or self.tool_calls is not None

    def add(self, other: Said) -> None:
        """Append what another payload says."""
        if other.text is not None:
            self.text = (self.text or "") + other.text
        if other.reasoning is not None:
            self.reasoning = (self.reasoning or "") + other.reasoning
        if other.tool_calls is not None:
            self.tool_calls = [*(self.tool_calls or ()), *other.tool_calls]


def said(payload: Any, depth: int = 0) -> Said:
    """The text, reasoning and tool calls in a payload of a common shape."""
    if depth > _DEPTH:
        return Said()
    if isinstance(payload, str):
        inner = inner_json(payload)
        found = Said() if inner is None else said(inner, depth + 1)
        return found if found.something or (inner is not None and _speaks_of(inner)) else Said(payload)
    if isinstance(payload, list):
        whole = Said()
        for item in payload:
            whole.add(said(item, depth + 1))
        return whole
    if not isinstance(payload, dict) or str(payload.get("role") or "").lower() not in _SPEAKERS:
        return Said()
    for shape in (_openai, _gemini, _by_type, _dify, _tgi):
        known = shape(payload)
        if known is not None:
            return known
    return _generic(payload, depth)


def finish_of(payload: Any) -> object:
    """Why the answer ended."""
    for part in _parts(payload):
        for key in _FINISHES:
            if isinstance(part.get(key), str) and part[key]:
                return part[key]
        details, feedback = part.get("incomplete_details"), part.get("promptFeedback")
        if isinstance(details, dict) and details.get("reason"):
            return details["reason"]
        if isinstance(feedback, dict) and feedback.get("blockReason"):
            return "content_filter"
        if part.get("stopped_limit") is True:  # llama.cpp
            return "length"
    return None


def is_aside(event: str, payload: Any) -> bool:
    """Whether an event is known by its name to say nothing of the text: Coze resends and adds messages."""
    if not event.startswith("conversation."):
        return False
    kind = payload.get("type") if isinstance(payload, dict) else None
    return event != "conversation.message.delta" or kind not in (None, "answer")


def announces_end(payload: Any) -> bool:
    """Whether a payload is of a shape whose streams say when they end."""
    if not isinstance(payload, dict):
        return False
    choices = payload.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return "finish_reason" in choices[0]
    kind = payload.get("type")
    return payload.get("done") is False or kind == "message_start" or kind == "response.created"


def is_whole(payload: Any) -> bool:
    """Whether a payload may repeat the whole text that came before it in pieces."""
    if not isinstance(payload, dict) or payload.keys() & {"candidates", "token"} or "done_reason" in payload:
        return False
    choices = payload.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict) and "delta" in choices[0]:
        return False  # a delta is new, even if it says the same
    return done_of(payload) or bool(finish_of(payload)) or payload.get("object") == "chat.completion"


def speaks(payload: Any) -> bool:
    """Whether a JSON value can be told from a piece of plain text: it says something of an answer."""
    return isinstance(payload, dict) and (said(payload).something or _speaks_of(payload))


def _speaks_of(payload: Any) -> bool:
    return done_of(payload) or bool(finish_of(payload) or usage_of(payload) or error_of(payload))


def usage_of(payload: Any) -> dict[str, Any] | None:
    """The token counts, under their service's names."""
    found: dict[str, Any] = {}
    for part in (*_parts(payload), *_nested(payload, "metadata"), *_nested(payload, "meta")):
        for key in _USAGES:
            if isinstance(part.get(key), dict):
                counts = part[key].get("tokens")  # Cohere's
                counts = counts if isinstance(counts, dict) else part[key]
                found.update({name: count for name, count in counts.items() if count is not None})
        if "eval_count" in part or "prompt_eval_count" in part:  # Ollama's stand beside the message
            found.update({name: count for name, count in part.items() if name in USAGE_NAMES})
    return found or None


def error_of(payload: Any) -> object:
    """The error that a payload reports; a list does so with one of its objects."""
    if isinstance(payload, list):
        objects = (item for item in payload if isinstance(item, dict))
        return next((error for item in objects if (error := error_of(item)) is not None), None)
    if not isinstance(payload, dict):
        return None
    error = payload.get("error")
    if isinstance(error, dict) and error and not _is_fine(error.get("code"), error):
        return error
    if isinstance(error, str) and error:
        return payload if "message" in payload else error
    if isinstance(error, list) and error:
        return error[0] if isinstance(error[0], dict | str) else payload
    if error is True or (isinstance(error, int) and _is_error_code(error)):
        return _with_message(payload)
    refused = payload.get("success") is False or payload.get("ok") is False
    failed = str(payload.get("status")).lower() in ("error", "failed")
    if (refused or failed) and _string(payload, _REMARKS) is not None:
        return _with_message(payload)
    if "error" in (payload.get("type"), payload.get("event"), payload.get("object")):
        return _with_message(payload)
    return _nested_error(payload) or _code_error(payload)


def _nested_error(payload: dict[str, Any]) -> object:
    """An error that some services put deeper: Responses, Dify's workflows, Coze, MiniMax, Ernie."""
    response, data = payload.get("response"), payload.get("data")
    if payload.get("type") == "response.failed":
        return (response.get("error") if isinstance(response, dict) else None) or payload
    if isinstance(data, dict) and data.get("status") in ("failed", "error") and data.get("error"):
        return data["error"]
    last = payload.get("last_error")
    if isinstance(last, dict) and _is_error_code(last.get("code")):
        return _with_message(last)
    base = payload.get("base_resp")
    if isinstance(base, dict) and _is_error_code(base.get("status_code")):
        return {"code": str(base["status_code"]), "message": base.get("status_msg")}
    if _is_error_code(payload.get("error_code")):
        return {"code": str(payload["error_code"]), "message": payload.get("error_msg")}
    return None


def _code_error(payload: dict[str, Any]) -> object:
    """An envelope with a code that is no success, and a message, but nothing of an answer."""
    words = _string(payload, ("message", "msg"))
    if not words or not _is_error_code(payload.get("code")) or words.lower() in _SUCCESSES:
        return None
    rest = {key: value for key, value in payload.items() if key != "message"}
    return None if said(rest).text else payload


def _is_fine(code: object, error: dict[str, Any]) -> bool:
    """Whether an ``error`` object says that there is none."""
    return code is not None and not isinstance(code, dict | list) and not _is_error_code(code)


def _with_message(payload: dict[str, Any]) -> dict[str, Any]:
    """The payload with its words where an error has them."""
    if any(payload.get(key) for key in ("message", "detail", "msg", "error")):
        return payload
    words = _string(payload, _REMARKS)
    return payload if words is None else {**payload, "message": words}


def done_of(payload: Any) -> bool:
    """Whether a payload says that it is the last."""
    if not isinstance(payload, dict):
        return False
    return (
        payload.get("done") is True
        or payload.get("type") in ("message_stop", "response.completed", "response.incomplete")
        or payload.get("event") == "message_end"
    )


def inner_json(text: str) -> Any:
    """The object or list that a string holds as JSON, or ``None``."""
    start = text.lstrip()[:1]
    if start not in ("{", "[", '"'):
        return None
    try:
        value = decode_json(text.encode("utf-8", "surrogatepass"))
    except ValueError:
        return None
    return value if isinstance(value, dict | list) else None


def _openai(payload: dict[str, Any]) -> Said | None:
    choices = payload.get("choices")
    if not isinstance(choices, list):
        return None
    choice = choices[0] if choices and isinstance(choices[0], dict) else {}
    for key in ("delta", "message"):
        if isinstance(choice.get(key), dict):
            return _message(choice[key])
    return Said(choice["text"]) if isinstance(choice.get("text"), str) else Said("")


def _message(message: dict[str, Any]) -> Said:
    found = Said(_parts_text(message.get("content")))
    found.reasoning = _string(message, _REASONINGS)
    calls = message.get("tool_calls")
    found.tool_calls = calls if isinstance(calls, list) and calls else None
    if found.text is None:
        found.text = ""  # it is the answer's place, even if nothing is said there
    return found


def _gemini(payload: dict[str, Any]) -> Said | None:
    candidates = payload.get("candidates")
    if not isinstance(candidates, list) or not candidates or not isinstance(candidates[0], dict):
        return None
    content = candidates[0].get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    found = Said("")
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            found.add(Said(reasoning=part["text"]) if part.get("thought") is True else Said(part["text"]))
    return found


def _by_type(payload: dict[str, Any]) -> Said | None:
    """Anthropic's Messages and OpenAI's Responses: the type says what a payload is."""
    kind = payload.get("type")
    if not isinstance(kind, str):
        return None
    if kind.startswith(("reasoning", "thinking")):
        return Said(reasoning=_string(payload, ("content", "text", *_REASONINGS)))
    if kind.startswith("tool"):
        return Said()
    if kind in _ANTHROPIC:
        block = payload.get("delta") if kind == "content_block_delta" else payload.get("content_block")
        if not isinstance(block, dict):
            return Said("" if kind == "message_start" else None)  # an answer has begun, if only an empty one
        return Said(_string(block, ("text",)), _string(block, ("thinking",)))
    if kind.startswith("response."):
        delta = payload.get("delta")
        if not isinstance(delta, str):
            return Said()
        if kind == "response.output_text.delta":
            return Said(delta)
        return Said(reasoning=delta) if kind.startswith("response.reasoning") else Said()
    return None


def _dify(payload: dict[str, Any]) -> Said | None:
    event = payload.get("event")
    if not isinstance(event, str):
        return None
    if event in _DIFY_OTHERS:
        return Said()
    if event not in _DIFY_ANSWERS:
        return Said() if "task_id" in payload or "workflow_run_id" in payload else None
    if isinstance(payload.get("answer"), str):
        return Said(payload["answer"])
    data = payload.get("data")
    return Said(data["text"]) if isinstance(data, dict) and isinstance(data.get("text"), str) else None


def _tgi(payload: dict[str, Any]) -> Said | None:
    """Hugging Face's text generation: a token each, and the whole text again with the last one."""
    token = payload.get("token")
    if not isinstance(token, dict) or "generated_text" not in payload:
        return None
    text = token.get("text")
    return Said(text if isinstance(text, str) and token.get("special") is not True else "")


def _generic(payload: dict[str, Any], depth: int) -> Said:
    found = Said(reasoning=_string(payload, _REASONINGS))
    calls = payload.get("tool_calls")
    found.tool_calls = calls if isinstance(calls, list) and calls else None
    for key in _TEXTS:
        text = _parts_text(payload.get(key))
        if text is not None:
            found.text = text
            return found
    messages = payload.get("messages")
    if isinstance(messages, list):
        for message in messages:
            found.add(said(message, depth + 1))
        return found
    for key in _CONTAINERS:
        value = payload.get(key)
        if isinstance(value, str | dict | list) and value:
            if key == "message" and isinstance(value, str) and payload.keys() & {"code", "status", "event"}:
                continue  # a remark on the payload
            inner = said(value, depth + 1)
            if inner.something:
                found.add(inner)
                return found
    return found


def _parts_text(content: Any) -> str | None:
    """A string, or the texts of a list of content parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        return None
    texts = [part.get("text") if isinstance(part, dict) else part for part in content]
    said_texts = [text for text in texts if isinstance(text, str)]
    return "".join(said_texts) if said_texts else None


def _string(payload: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    return next((payload[key] for key in keys if isinstance(payload.get(key), str)), None)


def _is_error_code(code: object) -> bool:
    if isinstance(code, int) and not isinstance(code, bool):
        return code not in (0, 200)
    return isinstance(code, str) and code.lower() not in _SUCCESSES


def _parts(payload: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """The objects of a payload in which it speaks of the answer as a whole."""
    if isinstance(payload, str):
        payload = inner_json(payload)
    if isinstance(payload, list) and depth == 0:
        for item in payload:
            yield from _parts(item, depth + 1)
    if not isinstance(payload, dict) or depth > _DEPTH:
        return
    for key in ("choices", "candidates"):
        entries = payload.get(key)
        if isinstance(entries, list) and entries and isinstance(entries[0], dict):
            yield entries[0]
    yield payload
    for key in ("delta", "data", "message", "output", "result", "response", "details"):
        yield from _parts(payload.get(key), depth + 1)


def _nested(payload: Any, key: str) -> Iterator[dict[str, Any]]:
    for part in list(_parts(payload)):
        if isinstance(part.get(key), dict):
            yield part[key]
