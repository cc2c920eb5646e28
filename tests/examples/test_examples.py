"""The examples, each run as its user runs it."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from stream_proxy import SSEDecoder
from stream_proxy.service.configuration.loading import parse_config
from tests.support.loopback import LoopbackTestCase
from tests.support.payloads import CHAT
from tests.support.payloads import chunk as chat_chunk
from tests.support.payloads import event as sse_event
from tests.support.twistd import Process
from tests.support.wire import Stream as Connection
from tests.support.wire import read_request

ROOT = Path(__file__).parent.parent.parent
CALL = {"model": "demo", "messages": [{"role": "user", "content": "Hello!"}]}


class ExampleTests(LoopbackTestCase):
    """``examples/``."""

    def run_example(self, name: str, *arguments: str) -> Process:
        """Start ``examples/name``."""
        process = Process([sys.executable, str(ROOT / "examples" / name), *arguments])
        self.addCleanup(process.kill)
        return process

    async def ordinary_answer(self) -> Any:
        """What the mock says to `CALL`."""
        port = int((await self.mock()).rpartition(":")[2])
        return (await self.request(port, body=CALL)).json()

    async def test_twisted_site(self) -> None:
        """The site answers by itself at one path, and through the proxy, converting, below the other."""
        process = self.run_example("twisted_site.py", await self.mock(), "0")
        port = int((await process.line(r"listening on http://127\.0\.0\.1:(\d+)"))[1])
        hello = await self.request(port, "GET", "/hello")
        self.assertEqual(hello.body, b"hello\n")
        answer = await self.request(port, target="/openai" + CHAT, body=CALL)
        self.assertEqual(answer.json(), await self.ordinary_answer())
        process.signal("TERM")
        await process.ended()
        self.assertNotIn("Traceback", process.output)

    async def test_asyncio_accumulate(self) -> None:
        """What it prints equals the answer that the same call gets without ``stream``."""
        process = self.run_example("asyncio_accumulate.py", f"{await self.mock()}/v1", "demo", "Hello!")
        self.assertEqual(await process.ended(), 0, process.output)
        self.assertEqual(json.loads(process.output), await self.ordinary_answer())

    async def test_asyncio_accumulate_error(self) -> None:
        """A stream that ends too early is an error in one line, not half an answer."""

        async def script(stream: Connection) -> None:
            await read_request(stream)
            stream.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            stream.write(chat_chunk({"role": "assistant", "content": "Hel"}))
            stream.close()

        upstream = await self.upstream(script)
        process = self.run_example("asyncio_accumulate.py", f"{upstream.url}/v1", "demo", "Hello!")
        self.assertEqual(await process.ended(), 1)
        self.assertRegex(process.output, r"\A502: .*neither.*\n\Z")


class PageTests(LoopbackTestCase):
    """Code and configuration that ``README.md`` and ``docs/`` show."""

    async def test_curl(self) -> None:
        """The upstream refuses the README's first call; through the proxy it is answered as shown."""
        text = (ROOT / "README.md").read_text()
        calls = list(re.finditer(r"curl -s http://127\.0\.0\.1:(\d+)(\S+).*?-d '(.*?)'", text, re.S))[:2]
        self.assertEqual(calls[1][1], "8080")
        upstream = await self.mock(streams_only=True)
        ports = [int(upstream.rpartition(":")[2]), await self.proxy(upstream)]
        for call, port, status in zip(calls, ports, (400, 200), strict=True):
            shown = next(line for line in text[call.end() :].splitlines() if line.startswith("{"))
            response = await self.request(port, target=call[2], body=json.loads(call[3]))
            self.assertEqual((response.status, response.body.decode()), (status, shown))

    def test_configurations(self) -> None:
        """Each configuration that a page shows can be used, and has no unknown key."""
        key_file = Path(self.mktemp())
        key_file.write_text("key")
        key_file.chmod(0o600)
        self.patch(os, "environ", {**os.environ, "AGENTS_KEY": "k", "OPENAI_API_KEY": "k"})
        found = 0
        for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
            for block in re.findall(r"```json\n(.*?)```", page.read_text(), re.S):
                if '"rules"' in block:
                    text = block.replace("/etc/openai-stream-proxy/clients", str(key_file))
                    self.assertEqual(parse_config(text.encode(), page.name)[1], [])
                    found += 1
        self.assertGreaterEqual(found, 3)

    def test_sans_io(self) -> None:
        """The Python code about the accumulators works, and is the same wherever it is shown."""
        blocks = {
            block
            for page in (ROOT / "README.md", ROOT / "docs" / "library.md")
            for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
            if "SSEDecoder" in block
        }
        self.assertEqual(len(blocks), 1)
        names: dict[str, Any] = {}
        exec(compile(blocks.pop(), "README.md", "exec"), names)
        self.assertIs(names["SSEDecoder"], SSEDecoder)
        completion = names["completion"]([chat_chunk({"content": "hi"}, "stop"), sse_event("[DONE]")])
        self.assertEqual(completion["choices"][0]["message"]["content"], "hi")
