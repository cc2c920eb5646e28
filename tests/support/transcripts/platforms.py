"""Responses of platforms for agents and workflows, in the shapes that their sources show."""

from __future__ import annotations

import json
from typing import Any

from tests.support.transcripts.transcript import EVENTS, Transcript, sse, usage


def _flowise(event: str, data: Any) -> bytes:
    # The line before the data is none that the standard knows.
    return f"message:\ndata:{json.dumps({'event': event, 'data': data})}\n\n".encode()


FLOWISE = Transcript(
    name="flowise",
    example="flowise",
    model="flowise",
    media=EVENTS,
    flushes=(
        _flowise("start", ""),
        _flowise("agentFlowEvent", "INPROGRESS"),
        _flowise("nextAgentFlow", {"nodeId": "llm_0", "nodeLabel": "LLM 0", "status": "INPROGRESS"}),
        _flowise("token", "Air"),
        _flowise("token", ' scatters {"blue"}'),
        _flowise("usedTools", [{"tool": "search", "toolInput": {"q": "sky"}, "toolOutput": "Rayleigh"}]),
        _flowise("usageMetadata", {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}),
        _flowise("agentFlowEvent", "FINISHED"),
        _flowise("metadata", {"chatId": "c", "question": "Why is the sky blue?", "sessionId": "s"}),
        _flowise("end", "[DONE]"),
    ),
    silent=3,
    text='Air scatters {"blue"}',
    usage=usage(5, 7),
)


def _langflow(event: str, data: Any) -> bytes:
    return json.dumps({"event": event, "data": data}).encode() + b"\n\n"


def _langflow_message(text: str, sender: str, state: str) -> dict[str, Any]:
    identity = "m1" if sender == "Machine" else "m0"
    return {
        "timestamp": "2026-01-13 21:27:27 UTC",
        "sender": sender,
        "text": text,
        "files": [],
        "error": False,
        "properties": {"state": state, "source": {"id": None}},
        "category": "message",
        "content_blocks": [],
        "id": identity,
    }


_LANGFLOW_ASKED = _langflow("add_message", _langflow_message("Why is the sky blue?", "User", "complete"))
_LANGFLOW_SAID = _langflow("add_message", _langflow_message("Air scatters blue. 🌤", "Machine", "complete"))
_LANGFLOW_END = _langflow("end", {"result": {"outputs": [{"results": {"text": "Air scatters blue. 🌤"}}]}})

LANGFLOW = Transcript(
    name="langflow",
    example="langflow",
    model="langflow",
    media=EVENTS,
    flushes=(
        _LANGFLOW_ASKED,
        _langflow("add_message", _langflow_message("", "Machine", "partial")),
        _langflow("token", {"chunk": "Air ", "id": "m1", "timestamp": "2026-01-13 21:27:28 UTC"}),
        _langflow("token", {"chunk": "scatters blue. 🌤", "id": "m1", "timestamp": "2026-01-13 21:27:28 UTC"}),
        _langflow("tool_event", {"event_type": "tool_start", "name": "search", "text": "no"}),
        _LANGFLOW_SAID,
        _LANGFLOW_END,
    ),
    silent=1,
    text="Air scatters blue. 🌤",
    usage=None,
)
LANGFLOW_WHOLE = Transcript(
    name="langflow without tokens",
    example="langflow",
    model="langflow",
    media=EVENTS,
    flushes=(_LANGFLOW_ASKED, _LANGFLOW_SAID, _LANGFLOW_SAID, _LANGFLOW_END),
    silent=1,
    text="Air scatters blue. 🌤",
    usage=None,
)


def _langchain(text: str, **more: Any) -> dict[str, Any]:
    return {"content": text, "additional_kwargs": {}, "type": "ai", "id": "run--1", "tool_calls": [], **more}


_COUNTED = {"usage_metadata": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}}

