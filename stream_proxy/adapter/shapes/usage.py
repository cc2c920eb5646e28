"""Token counts under the names of many services, converted to OpenAI's ``usage``."""

from __future__ import annotations

from collections.abc import Mapping

from stream_proxy.lenient_json import JSON, JSONObject, is_integer

_PROMPT = (
    "prompt_tokens",
    "input_tokens",
    "promptTokenCount",
    "prompt_eval_count",
    "promptTokens",
    "inputTokens",
    "input_count",
)
_COMPLETION = (
    "completion_tokens",
    "output_tokens",
    "candidatesTokenCount",
    "eval_count",
    "completionTokens",
    "outputTokens",
    "output_count",
)
_TOTAL = ("total_tokens", "totalTokenCount", "totalTokens", "token_count")
# Anthropic counts tokens read from or written to its cache beside input_tokens, OpenAI inside prompt_tokens.
_CACHED_BESIDE = ("cache_read_input_tokens", "cache_creation_input_tokens")
_CACHED = ("cache_read_input_tokens", "cachedContentTokenCount")
# Gemini counts thoughts beside the answer, OpenAI inside completion_tokens.
_THOUGHTS_BESIDE = "thoughtsTokenCount"
_DETAILS = ("prompt_tokens_details", "completion_tokens_details")

#: Every name of a count.
NAMES = frozenset((*_PROMPT, *_COMPLETION, *_TOTAL))


def openai_usage(counts: Mapping[str, JSON]) -> JSONObject | None:
    """Return OpenAI's ``usage`` object, or ``None`` if `counts` holds no count of tokens.

    A missing total is the sum; a missing part is the rest of the total, else 0.
    """
    prompt, completion, total = (_first(counts, names) for names in (_PROMPT, _COMPLETION, _TOTAL))
    if prompt is None and completion is None and total is None:
        return None
    if prompt is not None and "prompt_tokens" not in counts:
        prompt += sum(_count(counts.get(name)) or 0 for name in _CACHED_BESIDE)
    thoughts = _count(counts.get(_THOUGHTS_BESIDE))
    if thoughts is not None:
        completion = (completion or 0) + thoughts
    if prompt is None:
        prompt = max((total or 0) - (completion or 0), 0)
    if completion is None:
        completion = max((total or 0) - prompt, 0)
    usage: JSONObject = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion if total is None else total,
    }
    cached = _first(counts, _CACHED)
    if cached is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    if thoughts is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": thoughts}
    usage.update({name: counts[name] for name in _DETAILS if isinstance(counts.get(name), dict)})
    return usage


def _first(counts: Mapping[str, JSON], names: tuple[str, ...]) -> int | None:
    return next((count for name in names if (count := _count(counts.get(name))) is not None), None)


def _count(value: JSON) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if is_integer(value) and 0 <= value < 2**63:
        return value
    return None
