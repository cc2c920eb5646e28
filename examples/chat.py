"""Chat completion with the ``openai`` SDK (``pip install openai``), configured by the environment.

    OPENAI_STREAM=1 OPENAI_PROMPT="What is a proxy?" python examples/chat.py

===================  ============================================  =====================================
``OPENAI_BASE_URL``  the API's base URL                            the demo: ``http://127.0.0.1:8080/v1``
``OPENAI_API_KEY``   the key                                       ``none``
``OPENAI_MODEL``     the model                                     ``gpt-3.5-turbo``
``OPENAI_PROMPT``    the prompt                                    a greeting
``OPENAI_STREAM``    ``1``, ``true`` or ``yes``: stream the text;  no stream
                     ``0``, ``false`` or ``no``: do not
===================  ============================================  =====================================

The adapter's port, ``http://127.0.0.1:28081/v1``, works too. The text goes to stdout, the usage to stderr.
"""

from __future__ import annotations

import os
import sys

from openai import OpenAI, OpenAIError
from openai.types import CompletionUsage


def wants_stream() -> bool:
    """Report whether the text should be streamed."""
    value = os.environ.get("OPENAI_STREAM", "").strip().lower()
    if value in ("1", "true", "yes"):
        return True
    if value in ("", "0", "false", "no"):
        return False
    sys.exit(f"OPENAI_STREAM is {value!r}: set it to 1, true or yes, or to 0, false or no")


def ask(client: OpenAI, model: str, prompt: str) -> CompletionUsage | None:
    """Print the whole response; return the usage."""
    completion = client.chat.completions.create(model=model, messages=[{"role": "user", "content": prompt}])
    print(completion.choices[0].message.content or "")
    return completion.usage


def ask_stream(client: OpenAI, model: str, prompt: str) -> CompletionUsage | None:
    """Print the response as it arrives; return the usage, which is in the last chunk."""
    usage, finished = None, False
    with client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": prompt}],
        stream=True,
        stream_options={"include_usage": True},
    ) as chunks:
        for chunk in chunks:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                print(choice.delta.content or "", end="", flush=True)
                finished = finished or choice.finish_reason is not None
    print()
    if not finished:
        raise OpenAIError("the stream ended before the answer did")
    return usage


def main() -> None:
    """Make the call, and print the response or the reason why there is none."""
    call = ask_stream if wants_stream() else ask
    try:
        client = OpenAI(
            base_url=os.environ.get("OPENAI_BASE_URL") or "http://127.0.0.1:8080/v1",
            api_key=os.environ.get("OPENAI_API_KEY") or "none",
        )
        usage = call(
            client,
            os.environ.get("OPENAI_MODEL") or "gpt-3.5-turbo",
            os.environ.get("OPENAI_PROMPT") or "Hello there!",
        )
    except (OpenAIError, ValueError) as error:
        # ValueError: an event that is not JSON. "Connection error." alone says little; its cause says more.
        sys.exit(" ".join(f"{error} {error.__cause__ or ''}".split()))
    if usage is not None:
        print(f"{usage.prompt_tokens} tokens in, {usage.completion_tokens} out", file=sys.stderr)


if __name__ == "__main__":
    main()
