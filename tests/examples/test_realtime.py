"""Realtime examples, run against the demo's upstream behind a proxy."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from twisted.internet.utils import getProcessOutputAndValue

from tests.support.loopback import LoopbackTestCase, reactor

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


class ExampleTests(LoopbackTestCase):
    """Each example, run as a process."""

    async def test_sdk(self) -> None:
        """The question is answered, and the token count printed."""
        port = await self.proxy(await self.mock())
        environment = {**os.environ, "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1"}
        example = str(EXAMPLES / "realtime_sdk.py")
        out, err, code = await getProcessOutputAndValue(
            sys.executable, [example, "What", "is", "a", "proxy?"], env=environment, reactor=reactor
        )
        self.assertEqual((code, err), (0, b""))
        self.assertIn("“What is a proxy?”", out.decode())
        self.assertRegex(out.decode(), r"\n\(\d+ tokens\)\n$")
