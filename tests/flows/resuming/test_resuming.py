"""A call whose client left goes on, and its retry gets the answer."""

from __future__ import annotations

from stream_proxy.waiting.orphans import MOST_OF_ONE
from tests.support.payloads import CHAT_BODY, HELLO, RESPONSES, RESPONSES_BODY, event
from tests.support.resuming import KEY, RESUMED, SECONDS, ResumingTestCase, again
from tests.support.stage import eventually
from tests.support.wire import Stream, event_stream_head, read_response, respond

EVENTS = ("Content-Type", "text/event-stream")
JSON = ("Content-Type", "application/json")
RESPONSE = event({"type": "response.completed", "response": {"id": "r", "output": [1]}}, "response.completed")


class ResumingTests(ResumingTestCase):
    """One call upstream, one answer, a later try that gets it."""

    async def test_finished(self) -> None:
        """An answer that came after its client had left is the retry's, at once and without another call."""
        port = await self.start()
        client = await self.call(port, KEY)
        stream = await self.arrived(1)
        await self.leave(client, 1)
        respond(stream, 200, HELLO, [EVENTS, ("x-request-id", "u1")])
        retry = await read_response(await self.call(port, KEY, again(1)))
        self.assertEqual((retry.status, retry.get(RESUMED), retry.get("x-request-id")), (200, "true", "u1"))
        self.assertEqual(retry.json()["choices"][0]["message"]["content"], "Hello")
        self.assertEqual(len(self.requests), 1)
        await self.nothing_left()
        self.assertEqual([record.status for record in self.ledger.recent], [499, 200])
        self.assertEqual(self.ledger.recent[-1].mode, "resumed")

    async def test_under_way(self) -> None:
        """A retry that comes before the answer waits for it; Responses are kept as well."""
        port = await self.start()
        client = await self.call(port, KEY, target=RESPONSES, body=RESPONSES_BODY)
        stream = await self.arrived(1)
        stream.write(event_stream_head())
        await self.leave(client, 1)
        second = await self.call(port, KEY, again(1), target=RESPONSES, body=RESPONSES_BODY)
        await self.joined()
        stream.chunk(RESPONSE)
        stream.chunk(b"")
        response = await read_response(second)
        self.assertEqual((response.json(), response.get(RESUMED)), ({"id": "r", "output": [1]}, "true"))
        self.assertEqual(len(self.requests), 1)
        await self.nothing_left()

    async def test_joiner_leaves(self) -> None:
        """A retry that leaves, too, leaves the answer to the next one."""
        port = await self.start()
        client = await self.call(port, KEY)
        stream = await self.arrived(1)
        await self.leave(client, 1)
        for count in (1, 2):
            joiner = await self.call(port, KEY, again(count))
            await self.joined()
            self.clock.advance(SECONDS / 2)  # a fresh time begins whenever one leaves
            await self.leave(joiner, 1)
            self.clock.advance(SECONDS - 1)
        respond(stream, 200, HELLO, [EVENTS])
        response = await read_response(await self.call(port, KEY, again(3)))
        self.assertEqual((response.status, len(self.requests)), (200, 1))
        await self.nothing_left()

    async def test_idempotency_key(self) -> None:
        """A call that the client named is repeated by one of the same name."""
        port = await self.start()
        named = ("Idempotency-Key", "k1")
        client = await self.call(port, KEY, named)
        stream = await self.arrived(1)
        await self.leave(client, 1)
        respond(stream, 200, HELLO, [EVENTS])
        response = await read_response(await self.call(port, KEY, named))
        self.assertEqual((response.get(RESUMED), len(self.requests)), ("true", 1))

    async def test_errors(self) -> None:
        """An error has its real status for the retry, whether the upstream sent it or the proxy made it."""
        broken = b'{"error": {"message": "no", "type": "t", "param": null, "code": "c"}}'
        for status, body, headers, expected in (
            (422, broken, [JSON], (422, "c")),
            (200, event({"error": {"message": "late", "code": 429}}), [EVENTS], (429, 429)),
            (502, b"<html>", [("Content-Type", "text/html")], (502, "upstream_status")),
        ):
            port = await self.start()
            client = await self.call(port, KEY)
            stream = await self.arrived(1)
            await self.leave(client, 1)
            respond(stream, status, body, headers)
            retry = await read_response(await self.call(port, KEY, again(1)))
            self.assertEqual((retry.status, retry.json()["error"]["code"]), expected)
            self.assertEqual((retry.get(RESUMED), len(self.requests)), ("true", 1))
            await self.nothing_left()


