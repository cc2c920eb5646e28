"""The examples, each run as its user runs it."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from stream_proxy import SSEDecoder
from stream_proxy.service.config import parse_config
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


class ReadmeTests(LoopbackTestCase):
    """The first screen of ``README.md``."""

    async def test_curl(self) -> None:
        """The curl line gets the answer that stands below it."""
        text = (ROOT / "README.md").read_text()
        call = re.search(r"curl -s http://127\.0\.0\.1:8080(\S+).*?-d '(.*?)'", text, re.S)
        assert call is not None
        answer = next(line for line in text[call.end() :].splitlines() if line.startswith("{"))
        port = await self.proxy(await self.mock())
        said = await self.request(port, target=call[1], body=json.loads(call[2]))
        self.assertEqual(said.body.decode(), answer)

    def test_adapter(self) -> None:
        """The adapter's configuration that stands in it can be used."""
        text = (ROOT / "README.md").read_text()
        block = next(block for block in re.findall(r"```json\n(.*?)```", text, re.S) if "adapter" in block)
        self.patch(os, "environ", {**os.environ, "AGENTS_KEY": "k"})
        config, warnings = parse_config(block.encode(), "README.md")
        self.assertIsNotNone(config.rules[0].adapter)
        self.assertEqual(warnings, [])

    def test_sans_io(self) -> None:
        """The lines of Python that stand in it work."""
        text = (ROOT / "README.md").read_text()
        code = next(
            block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "SSEDecoder" in block
        )
        names: dict[str, Any] = {"chunks": [chat_chunk({"content": "hi"}, "stop"), sse_event("[DONE]")]}
        exec(compile(code, "README.md", "exec"), names)
        self.assertIs(names["SSEDecoder"], SSEDecoder)
        self.assertEqual(names["answer"]["choices"][0]["message"]["content"], "hi")
