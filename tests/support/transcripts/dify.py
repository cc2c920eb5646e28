"""Responses of Dify, as its documentation shows them."""

# ruff: noqa: E501
# The lines are as long as the services write them.

from __future__ import annotations

from tests.support.transcripts.transcript import EVENTS, Transcript, events

DIFY = Transcript(
    name="dify",
    example="dify",
    model="dify-app",
    media="text/event-stream; charset=utf-8",
    flushes=events(
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
    flushes=events(
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
    replacement="I must not say that.",
)
