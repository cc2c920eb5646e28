"""Responses of services, byte for byte in the shapes that their documentation shows, and what they mean."""

from __future__ import annotations

from tests.support.transcripts.dify import DIFY, DIFY_AGENT
from tests.support.transcripts.in_house import CUMULATIVE, MOCK, NESTED, NESTED_TOOLS
from tests.support.transcripts.transcript import EVENTS, Transcript
from tests.support.transcripts.vendors import ANTHROPIC, GEMINI, GEMINI_BLOCKED, OLLAMA, OLLAMA_TOOLS

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

__all__ = [
    "ALL",
    "ANTHROPIC",
    "CUMULATIVE",
    "DIFY",
    "DIFY_AGENT",
    "EVENTS",
    "GEMINI",
    "GEMINI_BLOCKED",
    "MOCK",
    "NESTED",
    "NESTED_TOOLS",
    "OLLAMA",
    "OLLAMA_TOOLS",
    "Transcript",
]