LANGGRAPH = Transcript(
    name="langgraph",
    example="langgraph",
    model="agent",
    media=EVENTS,
    flushes=sse(
        ("metadata", {"run_id": "r", "attempt": 1}),
        ("messages/metadata", {"run--1": {"metadata": {"thread_id": "t", "langgraph_node": "agent"}}}),
        ("messages/partial", [_langchain("Let me look. ", id="run--0")]),
        ("messages/complete", [{"content": "Rayleigh", "type": "tool", "name": "search", "id": "t0"}]),
        ("messages/partial", [_langchain("Air")]),
        ("messages/partial", [_langchain("Air scatters", **_COUNTED)]),
        ("messages/complete", [_langchain("Air scatters", **_COUNTED)]),
    ),
    silent=2,
    text="Let me look. Air scatters",
    usage=usage(3, 2),
    announced=False,
)
LANGGRAPH_TUPLE = Transcript(
    name="langgraph, tuples",
    example="langgraph",
    model="agent",
    media=EVENTS,
    flushes=sse(
        ("metadata", {"run_id": "r"}),
        ("messages", [{"content": "What I asked", "type": "human", "id": "h"}, {"langgraph_node": "x"}]),
        ("messages|agent:1", [_langchain("Air", type="AIMessageChunk"), {"langgraph_node": "agent"}]),
        ("messages", [_langchain(" scatters", type="AIMessageChunk"), {"langgraph_node": "agent"}]),
        ("messages", [_langchain("", type="AIMessageChunk", **_COUNTED), {"langgraph_node": "agent"}]),
    ),
    silent=2,
    text="Air scatters",
    usage=usage(3, 2),
    announced=False,
)


def _ragflow(answer: str, **more: Any) -> dict[str, Any]:
    data = {"answer": answer, "reference": {}, "audio_binary": None, "id": "i", "session_id": "s", **more}
    return {"code": 0, "message": "", "data": data}


_RAGFLOW_END = {"code": 0, "message": "", "data": True}

RAGFLOW = Transcript(
    name="ragflow",
    example="ragflow",
    model="ragflow",
    media=EVENTS,
    flushes=sse(
        _ragflow("Air"),
        _ragflow("Air scatters"),
        _ragflow("Air scatters blue."),
        _ragflow("Air scatters blue.", reference={"chunks": [{"content": "Rayleigh"}]}),
        _RAGFLOW_END,
        between="",
    ),
    silent=0,
    text="Air scatters blue.",
    usage=None,
)
RAGFLOW_PIECES = Transcript(
    name="ragflow, pieces",
    example="ragflow",
    model="ragflow",
    media=EVENTS,
    flushes=sse(
        _ragflow("Air"),
        _ragflow(" scatters"),
        _ragflow("Air scatters ##0$$", final=True, reference={"chunks": [{"content": "Rayleigh"}]}),
        _RAGFLOW_END,
        between="",
    ),
    silent=0,
    text="Air scatters",
    usage=None,
)
RAGFLOW_CITED = Transcript(
    name="ragflow, with references",
    example="ragflow",
    model="ragflow",
    media=EVENTS,
    flushes=sse(
        _ragflow("Air"),
        _ragflow("Air scatters. Why"),
        _ragflow("Air scatters ##0$$. Why", reference={"chunks": []}),
        _RAGFLOW_END,
        between="",
    ),
    silent=0,
    text="Air scatters. Why",
    replacement="Air scatters ##0$$. Why",
    usage=None,
)


def _coze(number: int, text: str, *, finish: bool = False) -> tuple[str, Any]:
    message = {"content": text, "content_type": "text", "node_is_finish": finish, "node_title": "Message"}
    return "Message", {**message, "node_seq_id": str(number)}


COZE_WORKFLOW = Transcript(
    name="coze workflow",
    example="coze-workflow",
    model="coze-workflow",
    media=EVENTS,
    flushes=sse(
        _coze(0, "Air scatters"),
        _coze(1, " blue.", finish=True),
        ("Done", {"debug_url": "https://www.coze.com/work_flow?execute_id=1"}),
    ),
    silent=0,
    text="Air scatters blue.",
    usage=None,
)

