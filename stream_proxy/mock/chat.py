"""Chat completions, and the chunks that stream one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from stream_proxy.mock.checks import called_functions, count, optional
from stream_proxy.mock.text import Prompt, content_text, formatted, logprobs, tokens
from stream_proxy.mock.wire import EPOCH, JSONObject, digest, fingerprint, invalid, missing


def completion(body: JSONObject, words: int | None) -> JSONObject:
    """Return the ``chat.completion`` for a request body, with a text of `words` words if given.

    :raises MockError: 400 for an invalid request.
    """
    messages = conversation(body)
    if optional(body, "top_logprobs", int) is not None and not body.get("logprobs"):
        raise invalid("top_logprobs", "'logprobs' must be set to true if 'top_logprobs' is used.")
    prompt = _last_prompt(messages)
    identity = fingerprint(body)
    number = count(body, "n", 1, 128) or 1
    choices = [_choice(body, prompt, words, index, identity) for index in range(number)]
    input_tokens = prompt_tokens(messages)
    reasoning = sum(len(tokens(choice["message"].get("reasoning_content", ""))) for choice in choices)
    texts = (text for choice in choices for text in _generated_texts(choice["message"]))
    output_tokens = reasoning + sum(len(tokens(text)) for text in texts)
    return {
        "id": f"chatcmpl-{identity[:29]}",
        "object": "chat.completion",
        "created": EPOCH,
        "model": body["model"],
        "choices": choices,
        "usage": {
            "prompt_tokens": input_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": input_tokens + output_tokens,
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
    """Yield the ``chat.completion.chunk`` objects that stream the completion `whole`; choices interleave."""
    head = {**whole, "object": "chat.completion.chunk"}
    usage = head.pop("usage")
    if include_usage:
        head["usage"] = None
    noise = digest(whole["id"])
    for choices in zip_longest(*(_deltas(choice) for choice in whole["choices"])):
        for choice in choices:
            if choice is not None:
                chunk = {**head, "choices": [choice]}
                if obfuscate:
                    chunk["obfuscation"] = noise[: 16 - len(choice["delta"].get("content") or "") % 16]
                yield chunk
    if include_usage:
        yield {**head, "choices": [], "usage": usage}


def conversation(body: JSONObject) -> list[JSONObject]:
    """Return the ``messages`` of `body`: at least one, each with a role.

    :raises MockError: 400 for anything else.
    """
    messages = optional(body, "messages", list)
    if not messages:
        raise missing("messages")
    if not all(isinstance(message, dict) and isinstance(message.get("role"), str) for message in messages):
        raise invalid(
            "messages", "Invalid type for 'messages': expected objects with a role.", "invalid_type"
        )
    return messages


def prompt_tokens(messages: list[JSONObject]) -> int:
    """Count the tokens of `messages`: those of their text, and three for each message."""
    return sum(3 + len(tokens(content_text(message.get("content")))) for message in messages)


def last_user_text(messages: list[JSONObject]) -> str:
    """Return the text of the last user message; an empty one if there is none."""
    found = (message for message in reversed(messages) if message["role"] == "user")
    return content_text(next(found, {}).get("content"))


def _last_prompt(messages: list[JSONObject]) -> Prompt:
    if messages[-1]["role"] in ("tool", "function"):
        return Prompt(content_text(messages[-1].get("content")), from_tool=True)
    return Prompt(last_user_text(messages))


def _choice(body: JSONObject, prompt: Prompt, words: int | None, index: int, identity: str) -> JSONObject:
    text = prompt.response(body["model"], words, index)
    message: JSONObject = {"role": "assistant", "content": None, "refusal": None}
    choice = {"index": index, "message": message, "logprobs": None, "finish_reason": "stop"}
    if body.get("reasoning_effort") not in (None, "none"):
        message["reasoning_content"] = prompt.reasoning()
    calls = [] if prompt.from_tool else called_functions(body, text)
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
    schema = nested.get("schema") if isinstance(nested, dict) else None
    text = formatted(text, layout.get("type"), schema, "response_format")
    pieces = tokens(text)
    limit = count(body, "max_completion_tokens", 1, 1 << 31) or count(body, "max_tokens", 1, 1 << 31)
    if limit is not None and len(pieces) > limit:
        pieces = pieces[:limit]
        choice["finish_reason"] = "length"
    message["content"] = "".join(pieces)
    if optional(body, "logprobs", bool):
        odds = logprobs(pieces, count(body, "top_logprobs", 0, 20) or 0)
        choice["logprobs"] = {"content": odds, "refusal": None}
    return choice


def _generated_texts(message: JSONObject) -> Iterator[str]:
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
        opening = {"index": position, **call, "function": {**function, "arguments": ""}}
        yield step({"tool_calls": [opening]})
        for piece in tokens(function["arguments"]):
            yield step({"tool_calls": [{"index": position, "function": {"arguments": piece}}]})
    yield step({}, None, choice["finish_reason"])
