"""Tests of the mock as a process: ``twistd openai-stream-mock``."""

from __future__ import annotations

import signal

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol

from stream_proxy.service.listening import any_interface
from tests.support.loopback import reactor
from tests.support.payloads import CHAT, CHAT_BODY
from tests.support.twistd import Process, ProcessTestCase, free_port
from tests.support.wire import Message, Stream, read_response, send_request

ACCEPT = ("Accept", "text/event-stream")


class MockProcessTests(ProcessTestCase):
    """Tests that start the real twistd."""

    plugin = "openai-stream-mock"

    async def ask(self, host: str, port: int, target: str) -> Message:
        """Send a chat call to `host`, and return the response."""
        stream = Stream()
        await connectProtocol(HostnameEndpoint(reactor, host, port), stream)
        send_request(stream, "POST", target, CHAT_BODY, [ACCEPT, ("Connection", "close")])
        response = await read_response(stream)
        await stream.gone()
        return response

    async def stop(self, process: Process) -> None:
        """End the process with SIGTERM."""
        process.signal("TERM")
        await process.ended()
        self.assert_ended_by(signal.SIGTERM, process)

    async def test_serves(self) -> None:
        """The mock logs its URLs once, and serves the OpenAI-compatible API and the SSE service there."""
        port = free_port()
        process = self.twistd("--port", str(port), forked=False)
        url = f"http://127.0.0.1:{port}"
        await process.line(f"the mock is at {url}/v1 and {url}/stream\n")
        self.assertEqual((await self.ask("127.0.0.1", port, CHAT)).json()["object"], "chat.completion")
        response = await self.ask("127.0.0.1", port, "/stream")
        self.assertEqual(
            (response.status, response.get("content-type")), (200, "text/event-stream; charset=utf-8")
        )
        await self.stop(process)
        self.assertEqual(process.output.count("the mock is at"), 1)

    async def test_hosts(self) -> None:
        """``--host`` decides on which addresses the mock listens: one, all, or all of IPv4."""

        async def one(host: str, *reached: str) -> None:
            port = free_port()
            process = self.twistd("-p", str(port), "--host", host)
            await process.line("the mock is at")
            for address in reached:
                self.assertEqual((await self.ask(address, port, CHAT)).status, 200)
            await self.stop(process)

        starts = [one("0.0.0.0", "127.0.0.1", "127.0.0.2"), one("localhost", "127.0.0.1")]
        if any_interface() == "::":
            starts.append(one("::", "127.0.0.1", "::1"))
        await gatherResults([Deferred.fromCoroutine(start) for start in starts], consumeErrors=True)

    async def test_refused(self) -> None:
        """An invalid port or host, or a port in use, fails the start with one line."""
        taken = int((await self.mock()).rpartition(":")[2])

        async def one(expected: str, *arguments: str) -> None:
            process = self.twistd(*arguments)
            self.assertEqual(await process.ended(), 1)
            self.assertEqual(process.output, expected + "\n")

        cases = [
            *(
                one(f"--port {port}: must be a number from 1 to 65535", f"--port={port}")
                for port in ("http", "0", "-1", "65536", "", "²", "9" * 5000)
            ),
            one(
                f"--host 127.0.0.1 --port {taken}: cannot listen on port {taken}: Address already in use",
                f"--port={taken}",
            ),
            one("--host ü..: is neither an address nor a host name", "--host=ü.."),
        ]
        await gatherResults([Deferred.fromCoroutine(case) for case in cases], consumeErrors=True)

    async def test_help(self) -> None:
        """``--help`` lists the options."""
        process = self.twistd("--help", options=[])
        self.assertEqual(await process.ended(), 0)
        for option in ("--port=", "--host="):
            self.assertIn(option, process.output)
