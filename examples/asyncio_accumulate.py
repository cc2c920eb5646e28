"""The sans-I/O part with plain asyncio and no Twisted: read an event stream, print the answer it makes.

    python examples/asyncio_accumulate.py http://127.0.0.1:8080/v1 demo "Hello!"

asks for a stream under that base URL (OPENAI_API_KEY, where there is one, is the key) and prints the
chat.completion that a call without ``stream`` would have got. For the Responses API take ResponseAccumulator.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from urllib.parse import urlsplit

from stream_proxy import APIError, ChatCompletionsAccumulator, SSEDecoder


async def accumulate(reader: asyncio.StreamReader) -> ChatCompletionsAccumulator:
    """Feed an event stream to an accumulator until the answer is whole.

    :raises APIError: the upstream reported an error, or the stream ended too early.
    """
    decoder, accumulator = SSEDecoder(), ChatCompletionsAccumulator()
    while not accumulator.complete:
        data = await reader.read(65_536)
        if not data:
            accumulator.end(decoder.stray())
            break
        for event in decoder.feed(data):
            accumulator.feed(event)
    return accumulator


async def ask(base_url: str, model: str, prompt: str) -> bytes:
    """One chat call, made as a stream; the answer as JSON."""
    url = urlsplit(base_url)
    secure = url.scheme == "https"
    call = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    body = json.dumps(call).encode()
    # HTTP/1.0, because its body simply goes on until the connection closes. A real client has a library.
    head = [
        f"POST {url.path.rstrip('/')}/chat/completions HTTP/1.0",
        f"Host: {url.netloc}",
        f"Authorization: Bearer {os.environ.get('OPENAI_API_KEY', 'none')}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    reader, writer = await asyncio.open_connection(
        url.hostname, url.port or (443 if secure else 80), ssl=secure or None
    )
    try:
        writer.write("\r\n".join([*head, "", ""]).encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        if answer.split(b" ", 2)[1] != b"200":
            sys.exit((await reader.read()).decode())
        return (await accumulate(reader)).result_bytes()
    finally:
        writer.close()


def main(base_url: str, model: str, prompt: str) -> None:
    """Print the answer, or say why there is none."""
    try:
        print(asyncio.run(ask(base_url, model, prompt)).decode())
    except APIError as error:
        sys.exit(f"{error.status}: {error.message}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