class OtherCallTests(ResumingTestCase):
    """What does not say that it is the same call is another one."""

    async def test_others(self) -> None:
        """Calls with another key, body, organisation or no count are calls of their own."""
        port = await self.start()
        await self.leave(await self.alone(port), 1)
        others = [
            ((KEY,), CHAT_BODY),
            ((KEY, again(0)), CHAT_BODY),
            ((("Authorization", "Bearer b"), again(1)), CHAT_BODY),
            ((again(1),), CHAT_BODY),
            ((KEY, ("OpenAI-Organization", "o"), again(1)), CHAT_BODY),
            ((KEY, again(1)), {**CHAT_BODY, "seed": 1}),
        ]
        for number, (headers, body) in enumerate(others, 2):
            client = await self.call(port, *headers, body=body)
            respond(await self.arrived(number), 200, HELLO, [EVENTS])
            response = await read_response(client)
            self.assertEqual((response.status, response.get(RESUMED)), (200, None))
        self.lost.forget()
        await self.nothing_left()

    async def test_two(self) -> None:
        """Two lost equal calls pair off with two retries; a third is a call of its own."""
        port = await self.start()
        for count in (1, 2):
            client = await self.call(port, KEY)
            stream = await self.arrived(count)
            await self.leave(client, count)
            respond(stream, 200, HELLO, [EVENTS])
        joiners = [await read_response(await self.call(port, KEY, again(1))) for _ in range(2)]
        self.assertEqual([each.get(RESUMED) for each in joiners], ["true", "true"])
        third = await self.call(port, KEY, again(1))
        respond(await self.arrived(3), 200, HELLO, [EVENTS])
        self.assertIsNone((await read_response(third)).get(RESUMED))

    async def test_joined_once(self) -> None:
        """While one retry waits for the answer a second one is a call of its own."""
        port = await self.start()
        await self.leave(await self.alone(port), 1)
        await self.call(port, KEY, again(1))
        await self.joined()
        await self.call(port, KEY, again(1))
        await self.arrived(2)

    async def alone(self, port: int) -> Stream:
        """Send a call that the upstream has got, and return its client."""
        client = await self.call(port, KEY)
        await self.arrived(len(self.asked) + 1)
        return client


