"""Sans-I/O core with plain asyncio and no Twisted: read an event stream, print the response that it makes.

    python examples/asyncio_accumulate.py http://127.0.0.1:8080/v1 demo "Hello!"

This requests a stream under that base URL (with OPENAI_API_KEY as the key, if set) and prints the
chat.completion that a call without ``stream`` would have returned. For the Responses API use
ResponseAccumulator.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from urllib.parse import urlsplit

from stream_proxy import APIError, ChatCompletionsAccumulator, SSEDecoder


async def accumulate(reader: asyncio.StreamReader) -> ChatCompletionsAccumulator:
    """Feed an event stream to an accumulator until the response is complete.

    :raises APIError: if the upstream reported an error, or the stream ended too early.
    """
    decoder, accumulator = SSEDecoder(), ChatCompletionsAccumulator()
    while not accumulator.complete:
        data = await reader.read(65_536)
        if not data:
            for event in decoder.end():
                accumulator.feed(event)
            accumulator.end(decoder.stray())
            break
        for event in decoder.feed(data):
            accumulator.feed(event)
    return accumulator


async def ask(base_url: str, model: str, prompt: str) -> bytes:
    """Make one chat call as a stream, and return the response as JSON."""
    url = urlsplit(base_url)
    secure = url.scheme == "https"
    call = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    body = json.dumps(call).encode()
    # With HTTP/1.0 the body is not chunked: it lasts until the connection closes. A real client uses an HTTP
    # library.
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
        response = await reader.readuntil(b"\r\n\r\n")
        if response.split(b" ", 2)[1] != b"200":
            sys.exit((await reader.read()).decode())
        return (await accumulate(reader)).result_bytes()
    finally:
        writer.close()


def main(base_url: str, model: str, prompt: str) -> None:
    """Print the response, or the reason why there is none."""
    try:
        print(asyncio.run(ask(base_url, model, prompt)).decode())
    except APIError as error:
        sys.exit(f"{error.status}: {error.message}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
