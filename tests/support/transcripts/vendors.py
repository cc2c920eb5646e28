"""Responses of model vendors' own APIs, as their documentation shows them."""

# ruff: noqa: E501
# The lines are as long as the services write them.

from __future__ import annotations

from tests.support.transcripts.transcript import EVENTS, Transcript, call, events, lines, sse, usage

OLLAMA = Transcript(
    name="ollama",
    example="ollama",
    model="qwen3",
    media="application/x-ndjson",
    flushes=lines(
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
    flushes=lines(
        """{"model":"llama3.2","created_at":"2025-05-27T22:54:57.641643Z","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"get_current_weather","arguments":{"format":"celsius","location":"Toronto, ON"}}}]},"done":false}
{"model":"llama3.2","created_at":"2025-05-27T22:54:57.673559Z","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"get_time","arguments":{}}}]},"done":false}
{"model":"llama3.2","created_at":"2025-05-27T22:54:57.693Z","message":{"role":"assistant","content":""},"done_reason":"stop","done":true,"total_duration":885095291,"load_duration":3753500,"prompt_eval_count":122,"prompt_eval_duration":328493000,"eval_count":33,"eval_duration":552222000}
"""
    ),
    silent=0,
    text=None,
    tool_calls=(
        call("call_0", "get_current_weather", '{"format":"celsius","location":"Toronto, ON"}'),
        call("call_1", "get_time", "{}"),
    ),
    usage={"prompt_tokens": 122, "completion_tokens": 33, "total_tokens": 155},
    finish="tool_calls",
)

ANTHROPIC = Transcript(
    name="anthropic",
    example="anthropic",
    model="claude-sonnet-4-6",
    media="text/event-stream; charset=utf-8",
    flushes=events(
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
        for flush in events(
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

COHERE = Transcript(
    name="cohere",
    example="cohere",
    model="command-a-03-2025",
    media=EVENTS,
    flushes=sse(
        (
            "message-start",
            {"id": "m", "type": "message-start", "delta": {"message": {"role": "assistant", "content": []}}},
        ),
        (
            "content-start",
            {
                "type": "content-start",
                "index": 0,
                "delta": {"message": {"content": {"type": "thinking", "thinking": ""}}},
            },
        ),
        (
            "content-delta",
            {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"thinking": "hm"}}}},
        ),
        ("content-end", {"type": "content-end", "index": 0}),
        ("tool-plan-delta", {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "I look."}}}),
        (
            "content-delta",
            {"type": "content-delta", "index": 1, "delta": {"message": {"content": {"text": "Air "}}}},
        ),
        (
            "content-delta",
            {"type": "content-delta", "index": 1, "delta": {"message": {"content": {"text": "scatters."}}}},
        ),
        (
            "citation-start",
            {
                "type": "citation-start",
                "index": 0,
                "delta": {"message": {"citations": {"start": 0, "end": 3, "text": "Air"}}},
            },
        ),
        (
            "message-end",
            {
                "type": "message-end",
                "delta": {
                    "finish_reason": "MAX_TOKENS",
                    "usage": {
                        "billed_units": {"input_tokens": 1, "output_tokens": 2},
                        "tokens": {"input_tokens": 17, "output_tokens": 6},
                    },
                },
            },
        ),
    ),
    silent=2,
    text="Air scatters.",
    reasoning="hm",
    usage=usage(17, 6),
    finish="length",
)

BEDROCK = Transcript(
    name="bedrock",
    example="bedrock",
    model="claude",
    media=EVENTS,
    flushes=sse(
        {"messageStart": {"role": "assistant"}},
        {"contentBlockDelta": {"delta": {"reasoningContent": {"text": "hm"}}, "contentBlockIndex": 0}},
        {"contentBlockStop": {"contentBlockIndex": 0}},
        {"contentBlockDelta": {"delta": {"text": "Air "}, "contentBlockIndex": 1}},
        {"contentBlockDelta": {"delta": {"text": "scatters."}, "contentBlockIndex": 1}},
        {"contentBlockStop": {"contentBlockIndex": 1}},
        {"messageStop": {"stopReason": "max_tokens"}},
        {
            "metadata": {
                "usage": {"inputTokens": 5, "outputTokens": 4, "totalTokens": 9},
                "metrics": {"latencyMs": 9},
            }
        },
    ),
    silent=0,
    text="Air scatters.",
    reasoning="hm",
    usage=usage(5, 4),
    finish="length",
)
