"""Tests of the mock's WebSockets through the proxy, with the openai SDK and ``websockets``."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from functools import partial
from typing import Any, cast

from openai import OpenAI
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from stream_proxy.mock.messages import Message
from stream_proxy.mock.realtime.session import RealtimeSession
from stream_proxy.request_log import RequestLog
from tests.support.loopback import LoopbackTestCase, in_thread

USER: dict[str, Any] = {
    "type": "message",
    "role": "user",
    "content": [{"type": "input_text", "text": "Hello there"}],
}
TOOL = {"type": "function", "name": "weather", "parameters": {"properties": {"city": {"type": "string"}}}}


class ProxiedTestCase(LoopbackTestCase):
    """A mock behind a proxy."""

    async def setUp(self) -> None:  # type: ignore[override]
        """Start both; `logged` fires with the proxy's first log line."""
        self.logged: Deferred[str] = Deferred()

        def observe(event: object) -> None:
            if not self.logged.called:
                self.logged.callback(str(event))

        log = RequestLog(observer=cast(Any, observe))
        self.port = await self.proxy(await self.mock(), log=log)

    def url(self, path: str) -> str:
        """Return the URL of a WebSocket through the proxy."""
        return f"ws://127.0.0.1:{self.port}{path}"


class SDKTests(ProxiedTestCase):
    """Sessions of the real SDK's Realtime client."""

    def sdk(self, **headers: str) -> OpenAI:
        """Return a client whose base URL is that of the proxy."""
        base = f"http://127.0.0.1:{self.port}/v1"
        return OpenAI(api_key="demo", base_url=base, default_headers=headers, max_retries=0)

    async def test_session(self) -> None:
        """A session can be opened, updated, used and closed, and the text arrives in pieces."""

        def talk() -> tuple[list[str], list[str], Any]:
            kinds: list[str] = []
            pieces: list[str] = []
            with self.sdk().realtime.connect(model="gpt-realtime") as connection:
                created = connection.recv()
                assert created.type == "session.created"
                self.assertEqual(created.session.model, "gpt-realtime")  # type: ignore[union-attr]
                connection.session.update(session={"type": "realtime", "instructions": "Be brief."})
                connection.conversation.item.create(item=USER)  # type: ignore[arg-type]
                connection.response.create()
                for event in connection:
                    kinds.append(event.type)
                    if event.type == "response.output_text.delta":
                        pieces.append(event.delta)
                    elif event.type == "session.updated":
                        self.assertEqual(event.session.instructions, "Be brief.")  # type: ignore[union-attr]
                    elif event.type == "response.done":
                        return kinds, pieces, event.response
            raise AssertionError("the session ended early")

        kinds, pieces, response = await in_thread(talk)
        self.assertEqual(
            [kind for kind in kinds if kind != "response.output_text.delta"],
            [
                "session.updated",
                "conversation.item.created",
                "conversation.item.added",
                "conversation.item.done",
                "response.created",
                "response.output_item.added",
                "conversation.item.added",
                "response.content_part.added",
                "response.output_text.done",
                "response.content_part.done",
                "response.output_item.done",
                "conversation.item.done",
                "response.done",
            ],
        )
        self.assertGreater(len(pieces), 20)
        self.assertIn("“Hello there”", "".join(pieces))
        self.assertEqual(response.status, "completed")
        self.assertEqual(response.output[0].content[0].text, "".join(pieces))
        self.assertEqual(response.usage.output_tokens, len(pieces))
        self.assertEqual(response.usage.total_tokens, len(pieces) + response.usage.input_tokens)

    async def test_refused(self) -> None:
        """A handshake that the upstream refuses raises the SDK's transport error, with status and body."""

        def talk() -> Any:
            with self.sdk(**{"X-Mock-Status": "401"}).realtime.connect(model="m"):
                pass

        refusal = (await self.assertFailure(self.thread(talk), InvalidStatus)).response
        self.assertEqual(refusal.status_code, 401)
        self.assertEqual(refusal.headers["content-type"], "application/json")
        self.assertEqual(json.loads(refusal.body)["error"]["code"], "invalid_api_key")

    async def test_error_event(self) -> None:
        """An unknown event gets an ``error`` event that names it, and the session goes on."""

        def talk() -> tuple[Any, Any]:
            with self.sdk().realtime.connect(model="m") as connection:
                connection.recv()
                connection.send({"type": "response.dance", "event_id": "e1"})  # type: ignore[arg-type]
                error = connection.recv()
                connection.input_audio_buffer.clear()
                return error, connection.recv()

        error, cleared = await in_thread(talk)
        self.assertEqual(
            (error.type, error.error.code, error.error.param, error.error.event_id),
            ("error", "invalid_value", "type", "e1"),
        )
        self.assertIn("response.dance", error.error.message)
        self.assertEqual(cleared.type, "input_audio_buffer.cleared")

    def thread(self, call: Any) -> Any:
        """Run `call` in a thread."""
        return in_thread(call)


