"""Rows for platforms on which people build chat applications and agents."""

from __future__ import annotations

from stream_proxy.adapter.shapes.extracted import Extracted
from stream_proxy.adapter.shapes.fields import (
    coded_error,
    first_string,
    is_error_code,
    is_of_others,
    message_of,
    object_at,
    text_of,
    with_message,
)
from stream_proxy.adapter.shapes.vendor import Vendor, tagged
from stream_proxy.lenient_json import JSON, JSONObject

# Dify

# Events without text of the response; some, such as workflow_finished, repeat all of it.
_DIFY_OTHER_EVENTS = frozenset(
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


def _dify_event(payload: JSONObject) -> Extracted | None:
    match payload.get("event"):
        case "message" | "agent_message" | "text_chunk":
            text = first_string(payload, ("answer",))
            if text is None:
                text = first_string(object_at(payload, "data"), ("text",))
            return None if text is None else Extracted(text)
        case str(event) if event in _DIFY_OTHER_EVENTS or payload.keys() & {"task_id", "workflow_run_id"}:
            return Extracted()
    return None


def _dify_error(payload: JSONObject) -> JSON:
    data = object_at(payload, "data")
    return data.get("error") or None if data.get("status") in ("failed", "error") else None


def _dify_replacement(payload: JSONObject) -> str | None:
    return first_string(payload, ("answer",)) if payload.get("event") == "message_replace" else None


def _dify_end(payload: JSONObject) -> bool:
    """Report the end; RAGFlow's agents have an event of that name, with ``data``, for each message."""
    return payload.get("event") == "message_end" and "data" not in payload


# Coze's chats


def _coze_error(payload: JSONObject) -> JSON:
    last = object_at(payload, "last_error")
    return with_message(last) if is_error_code(last.get("code")) else None


# Flowise: each event is {"event", "data"}


def _flowise_event(payload: JSONObject) -> Extracted | None:
    if payload.keys() != {"event", "data"} or payload["event"] != "token":
        return None
    data = payload["data"]
    return Extracted(data, bare=True) if isinstance(data, str) else None


def _flowise_usage(part: JSONObject) -> JSONObject | None:
    return object_at(part, "data") if part.get("event") == "usageMetadata" else None


# Langflow: {"event", "data"} as well; a message may come in tokens, whole, or both


def _langflow_event(payload: JSONObject) -> Extracted | None:
    data = payload.get("data")
    if not isinstance(data, dict):
        return None
    message = first_string(data, ("id",))
    if payload.get("event") == "token" and isinstance(chunk := data.get("chunk"), str):
        return Extracted(chunk, message=message or "")
    if payload.get("event") != "add_message":
        return None
    if is_of_others(data) or not isinstance(text := data.get("text"), str):
        return Extracted()
    return Extracted(text, message=message or "", whole=True)


def _langflow_error(payload: JSONObject) -> JSON:
    data = object_at(payload, "data")
    return with_message(data) if payload.get("event") == "add_message" and data.get("error") is True else None


# RAGFlow: {"code", "data": {"answer", "reference"}}; some versions send pieces, some the whole text so far


def _ragflow_event(payload: JSONObject) -> Extracted | None:
    data = object_at(payload, "data")
    if "code" not in payload or "reference" not in data or not isinstance(answer := data.get("answer"), str):
        return None
    return Extracted(answer, only_if_first=data.get("final") is True)


def _ragflow_error(payload: JSONObject) -> JSON:
    if "code" not in payload:
        return None
    answer = first_string(object_at(payload, "data"), ("answer",)) or ""
    if not answer.startswith("**ERROR**"):
        return None
    return coded_error(payload.get("code"), answer.removeprefix("**ERROR**: "))


# LangGraph's server: the name of the event is the mode of streaming, with a subgraph's after a bar

_LANGCHAIN_AI = ("ai", "AIMessage", "AIMessageChunk")


def _langgraph_event(event: str, payload: JSON) -> Extracted | None:
    mode = event.partition("|")[0]
    if not (mode == "messages" or mode.startswith("messages/")):
        return None
    if not isinstance(payload, list) or mode not in ("messages", "messages/partial"):
        return Extracted()
    messages = [each for each in payload if isinstance(each, dict) and each.get("type") in _LANGCHAIN_AI]
    if not messages:
        return Extracted()
    message = messages[-1]
    found = message_of(message, text_of(message.get("content")) or "")
    found.tool_calls = None  # the graph runs its tools itself
    if mode == "messages/partial":
        found.message, found.whole = first_string(message, ("id",)) or "", True
    return found


PLATFORMS = (
    Vendor(
        "Dify",
        extract=_dify_event,
        ends=_dify_end,
        is_delta=lambda payload: payload.get("event") in ("message", "agent_message", "text_chunk"),
        replacement=_dify_replacement,
        error=_dify_error,
    ),
    Vendor("Coze", error=_coze_error),
    Vendor(
        "Flowise",
        extract=_flowise_event,
        ends=lambda payload: payload.get("event") == "end" and payload.get("data") == "[DONE]",
        usage=_flowise_usage,
    ),
    Vendor(
        "Langflow",
        extract=_langflow_event,
        ends=lambda payload: payload.get("event") == "end" and "result" in object_at(payload, "data"),
        error=_langflow_error,
    ),
    Vendor(
        "RAGFlow",
        extract=_ragflow_event,
        ends=lambda payload: payload.get("data") is True and payload.get("code") == 0,
        error=_ragflow_error,
    ),
    Vendor("LangGraph", by_event=_langgraph_event),
    Vendor(
        "AG-UI",
        announces_end=lambda payload: payload.get("type") == "RUN_STARTED" or None,
        ends=tagged("type", "RUN_FINISHED"),
    ),
)
