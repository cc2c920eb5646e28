"""A chat completion, and the chunks that stream it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from stream_proxy.mock.checks import called_functions, count, missing, optional
from stream_proxy.mock.text import Heard, content_text, formatted, logprobs, sentence, thought, tokens
from stream_proxy.mock.wire import EPOCH, ApiError, JSONObject, digest, fingerprint


def completion(body: JSONObject, words: int | None) -> JSONObject:
    """The ``chat.completion`` that answers `body`, with a text of `words` words if given.

    :raises ApiError: 400 for a request that makes no sense.
    """
    messages = conversation(body)
    if optional(body, "top_logprobs", int) is not None and not body.get("logprobs"):
        raise ApiError(400, "'logprobs' must be set to true if 'top_logprobs' is used.", param="top_logprobs")
    heard = _heard(messages)
    identity = fingerprint(body)
    number = count(body, "n", 1, 128) or 1
    choices = [_choice(body, heard, words, index, identity) for index in range(number)]
    prompt = prompt_tokens(messages)
    reasoning = sum(len(tokens(choice["message"].get("reasoning_content", ""))) for choice in choices)
    answer = reasoning + sum(len(tokens(said)) for choice in choices for said in _said(choice["message"]))
    return {
        "id": f"chatcmpl-{identity[:29]}",
        "object": "chat.completion",
        "created": EPOCH,
        "model": body["model"],
        "choices": choices,
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": answer,
            "total_tokens": prompt + answer,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": reasoning,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": f"fp_{identity[-10:]}",
    }


def chunks(whole: JSONObject, *, include_usage: bool = False, obfuscate: bool = True) -> Iterator[JSONObject]:
    """The ``chat.completion.chunk`` objects that stream `whole`; choices interleave."""
    head = {**whole, "object": "chat.completion.chunk"}
    usage = head.pop("usage")
    if include_usage:
        head["usage"] = None
    noise = digest(whole["id"])
    for turn in zip_longest(*(_deltas(choice) for choice in whole["choices"])):
        for choice in turn:
            if choice is not None:
                chunk = {**head, "choices": [choice]}
                if obfuscate:
                    chunk["obfuscation"] = noise[: 16 - len(choice["delta"].get("content") or "") % 16]
                yield chunk
    if include_usage:
        yield {**head, "choices": [], "usage": usage}


def conversation(body: JSONObject) -> list[JSONObject]:
    """The ``messages`` of `body`: at least one, each with a role.

    :raises ApiError: 400 for anything else.
    """
    messages = optional(body, "messages", list)
    if not messages:
        raise missing("messages")
    if not all(isinstance(message, dict) and isinstance(message.get("role"), str) for message in messages):
        raise ApiError(
            400,
            "Invalid type for 'messages': expected objects with a role.",
            param="messages",
            code="invalid_type",
        )
    return messages


def prompt_tokens(messages: list[JSONObject]) -> int:
    """How many tokens `messages` are: their text, and three more for each."""
    return sum(3 + len(tokens(content_text(message.get("content")))) for message in messages)


def last_said(messages: list[JSONObject]) -> str:
    """What the user said last; without a user, nothing."""
    said = (message for message in reversed(messages) if message["role"] == "user")
    return content_text(next(said, {}).get("content"))


def _heard(messages: list[JSONObject]) -> Heard:
    if messages[-1]["role"] in ("tool", "function"):
        return Heard(content_text(messages[-1].get("content")), from_tool=True)
    return Heard(last_said(messages))


def _choice(body: JSONObject, heard: Heard, words: int | None, index: int, identity: str) -> JSONObject:
    text = sentence(body["model"], heard, words, index)
    message: JSONObject = {"role": "assistant", "content": None, "refusal": None}
    choice = {"index": index, "message": message, "logprobs": None, "finish_reason": "stop"}
    if body.get("reasoning_effort") not in (None, "none"):
        message["reasoning_content"] = thought(heard)
    calls = [] if heard.from_tool else called_functions(body, text)
    if calls:
        message["tool_calls"] = [
            {
                "id": f"call_{digest(identity, index, position)[:24]}",
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            for position, (name, arguments) in enumerate(calls)
        ]
        choice["finish_reason"] = "tool_calls"
        return choice
    layout = optional(body, "response_format", dict) or {"type": "text"}
    nested = layout.get("json_schema")
    text = formatted(
        text,
        layout.get("type"),
        nested.get("schema") if isinstance(nested, dict) else None,
        "response_format",
    )
    pieces = tokens(text)
    limit = count(body, "max_completion_tokens", 1, 1 << 31) or count(body, "max_tokens", 1, 1 << 31)
    if limit is not None and len(pieces) > limit:
        pieces = pieces[:limit]
        choice["finish_reason"] = "length"
    message["content"] = "".join(pieces)
    if optional(body, "logprobs", bool):
        choice["logprobs"] = {
            "content": logprobs(pieces, count(body, "top_logprobs", 0, 20) or 0),
            "refusal": None,
        }
    return choice


def _said(message: JSONObject) -> Iterator[str]:
    yield message["content"] or ""
    for call in message.get("tool_calls", ()):
        yield call["function"]["arguments"]


def _deltas(choice: JSONObject) -> Iterator[JSONObject]:
    index, message, odds = choice["index"], choice["message"], choice["logprobs"]

    def step(delta: JSONObject, odds: JSONObject | None = None, finish: str | None = None) -> JSONObject:
        return {"index": index, "delta": delta, "logprobs": odds, "finish_reason": finish}

    text = message["content"]
    yield step(
        {"role": "assistant", "content": None if text is None else "", "refusal": None},
        odds and {"content": [], "refusal": None},
    )
    for piece in tokens(message.get("reasoning_content", "")):
        yield step({"reasoning_content": piece})
    for position, piece in enumerate(tokens(text or "")):
        yield step({"content": piece}, odds and {"content": [odds["content"][position]], "refusal": None})
    for position, call in enumerate(message.get("tool_calls", ())):
        function = call["function"]
        yield step(
            {
                "tool_calls": [
                    {
                        "index": position,
                        "id": call["id"],
                        "type": call["type"],
                        "function": {"name": function["name"], "arguments": ""},
                    }
                ]
            }
        )
        for piece in tokens(function["arguments"]):
            yield step({"tool_calls": [{"index": position, "function": {"arguments": piece}}]})
    yield step({}, None, choice["finish_reason"])
