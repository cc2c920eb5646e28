"""Tests of client keys and of the upstream's key."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.adapter.resource import AdapterResource
from stream_proxy.environment import variable
from stream_proxy.errors import ConfigError
from stream_proxy.http.access import Access, HeaderChanges
from stream_proxy.http.headers import RawHeader
from stream_proxy.service.configuration.loading import parse_config
from stream_proxy.service.keys import KeySource
from tests.support.payloads import CHAT, CHAT_BODY, HELLO
from tests.support.sessions import HANDSHAKE, WebSocketTestCase, accepted, handshake
from tests.support.twistd import ProcessTestCase, free_port
from tests.support.wire import (
    JSON,
    Headers,
    Message,
    Stream,
    event_stream_head,
    read_head,
    read_request,
    read_response,
    respond,
)

PROTOCOL = "Sec-WebSocket-Protocol"
ONE, OTHER, OWN = "client-one", "client-other", "upstream-own"
ACCESS = Access([ONE.encode(), OTHER.encode()])
INJECTING = Access([ONE.encode()], OWN.encode())
#: A rule sets a field with a secret.
CHANGES = HeaderChanges((), ((b"X-Gateway", f"token {OWN}".encode()),), keys=(OWN.encode(),))


def raw(*fields: tuple[str, str]) -> list[RawHeader]:
    """Return header fields as bytes."""
    return [(name.encode(), value.encode()) for name, value in fields]


class RefusalTests(SynchronousTestCase):
    """Requests that may pass, and requests that may not."""

    def test_admitted(self) -> None:
        """A client key is accepted in every field where clients put one."""
        for fields in (
            raw(("Authorization", f"Bearer {ONE}")),
            raw(("authorization", f"bearer  {OTHER} ")),
            raw(("api-key", ONE)),
            raw(("X-Api-Key", ONE)),
            raw(("x-goog-api-key", ONE)),
            raw(("Authorization", f"Bearer {ONE}"), ("x-api-key", OTHER)),
            raw((PROTOCOL, f"realtime, openai-insecure-api-key.{ONE}, openai-beta.x")),
            raw(
                (PROTOCOL, "realtime"),
                (PROTOCOL, f"openai-insecure-api-key.{ONE}"),
            ),
        ):
            self.assertIsNone(ACCESS.unauthorized(b"POST", fields), fields)

    def test_refused(self) -> None:
        """Anything else is rejected, also a client key beside one that is unknown."""
        for fields in (
            raw(),
            raw(("Authorization", ONE)),
            raw(("Authorization", "Bearer")),
            raw(("Authorization", f"Basic {ONE}")),
            raw(("Authorization", f"Bearer {ONE}x")),
            raw(("Authorization", f"Bearer {ONE[:-1]}")),
            raw(("Authorization", f"Bearer {ONE}, Bearer {OTHER}")),
            raw(("Authorization", f"Bearer {ONE}"), ("Authorization", "Bearer sk-mine")),
            raw(("Authorization", f"Bearer {ONE}"), ("x-api-key", "sk-mine")),
            raw(("Authorization", f"Bearer {ONE}"), ("Authorization", "Basic x")),
            raw((PROTOCOL, f"realtime, {ONE}")),
            raw(("Cookie", ONE)),
            raw(("api-key", "")),
        ):
            error = ACCESS.unauthorized(b"POST", fields)
            assert error is not None, fields
            self.assertEqual(
                (error.status, error.type, error.code), (401, "invalid_request_error", "invalid_api_key")
            )
            self.assertNotIn(ONE, error.message)

    def test_everybody(self) -> None:
        """Without client keys every request passes."""
        self.assertIsNone(Access().unauthorized(b"POST", []))

    def test_preflight(self) -> None:
        """A preflight request passes; any other OPTIONS does not."""
        preflight = raw(("Origin", "https://x"), ("Access-Control-Request-Method", "POST"))
        self.assertIsNone(ACCESS.unauthorized(b"OPTIONS", preflight))
        self.assertIsNotNone(ACCESS.unauthorized(b"POST", preflight))
        self.assertIsNotNone(ACCESS.unauthorized(b"OPTIONS", preflight[:1]))

    @given(st.binary(max_size=40))
    def test_nothing_else(self, value: bytes) -> None:
        """Among arbitrary values only a client key passes."""
        for name, prefix in ((b"Authorization", b"Bearer "), (b"api-key", b""), (b"Authorization", b"")):
            admitted = ACCESS.unauthorized(b"GET", [(name, prefix + value)]) is None
            bare = (prefix + value).strip().partition(b" ")[2] if name == b"Authorization" else value
            self.assertEqual(admitted, bare.strip().decode("latin-1") in (ONE, OTHER))


class OutgoingTests(SynchronousTestCase):
    """Fields and targets as they go upstream."""

    def test_without_key(self) -> None:
        """Without a key of the rule's own the upstream sees what the client sent."""
        fields = raw(("Authorization", f"Bearer {ONE}"), ("Cookie", "a=b"))
        self.assertEqual(list(ACCESS.headers(b"GET", fields)), fields)
        self.assertEqual(ACCESS.target(b"/x?key=1"), b"/x?key=1")
        self.assertEqual(ACCESS.answer_headers(raw(("Set-Cookie", "a=b"))), raw(("Set-Cookie", "a=b")))

    def test_with_key(self) -> None:
        """With such a key the client's credentials are removed, and everything else stays."""
        fields = raw(
            ("X-First", "1"),
            ("authorization", f"Bearer {ONE}"),
            ("Cookie", "a=b"),
            ("Proxy-Authorization", "Basic x"),
            ("API-Key", ONE),
            ("x-api-key", "sk-mine"),
            ("X-Goog-Api-Key", "sk-mine"),
            ("OpenAI-Organization", "org"),
            (PROTOCOL, f"realtime, openai-insecure-api-key.{ONE},openai-beta.x"),
            (PROTOCOL, f"openai-insecure-api-key.{ONE}"),
        )
        expected = raw(
            ("X-First", "1"),
            ("OpenAI-Organization", "org"),
            (PROTOCOL, "realtime, openai-beta.x"),
            ("Authorization", f"Bearer {OWN}"),
        )
        self.assertEqual(list(INJECTING.headers(b"GET", fields)), expected)
        self.assertEqual(INJECTING.answer_headers(raw(("Set-Cookie", "a=b"), ("X", "y"))), raw(("X", "y")))

    def test_header(self) -> None:
        """The key may be in another field, bare; the client's field of that name is removed."""
        access = Access([], OWN.encode(), "X-Key")
        self.assertEqual(list(access.headers(b"GET", raw(("x-key", "mine")))), raw(("X-Key", OWN)))

    def test_changes(self) -> None:
        """Fields that a rule sets stand in place of the client's; what it removes does not go upstream."""
        access = Access(changes=HeaderChanges(((b"X-Team", b"a"),), (), frozenset({b"x-forwarded-for"})))
        fields = raw(
            ("x-team", "mine"), ("X-Forwarded-For", "1.2.3.4"), ("Authorization", "k"), ("Cookie", "c")
        )
        expected = raw(("Authorization", "k"), ("Cookie", "c"), ("X-Team", "a"))
        for method in (b"GET", b"OPTIONS"):
            self.assertEqual(access.headers(method, fields), expected)
        self.assertEqual((access.injects, access.redacted("a b")), (False, "a b"))
        self.assertIsNone(access.refusal(b"TRACE", []))
        self.assertEqual(access.answer_headers(raw(("Set-Cookie", "a=b"))), raw(("Set-Cookie", "a=b")))

    def test_secret_changes(self) -> None:
        """A field with a secret is a key of the operator's: no TRACE, no foreign page, no cookie."""
        access = Access(changes=CHANGES)
        fields = raw(("Authorization", "k"), ("Cookie", "c"), ("x-gateway", "mine"))
        expected = raw(("Authorization", "k"), ("X-Gateway", f"token {OWN}"))
        self.assertEqual(access.headers(b"POST", fields), expected)
        self.assertEqual(access.headers(b"OPTIONS", fields), expected[:1])
        self.assertEqual(access.answer_headers(raw(("Set-Cookie", "a=b"))), [])
        self.assertEqual(access.redacted(f"bad key {OWN}"), "bad key ***")
        for method, headers in (
            (b"TRACE", []),
            (b"GET", raw(("Host", "x"), ("Origin", "https://evil.example"))),
        ):
            self.assertIsNotNone(access.refusal(method, headers))
        # An adapter's own cookie goes with it.
        own = raw(("Cookie", "service=1"))
        self.assertEqual(access.for_adapter().headers(b"POST", own), own + expected[1:])

    def test_preflight(self) -> None:
        """A preflight request came without a key, and goes upstream without one."""
        self.assertEqual(list(INJECTING.headers(b"OPTIONS", raw(("Cookie", "a")))), [])

    def test_query(self) -> None:
        """Keys in the query are removed, by name or by value; every other byte stays."""
        for target, expected in (
            (b"/x", b"/x"),
            (b"/x?", b"/x?"),
            (b"/x?a=%7e&&b", b"/x?a=%7e&&b"),
            (b"/x?key=sk-mine", b"/x"),
            (b"/x?a=1&API-KEY=sk&b=%7e", b"/x?a=1&b=%7e"),
            (b"/x?%6bey=sk&access_token=t&api_key", b"/x"),
            (b"/x?token=client%2Done&keys=1", b"/x?keys=1"),
        ):
            self.assertEqual(INJECTING.target(target), expected)