class SocketTests(ProxiedTestCase):
    """Connections of ``websockets``, a client that shares no code with the proxy."""

    async def test_echo(self) -> None:
        """Text and binary messages come back unchanged, and so does the close code."""

        def talk() -> tuple[list[Any], Any]:
            with connect(self.url("/any/path/echo")) as socket:
                received: list[Any] = []
                for message in ("text ✓", b"\x00\xffbytes", "", b"", "x" * 200_000):
                    socket.send(message)
                    received.append(socket.recv())
                socket.close(4321, "enough")
                return received, socket.protocol.close_rcvd

        received, close = await in_thread(talk)
        self.assertEqual(received, ["text ✓", b"\x00\xffbytes", "", b"", "x" * 200_000])
        self.assertEqual((close.code, close.reason), (4321, "enough"))

    async def test_browser(self) -> None:
        """Of a browser's subprotocols ``realtime`` is chosen, and its key is not logged."""

        def talk() -> tuple[str | None, Any]:
            offers = [Subprotocol("realtime"), Subprotocol("openai-insecure-api-key.demo-secret")]
            url = self.url("/v1/realtime?model=gpt-realtime")
            with connect(url, subprotocols=offers, origin="null") as socket:  # type: ignore[arg-type]
                return socket.subprotocol, json.loads(socket.recv())

        subprotocol, created = await in_thread(talk)
        self.assertEqual(subprotocol, "realtime")
        self.assertEqual(created["session"]["model"], "gpt-realtime")
        line = await self.logged
        self.assertIn("/v1/realtime", line)
        self.assertNotIn("demo-secret", line)

    async def test_paced(self) -> None:
        """A paced response can be cancelled: it ends early, with the status ``cancelled``."""

        def talk() -> tuple[list[Any], list[str]]:
            headers = {"X-Mock-Pace": "0.002", "X-Mock-Words": "1000"}
            with connect(self.url("/v1/realtime?model=m"), additional_headers=headers) as socket:
                socket.send('{"type": "response.create"}')
                events: list[Any] = []
                while not events or events[-1]["type"] != "response.done":
                    events.append(json.loads(socket.recv()))
                    if events[-1]["type"] == "response.output_text.delta" and len(events) < 10:
                        socket.send('{"type": "response.cancel"}')
                return events[-1]["response"], [event["type"] for event in events]

        response, kinds = await in_thread(talk)
        self.assertEqual(response["status"], "cancelled")
        self.assertEqual(response["status_details"]["reason"], "client_cancelled")
        self.assertLess(kinds.count("response.output_text.delta"), 500)

    async def test_delay(self) -> None:
        """``X-Mock-Delay`` delays the response to the handshake."""

        def talk() -> Any:
            headers = {"X-Mock-Delay": "0.02"}
            with connect(self.url("/echo"), additional_headers=headers) as socket:
                socket.send("after it")
                return socket.recv()

        self.assertEqual(await in_thread(talk), "after it")

    async def test_break(self) -> None:
        """``X-Mock-Fail: break`` drops the connection, and the proxy closes its client's with 1011."""
        for kind in ("break", "break-mid-event"):
            received, code = await in_thread(partial(self.until_broken, kind))
            self.assertEqual((received, code), (["one", "two"], 1011))

    def until_broken(self, kind: str) -> tuple[list[Any], int | None]:
        """Return the messages of an echo that fails after two of them, and the close code."""
        headers = {"X-Mock-Fail": kind, "X-Mock-After": "2"}
        received: list[Any] = []
        with connect(self.url("/echo"), additional_headers=headers) as socket:
            for word in ("one", "two", "three"):
                socket.send(word)
            try:
                while True:
                    received.append(socket.recv())
            except ConnectionClosedError as closed:
                return received, closed.rcvd.code if closed.rcvd else None

    async def test_refusals(self) -> None:
        """A missing model, a failure for HTTP only, and plain HTTP on a WebSocket's path are errors."""

        def refused(path: str, **headers: str) -> tuple[int, Any]:
            try:
                with connect(self.url(path), additional_headers=headers):
                    raise AssertionError("it was accepted")
            except InvalidStatus as error:
                return error.response.status_code, json.loads(error.response.body)["error"]

        status, error = await in_thread(lambda: refused("/v1/realtime"))
        self.assertEqual((status, error["param"]), (400, "model"))
        status, error = await in_thread(lambda: refused("/echo", **{"X-Mock-Fail": "not-json"}))
        self.assertEqual((status, error["param"]), (400, "X-Mock-Fail"))
        response = await self.request(self.port, "GET", "/v1/realtime?model=m")
        self.assertEqual((response.status, response.get("upgrade")), (426, None))


