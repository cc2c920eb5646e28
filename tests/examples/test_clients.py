"""SDK examples ``chat.py`` and ``responses.py``, each run as a user runs it, against the mock."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

from twisted.internet.defer import Deferred, gatherResults

from tests.support.forks import OPENAI_MODULES
from tests.support.loopback import LoopbackTestCase
from tests.support.payloads import chunk, event
from tests.support.twistd import Process
from tests.support.wire import Stream, event_stream_head, read_request

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
BOTH = ("chat.py", "responses.py")
#: The first piece of text that each of them receives.
PIECES = {
    "chat.py": chunk({"role": "assistant", "content": "Hel"}),
    "responses.py": event(
        {"type": "response.output_text.delta", "delta": "Hel"}, "response.output_text.delta"
    ),
}


class ClientExampleTests(LoopbackTestCase):
    """Both examples, which read the same environment."""

    def setUp(self) -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("OPENAI_")}
        patched = mock.patch.dict(os.environ, clean, clear=True)
        patched.start()
        self.addCleanup(patched.stop)

    def start(self, name: str, environment: dict[str, str]) -> Process:
        """Start an example; only `environment` configures the SDK."""
        process = Process([str(EXAMPLES / name)], env=environment, modules=OPENAI_MODULES)
        self.addCleanup(process.kill)
        return process

    async def run_example(self, name: str, environment: dict[str, str]) -> tuple[str, str, int]:
        """Return stdout, stderr and exit status of an example."""
        process = self.start(name, environment)
        status = await process.ended()
        return process.outputs[1], process.outputs[2], status

    async def each(self, *runs: tuple[str, dict[str, str]]) -> list[tuple[str, str, int]]:
        """Run all examples at the same time."""
        started = [Deferred.fromCoroutine(self.run_example(name, environment)) for name, environment in runs]
        return await gatherResults(started, consumeErrors=True)

    async def test_answers(self) -> None:
        """Both modes print the same text on stdout and the same usage on stderr."""
        base = {"OPENAI_BASE_URL": f"{await self.mock()}/v1"}
        more = {"OPENAI_MODEL": "demo", "OPENAI_PROMPT": "What is a proxy?"}
        runs = await self.each(
            *((name, {**base, **more, "OPENAI_STREAM": stream}) for name in BOTH for stream in ("no", "Yes"))
        )
        self.assertEqual(runs[0], runs[1])
        self.assertEqual(runs[2], runs[3])
        for out, err, code in runs:
            self.assertRegex(out, r"\AYou said: “What is a proxy\?”\. This is demo, [^\n]*\n\Z")
            self.assertRegex(err, r"\A\d+ tokens in, \d\d out\n\Z")
            self.assertEqual(code, 0)

    async def test_defaults(self) -> None:
        """Only the base URL has to be set: the default is one greeting to gpt-3.5-turbo, without a stream."""
        base = {"OPENAI_BASE_URL": f"{await self.mock()}/v1"}
        for out, _, code in await self.each(*((name, base) for name in BOTH)):
            self.assertIn("“Hello there!”. This is gpt-3.5-turbo", out)
            self.assertEqual(code, 0)

    async def test_as_it_comes(self) -> None:
        """Each piece is printed before the next one arrives."""
        for name in BOTH:
            printed: Deferred[None] = Deferred()

            async def script(stream: Stream, name: str = name, printed: Deferred[None] = printed) -> None:
                await read_request(stream)
                stream.write(event_stream_head())
                stream.chunk(PIECES[name])
                await printed
                stream.close()

            upstream = await self.upstream(script)
            environment = {"OPENAI_BASE_URL": f"{upstream.url}/v1", "OPENAI_STREAM": "1"}
            process = self.start(name, environment)
            await process.line("Hel")
            printed.callback(None)
            self.assertEqual(await process.ended(), 1)

    async def test_errors(self) -> None:
        """An API error, or an invalid setting, is one line on stderr and exit status 1."""
        base = {"OPENAI_BASE_URL": f"{await self.mock()}/v1"}
        cases = (
            ({**base, "OPENAI_MODEL": "stream-only"}, "Stream must be set to true"),
            ({**base, "OPENAI_STREAM": "maybe"}, "OPENAI_STREAM is 'maybe'"),
        )
        asked = [(name, environment, text) for name in BOTH for environment, text in cases]
        runs = await self.each(*((name, environment) for name, environment, _ in asked))
        for (out, err, code), (_, _, text) in zip(runs, asked, strict=True):
            self.assertEqual((out, code), ("", 1))
            self.assertRegex(err, rf"\A[^\n]*{text}[^\n]*\n\Z")

    async def test_broken_streams(self) -> None:
        """A stream that breaks, ends early, reports an error or is not JSON is such a line too."""
        error = {"message": "no more", "code": None, "param": None}
        told = {
            "chat.py": event({"error": error}),
            "responses.py": event({"type": "error", **error}, "error"),
        }

        def whole(data: bytes) -> bytes:
            return b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)

        async def one(name: str, last: bytes, expected: str) -> None:
            async def script(stream: Stream) -> None:
                await read_request(stream)
                stream.write(event_stream_head())
                stream.chunk(PIECES[name])
                stream.write(last)
                stream.close()

            upstream = await self.upstream(script)
            environment = {"OPENAI_BASE_URL": f"{upstream.url}/v1", "OPENAI_STREAM": "1"}
            out, err, code = await self.run_example(name, environment)
            self.assertEqual((out.rstrip("\n"), code), ("Hel", 1))
            self.assertRegex(err, rf"\A[^\n]*{expected}[^\n]*\n\Z")

        ends = [one(name, b"", "incomplete chunked read") for name in BOTH]
        ends += [one(name, b"0\r\n\r\n", "the stream ended before the answer did") for name in BOTH]
        ends += [one(name, whole(told[name]), "no more") for name in BOTH]
        ends.append(one("chat.py", whole(event("<html>")), "Expecting value"))
        await gatherResults([Deferred.fromCoroutine(end) for end in ends], consumeErrors=True)
