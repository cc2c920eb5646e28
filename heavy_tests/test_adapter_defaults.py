"""Commands that need no config file, on their default ports."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.payloads import CHAT_BODY
from tests.support.twistd import Process, ProcessTestCase

CHAT_SCRIPT = Path(__file__).parent.parent / "examples" / "chat.py"


class DefaultTests(ProcessTestCase):
    """``twistd -n openai-stream-mock`` and ``twistd -n openai-stream-adapter``."""

    async def test_two_shells(self) -> None:
        """The adapter gets its responses from the mock, for curl's kind of call and for the example's."""
        self.plugin = "openai-stream-mock"
        mock = self.twistd()
        self.plugin = "openai-stream-adapter"
        directory = self.directory()
        (directory / "config.json").write_text("it is not read")
        adapter = self.twistd(path=directory)
        await mock.line("the mock is at http://127.0.0.1:28080/v1 and http://127.0.0.1:28080/stream")
        await adapter.line("the adapter's base URL is http://127.0.0.1:28081/v1")
        response = await self.request(28081, body={**CHAT_BODY, "model": "gpt-3.5-turbo"})
        text = response.json()["choices"][0]["message"]["content"]
        self.assertIn("hi", text)
        for stream in ("0", "1"):
            environment = {
                "OPENAI_BASE_URL": "http://127.0.0.1:28081/v1",
                "OPENAI_PROMPT": "hi",
                "OPENAI_STREAM": stream,
            }
            script = Process([sys.executable, str(CHAT_SCRIPT)], env=environment)
            self.addCleanup(script.kill)
            self.assertEqual(await script.ended(), 0, script.output)
            self.assertIn(text, script.output)
