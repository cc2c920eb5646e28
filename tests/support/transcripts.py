"""What services answer, byte for byte in the shapes of their documentation, and what that says."""

# ruff: noqa: E501
# The lines are as long as the services write them.

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

EVENTS = "text/event-stream"


@dataclass(frozen=True)
class Transcript:
    """One answer of the service that ``examples/adapter/{example}.json`` is for."""

    name: str
    example: str
    #: The model that is asked for.
    model: str
    media: str
    #: The body, cut where the service flushes it.
    flushes: tuple[bytes, ...]
    #: How many of them come before the first that holds text, reasoning or a call.
    silent: int
    text: str | None
    usage: dict[str, Any]
    reasoning: str = ""
    tool_calls: tuple[dict[str, Any], ...] = field(default=())
    finish: str = "stop"
    #: The service says itself where its answer ends.
    announced: bool = True

    @property
    def body(self) -> bytes:
        """All of it."""
        return b"".join(self.flushes)


def _events(text: str) -> tuple[bytes, ...]:
    """Each event, with its blank line."""
    return tuple(found[0].encode() for found in re.finditer(r".+?\n\n", text, re.DOTALL))


def _lines(text: str) -> tuple[bytes, ...]:
    return tuple(line.encode() for line in text.splitlines(keepends=True))


