"""A retry that waits for the answer of the call before is a running call, whatever happens meanwhile."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from stream_proxy import ProxyResource
from stream_proxy.waiting.orphans import MOST_OF_ONE
from tests.support.loopback import turns
from tests.support.payloads import CHAT_BODY, HELLO, event
from tests.support.resuming import KEY, RESUMED, SECONDS, ResumingTestCase, again
from tests.support.stage import eventually
from tests.support.wire import JSON, Message, Stream, event_stream_head, read_response, respond

EVENTS = ("Content-Type", "text/event-stream")
#: A result of many pieces, more than the sockets between two processes hold.
LARGE = event({"choices": [{"delta": {"content": "x" * 900_000}}]}) * 12 + b"data: [DONE]\n\n"


class JoinedTestCase(ResumingTestCase):
    """Helpers for calls that were lost, and joined."""

    async def lose(self, port: int, *headers: tuple[str, str], orphans: int = 1) -> Stream:
        """Send a call whose client leaves; return the upstream's connection."""
        client = await self.call(port, *(headers or (KEY,)))
        stream = await self.arrived(len(self.asked) + 1)
        await self.leave(client, orphans)
        return stream

    async def join(self, port: int, count: int = 1) -> tuple[Stream, Stream]:
        """Send a call whose client leaves, and its retry; return the upstream's connection and the other."""
        stream = await self.lose(port)
        retry = await self.call(port, KEY, again(count))
        await self.joined()
        return stream, retry

    async def answer(self, client: Stream) -> Message:
        """Return the answer to a call, while what is due happens."""
        self.assertTrue(await eventually(lambda: self.due() or client.received > 0))
        return await read_response(client)

    def operator_cancels(self) -> None:
        """End the only request under way, as the admin port does."""
        (record,) = self.ledger.live.values()
        assert record.cancel is not None
        record.cancel()


class JoinedTests(JoinedTestCase):
    """Reload, shutdown and bounds do not concern a retry that waits."""

    async def test_reload(self) -> None:
        """After a reload it gets its answer; if it leaves, nothing is left of the call."""
        for leaves in (False, True):
            port = await self.start()
            stream, retry = await self.join(port)
            self.lost.forget()
            if leaves:
                retry.abort()
                await self.gone(stream)
            else:
                respond(stream, 200, HELLO, [EVENTS])
                self.assertEqual((await read_response(retry)).get(RESUMED), "true")
            await self.nothing_left()

    async def test_shutdown(self) -> None:
        """While the service stops it gets its answer."""
        port = await self.start()
        stream, retry = await self.join(port)
        self.lost.close()
        respond(stream, 200, HELLO, [EVENTS])
        self.assertEqual((await read_response(retry)).get(RESUMED), "true")
        await self.nothing_left()

    async def test_much(self) -> None:
        """What it waits for may be more than is kept; but if it leaves, that is not kept."""
        for leaves in (False, True):
            port = await self.start(resume_max_bytes=2000)
            stream, retry = await self.join(port)
            stream.write(event_stream_head())
            stream.chunk(b": " + b"x" * 3000 + b"\n\n")
            await self.got(3000)
            self.assertEqual(self.lost.orphans.held, 0)
            if leaves:
                retry.abort()
                await self.gone(stream)
            else:
                stream.chunk(HELLO)
                stream.chunk(b"")
                self.assertEqual((await read_response(retry)).get(RESUMED), "true")
            await self.nothing_left()

    async def got(self, count: int) -> None:
        """Wait until the only orphan has so many bytes."""
        (orphan,) = self.lost.orphans._all()
        self.assertTrue(await eventually(lambda: orphan._held > count))

    async def test_answered_is_not_expired(self) -> None:
        """A further retry of a call that was answered may be tried again if it fails."""
        port = await self.start(resume_max_bytes=1000)
        stream, retry = await self.join(port)
        text = event({"choices": [{"delta": {"content": "x" * 2000}}]})
        respond(stream, 200, text + b"data: [DONE]\n\n", [EVENTS])
        self.assertEqual((await read_response(retry)).status, 200)
        other = await self.call(port, KEY, again(2))
        respond(await self.arrived(2), 200, event({"error": {"message": "no", "code": 500}}), [EVENTS])
        response = await read_response(other)
        self.assertEqual((response.status, response.get("x-should-retry")), (500, None))

    async def test_operator(self) -> None:
        """An operator who cancels it ends the call."""
        port = await self.start()
        stream, retry = await self.join(port)
        self.operator_cancels()
        self.assertEqual((await read_response(retry)).status, 503)
        await self.gone(stream)
        await self.nothing_left()

    async def test_late_error(self) -> None:
        """An error that comes after its early head has its status for the retry after it."""
        port = await self.start(keep_alive_seconds=5)
        stream, retry = await self.join(port)
        self.clock.advance(5)
        await retry.until(b"\r\n\r\n")
        respond(stream, 200, event({"error": {"message": "long", "status": 400}}), [EVENTS])
        await retry.gone()
        last = await self.answer(await self.call(port, KEY, again(2)))
        self.assertEqual((last.status, last.get(RESUMED), len(self.requests)), (400, "true", 1))

    async def test_failures(self) -> None:
        """An upstream that is cut, or sends no content for long, is an error of the retry's."""
        for act, expected in (
            (Stream.close, (502, "upstream_cut")),
            (Stream.abort, (502, "upstream_cut")),
            (lambda _: self.clock.advance(20), (504, "upstream_stalled")),
        ):
            port = await self.start(timeout_seconds=30, first_event_seconds=20)
            stream, retry = await self.join(port)
            act(stream)
            response = await self.answer(retry)
            self.assertEqual((response.status, response.json()["error"]["code"]), expected)
            await self.nothing_left()


