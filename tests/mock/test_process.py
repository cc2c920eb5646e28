"""The mock as a process of its own: ``twistd openai-stream-mock``."""

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
    """Each starts the real twistd."""

    plugin = "openai-stream-mock"

    async def ask(self, host: str, port: int, target: str) -> Message:
        """A chat call to an address of our choice."""
        stream = Stream()
        await connectProtocol(HostnameEndpoint(reactor, host, port), stream)
        send_request(stream, "POST", target, CHAT_BODY, [ACCEPT, ("Connection", "close")])
        answer = await read_response(stream)
        await stream.gone()
        return answer

    async def stop(self, process: Process) -> None:
        """SIGTERM ends it in order."""
        process.signal("TERM")
        await process.ended()
        self.assert_ended_by(signal.SIGTERM, process)

    async def test_serves(self) -> None:
        """It says once where it is, and serves there the OpenAI-compatible upstream and the service."""
        port = free_port()
        process = self.twistd("--port", str(port))
        url = f"http://127.0.0.1:{port}"
        await process.line(f"the mock is at {url}/v1 and {url}/stream\n")
        self.assertEqual((await self.ask("127.0.0.1", port, CHAT)).json()["object"], "chat.completion")
        answer = await self.ask("127.0.0.1", port, "/stream")
        self.assertEqual(
            (answer.status, answer.get("content-type")), (200, "text/event-stream; charset=utf-8")
        )
        await self.stop(process)
        self.assertEqual(process.output.count("the mock is at"), 1)

    async def test_hosts(self) -> None:
        """It listens where --host says: on all addresses of both families, or on those of IPv4."""

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
        """A port or a host that is none, or a port that is taken, is one line and a failed start."""
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
        """--help names the options."""
        process = self.twistd("--help", options=[])
        self.assertEqual(await process.ended(), 0)
        for option in ("--port=", "--host="):
            self.assertIn(option, process.output)
