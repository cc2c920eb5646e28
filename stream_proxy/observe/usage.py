"""Usage of tokens, as APIs of different kinds report it in their answers. Sans-I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta, Struct, ValidationError, convert
from msgspec.json import Decoder

_INPUT = ("prompt_tokens", "input_tokens", "promptTokenCount")
_OUTPUT = ("completion_tokens", "output_tokens", "candidatesTokenCount")
_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details")
# Where they are not among the details: Anthropic's, DeepSeek's, Gemini's.
_CACHED = ("cache_read_input_tokens", "prompt_cache_hit_tokens", "cachedContentTokenCount")
_REASONING = ("thoughtsTokenCount", "reasoning_tokens")
# A count beyond this is none.
_MOST = 2**53
_NOTHING: Mapping[str, object] = {}
# What most providers of chat completions report; it needs no looking for other names.
_PLAIN_CHAT = frozenset(
    {
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "prompt_tokens_details",
        "completion_tokens_details",
        "prompt_cache_hit_tokens",
        "prompt_cache_miss_tokens",
        "reasoning_tokens",
    }
)


class Usage(Struct, frozen=True):
    """Tokens that an answer reports; ``None`` for a count that it does not have."""

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    reasoning: int | None = None


_Tokens = Annotated[int, Meta(ge=0, le=_MOST)] | None


class _Details(Struct, gc=False):
    cached_tokens: _Tokens = None
    reasoning_tokens: _Tokens = None


class _ChatUsage(Struct, gc=False):
    prompt_tokens: _Tokens = None
    completion_tokens: _Tokens = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    prompt_cache_hit_tokens: _Tokens = None
    reasoning_tokens: _Tokens = None

    def usage(self) -> Usage | None:
        """Return what it says, ``None`` if it has no count."""
        if self.prompt_tokens is None and self.completion_tokens is None:
            return None
        read, written = self.prompt_tokens_details, self.completion_tokens_details
        cached, reasoning = self.prompt_cache_hit_tokens, self.reasoning_tokens
        if read is not None and read.cached_tokens is not None:
            cached = read.cached_tokens
        if written is not None and written.reasoning_tokens is not None:
            reasoning = written.reasoning_tokens
        return Usage(self.prompt_tokens, self.completion_tokens, cached, reasoning)


class _Chunk(Struct, gc=False):
    model: str | None = None
    usage: _ChatUsage | None = None


_decode_chunk = Decoder(_Chunk).decode


def chunk_report(chunk: bytes) -> tuple[str | None, Usage | None]:
    """Return the model and the usage of a chat stream's chunk, decoding nothing else of it.

    :raises msgspec.DecodeError: it is no JSON, or its usage has another shape.
    """
    decoded = _decode_chunk(chunk)
    return decoded.model, None if decoded.usage is None else decoded.usage.usage()


def usage_of(reported: object) -> Usage | None:
    """Return what an answer's usage says, decoded from JSON; ``None`` if it has no count."""
    if not isinstance(reported, dict):
        return None
    if _PLAIN_CHAT.issuperset(reported):
        try:
            return convert(reported, _ChatUsage).usage()
        except ValidationError:
            pass  # one of the counts is none; the others may be
    input, output = _count(reported, _INPUT), _count(reported, _OUTPUT)
    if input is None and output is None:
        return None
    cached = _count(_details(reported, _INPUT_DETAILS), ("cached_tokens",))
    reasoning = _count(_details(reported, _OUTPUT_DETAILS), ("reasoning_tokens",))
    return Usage(
        input,
        output,
        _count(reported, _CACHED) if cached is None else cached,
        _count(reported, _REASONING) if reasoning is None else reasoning,
    )


def _details(reported: Mapping[str, object], names: tuple[str, ...]) -> Mapping[str, object]:
    for name in names:
        value = reported.get(name)
        if isinstance(value, dict):
            return value
    return _NOTHING


def _count(counts: Mapping[str, object], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = counts.get(name)
        if type(value) is int and 0 <= value <= _MOST:
            return value
    return None