class EndTests(ResumingTestCase):
    """What is kept ends: in time, within bounds, with the service."""

    async def lost_call(self, port: int, *headers: tuple[str, str]) -> tuple[Stream, Stream]:
        """Send a call that the upstream has got; return its client and the upstream's connection."""
        client = await self.call(port, *(headers or (KEY,)))
        return client, await self.arrived(len(self.asked) + 1)

    async def test_off(self) -> None:
        """By default a client that leaves ends its call."""
        port = await self.start(resume_seconds=0)
        client, stream = await self.lost_call(port)
        client.abort()
        await self.gone(stream)
        await self.nothing_left()

    async def test_expired(self) -> None:
        """If nobody comes in time the upstream is cancelled; an error of the late retry forbids another."""
        port = await self.start()
        client, stream = await self.lost_call(port)
        await self.leave(client, 1)
        self.clock.advance(SECONDS)
        await self.gone(stream)
        await self.nothing_left()
        retry, stream = await self.lost_call(port, KEY, again(1))
        respond(stream, 200, event({"error": {"message": "no", "code": 500}}), [EVENTS])
        response = await read_response(retry)
        self.assertEqual((response.status, response.get("x-should-retry")), (500, "false"))

    async def test_no_credential(self) -> None:
        """Calls without a credential, which nobody could tell apart, leave nothing."""
        port = await self.start()
        client, stream = await self.lost_call(port, ("X-User", "a"))
        client.abort()
        await self.gone(stream)
        await self.nothing_left()

    async def test_many(self) -> None:
        """One credential may leave four, all together as many as the limit says."""
        port = await self.start(resume_max_calls=MOST_OF_ONE + 1)
        for number in range(MOST_OF_ONE):
            client, _ = await self.lost_call(port)
            await self.leave(client, number + 1)
        client, stream = await self.lost_call(port)
        client.abort()
        await self.gone(stream)
        client, _ = await self.lost_call(port, ("Authorization", "Bearer b"))
        await self.leave(client, MOST_OF_ONE + 1)
        client, stream = await self.lost_call(port, ("Authorization", "Bearer c"))
        client.abort()
        await self.gone(stream)
        self.lost.close()
        await self.nothing_left()

    async def test_much(self) -> None:
        """A call that holds more than the limit ends, before or after its client has left."""
        port = await self.start(resume_max_bytes=2000)
        client, stream = await self.lost_call(port)
        stream.write(event_stream_head())
        await self.leave(client, 1)
        stream.chunk(b": " + b"x" * 2000 + b"\n\n")
        await self.gone(stream)
        await self.nothing_left()

    async def test_closed(self) -> None:
        """A service that stops ends what it keeps, and keeps nothing more; nor does a reload."""
        port = await self.start()
        client, stream = await self.lost_call(port)
        await self.leave(client, 1)
        self.lost.forget()
        await self.gone(stream)
        self.lost.close()
        client, stream = await self.lost_call(port)
        client.abort()
        await self.gone(stream)
        await self.nothing_left()

    async def test_cancelled(self) -> None:
        """A request that an operator cancels leaves nothing."""
        port = await self.start()
        client, stream = await self.lost_call(port)
        (record,) = self.ledger.live.values()
        assert record.cancel is not None
        record.cancel()
        self.assertEqual((await read_response(client)).status, 503)
        await self.gone(stream)
        await self.nothing_left()


class LateErrorTests(ResumingTestCase):
    """An error after an early head has its status for the retry, even where no calls are kept."""

    async def test_lasting(self) -> None:
        """A 4xx that would only come again is answered from memory for a minute."""
        body = event({"error": {"message": "too long", "code": "context_length_exceeded", "status": 400}})
        for large in (CHAT_BODY, {**CHAT_BODY, "user": "x" * 3_000_000}):
            port = await self.start(resume_seconds=0, keep_alive_seconds=5)
            client = await self.call(port, KEY, again(0), body=large)
            stream = await self.arrived(1)
            self.clock.advance(5)
            await client.until(b"\r\n\r\n")
            respond(stream, 200, body, [EVENTS])
            await client.gone()
            self.assertTrue(await eventually(lambda: self.due() or bool(self.lost.late_errors)))
            asked = await self.call(port, KEY, again(1), body=large)
            await self.answered(asked)
            retry = await read_response(asked)
            self.assertEqual((retry.status, retry.get(RESUMED), len(self.requests)), (400, "true", 1))
            self.assertEqual(retry.json()["error"]["message"], "too long")
            self.clock.advance(60)
            await self.call(port, KEY, again(2), body=large)
            await self.arrived(2)

    async def answered(self, client: Stream) -> None:
        """Wait until a client was sent something."""
        self.assertTrue(await eventually(lambda: self.due() or client.received > 0))

    async def test_passing(self) -> None:
        """An error that may pass is not kept: the retry asks again."""
        port = await self.start(resume_seconds=0, keep_alive_seconds=5)
        client = await self.call(port, KEY)
        stream = await self.arrived(1)
        self.clock.advance(5)
        await client.until(b"\r\n\r\n")
        respond(stream, 200, event({"error": {"message": "slow", "code": 429}}), [EVENTS])
        await client.gone()
        await self.call(port, KEY, again(1))
        await self.arrived(2)