AG_UI = Transcript(
    name="ag-ui",
    example="ag-ui",
    model="agent",
    media=EVENTS,
    flushes=sse(
        {"type": "RUN_STARTED", "threadId": "t", "runId": "r"},
        {"type": "MESSAGES_SNAPSHOT", "messages": [{"id": "0", "role": "user", "content": "Why?"}]},
        {"type": "REASONING_MESSAGE_CONTENT", "messageId": "m", "delta": "Light…"},
        {"type": "TOOL_CALL_START", "toolCallId": "1", "toolCallName": "search"},
        {"type": "TOOL_CALL_ARGS", "toolCallId": "1", "delta": '{"q":"sky"}'},
        {"type": "TOOL_CALL_END", "toolCallId": "1"},
        {"type": "TOOL_CALL_RESULT", "messageId": "m0", "toolCallId": "1", "content": "Rayleigh"},
        {"type": "STATE_DELTA", "delta": [{"op": "add", "path": "/a", "value": "no"}]},
        {"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "Air "},
        {"type": "TEXT_MESSAGE_CHUNK", "messageId": "m", "role": "assistant", "delta": "scatters."},
        {"type": "TEXT_MESSAGE_END", "messageId": "m"},
        {"type": "RUN_FINISHED", "threadId": "t", "runId": "r", "result": "Air scatters."},
    ),
    silent=2,
    text="Air scatters.",
    reasoning="Light…",
    usage=None,
)

FASTGPT = Transcript(
    name="fastgpt",
    example="fastgpt",
    model="fastgpt",
    media="text/event-stream;charset=utf-8",
    flushes=sse(
        ("flowNodeStatus", {"status": "running", "name": "AI"}),
        ("toolCall", {"tool": {"id": "t", "toolName": "search", "params": "", "response": ""}}),
        ("toolResponse", {"tool": {"id": "t", "response": "Rayleigh"}}),
        ("fastAnswer", {"choices": [{"delta": {"role": "assistant", "content": "Well: "}, "index": 0}]}),
        ("answer", {"choices": [{"delta": {"reasoning_content": "hm"}, "finish_reason": None}]}),
        ("answer", {"choices": [{"delta": {"content": "air."}, "index": 0, "finish_reason": None}]}),
        ("answer", {"choices": [{"delta": {}, "index": 0, "finish_reason": "length"}]}),
        ("answer", "[DONE]"),
    ),
    silent=3,
    text="Well: air.",
    reasoning="hm",
    usage=None,
    finish="length",
)

N8N = Transcript(
    name="n8n",
    example="n8n",
    model="n8n",
    media="application/json; charset=utf-8",
    flushes=tuple(
        json.dumps({**sent, "metadata": {"nodeId": "n", "nodeName": "Agent", "itemIndex": 0}}).encode()
        + b"\n"
        for sent in (
            {"type": "begin"},
            {"type": "item", "content": "Air "},
            {"type": "item", "content": "scatters."},
            {"type": "tool-call-start", "content": "search"},
            {"type": "end"},
        )
    ),
    silent=1,
    text="Air scatters.",
    usage=None,
    announced=False,
)

OPEN_WEBUI = Transcript(
    name="open webui",
    example="open-webui",
    model="pipeline",
    media=EVENTS,
    flushes=sse(
        {"sources": [{"source": {"name": "sky.md"}, "document": ["Rayleigh"], "metadata": [{}]}]},
        {"event": {"type": "status", "data": {"description": "Searching", "done": False}}},
        {"choices": [{"index": 0, "delta": {"content": "Air"}, "finish_reason": None}]},
        {"event": {"type": "message", "data": {"content": "no"}}},
        {"choices": [{"index": 0, "delta": {"content": " scatters."}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage(4, 3)},
        "[DONE]",
    ),
    silent=2,
    text="Air scatters.",
    usage=usage(4, 3),
)

AI_SDK = Transcript(
    name="ai sdk",
    example="ai-sdk",
    model="chat",
    media=EVENTS,
    flushes=sse(
        {"type": "start", "messageId": "m"},
        {"type": "start-step"},
        {"type": "reasoning-start", "id": "r"},
        {"type": "reasoning-delta", "id": "r", "delta": "hm"},
        {"type": "tool-input-delta", "toolCallId": "t", "inputTextDelta": '{"q":'},
        {"type": "tool-output-available", "toolCallId": "t", "output": {"content": "Rayleigh"}},
        {"type": "data-weather", "data": {"content": "no"}},
        {"type": "text-start", "id": "0"},
        {"type": "text-delta", "id": "0", "delta": "Air "},
        {"type": "text-delta", "id": "0", "delta": "scatters."},
        {"type": "text-end", "id": "0"},
        {"type": "finish-step"},
        {"type": "finish", "finishReason": "length", "messageMetadata": {"custom": {"total": 1}}},
        "[DONE]",
    ),
    silent=3,
    text="Air scatters.",
    reasoning="hm",
    usage=None,
    finish="length",
)
