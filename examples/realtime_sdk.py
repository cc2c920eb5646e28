"""Realtime session through the proxy, with the ``openai`` SDK: ``pip install 'openai[realtime]'``.

    python examples/realtime_sdk.py "What is a proxy?"

The server is the demo (``make run``) unless ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY`` are set; a real
upstream may need another ``MODEL``.
"""

from __future__ import annotations

import os
import sys

from openai import OpenAI


def main() -> None:
    """Ask a question, and print the response as it arrives."""
    question = " ".join(sys.argv[1:]) or "Hello there!"
    client = OpenAI(
        base_url=os.environ.get("OPENAI_BASE_URL") or "http://127.0.0.1:8080/v1",
        api_key=os.environ.get("OPENAI_API_KEY") or "demo",
    )
    with client.realtime.connect(model=os.environ.get("MODEL") or "gpt-realtime") as session:
        session.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        session.conversation.item.create(
            item={
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": question}],
            }
        )
        session.response.create()
        for event in session:
            if event.type == "response.output_text.delta":
                print(event.delta, end="", flush=True)
            elif event.type == "response.done":
                usage = event.response.usage
                print(f"\n({usage.total_tokens if usage else '?'} tokens)")
                return
            elif event.type == "error":
                raise SystemExit(event.error.message)
        raise SystemExit("The session ended without an answer.")


if __name__ == "__main__":
    main()
