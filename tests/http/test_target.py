"""Tests of request targets: paths that climb."""

from __future__ import annotations

from posixpath import normpath
from urllib.parse import unquote

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.http.access import Access
from stream_proxy.http.target import climbs, has_dots
from tests.support.sessions import HANDSHAKE, WebSocketTestCase, handshake
from tests.support.wire import JSON, Stream, read_request, respond

CLIMBING = (
    b"/..",
    b"/../admin",
    b"/v1/../../admin",
    b"/%2e%2e/admin",
    b"/.%2E/admin",
    b"/%2e./admin",
    b"/%252e%252e/admin",
    b"/%25252e%25252e%25252fadmin",
    b"/..%2fadmin",
    b"/..%2Fadmin",
    b"/..%252fadmin",
    b"/..%5cadmin",
    b"/..\\admin",
    b"\\..\\admin",
    b"/v1%2f..%2f..%2fadmin",
    b"/v1/..%2f..%2fadmin",
    b"/v1%2f../../admin",
    b"/v1\\..\\..\\admin",
    b"//..",
    b"/v1//../../admin",
    b"/v1/./../../admin",
    b"/v1/%2e/../../admin",
    b"/v1/%2f/../../admin",
    b"/..;/admin",
    b"/..;a=b/admin",
    b"/..%3b/admin",
    b"/;/../admin",
    b"/..%20/admin",
    b"/..%00/admin",
    b"/..%09/admin",
    b"/v1/chat/completions/../../../..",
    b"/%2525252525252e",
)
STAYING = (
    b"/",
    b"/v1/chat/completions",
    b"/v1/../chat",
    b"/v1/a/../../chat",
    b"/v1/a/%2e%2e/b",
    b"/v1/files/a..b",
    b"/v1/files/..a",
    b"/v1/files/...",
    b"/v1/%2e%2e%2e/x",
    b"/v1/models/meta%2Fllama",
    b"/v1/models/a%20b",
    b"/v1/models/100%",
    b"/v1/models/%zz",
    b"/v1/models?x=/../../..",
    b"/v1/x?..%2f..%2f",
    b"//v1//models",
    b"/v1/models;p=1",
)


class ClimbingTests(SynchronousTestCase):
    """Paths, as any server might read them."""

    def test_climbing(self) -> None:
        """A path that only one kind of server reads as one above the start climbs."""
        for target in CLIMBING:
            self.assertTrue(climbs(target), target)

    def test_staying(self) -> None:
        """Dots inside of names, in the query, or below the start are nobody's concern."""
        for target in STAYING:
            self.assertFalse(climbs(target), target)

    @given(
        st.lists(
            st.sampled_from(
                ["a", "..", ".", "", "%2e%2e", "..%2f", "%2f", "a%2fb", "%252e%252e", "b%252f.."]
            ),
            max_size=8,
        )
    )
    def test_readings(self, segments: list[str]) -> None:
        """No server that decodes up to three times, at once or between the slashes, gets above the start."""
        path = "/".join(segments)
        if climbs(b"/" + path.encode()):
            return
        once, twice = unquote(path), unquote(unquote(path))
        dots_only = path.replace("%2e", ".")
        for read in (path, once, twice, unquote(twice), dots_only):
            resolved = normpath("base/" + read)
            self.assertTrue((resolved + "/").startswith("base/"), (path, read, resolved))

    def test_long(self) -> None:
        """The longest target is judged in linear time."""
        self.assertTrue(climbs(b"/%" + b"25" * 30_000))
        self.assertFalse(climbs(b"/a%20" * 12_000))
        self.assertTrue(climbs(b"/a%2f.." * 9_000))

    def test_dots(self) -> None:
        """For values of a template any dot segment is one too many."""
        for target in (
            b"/agents/../run",
            b"/agents/..%2Fadmin/run",
            b"/a/x%2F.%2Fy",
            b"/a/%252E",
            b"/a/..%5Cb",
        ):
            self.assertTrue(has_dots(target), target)
        for target in (b"/agents/meta%2Fllama-3.1/run", b"/a/v1.0", b"/a/...", b"/a/x?y=..", b"/a//b"):
            self.assertFalse(has_dots(target), target)


class RequestTests(WebSocketTestCase):
    """Requests through the proxy."""

    async def test_refused(self) -> None:
        """A climbing path is a 400 where the prefix or the key is the operator's, for every flow."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            self.fail("the upstream was asked")

        upstream = await self.upstream(script)
        for prefix, access in (("/api/v1", Access()), ("", Access((), b"sk-own"))):
            port = await self.proxy(upstream.url + prefix, access=access)
            for target in CLIMBING:
                text = target.decode()
                response = await self.request(port, "GET", text)
                self.assertEqual(response.status, 400, target)
                if target.startswith(b"/"):
                    self.assertEqual(response.json()["error"]["code"], "invalid_target")
            for method, body in (("POST", {"model": "m", "messages": []}), ("DELETE", None)):
                response = await self.request(port, method, "/%2e%2e/chat/completions", body)
                self.assert_error(response, 400, "invalid_request_error", "above the upstream's base URL")
            response = await self.request(port, "GET", "http://localhost/../admin")
            self.assert_error(response, 400, "invalid_request_error", "above the upstream's base URL")
            response = await self.refused(port, handshake(HANDSHAKE, "/x/..%2f../realtime"))
            self.assert_error(response, 400, "invalid_request_error", "above the upstream's base URL")

    async def test_relayed(self) -> None:
        """Anything else goes up byte for byte, and so does every path where nothing is the operator's."""
        asked: list[str] = []

        async def script(stream: Stream) -> None:
            while True:
                asked.append((await read_request(stream)).target)
                respond(stream, 200, b"{}", [JSON])

        upstream = await self.upstream(script)
        for prefix, targets in (("/api/v1", STAYING), ("", STAYING + CLIMBING)):
            port = await self.proxy(upstream.url + prefix)
            asked.clear()
            sent = [target.decode() for target in targets if target.startswith(b"/")]
            for target in sent:
                self.assertEqual((await self.request(port, "GET", target)).status, 200, target)
            self.assertEqual(asked, [prefix + target for target in sent])