class FlowTests(WebSocketTestCase):
    """Keys in every flow, over sockets."""

    async def listening(self, access: Access, **kwargs: Any) -> tuple[int, list[Message]]:
        """Start a proxy, and collect the requests that its upstream gets."""
        asked: list[Message] = []

        async def script(stream: Stream) -> None:
            while True:
                request = await read_request(stream)
                asked.append(request)
                if request.get("upgrade"):
                    stream.write(accepted(request, [("Set-Cookie", "a=b"), (PROTOCOL, "realtime")]))
                    return
                if b'"stream":true' in request.body.replace(b" ", b""):
                    stream.write(event_stream_head([("Set-Cookie", "a=b")]))
                    stream.chunk(HELLO)
                    stream.chunk(b"")
                else:
                    respond(stream, 200, b"{}", [JSON, ("Set-Cookie", "a=b")])

        upstream = await self.upstream(script)
        return await self.proxy(upstream.url, access=access, **kwargs), asked

    def flows(self) -> list[tuple[str, str, object]]:
        """Yield a request for each flow."""
        return [
            ("POST", CHAT, CHAT_BODY),
            ("POST", CHAT, {**CHAT_BODY, "stream": True}),
            ("GET", "/v1/models", None),
            ("POST", "/v1/files", b"data"),
        ]

    async def test_refused(self) -> None:
        """A request without a key gets a 401, and the upstream gets nothing."""
        port, asked = await self.listening(ACCESS)
        for method, target, body in self.flows():
            answer = await self.request(port, method, target, body, [("Authorization", "Bearer sk-mine")])
            self.assert_error(answer, 401, "invalid_request_error", "send a client key")
            self.assertEqual(answer.get("www-authenticate"), "Bearer")
        self.assert_error(await self.refused(port), 401, "invalid_request_error", "There is no API key")
        self.assertEqual(asked, [])

    async def test_body_unread(self) -> None:
        """The 401 does not wait for the body."""
        port, _ = await self.listening(ACCESS)
        client = await self.client(port)
        client.write(b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        self.assertEqual((await read_response(client)).status, 401)
        await client.gone()

    async def test_admitted(self) -> None:
        """With a client key all flows work, and the upstream sees that key."""
        port, asked = await self.listening(ACCESS)
        for method, target, body in self.flows():
            answer = await self.request(port, method, target, body, [("Authorization", f"Bearer {ONE}")])
            self.assertEqual((answer.status, answer.get("set-cookie")), (200, "a=b"))
        self.assertEqual({request.get("authorization") for request in asked}, {f"Bearer {ONE}"})

    async def test_injected(self) -> None:
        """The upstream is called with its own key alone."""
        port, asked = await self.listening(INJECTING)
        fields = [
            ("Authorization", f"Bearer {ONE}"),
            ("Cookie", "c=client-cookie"),
            ("Connection", "Authorization"),
        ]
        for method, target, body in self.flows():
            answer = await self.request(port, method, target + "?key=sk-mine&a=1", body, fields)
            self.assertEqual((answer.status, answer.get("set-cookie")), (200, None))
        for request in asked:
            self.assertEqual(request.all("authorization"), [f"Bearer {OWN}"])
            self.assertIsNone(request.get("cookie"))
            self.assertTrue(request.target.endswith("?a=1"), request.target)

    async def websocket(self, port: int, fields: Headers) -> Message:
        """Return the response to a handshake that succeeds."""
        client = await self.client(port)
        client.write(handshake([*HANDSHAKE, *fields]))
        answer = await read_head(client)
        client.abort()
        return answer

    async def test_websocket(self) -> None:
        """A browser's key in a subprotocol is accepted, and does not go upstream beside the rule's own."""
        protocols = f"realtime, openai-insecure-api-key.{ONE}"
        for access, offered, key, cookie in (
            (ACCESS, protocols, None, "a=b"),
            (INJECTING, "realtime", f"Bearer {OWN}", None),
        ):
            port, asked = await self.listening(access)
            answer = await self.websocket(port, [(PROTOCOL, protocols), ("Cookie", "c=d")])
            self.assertEqual((answer.status, answer.get("sec-websocket-protocol")), (101, "realtime"))
            self.assertEqual(answer.get("set-cookie"), cookie)
            self.assertEqual(asked[0].get("sec-websocket-protocol"), offered)
            self.assertEqual(asked[0].get("authorization"), key)
            self.assertEqual(asked[0].get("cookie"), "c=d" if key is None else None)

    async def test_changes(self) -> None:
        """A field that the rule sets goes upstream in every flow, WebSockets included."""
        port, asked = await self.listening(Access([ONE.encode()], changes=CHANGES))
        key = ("Authorization", f"Bearer {ONE}")
        for method, target, body in self.flows():
            fields = [key, ("x-gateway", "mine"), ("Cookie", "c=d")]
            answer = await self.request(port, method, target, body, fields)
            self.assertEqual((answer.status, answer.get("set-cookie")), (200, None))
        fields = [key, ("X-Gateway", "mine"), ("Cookie", "c=d"), (PROTOCOL, "realtime")]
        answer = await self.websocket(port, fields)
        self.assertEqual((answer.status, answer.get("set-cookie")), (101, None))
        self.assertEqual(len(asked), 5)
        for request in asked:
            self.assertEqual((request.all("x-gateway"), request.get("cookie")), ([f"token {OWN}"], None))

    async def test_preflight(self) -> None:
        """A preflight reaches the upstream without any key."""
        port, asked = await self.listening(INJECTING)
        fields = [("Origin", "https://x"), ("Access-Control-Request-Method", "POST")]
        self.assertEqual((await self.request(port, "OPTIONS", CHAT, None, fields)).status, 200)
        self.assertIsNone(asked[0].get("authorization"))

    async def test_adapter(self) -> None:
        """The adapter demands the same keys, lets browsers read the 401, and calls with the rule's key."""
        config = AdapterConfig(headers={"Cookie": "service=1", "x-api-key": "second"})

        def resource(url: str, **kwargs: Any) -> AdapterResource:
            return AdapterResource(url + "/run?key=configured", config, **kwargs)

        port, asked = await self.listening(INJECTING, resource=resource)
        for method, target in (("GET", "/v1/models"), ("POST", CHAT)):
            answer = await self.request(port, method, target, CHAT_BODY)
            self.assert_error(answer, 401, "invalid_request_error")
            self.assertEqual(answer.get("access-control-allow-origin"), "*")
        preflight = [("Origin", "https://x"), ("Access-Control-Request-Method", "POST")]
        self.assertEqual((await self.request(port, "OPTIONS", CHAT, None, preflight)).status, 204)
        key = [("Authorization", f"Bearer {ONE}")]
        body = {**CHAT_BODY, "model": "gpt-3.5-turbo"}
        self.assertEqual((await self.request(port, "POST", CHAT, body, key)).status, 200)
        self.assertEqual(asked[0].all("authorization"), [f"Bearer {OWN}"])
        self.assertEqual((asked[0].get("cookie"), asked[0].get("x-api-key")), ("service=1", "second"))
        self.assertEqual(asked[0].target, "/run?key=configured")

    async def test_adapter_repeats(self) -> None:
        """A key that a service quotes in its error does not reach the client."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            respond(stream, 401, json.dumps({"error": {"message": f"bad key {OWN}"}}).encode(), [JSON])

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url, access=INJECTING, resource=AdapterResource)
        body = {**CHAT_BODY, "model": "gpt-3.5-turbo"}
        answer = await self.request(port, "POST", CHAT, body, [("Authorization", f"Bearer {ONE}")])
        self.assertEqual((answer.status, answer.json()["error"]["message"]), (401, "bad key ***"))


class SourceTests(SynchronousTestCase):
    """Key files, variables, and the errors about unusable ones."""

    def test_file(self) -> None:
        """A file has a key on each line, besides comments and blanks."""
        path = self.mktemp()
        Path(path).write_bytes(b"\xef\xbb\xbf# ours\r\n one\n\n\ttwo \n#three\n")
        self.assertEqual(KeySource(file=path).read(), [b"one", b"two"])

    def test_environment(self) -> None:
        """A variable has its keys between blanks or commas."""
        source = KeySource(environment="KEYS")
        self.assertEqual(source.read({"KEYS": " one,two\nthree "}), [b"one", b"two", b"three"])

    def test_quotes(self) -> None:
        """Quotes around a key, or around a whole variable, are not part of it; inside of a key they are."""
        source = KeySource(environment="KEYS")
        for value, keys in (
            ('"sk-abc"', [b"sk-abc"]),
            ("'sk-abc'", [b"sk-abc"]),
            ("  ' sk-abc ' ", [b"sk-abc"]),
            ('"one, two"', [b"one", b"two"]),
            ("\"one\" 'two'", [b"one", b"two"]),
            ('"one","two"', [b"one", b"two"]),
            ("'\"sk-abc\"'", [b"sk-abc"]),
            ("sk'abc", [b"sk'abc"]),
        ):
            self.assertEqual(source.read({"KEYS": value}), keys, value)
        path = self.mktemp()
        Path(path).write_text("\"one\"\n'two'\nthree\n")
        self.assertEqual(KeySource(file=path).read(), [b"one", b"two", b"three"])

    def test_half_quoted(self) -> None:
        """A quote at one end, or nothing between two, is an error that names the source and not the key."""
        source = KeySource(environment="KEYS")
        for value in ('"sk-secret', "sk-secret'", "\"sk-secret'", '"', '"a", \'b'):
            error = self.assertRaises(ValueError, source.read, {"KEYS": value})
            self.assertEqual(
                str(error), "the environment's KEYS holds a key with a quote at one end; remove it"
            )
        for value in ('""', "''", "\"''\"", "' '"):
            error = self.assertRaises(ValueError, source.read, {"KEYS": value})
            self.assertEqual(str(error), "the environment's KEYS holds no key")

    def test_references(self) -> None:
        """The value of a ``${NAME}`` loses its quotes as well, and an empty pair is no value."""
        self.assertEqual(variable("A", {"A": ' "s3cret" '}), "s3cret")
        self.assertEqual(variable("A", {"A": "s3'c\"ret"}), "s3'c\"ret")
        for environ in ({}, {"A": ""}, {"A": "''"}):
            self.assertRaises(ValueError, variable, "A", environ)

    def assert_line(self, rule: dict[str, Any], problem: str) -> None:
        """Check that the error says this, and quotes no secret."""
        whole = {"listenPort": 1, "listenAddress": "127.0.0.1", "upstreamUrl": "http://x", **rule}
        error = self.assertRaises(ConfigError, parse_config, json.dumps({"rules": [whole]}).encode(), "c")
        self.assertEqual(str(error), f"c: rules[0].{problem}")
        self.assertNotIn("sk-secret", str(error))

    def test_errors(self) -> None:
        """Each mistake makes one line."""
        empty, binary, two = self.mktemp(), self.mktemp(), self.mktemp()
        Path(empty).write_text("# none\n")
        Path(binary).write_bytes(b"\xff\xfe")
        Path(two).write_text("sk-secret one\n")
        self.patch(os, "environ", {**os.environ, "TWO_KEYS": "a b"})
        inline = 'keys do not stand in the config; use {"file": PATH} or {"environment": NAME}'
        one = 'must be {"file": PATH} or {"environment": NAME}'
        for key in ("clientKeys", "upstreamKey"):
            for value, problem in (
                ("sk-secret", inline),
                (["sk-secret"], inline),
                ({}, one),
                ({"file": "a", "environment": "B"}, one),
                ({"file": "/no/such"}, "/no/such cannot be read: No such file or directory"),
                ({"file": "/"}, "/ cannot be read: Is a directory"),
                ({"file": empty}, f"{empty} holds no key"),
                ({"file": binary}, f"{binary} is no text file with a key on each line"),
                ({"file": two}, f"{two} holds a key with characters that no key has, such as blanks"),
                ({"environment": "NO_SUCH_KEY"}, "the environment has no NO_SUCH_KEY"),
            ):
                self.assert_line({key: value}, f"{key}: {problem}")
        several = "holds more than one key; the upstream is called with one"
        self.assert_line({"upstreamKey": {"environment": "TWO_KEYS"}}, f"upstreamKey: {several}")
        bad = {"environment": "HOME", "header": "a b"}
        self.assert_line({"upstreamKey": bad}, "upstreamKey.header: is no name of a header field")

    def test_adapter(self) -> None:
        """A second key for an adapter that has one already is an error."""
        key = {"environment": "PATH"}
        place = "upstreamKey stands in its place; leave one out"
        for adapter, problem in (
            ({"forwardAuthorization": True}, f"adapter.forwardAuthorization: {place}"),
            ({"headers": {"authorization": "x"}}, f"adapter.headers.authorization: {place}"),
        ):
            self.assert_line({"upstreamKey": key, "adapter": adapter}, problem)

    def test_exposed(self) -> None:
        """A key file that everyone can read makes a warning."""
        path = self.mktemp()
        Path(path).write_text("key")
        rule = {"listenPort": 1, "upstreamUrl": "http://x", "clientKeys": {"file": path}}
        for mode, expected in (
            (0o600, []),
            (0o644, [f"c: rules[0].clientKeys: everyone on this machine can read {path}"]),
        ):
            os.chmod(path, mode)
            self.assertEqual(parse_config(json.dumps({"rules": [rule]}).encode(), "c")[1], expected)


class ProcessTests(ProcessTestCase):
    """Starts of services with keys."""

    async def test_open_wallet(self) -> None:
        """A rule that would spend the operator's key for everyone in reach does not start."""
        environment = {"OUR_KEY": "sk-secret", "CLIENTS": "c1"}
        key = {"upstreamKey": {"environment": "OUR_KEY"}}
        adapter = {"adapter": {"headers": {"X": "${OUR_KEY}"}}}
        port = free_port()
        for rule, refused in (
            ({"listenPort": port, **key}, True),
            ({"listenPort": port, **adapter}, True),
            ({"listen": f"tcp:{port}", **key}, True),
            ({"listenPort": port, **key, "listenAddress": "127.0.0.1"}, False),
            ({"listen": f"tcp:{port}:interface=127.0.0.1", **adapter}, False),
            ({"listenPort": port, **key, "clientKeys": {"environment": "CLIENTS"}}, False),
        ):
            path = self.write_config({"rules": [{"upstreamUrl": "http://127.0.0.1:9", **rule}]})
            process = self.twistd("-c", str(path), env=environment)
            if refused:
                self.assertEqual(await process.ended(), 1)
                self.assertIn(f"{path}: rules[0].clientKeys: is required where a rule", process.output)
                self.assertEqual(process.output.count("\n"), 1)
            else:
                await process.line("listening on")
                process.signal("TERM")
                await process.ended()
            self.assertNotIn("sk-secret", process.output)

    async def test_pages(self) -> None:
        """A rule that spends its own key looks at hosts and origins, and SIGHUP changes them."""
        port = free_port()
        rule = {
            "listenPort": port,
            "listenAddress": "127.0.0.1",
            "upstreamUrl": await self.mock(),
            "upstreamKey": {"environment": "OUR_KEY"},
        }
        path = self.write_config({"rules": [rule]})
        process = self.twistd("-c", str(path), env={"OUR_KEY": "sk-secret"})
        await process.line("listening on")

        async def status() -> int:
            origin = [("Origin", "https://app.example")]
            return (await self.request(port, "GET", "/v1/models", None, origin)).status

        self.assertEqual(await status(), 403)
        await process.line("does not answer pages of the origin")
        path.write_text(json.dumps({"rules": [{**rule, "origins": ["https://app.example"]}]}))
        process.signal("HUP")
        await process.line("was read again")
        self.assertEqual(await status(), 200)
        self.assertNotIn("app.example", process.output)

    async def test_reload(self) -> None:
        """SIGHUP makes the service read its keys again."""
        keys = self.directory() / "keys"
        keys.write_text("one\n")
        port = free_port()
        rule = {"listenPort": port, "upstreamUrl": await self.mock(), "clientKeys": {"file": str(keys)}}
        process = self.twistd("-c", str(self.write_config({"rules": [rule]})))
        await process.line("listening on")

        async def status(key: str) -> int:
            field = [("Authorization", f"Bearer {key}")]
            return (await self.request(port, "GET", "/v1/models", None, field)).status

        self.assertEqual([await status(key) for key in ("one", "two")], [200, 401])
        keys.write_text("two\n")
        process.signal("HUP")
        await process.line("was read again")
        self.assertEqual([await status(key) for key in ("one", "two")], [401, 200])
