"""Responses of invented services: cumulative text, JSON inside JSON, and the demo's backend."""

# ruff: noqa: E501
# The lines are as long as the services write them.

from __future__ import annotations

from tests.support.transcripts.transcript import EVENTS, Transcript, call, events, sse

CUMULATIVE = Transcript(
    name="cumulative",
    example="cumulative",
    model="in-house",
    media=EVENTS,
    flushes=events(
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
    flushes=events(
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
    flushes=events(
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
    tool_calls=(call("c-81", "refund", '{"order": 7}'),),
    usage={"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42},
    finish="tool_calls",
)

MOCK = Transcript(
    name="mock",
    example="mock",
    model="gpt-3.5-turbo",
    media=EVENTS,
    flushes=events(
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

SPRING = Transcript(
    name="spring",
    example="spring",
    model="spring",
    media=EVENTS,
    # Spring writes no blank after the colon, so that a token's own blank looks like the one of the standard.
    flushes=sse("Air", " scatters", " blue:", "\n", "- sky", ("complete", "done"), between=""),
    silent=0,
    text="Air scatters blue:\n- sky",
    usage=None,
)

NAMED_EVENTS = Transcript(
    name="named events",
    example="named-events",
    model="assistant",
    media=EVENTS,
    flushes=sse(
        ("tool_call", {"name": "search", "arguments": {}}),
        ("tool_result", "12 hits"),
        ("thinking", "Let me see"),
        ("content", "Two lines:"),
        ("content", "\n"),
        ("content", '{"done": true}'),
        ("done", {"sessionId": "s"}),
    ),
    silent=2,
    text='Two lines:\n{"done": true}',
    reasoning="Let me see",
    usage=None,
)
