"""Rows for platforms on which people build chat applications and agents."""

from __future__ import annotations

from stream_proxy.adapter.shapes.extracted import Extracted
from stream_proxy.adapter.shapes.fields import first_string, is_error_code, object_at, with_message
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


# Coze


def _is_coze_aside(event: str, data: JSON) -> bool:
    """Report whether it is an event that repeats the whole text, or a message other than the answer."""
    if not event.startswith("conversation."):
        return False
    kind = data.get("type") if isinstance(data, dict) else None
    return event != "conversation.message.delta" or kind not in (None, "answer")


def _coze_error(payload: JSONObject) -> JSON:
    last = object_at(payload, "last_error")
    return with_message(last) if is_error_code(last.get("code")) else None


PLATFORMS = (
    Vendor("Dify", extract=_dify_event, ends=tagged("event", "message_end"), error=_dify_error),
    Vendor("Coze", is_aside=_is_coze_aside, error=_coze_error),
)
