"""The adapter as a process: ``twistd openai-stream-adapter``, and as a rule of the proxy."""

from __future__ import annotations

import signal

from tests.support.payloads import CHAT, CHAT_BODY, event
from tests.support.twistd import ProcessTestCase, free_port
from tests.support.wire import Stream, event_stream_head, read_request, read_response, send_request

ASK = {**CHAT_BODY, "model": "gpt-3.5-turbo"}


class AdapterProcessTests(ProcessTestCase):
    """The real twistd, started by each test."""

    plugin = "openai-stream-adapter"

    async def test_serves(self) -> None:
        """A configured adapter serves chat from the mock's service, and stops cleanly."""
        mock = await self.mock()
        port = free_port()
        rules = [{"listenPort": port, "upstreamUrl": mock + "/stream", "adapter": {}}]
        config = self.write_config({"rules": rules})
        process = self.twistd(env={"CONFIG_PATH": str(config)}, forked=False)
        await process.line(f"listening on port {port} for {mock}\n")
        answer = await self.request(port, body=ASK)
        self.assertIn("hi", answer.json()["choices"][0]["message"]["content"])
        await process.line(rf"POST {CHAT} 200 adapted {mock} \d+ bytes \d+ ms \| ")
        process.signal("TERM")
        await process.ended()
        self.assert_ended_by(signal.SIGTERM, process)

    async def test_beside_a_proxy(self) -> None:
        """The proxy's own plugin serves rules of both kinds."""
        mock = await self.mock()
        ports = [free_port(), free_port()]
        self.plugin = "openai-stream-proxy"
        rules = [
            {"listenPort": ports[0], "upstreamUrl": mock},
            {
                "listenPort": ports[1],
                "upstreamUrl": mock + "/stream",
                "adapter": {"models": ["gpt-3.5-turbo"]},
            },
        ]
        process = self.twistd("-c", str(self.write_config({"rules": rules})))
        for port in ports:
            await process.line(rf"listening on port {port}\b")
        texts = [
            (await self.request(port, body=ASK)).json()["choices"][0]["message"]["content"] for port in ports
        ]
        self.assertEqual(texts[0], texts[1])

    async def test_drain(self) -> None:
        """A stream that is running at SIGTERM is finished first."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            stream.chunk(event({"text": "a"}))
            await stream.until(b"never")

        service = await self.upstream(script)
        port = free_port()
        rules = [{"listenPort": port, "upstreamUrl": service.url, "adapter": {}}]
        process = self.twistd("-c", str(self.write_config({"rules": rules})))
        await process.line("listening")
        client = await self.client(port)
        send_request(client, "POST", CHAT, {**ASK, "stream": True})
        await client.until(b'"content":"a"')
        process.signal("TERM")
        await process.line("Received SIGTERM")
        service.connections[0].chunk(event({"text": "b"}))
        service.connections[0].chunk(b"")
        rest = await client.rest()
        self.assertIn(b'"content":"b"', rest)
        self.assertIn(b"data: [DONE]\n\n", rest)
        await process.ended()
        self.assert_ended_by(signal.SIGTERM, process)

    async def test_named_config(self) -> None:
        """A named config that is missing or invalid is an error; one in the working directory is not read."""
        directory = self.directory()
        process = self.twistd("--config", str(directory / "none.json"))
        self.assertNotEqual(await process.ended(), 0)
        self.assertEqual(process.output, f"{directory}/none.json: the config file does not exist\n")
        rule = {"listenPort": 1, "upstreamUrl": "http://s", "adapter": {"content": "a["}}
        config = self.write_config({"rules": [rule]}, directory)
        process = self.twistd(env={"CONFIG_PATH": str(config)})
        self.assertNotEqual(await process.ended(), 0)
        expected = f"{config}: rules[0].adapter.content: column 3: it ends too early, in a[\n"
        self.assertEqual(process.output, expected)


class UnusedTests(ProcessTestCase):
    """A started adapter whose service is unreachable."""

    async def test_no_service(self) -> None:
        """The error is a 502 that says what to check."""
        port = free_port()
        rule = {"listenPort": port, "upstreamUrl": f"http://127.0.0.1:{free_port()}/s", "adapter": {}}
        process = self.twistd("-c", str(self.write_config({"rules": [rule]})))
        await process.line("listening")
        client = await self.client(port)
        send_request(client, "POST", CHAT, ASK)
        answer = await read_response(client)
        self.assertEqual(answer.status, 502)
        self.assertIn("upstreamUrl", answer.json()["error"]["message"])