class LargeTests(JoinedTestCase):
    """A large answer whose client leaves while it is sent."""

    async def test_lost(self) -> None:
        """It waits whole for the retry, and for the next one if that leaves in the midst of it, too."""
        port = await self.start()
        client = await self.call(port, KEY)
        respond(await self.arrived(1), 200, LARGE, [EVENTS])
        await self.partly(client)
        await self.leave(client, 1)
        retry = await self.call(port, KEY, again(1))
        await self.partly(retry)
        await self.leave(retry, 1)
        last = await self.call(port, KEY, again(2))
        response = await self.whole(last)
        self.assertEqual((response.get(RESUMED), len(self.requests)), ("true", 1))
        self.assertEqual(len(response.json()["choices"][0]["message"]["content"]), 10_800_000)
        await self.nothing_left()

    async def test_off(self) -> None:
        """Where nothing is kept, nothing is."""
        port = await self.start(resume_seconds=0)
        client = await self.call(port, KEY)
        respond(await self.arrived(1), 200, LARGE, [EVENTS])
        await self.partly(client)
        client.abort()
        await self.nothing_left()

    async def partly(self, client: Stream) -> None:
        """Wait until a client has got a part of its answer, and read no more."""
        self.assertTrue(await eventually(lambda: self.due() or client.received > 0))
        assert client.transport is not None
        client.transport.pauseProducing()
        for _ in range(50):
            self.due()
            await turns(1)

    async def whole(self, client: Stream) -> Message:
        """Return an answer."""
        done: list[Message] = []

        async def read() -> None:
            done.append(await read_response(client))

        reading = Deferred.fromCoroutine(read())
        self.assertTrue(await eventually(lambda: self.due() or bool(done)))
        await reading
        return done[0]