def _call(identity: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


DIFY = Transcript(
    name="dify",
    example="dify",
    model="dify-app",
    media="text/event-stream; charset=utf-8",
    flushes=_events(
        r"""event: ping

data: {"event": "workflow_started", "conversation_id": "45701982-8118-4bc5-8e9b-64562b4555f2", "message_id": "5ad4cb98-f0c7-4085-b384-88c403be6290", "created_at": 1679586595, "task_id": "900bbd43-dc0b-4383-a372-aa6e6c414227", "workflow_run_id": "0c1d2b3e-2f1c-4b8a-9d68-1f0c5a3a7a11", "data": {"id": "0c1d2b3e-2f1c-4b8a-9d68-1f0c5a3a7a11", "workflow_id": "a2b1c0de", "inputs": {"sys.query": "Why is the sky blue?", "sys.user_id": "ann"}, "created_at": 1679586595}}

data: {"event": "node_finished", "conversation_id": "45701982-8118-4bc5-8e9b-64562b4555f2", "message_id": "5ad4cb98-f0c7-4085-b384-88c403be6290", "created_at": 1679586595, "task_id": "900bbd43-dc0b-4383-a372-aa6e6c414227", "data": {"id": "n1", "node_type": "knowledge-retrieval", "title": "Look up", "outputs": {"result": [{"content": "Rayleigh", "title": "sky.md"}], "text": "Rayleigh"}, "status": "succeeded", "elapsed_time": 0.2}}

data: {"event": "message", "conversation_id": "45701982-8118-4bc5-8e9b-64562b4555f2", "message_id": "5ad4cb98-f0c7-4085-b384-88c403be6290", "created_at": 1679586595, "task_id": "900bbd43-dc0b-4383-a372-aa6e6c414227", "id": "5ad4cb98-f0c7-4085-b384-88c403be6290", "answer": "Because air scatters blue", "from_variable_selector": null}

data: {"event": "message", "conversation_id": "45701982-8118-4bc5-8e9b-64562b4555f2", "message_id": "5ad4cb98-f0c7-4085-b384-88c403be6290", "created_at": 1679586595, "task_id": "900bbd43-dc0b-4383-a372-aa6e6c414227", "id": "5ad4cb98-f0c7-4085-b384-88c403be6290", "answer": " more \u2014 Rayleigh", "from_variable_selector": null}

event: ping

data: {"event": "message", "conversation_id": "45701982-8118-4bc5-8e9b-64562b4555f2", "message_id": "5ad4cb98-f0c7-4085-b384-88c403be6290", "created_at": 1679586595, "task_id": "900bbd43-dc0b-4383-a372-aa6e6c414227", "id": "5ad4cb98-f0c7-4085-b384-88c403be6290", "answer": ". \ud83c\udf24", "from_variable_selector": null}

data: {"event": "message_end", "conversation_id": "45701982-8118-4bc5-8e9b-64562b4555f2", "message_id": "5ad4cb98-f0c7-4085-b384-88c403be6290", "created_at": 1679586595, "task_id": "900bbd43-dc0b-4383-a372-aa6e6c414227", "id": "5ad4cb98-f0c7-4085-b384-88c403be6290", "metadata": {"annotation_reply": null, "retriever_resources": [{"position": 1, "dataset_name": "sky", "document_name": "sky.md", "score": 0.98457545, "content": "Rayleigh scattering"}], "usage": {"prompt_tokens": 1033, "prompt_unit_price": "0.001", "prompt_price_unit": "0.001", "prompt_price": "0.0010330", "completion_tokens": 135, "completion_unit_price": "0.002", "completion_price_unit": "0.001", "completion_price": "0.0002700", "total_tokens": 1168, "total_price": "0.0013030", "currency": "USD", "latency": 1.381760165997548}}, "files": null}

"""
    ),
    silent=3,
    text="Because air scatters blue more — Rayleigh. 🌤",
    usage={"prompt_tokens": 1033, "completion_tokens": 135, "total_tokens": 1168},
)

DIFY_AGENT = Transcript(
    name="dify agent",
    example="dify",
    model="dify-app",
    media=EVENTS,
    flushes=_events(
        r"""data: {"event": "agent_thought", "id": "8dcf3648-fbad-407a-85dd-73a6f43aeb9f", "task_id": "9cf1ddd7-f94b-459b-b942-b77b26c59e9b", "message_id": "1fb10045-55fd-4040-99e6-d048d07cbad3", "position": 1, "thought": "", "observation": "", "tool": "", "tool_input": "", "created_at": 1705639511, "message_files": [], "conversation_id": "c216c595-2d89-438c-b33c-aae5ddddd142"}

data: {"event": "agent_message", "id": "1fb10045-55fd-4040-99e6-d048d07cbad3", "task_id": "9cf1ddd7-f94b-459b-b942-b77b26c59e9b", "message_id": "1fb10045-55fd-4040-99e6-d048d07cbad3", "answer": "It is 22", "created_at": 1705639511, "conversation_id": "c216c595-2d89-438c-b33c-aae5ddddd142"}

data: {"event": "agent_thought", "id": "8dcf3648-fbad-407a-85dd-73a6f43aeb9f", "task_id": "9cf1ddd7-f94b-459b-b942-b77b26c59e9b", "message_id": "1fb10045-55fd-4040-99e6-d048d07cbad3", "position": 1, "thought": "It is 22", "observation": "22 degrees", "tool": "weather", "tool_input": "{\"weather\": {\"city\": \"Paris\"}}", "created_at": 1705639511, "message_files": [], "conversation_id": "c216c595-2d89-438c-b33c-aae5ddddd142"}

data: {"event": "agent_message", "id": "1fb10045-55fd-4040-99e6-d048d07cbad3", "task_id": "9cf1ddd7-f94b-459b-b942-b77b26c59e9b", "message_id": "1fb10045-55fd-4040-99e6-d048d07cbad3", "answer": " degrees.", "created_at": 1705639511, "conversation_id": "c216c595-2d89-438c-b33c-aae5ddddd142"}

data: {"event": "message_replace", "id": "1fb10045-55fd-4040-99e6-d048d07cbad3", "task_id": "9cf1ddd7-f94b-459b-b942-b77b26c59e9b", "message_id": "1fb10045-55fd-4040-99e6-d048d07cbad3", "answer": "I must not say that.", "created_at": 1705639511, "conversation_id": "c216c595-2d89-438c-b33c-aae5ddddd142"}

data: {"event": "message_end", "task_id": "9cf1ddd7-f94b-459b-b942-b77b26c59e9b", "id": "1fb10045-55fd-4040-99e6-d048d07cbad3", "message_id": "1fb10045-55fd-4040-99e6-d048d07cbad3", "conversation_id": "c216c595-2d89-438c-b33c-aae5ddddd142", "metadata": {"usage": {"prompt_tokens": 305, "prompt_unit_price": "0.001", "prompt_price_unit": "0.001", "prompt_price": "0.0003050", "completion_tokens": 97, "completion_unit_price": "0.002", "completion_price_unit": "0.001", "completion_price": "0.0001940", "total_tokens": 184, "total_price": "0.0002290", "currency": "USD", "latency": 1.771092874929309}}}

"""
    ),
    silent=1,
    text="It is 22 degrees.",
    usage={"prompt_tokens": 305, "completion_tokens": 97, "total_tokens": 184},
    finish="content_filter",
)

OLLAMA = Transcript(
    name="ollama",
    example="ollama",
    model="qwen3",
    media="application/x-ndjson",
    flushes=_lines(
        """{"model":"qwen3","created_at":"2026-01-15T10:22:01.385406455Z","message":{"role":"assistant","content":"","thinking":"The user asks"},"done":false}
{"model":"qwen3","created_at":"2026-01-15T10:22:01.402118Z","message":{"role":"assistant","content":"","thinking":" about the sky… easy."},"done":false}
{"model":"qwen3","created_at":"2026-01-15T10:22:01.420731Z","message":{"role":"assistant","content":"Air scatters"},"done":false}
{"model":"qwen3","created_at":"2026-01-15T10:22:01.441902Z","message":{"role":"assistant","content":" blue light\\n\\u003cmost\\u003e 🌤"},"done":false}
{"model":"qwen3","created_at":"2026-01-15T10:22:01.460013Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"length","total_duration":4883583458,"load_duration":1334875,"prompt_eval_count":26,"prompt_eval_duration":342546000,"eval_count":282,"eval_duration":4535599000}
"""
    ),
    silent=0,
    text="Air scatters blue light\n<most> 🌤",
    reasoning="The user asks about the sky… easy.",
    usage={"prompt_tokens": 26, "completion_tokens": 282, "total_tokens": 308},
    finish="length",
)

OLLAMA_TOOLS = Transcript(
    name="ollama tools",
    example="ollama",
    model="llama3.2",
    media="application/x-ndjson",
    flushes=_lines(
        """{"model":"llama3.2","created_at":"2025-05-27T22:54:57.641643Z","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"get_current_weather","arguments":{"format":"celsius","location":"Toronto, ON"}}}]},"done":false}
{"model":"llama3.2","created_at":"2025-05-27T22:54:57.673559Z","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"get_time","arguments":{}}}]},"done":false}
{"model":"llama3.2","created_at":"2025-05-27T22:54:57.693Z","message":{"role":"assistant","content":""},"done_reason":"stop","done":true,"total_duration":885095291,"load_duration":3753500,"prompt_eval_count":122,"prompt_eval_duration":328493000,"eval_count":33,"eval_duration":552222000}
"""
    ),
    silent=0,
    text=None,
    tool_calls=(
        _call("call_0", "get_current_weather", '{"format":"celsius","location":"Toronto, ON"}'),
        _call("call_1", "get_time", "{}"),
    ),
    usage={"prompt_tokens": 122, "completion_tokens": 33, "total_tokens": 155},
    finish="tool_calls",
)

ANTHROPIC = Transcript(
    name="anthropic",
    example="anthropic",
    model="claude-sonnet-4-6",
    media="text/event-stream; charset=utf-8",
    flushes=_events(
        """event: message_start
data: {"type":"message_start","message":{"model":"claude-sonnet-4-6","id":"msg_01WBeG2NaYQ8w99747S3n8MZ","type":"message","role":"assistant","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":12,"cache_creation_input_tokens":0,"cache_read_input_tokens":1024,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens":3,"service_tier":"standard"}}        }

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}            }

event: ping
data: {"type": "ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"The sky… that is"}     }

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":" scattering."}   }

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0             }

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}         }

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Air scatters blue"}          }

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":" light most. 🌤"}  }

event: content_block_stop
data: {"type":"content_block_stop","index":1    }

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"max_tokens","stop_sequence":null},"usage":{"input_tokens":12,"cache_creation_input_tokens":0,"cache_read_input_tokens":1024,"output_tokens":43}   }

event: message_stop
data: {"type":"message_stop"             }

"""
    ),
    silent=3,
    text="Air scatters blue light most. 🌤",
    reasoning="The sky… that is scattering.",
    usage={
        "prompt_tokens": 1036,
        "completion_tokens": 43,
        "total_tokens": 1079,
        "prompt_tokens_details": {"cached_tokens": 1024},
    },
    finish="length",
)

GEMINI = Transcript(
    name="gemini",
    example="gemini",
    model="gemini-2.5-flash",
    media=EVENTS,
    flushes=tuple(
        flush.replace(b"\n", b"\r\n")
        for flush in _events(
            r"""data: {"candidates": [{"content": {"parts": [{"text": "**Thinking of skies**\n\nLight…","thought": true}],"role": "model"},"index": 0}],"usageMetadata": {"promptTokenCount": 14,"totalTokenCount": 40,"promptTokensDetails": [{"modality": "TEXT","tokenCount": 14}],"thoughtsTokenCount": 26},"modelVersion": "gemini-2.5-flash","responseId": "tTCwacuEBMvnitYP06qsgQY"}

data: {"candidates": [{"content": {"parts": [{"text": "Air scatters"}],"role": "model"},"index": 0}],"usageMetadata": {"promptTokenCount": 14,"candidatesTokenCount": 3,"totalTokenCount": 43,"promptTokensDetails": [{"modality": "TEXT","tokenCount": 14}],"thoughtsTokenCount": 26},"modelVersion": "gemini-2.5-flash","responseId": "tTCwacuEBMvnitYP06qsgQY"}

data: {"candidates": [{"content": {"parts": [{"text": " blue light "},{"text": "most. 🌤"}],"role": "model"},"index": 0}],"usageMetadata": {"promptTokenCount": 14,"candidatesTokenCount": 8,"totalTokenCount": 48,"promptTokensDetails": [{"modality": "TEXT","tokenCount": 14}],"thoughtsTokenCount": 26},"modelVersion": "gemini-2.5-flash","responseId": "tTCwacuEBMvnitYP06qsgQY"}

data: {"candidates": [{"content": {"parts": [{"text": "","thoughtSignature": "AY89a18iOcFus5wr5bW5xN6zZ4aUiCyhgmg6HE2YjtYDV="}],"role": "model"},"finishReason": "MAX_TOKENS","index": 0}],"usageMetadata": {"promptTokenCount": 14,"candidatesTokenCount": 9,"totalTokenCount": 49,"promptTokensDetails": [{"modality": "TEXT","tokenCount": 14}],"thoughtsTokenCount": 26},"modelVersion": "gemini-2.5-flash","responseId": "tTCwacuEBMvnitYP06qsgQY"}

"""
        )
    ),
    silent=0,
    text="Air scatters blue light most. 🌤",
    reasoning="**Thinking of skies**\n\nLight…",
    usage={
        "prompt_tokens": 14,
        "completion_tokens": 35,
        "total_tokens": 49,
        "completion_tokens_details": {"reasoning_tokens": 26},
    },
    finish="length",
    announced=False,
)

GEMINI_BLOCKED = Transcript(
    name="gemini, blocked",
    example="gemini",
    model="gemini-2.5-pro",
    media=EVENTS,
    flushes=(
        b'data: {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},"usageMetadata": {"promptTokenCount": 7,"totalTokenCount": 7},"modelVersion": "gemini-2.5-pro"}\r\n\r\n',
    ),
    silent=0,
    text="",
    usage={"prompt_tokens": 7, "completion_tokens": 0, "total_tokens": 7},
    finish="content_filter",
    announced=False,
)

CUMULATIVE = Transcript(
    name="cumulative",
    example="cumulative",
    model="in-house",
    media=EVENTS,
    flushes=_events(
        """data: {"turn":1,"so_far":"","notes":""}

data: {"turn":1,"so_far":"","notes":"sky"}

data: {"turn":1,"so_far":"Blue","notes":"sky; light"}

data: {"turn":1,"so_far":"Blue \ufffd","notes":"sky; light"}

data: {"turn":1,"so_far":"Blue 🌤 scat","notes":"sky; light"}

data: {"turn":1,"so_far":"Blue 🌤 scatters","notes":"sky; light","cut_off":true,"cost":{"read":9,"written":6}}

data: <<END>>

"""
    ),
    silent=1,
    text="Blue 🌤 scatters",
    reasoning="sky; light",
    usage={"prompt_tokens": 9, "completion_tokens": 6, "total_tokens": 15},
    finish="length",
)

NESTED = Transcript(
    name="nested",
    example="nested",
    model="support-agent",
    media=EVENTS,
    flushes=_events(
        r"""event: heartbeat
data: {}

event: trace
data: {"code":0,"data":"{\"messages\":[{\"kind\":\"answer\",\"content\":\"a draft\"}]}"}

event: step
data: {"code":0,"data":"{\"messages\":[{\"kind\":\"lookup\",\"content\":\"sky.md\"},{\"kind\":\"thought\",\"content\":\"Light, \\u201cblue\\u201d\"}]}"}

event: step
data: {"code":0,"data":"{\"messages\":[{\"kind\":\"thought\",\"content\":\".\"},{\"kind\":\"answer\",\"content\":\"Air \"},{\"kind\":\"answer\",\"content\":\"scatters\"}]}"}

event: heartbeat
data: {}

event: step
data: {"code":0,"data":"{\"messages\":[{\"kind\":\"answer\",\"content\":\" blue\\n🌤\"}]}"}

event: finished
data: {"code":0,"data":"{\"reason\":\"max_tokens\",\"usage\":{\"input_tokens\":21,\"output_tokens\":8}}"}

"""
    ),
    silent=2,
    text="Air scatters blue\n🌤",
    reasoning="Light, “blue”.",
    usage={"prompt_tokens": 21, "completion_tokens": 8, "total_tokens": 29},
    finish="length",
)

NESTED_TOOLS = Transcript(
    name="nested tools",
    example="nested",
    model="support-agent",
    media=EVENTS,
    flushes=_events(
        r"""event: step
data: {"code":0,"data":"{\"messages\":[{\"kind\":\"call\",\"calls\":[{\"index\":0,\"id\":\"c-81\",\"type\":\"function\",\"function\":{\"name\":\"refund\",\"arguments\":\"{\\\"order\\\"\"}}]}]}"}

event: step
data: {"code":0,"data":"{\"messages\":[{\"kind\":\"call\",\"calls\":[{\"index\":0,\"function\":{\"arguments\":\": 7}\"}}]}]}"}

event: finished
data: {"code":0,"data":"{\"reason\":\"tool_calls\",\"usage\":{\"input_tokens\":30,\"output_tokens\":12}}"}

"""
    ),
    silent=0,
    text=None,
    tool_calls=(_call("c-81", "refund", '{"order": 7}'),),
    usage={"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42},
    finish="tool_calls",
)

MOCK = Transcript(
    name="mock",
    example="mock",
    model="gpt-3.5-turbo",
    media=EVENTS,
    flushes=_events(
        """data: {"seq":1,"data":{"content":"You "},"final":false}

data: {"seq":2,"data":{"content":"asked: "},"final":false}

data: {"seq":3,"data":{"content":"why? 🌤"},"final":false}

data: {"seq":4,"data":{"content":""},"final":true,"finish":"stop","usage":{"input_tokens":5,"output_tokens":39}}

"""
    ),
    silent=0,
    text="You asked: why? 🌤",
    usage={"prompt_tokens": 5, "completion_tokens": 39, "total_tokens": 44},
)

ALL = (
    DIFY,
    DIFY_AGENT,
    OLLAMA,
    OLLAMA_TOOLS,
    ANTHROPIC,
    GEMINI,
    GEMINI_BLOCKED,
    CUMULATIVE,
    NESTED,
    NESTED_TOOLS,
    MOCK,
)