class SessionTests(SynchronousTestCase):
    """The session itself, without sockets."""

    def setUp(self) -> None:
        """Open a session."""
        self.session = RealtimeSession("m")
        (self.created,) = self.read(self.session.on_open())

    def read(self, messages: Iterable[Message]) -> list[Any]:
        """Return the events in `messages`."""
        return [json.loads(message.payload) for message in messages]

    def send(self, kind: str, **event: Any) -> list[Any]:
        """Send an event, and return the events that respond to it."""
        return self.read(self.session.on_message(Message(json.dumps({"type": kind, **event}).encode())))

    def error_in(self, events: list[Any]) -> tuple[str, str | None]:
        """Return the code and the parameter of the only event, an ``error``."""
        (event,) = events
        self.assertEqual(event["type"], "error")
        self.assertEqual(event["error"]["type"], "invalid_request_error")
        return event["error"]["code"], event["error"]["param"]

    def test_same_every_time(self) -> None:
        """Equal events lead to equal responses in two sessions; every event has its own id."""
        first = [*self.send("conversation.item.create", item=USER), *self.send("response.create")]
        self.setUp()
        second = [*self.send("conversation.item.create", item=USER), *self.send("response.create")]
        self.assertEqual(first, second)
        self.assertEqual(len({event["event_id"] for event in first}), len(first))

    def test_not_events(self) -> None:
        """Invalid JSON, JSON that is not an object, binary messages and events without a type are errors."""
        for message in (Message(b"{"), Message(b"[]"), Message(b"{}", binary=True)):
            self.assertEqual(
                self.error_in(self.read(self.session.on_message(message))), ("invalid_event", None)
            )
        self.assertEqual(
            self.error_in(self.read(self.session.on_message(Message(b"{}")))),
            ("missing_required_parameter", "type"),
        )

    def test_items(self) -> None:
        """Items keep their ids and positions, and can be retrieved and deleted."""
        create = "conversation.item.create"
        self.send(create, item={**USER, "id": "a"})
        added = self.send(create, item={**USER, "id": "b"}, previous_item_id="root")[1]
        self.assertEqual((added["type"], added["previous_item_id"]), ("conversation.item.added", None))
        self.assertEqual(self.send(create, item=USER, previous_item_id="b")[0]["previous_item_id"], "b")
        (read,) = self.send("conversation.item.retrieve", item_id="a")
        self.assertEqual(read["item"]["content"], USER["content"])
        self.assertEqual(self.send("conversation.item.delete", item_id="a")[0]["item_id"], "a")
        gone = self.send("conversation.item.delete", item_id="a")
        self.assertEqual(self.error_in(gone), ("item_not_found", "item_id"))
        for event, failure in (
            ({}, ("missing_required_parameter", "item")),
            ({"item": {"type": "poem"}}, ("invalid_value", "item.type")),
            ({"item": {"type": "message"}}, ("missing_required_parameter", "item.content")),
            ({"item": USER, "previous_item_id": "z"}, ("item_not_found", "previous_item_id")),
        ):
            self.assertEqual(self.error_in(self.send(create, **event)), failure)

    def test_audio(self) -> None:
        """Audio is counted and committed as an item, and the response is a text."""
        commit = "input_audio_buffer.commit"
        append = "input_audio_buffer.append"
        self.assertEqual(self.error_in(self.send(commit)), ("input_audio_buffer_commit_empty", None))
        self.assertEqual(self.error_in(self.send(append)), ("missing_required_parameter", "audio"))
        self.assertEqual(self.error_in(self.send(append, audio="?")), ("invalid_value", "audio"))
        self.assertEqual(self.send(append, audio=base64.b64encode(bytes(480)).decode()), [])
        committed, created, *_ = self.send(commit)
        self.assertEqual(committed["type"], "input_audio_buffer.committed")
        self.assertEqual(created["item"]["id"], committed["item_id"])
        self.assertIn("480 bytes of audio", json.dumps(self.send("response.create")[-1]))

    def test_tools(self) -> None:
        """With tools a function is called, and the response to its result is a text."""
        self.send("session.update", session={"type": "realtime", "tools": [TOOL]})
        self.send("conversation.item.create", item=USER)
        *events, done = self.send("response.create")
        (call,) = done["response"]["output"]
        self.assertEqual((call["type"], call["name"]), ("function_call", "weather"))
        kind = "response.function_call_arguments.delta"
        deltas = [event["delta"] for event in events if event["type"] == kind]
        self.assertEqual("".join(deltas), call["arguments"])
        self.assertIn("city", json.loads(call["arguments"]))
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}
        self.send("conversation.item.create", item=result)
        (message,) = self.send("response.create")[-1]["response"]["output"]
        self.assertIn("“rain”", message["content"][0]["text"])

    def test_settings(self) -> None:
        """A limit leaves a response incomplete; one out of band is not added to the conversation."""
        done = self.send("response.create", response={"max_output_tokens": 3, "conversation": "none"})[-1]
        self.assertEqual(done["response"]["status"], "incomplete")
        self.assertEqual(done["response"]["usage"]["output_tokens"], 3)
        self.assertIsNone(done["response"]["conversation_id"])
        kinds = [event["type"] for event in self.send("response.create", response={"conversation": "none"})]
        self.assertNotIn("conversation.item.added", kinds)
        for setting, value, code in (
            ("instructions", 1, "invalid_type"),
            ("output_modalities", ["audio"], "invalid_value"),
            ("max_output_tokens", 0, "invalid_value"),
        ):
            failure = self.error_in(self.send("session.update", session={setting: value}))
            self.assertEqual(failure, (code, f"session.{setting}"))
        self.assertEqual(
            self.error_in(self.send("session.update")), ("missing_required_parameter", "session")
        )
        (updated,) = self.send("session.update", session={"model": "other"})
        self.assertEqual(updated["session"]["model"], "m")

    def test_one_at_a_time(self) -> None:
        """Only one response can be in progress, and only such a one can be cancelled."""
        self.assertEqual(self.error_in(self.send("response.cancel")), ("response_cancel_not_active", None))
        running = self.session.on_message(Message(b'{"type": "response.create"}'))
        next(running)
        code = "conversation_already_has_active_response"
        self.assertEqual(self.error_in(self.send("response.create")), (code, None))
        self.assertEqual(self.send("response.cancel"), [])
        self.assertEqual(self.read(running)[-1]["response"]["status"], "cancelled")
        self.assertEqual(self.send("response.create")[-1]["response"]["status"], "completed")
