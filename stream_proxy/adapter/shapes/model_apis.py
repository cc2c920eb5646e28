"""Rows for the APIs of models and of the servers that run them."""

from __future__ import annotations

from stream_proxy.adapter.shapes.extracted import Extracted, joined
from stream_proxy.adapter.shapes.fields import (
    coded_error,
    first_object,
    first_string,
    message_of,
    object_at,
    text_of,
)
from stream_proxy.adapter.shapes.usage import NAMES as USAGE_NAMES
from stream_proxy.adapter.shapes.vendor import Vendor, tagged
from stream_proxy.lenient_json import JSON, JSONObject

# OpenAI's chat and text completions, and what imitates them


def _choices(payload: JSONObject) -> Extracted | None:
    if not isinstance(payload.get("choices"), list):
        return None
    choice = first_object(payload, "choices") or {}
    for key in ("delta", "message"):
        message = choice.get(key)
        if isinstance(message, dict):
            return message_of(message, text_of(message.get("content")) or "")
    return Extracted(first_string(choice, ("text",)) or "")


def _announces_finish_reason(payload: JSONObject) -> bool | None:
    choice = first_object(payload, "choices")
    return None if choice is None else "finish_reason" in choice


# Gemini


def _candidates(payload: JSONObject) -> Extracted | None:
    candidate = first_object(payload, "candidates")
    if candidate is None:
        return None
    parts = object_at(candidate, "content").get("parts")
    found = [Extracted("")]
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict) and isinstance(text := part.get("text"), str):
            found.append(Extracted(reasoning=text) if part.get("thought") is True else Extracted(text))
    return joined(found)


def _block_reason(part: JSONObject) -> JSON:
    return "content_filter" if object_at(part, "promptFeedback").get("blockReason") else None


# Anthropic's Messages


def _message_event(payload: JSONObject) -> Extracted | None:
    match payload.get("type"):
        case "message_start":
            return Extracted("")
        case "content_block_start":
            block = object_at(payload, "content_block")
        case "content_block_delta":
            block = object_at(payload, "delta")
        case "content_block_stop" | "message_delta" | "message_stop" | "ping":
            return Extracted()
        case _:
            return None
    return Extracted(first_string(block, ("text",)), first_string(block, ("thinking",)))


# OpenAI's Responses


def _response_event(payload: JSONObject) -> Extracted | None:
    kind = first_string(payload, ("type",)) or ""
    if not kind.startswith("response."):
        return None
    delta = first_string(payload, ("delta",))
    if kind == "response.output_text.delta":
        return Extracted(delta)
    return Extracted(reasoning=delta) if kind.startswith("response.reasoning") else Extracted()


def _response_error(payload: JSONObject) -> JSON:
    if payload.get("type") != "response.failed":
        return None
    return object_at(payload, "response").get("error") or payload


# Hugging Face's text generation


def _token(payload: JSONObject) -> Extracted | None:
    token = payload.get("token")
    if not isinstance(token, dict) or "generated_text" not in payload:
        return None
    return Extracted("" if token.get("special") is True else first_string(token, ("text",)) or "")


# Ollama


def _eval_counts(part: JSONObject) -> JSONObject | None:
    """Return the counts that stand beside the message."""
    if not part.keys() & {"eval_count", "prompt_eval_count"}:
        return None
    return {name: count for name, count in part.items() if name in USAGE_NAMES}


# Amazon Bedrock's ConverseStream, as gateways write it in JSON

_CONVERSE_FAILURES = frozenset(
    (
        "internalServerException",
        "modelStreamErrorException",
        "serviceUnavailableException",
        "throttlingException",
        "validationException",
    )
)


def _converse_event(payload: JSONObject) -> Extracted | None:
    if "messageStart" in payload or "contentBlockStart" in payload:
        return Extracted("") if "messageStart" in payload else Extracted()
    if not isinstance(block := payload.get("contentBlockDelta"), dict):
        return None
    delta = object_at(block, "delta")
    reasoning = first_string(object_at(delta, "reasoningContent"), ("text",))
    return Extracted(first_string(delta, ("text",)), reasoning)


def _converse_finish(part: JSONObject) -> JSON:
    return object_at(part, "messageStop").get("stopReason")


def _converse_error(payload: JSONObject) -> JSON:
    if _CONVERSE_FAILURES.isdisjoint(payload):
        return None
    for name in _CONVERSE_FAILURES:
        if isinstance(failure := payload.get(name), dict):
            return {"type": name, **failure}
    return None


# MiniMax, Ernie and Coze workflows


def _minimax_error(payload: JSONObject) -> JSON:
    base = object_at(payload, "base_resp")
    return coded_error(base.get("status_code"), base.get("status_msg"))


def _coded_error(payload: JSONObject) -> JSON:
    """Return what Ernie calls ``error_msg``, and the Coze workflow ``error_message``."""
    if "error_code" not in payload:
        return None
    return coded_error(payload.get("error_code"), first_string(payload, ("error_msg", "error_message")))


MODEL_APIS = (
    Vendor(
        "OpenAI Chat Completions",
        extract=_choices,
        announces_end=_announces_finish_reason,
        is_delta=lambda payload: "delta" in (first_object(payload, "choices") or ()),
    ),
    Vendor(
        "Gemini", extract=_candidates, is_delta=lambda payload: "candidates" in payload, finish=_block_reason
    ),
    Vendor(
        "Anthropic Messages",
        extract=_message_event,
        announces_end=lambda payload: payload.get("type") == "message_start" or None,
        ends=tagged("type", "message_stop"),
    ),
    Vendor(
        "OpenAI Responses",
        extract=_response_event,
        announces_end=lambda payload: payload.get("type") == "response.created" or None,
        ends=tagged("type", "response.completed", "response.incomplete"),
        finish=lambda part: object_at(part, "incomplete_details").get("reason"),
        error=_response_error,
    ),
    Vendor("Hugging Face text generation", extract=_token, is_delta=lambda payload: "token" in payload),
    Vendor(
        "Ollama",
        announces_end=lambda payload: payload.get("done") is False or None,
        ends=lambda payload: payload.get("done") is True,
        is_delta=lambda payload: "done_reason" in payload,
        usage=_eval_counts,
    ),
    Vendor("llama.cpp", finish=lambda part: "length" if part.get("stopped_limit") is True else None),
    Vendor(
        "Bedrock ConverseStream",
        extract=_converse_event,
        announces_end=lambda payload: "messageStart" in payload or None,
        is_delta=lambda payload: "contentBlockDelta" in payload,
        finish=_converse_finish,
        error=_converse_error,
    ),
    Vendor("MiniMax", error=_minimax_error),
    Vendor("Ernie and Coze workflows", error=_coded_error),
)