class AttackTests(JoinedTestCase):
    """What others' calls can do to a call that waits."""

    async def test_others(self) -> None:
        """Another coding, another spelling of the body, or another place of the same name never joins."""
        port = await self.start()
        await self.lose(port)
        spaced = b'{"model": "m",  "messages": []}'
        for headers, body in (
            ((KEY, again(1), ("Accept-Encoding", "gzip")), CHAT_BODY),
            ((KEY, again(1), ("Cookie", "a=b")), CHAT_BODY),
            ((KEY, again(1)), spaced),
            ((KEY, ("x-stainless-retry-count", "-1")), CHAT_BODY),
            ((KEY, ("x-stainless-retry-count", "1e9")), CHAT_BODY),
            ((KEY, ("Idempotency-Key", "")), CHAT_BODY),
        ):
            client = await self.call(port, *headers, body=body)
            respond(await self.arrived(len(self.asked) + 1), 200, HELLO, [EVENTS])
            self.assertIsNone((await read_response(client)).get(RESUMED))
        self.lost.forget()
        await self.nothing_left()

    async def test_place(self) -> None:
        """A rule of the same name elsewhere is another one."""
        port = await self.start()
        lost, first = self.lost, self.asked
        await self.lose(port)

        def make(*args: Any, **kwargs: Any) -> ProxyResource:
            resource = ProxyResource(*args, lost=lost, **kwargs)
            resource.place = "[::1]:8080"
            return resource

        other = await self.proxy(self.server.url, resource=make, limits=self.limits, name=self.name)
        await self.call(other, KEY, again(1))
        await self.arrived(2)
        self.assertEqual(len(first), 2)
        lost.forget()

    async def test_equal_calls(self) -> None:
        """Two equal calls at once stay two, and each client gets its own answer."""
        port = await self.start()
        clients, streams = [], []
        for number in (1, 2):
            clients.append(await self.call(port, KEY, again(0)))
            streams.append(await self.arrived(number))
        for stream in streams:
            respond(stream, 200, HELLO, [EVENTS])
        for client in clients:
            self.assertIsNone((await read_response(client)).get(RESUMED))

    async def test_running(self) -> None:
        """A retry of a call whose client is still there is a call of its own."""
        port = await self.start()
        await self.call(port, KEY)
        await self.arrived(1)
        await self.call(port, KEY, again(1))
        await self.arrived(2)

    async def test_failed_give_way(self) -> None:
        """Failed calls with invented keys keep no other call away."""
        port = await self.start(resume_max_calls=MOST_OF_ONE)
        for number in range(MOST_OF_ONE):
            stream = await self.lose(port, ("Authorization", f"Bearer {number}"), orphans=number + 1)
            respond(stream, 401, b'{"error": {"message": "no"}}', [JSON])
        self.assertTrue(await eventually(lambda: all(each.failed for each in self.lost.orphans._all())))
        stream = await self.lose(port, orphans=MOST_OF_ONE)
        respond(stream, 200, HELLO, [EVENTS])
        retry = await read_response(await self.call(port, KEY, again(1)))
        self.assertEqual((retry.status, retry.get(RESUMED)), (200, "true"))
        self.lost.forget()
        await self.nothing_left()

    async def test_replayed(self) -> None:
        """An answer is given once: a second equal retry is a call of its own."""
        port = await self.start()
        respond(await self.lose(port), 200, HELLO, [EVENTS])
        self.assertEqual((await read_response(await self.call(port, KEY, again(1)))).get(RESUMED), "true")
        await self.call(port, KEY, again(1))
        await self.arrived(2)


class ExpiredTests(JoinedTestCase):
    """What is known of a call whose answer nobody fetched."""

    async def fails(self, port: int, *headers: tuple[str, str]) -> str | None:
        """Return ``x-should-retry`` of a call that fails."""
        client = await self.call(port, KEY, *headers)
        stream = await self.arrived(len(self.asked) + 1)
        respond(stream, 200, event({"error": {"message": "no", "code": 500}}), [EVENTS])
        response = await read_response(client)
        self.assertEqual(response.status, 500)
        return response.get("x-should-retry")

    async def test_retries_only(self) -> None:
        """Its retry is not to be tried again; an equal call that is none may be."""
        port = await self.start()
        stream = await self.lose(port)
        self.clock.advance(SECONDS)
        await self.gone(stream)
        self.assertEqual(await self.fails(port, again(1)), "false")
        self.assertIsNone(await self.fails(port))
        self.clock.advance(60)
        self.assertIsNone(await self.fails(port, again(1)))

    async def test_known_from_the_start(self) -> None:
        """However long its retry takes, what was known when it came counts."""
        port = await self.start()
        stream = await self.lose(port)
        self.clock.advance(SECONDS)
        await self.gone(stream)
        client = await self.call(port, KEY, again(1))
        stream = await self.arrived(2)
        self.clock.advance(120)
        respond(stream, 200, event({"error": {"message": "no", "code": 500}}), [EVENTS])
        self.assertEqual((await read_response(client)).get("x-should-retry"), "false")
