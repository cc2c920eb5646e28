"""Responses API call with the ``openai`` SDK (``pip install openai``), configured by the environment.

    OPENAI_STREAM=1 OPENAI_PROMPT="What is a proxy?" python examples/responses.py

===================  ============================================  =====================================
``OPENAI_BASE_URL``  the API's base URL                            the demo: ``http://127.0.0.1:8080/v1``
``OPENAI_API_KEY``   the key                                       ``none``
``OPENAI_MODEL``     the model                                     ``gpt-3.5-turbo``
``OPENAI_PROMPT``    the prompt                                    a greeting
``OPENAI_STREAM``    ``1``, ``true`` or ``yes``: stream the text;  no stream
                     ``0``, ``false`` or ``no``: do not
===================  ============================================  =====================================

The text goes to stdout, the usage to stderr.
"""

from __future__ import annotations

import os
import sys

from openai import OpenAI, OpenAIError
from openai.types.responses import Response, ResponseUsage


def wants_stream() -> bool:
    """Report whether the text should be streamed."""
    value = os.environ.get("OPENAI_STREAM", "").strip().lower()
    if value in ("1", "true", "yes"):
        return True
    if value in ("", "0", "false", "no"):
        return False
    sys.exit(f"OPENAI_STREAM is {value!r}: set it to 1, true or yes, or to 0, false or no")


def check(response: Response) -> Response:
    """Return the response.

    :raises OpenAIError: if its status is failed.
    """
    if response.status == "failed":
        raise OpenAIError(response.error.message if response.error else "the response failed")
    return response


def ask(client: OpenAI, model: str, prompt: str) -> ResponseUsage | None:
    """Print the whole response; return the usage."""
    response = check(client.responses.create(model=model, input=prompt))
    print(response.output_text)
    return response.usage


def ask_stream(client: OpenAI, model: str, prompt: str) -> ResponseUsage | None:
    """Print the response as it arrives; return the usage, which is in the last event."""
    with client.responses.create(model=model, input=prompt, stream=True) as events:
        for event in events:
            if event.type == "response.output_text.delta":
                print(event.delta, end="", flush=True)
            elif event.type in ("response.completed", "response.incomplete", "response.failed"):
                print()
                return check(event.response).usage
            elif event.type == "error":
                print()
                raise OpenAIError(event.message)
    print()
    raise OpenAIError("the stream ended before the answer did")


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
        print(f"{usage.input_tokens} tokens in, {usage.output_tokens} out", file=sys.stderr)


if __name__ == "__main__":
    main()
