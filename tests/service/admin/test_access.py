"""Tests of who is answered on the admin port, each by one who tries to get past it."""

from __future__ import annotations

from typing import Any

from stream_proxy.service.admin.access import Guard
from stream_proxy.service.admin.router import AdminResource, Visit
from tests.support.admin import KEY, AdminTestCase
from tests.support.wire import Message

BEARER = ("Authorization", f"Bearer {KEY}")


def _serve(resource: AdminResource) -> list[str]:
    """Serve a path for each guard; return what is called with the paths that are answered."""
    answered: list[str] = []

    def answer(visit: Visit) -> None:
        answered.append(visit.request.path.decode())
        visit.json({"body": visit.body.decode("latin-1")})

    for guard in Guard:
        resource.get(f"/{guard.value}", answer, guard)
        resource.post(f"/{guard.value}", answer, guard)
    return answered


class AccessTestCase(AdminTestCase):
    """Requests that are answered, and that are not."""

    def assert_refused(self, response: Message, status: int, words: str) -> None:
        """Fail unless this is an error with these words that no page may read or keep."""
        self.assertEqual((response.status, response.complete), (status, True))
        self.assertIn(words, response.json()["error"]["message"])
        self.assertEqual(response.get("Cache-Control"), "no-store")
        self.assertIsNone(response.get("Access-Control-Allow-Origin"))


class HostTests(AccessTestCase):
    """DNS rebinding: a name of a page's own that resolves to this machine."""

    async def test_names(self) -> None:
        """Addresses, localhost and the configured names are answered, in any spelling and with any port."""
        service, port = self.admin(hosts=["proxy.internal"])
        _serve(service.resource)
        for host in (
            "localhost",
            f"LOCALHOST:{port}",
            "localhost.",
            "127.0.0.1:1",
            "[::1]:9901",
            "10.0.0.7",
            "Proxy.Internal.:80",
        ):
            self.assertEqual((await self.send(port, "/key", host=host)).status, 200, host)

    async def test_foreign(self) -> None:
        """Any other name is refused, on each path but the health checks, be it served or not."""
        service, port = self.admin(hosts=["proxy.internal"])
        answered = _serve(service.resource)
        for host in (
            "evil.example",
            "localhost.evil.example",
            "evil.proxy.internal",
            "127.0.0.1.nip.io",
            "2130706433",  # an address to some resolvers
            "0x7f.1",
            "127.1",
        ):
            for target in ("/place", "/key", "/events", "/nothing"):
                response = await self.send(port, target, host=host)
                self.assert_refused(response, 403, host)
            response = await self.send(port, "/key", "POST", host=host)
            self.assert_refused(response, 403, host)
        self.assertEqual(answered, [])

    async def test_no_host(self) -> None:
        """HTTP/1.0 without a Host is answered health checks alone."""
        service, port = self.admin()
        answered = _serve(service.resource)
        self.assert_refused(await self.send(port, "/key", version="1.0", host=None), 403, "without Host")
        for target in ("/healthz", "/readyz"):
            response = await self.send(port, target, version="1.0", host=None)
            self.assertEqual(response.status, 200)
        self.assertEqual(answered, [])

    async def test_absolute_form(self) -> None:
        """A target with a host of its own is not served."""
        service, port = self.admin()
        answered = _serve(service.resource)
        for target in (
            f"http://localhost:{port}/key",
            "http://evil.example/key",
            "//evil.example/key",
            "key",
        ):
            self.assertEqual((await self.send(port, target)).status, 404, target)
        self.assertEqual(answered, [])


class PageOfElsewhereTests(AccessTestCase):
    """Pages of other sites, which a browser of the operator's shows."""

    async def test_cross_site(self) -> None:
        """What a page of another site causes is refused, links among it; health checks are not."""
        service, port = self.admin()
        answered = _serve(service.resource)
        cross = ("Sec-Fetch-Site", "cross-site")
        for method in ("GET", "HEAD", "POST"):
            response = await self.send(port, "/key", method, [cross])
            self.assertEqual(response.status, 403)
        self.assert_refused(await self.send(port, "/place", headers=[cross]), 403, "other sites")
        self.assertEqual(answered, [])
        self.assertEqual((await self.send(port, "/healthz", headers=[cross])).status, 200)

    async def test_own_get(self) -> None:
        """The page itself, an address typed by hand, and another port of the same host may read."""
        service, port = self.admin()
        _serve(service.resource)
        for site in ("same-origin", "none", "same-site", "Same-Origin"):
            response = await self.send(port, "/key", headers=[("Sec-Fetch-Site", site)])
            self.assertEqual(response.status, 200, site)

    async def test_post_of_another_site(self) -> None:
        """A POST must come from the page itself, or from no page at all."""
        service, port = self.admin()
        answered = _serve(service.resource)
        for fields in (
            [("Sec-Fetch-Site", "same-site")],
            [("Sec-Fetch-Site", "none")],
            [("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")],
            [("Origin", "http://evil.example")],
            [("Origin", "null")],
            [("Origin", "")],
            [("Origin", "http://localhost")],  # another port of this host
            [("Origin", f"http://127.0.0.1:{port}")],  # another name of this port
            [("Origin", f"http://localhost:{port}"), ("Origin", "http://evil.example")],
            [("Origin", "http://evil.example"), ("Sec-Fetch-Site", "same-origin")],
        ):
            response = await self.send(port, "/key", "POST", fields, host=f"localhost:{port}")
            self.assertEqual(response.status, 403, fields)
        self.assertEqual(answered, [])

    async def test_own_post(self) -> None:
        """The page and curl may send POSTs."""
        service, port = self.admin()
        answered = _serve(service.resource)
        page = [("Origin", f"http://localhost:{port}"), ("Sec-Fetch-Site", "same-origin")]
        for fields in ([], page, page[:1], page[1:]):
            response = await self.send(port, "/key", "POST", fields, host=f"localhost:{port}")
            self.assertEqual(response.status, 200, fields)
        # A proxy in front may speak TLS.
        response = await self.send(port, "/key", "POST", [("Origin", "https://localhost")], host="localhost")
        self.assertEqual(response.status, 200)
        self.assertEqual(len(answered), 5)

    async def test_get_with_origin(self) -> None:
        """A page of elsewhere may not read, where the browser tells no Sec-Fetch-Site."""
        service, port = self.admin()
        _serve(service.resource)
        response = await self.send(port, "/key", headers=[("Origin", "http://evil.example")])
        self.assert_refused(response, 403, "http://evil.example")


class KeyTests(AccessTestCase):
    """Keys."""

    async def test_needed(self) -> None:
        """With a key configured nothing but the health checks and what is for all is answered without."""
        service, port = self.admin([KEY, "other"])
        answered = _serve(service.resource)
        for method in ("GET", "POST"):
            for target in ("/key", "/secret"):
                response = await self.send(port, target, method)
                self.assert_refused(response, 401, "There is no key")
                self.assertEqual(response.get("WWW-Authenticate"), "Bearer")
        self.assertEqual(answered, [])
        for target in ("/healthz", "/readyz", "/place"):
            self.assertEqual((await self.send(port, target)).status, 200)

    async def test_shown(self) -> None:
        """Each of the keys is good, as Bearer in any case."""
        service, port = self.admin([KEY, "other"])
        _serve(service.resource)
        for value in (f"Bearer {KEY}", f"bearer  {KEY} ", "BEARER other"):
            for target in ("/key", "/secret"):
                response = await self.send(port, target, headers=[("Authorization", value)])
                self.assertEqual(response.status, 200, value)

    async def test_wrong(self) -> None:
        """What is no key is refused, and not repeated."""
        service, port = self.admin([KEY])
        answered = _serve(service.resource)
        for value in (
            f"Bearer {KEY}x",
            f"Bearer {KEY[:-1]}",
            f"Basic {KEY}",
            KEY,
            "Bearer",
            f"Bearer x{KEY}",
        ):
            response = await self.send(port, "/key", headers=[("Authorization", value)])
            self.assertEqual(response.status, 401, value)
            self.assertNotIn(KEY.encode(), response.body)
        response = await self.send(port, f"/key?key={KEY}")
        self.assertEqual(response.status, 401)
        self.assertEqual(answered, [])

    async def test_none_configured(self) -> None:
        """Without any key only this machine is answered, and even that not what other users sent."""
        service, port = self.admin()
        _serve(service.resource)
        self.assertEqual((await self.send(port, "/key")).status, 200)
        self.assert_refused(await self.send(port, "/secret"), 401, 'set "key" of "admin"')
        service, port = self.admin(local=False)
        answered = _serve(service.resource)
        for headers in ([], [BEARER], [("Authorization", "Bearer ")]):
            self.assert_refused(await self.send(port, "/key", headers=headers), 401, 'set "key" of "admin"')
        self.assertEqual(answered, [])

    async def test_reload(self) -> None:
        """A key that was taken away is good no longer, and its cookie neither; the others' are."""
        service, port = self.admin([KEY, "kept"])
        _serve(service.resource)
        access = service.resource.access
        old, kept = access.exchange(KEY.encode()), access.exchange(b"kept")
        assert old is not None and kept is not None
        service.change_access([b"kept", b"new"], [])
        for fields, status in (
            ([BEARER], 401),
            ([("Cookie", old.decode().split(";")[0])], 401),
            ([("Cookie", kept.decode().split(";")[0])], 200),
            ([("Authorization", "Bearer new")], 200),
        ):
            self.assertEqual((await self.send(port, "/key", headers=fields)).status, status, fields)


class BodyTests(AccessTestCase):
    """Bodies of POSTs."""

    async def test_bounded(self) -> None:
        """A body of 64 KiB is taken, and a larger one refused, before it is there if its length is known."""
        service, port = self.admin()
        answered = _serve(service.resource)
        response = await self.send(port, "/key", "POST", body=b"x" * 65_536)
        self.assertEqual(response.json(), {"body": "x" * 65_536})
        stream = await self.client(port)
        stream.write(b"POST /key HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65537\r\n\r\n")
        self.assertIn(b" 413 ", await stream.until(b"\r\n"))
        stream = await self.client(port)
        stream.write(b"POST /key HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        stream.chunk(b"x" * 65_537)
        self.assertIn(b" 413 ", await stream.until(b"\r\n"))
        self.assertEqual(answered, ["/key"])

    async def test_refused_first(self) -> None:
        """The body of a request that is not answered is not waited for."""
        service, port = self.admin([KEY])
        answered = _serve(service.resource)
        stream = await self.client(port)
        stream.write(b"POST /key HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
        self.assertIn(b" 401 ", await stream.until(b"\r\n"))
        await stream.gone()
        self.assertEqual(answered, [])

    async def test_gone(self) -> None:
        """A client that leaves within its body leaves nothing behind."""
        service, port = self.admin()
        answered = _serve(service.resource)
        stream = await self.client(port)
        stream.write(b"POST /key HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx")
        await self.send(port, "/key")  # by now the other request has begun
        stream.abort()
        await stream.gone()
        self.assertEqual((await self.send(port, "/key")).status, 200)
        self.assertEqual(answered, ["/key", "/key"])


class RouteTests(AccessTestCase):
    """Paths and methods."""

    async def test_methods(self) -> None:
        """A path is served with its own methods; HEAD is GET without a body."""
        service, port = self.admin()
        service.resource.get("/one", lambda visit: visit.json([1]))
        service.resource.post("/two", lambda visit: visit.json([2]))
        head = await self.send(port, "/one", "HEAD")
        self.assertEqual((head.status, head.get("Content-Length"), head.body), (200, "3", b""))
        for target, method, allowed in (
            ("/one", "POST", "GET, HEAD"),
            ("/one", "OPTIONS", "GET, HEAD"),
            ("/two", "GET", "POST"),
            ("/healthz", "DELETE", "GET, HEAD"),
        ):
            response = await self.send(port, target, method)
            self.assertEqual((response.status, response.get("Allow")), (405, allowed))

    async def test_below(self) -> None:
        """A path that ends with a slash stands for all below it that is not served itself."""
        service, port = self.admin()
        service.resource.get("/a/", lambda visit: visit.json(["a", visit.below, visit.query]))
        service.resource.get("/a/b", lambda visit: visit.json(["b"]))
        for target, answer in (
            ("/a/", ["a", "", {}]),
            ("/a/x/y?q=1%202&q=3", ["a", "x/y", {"q": "3"}]),
            ("/a/b", ["b"]),
            ("/a/b/", ["a", "b/", {}]),
        ):
            self.assertEqual((await self.send(port, target)).json(), answer)
        for target in ("/a", "/", "/b/a/", "/ab"):
            response = await self.send(port, target)
            self.assertIn(response.status, (200, 404) if target == "/" else (404,), target)

    async def test_slashes(self) -> None:
        """What is looked up for a path does not grow with its slashes, of which a head has room for many."""

        class Counted(dict[Any, Any]):
            looks = 0

            def __contains__(self, key: object) -> bool:
                self.looks += 1
                return super().__contains__(key)

        service, port = self.admin()
        routes = service.resource._routes = Counted(service.resource._routes)
        response = await self.send(port, "/a" * 1000)
        self.assertEqual(response.status, 404)
        self.assertLess(routes.looks, 10)

    async def test_fields(self) -> None:
        """Every response keeps pages from framing, loading, sniffing and storing it."""
        service, port = self.admin([KEY])
        _serve(service.resource)
        for target in ("/healthz", "/key", "/nothing", "/place"):
            response = await self.send(port, target)
            policy = response.get("Content-Security-Policy") or ""
            self.assertIn("default-src 'self'", policy)
            self.assertIn("frame-ancestors 'none'", policy)
            self.assertNotIn("unsafe", policy)
            self.assertEqual(response.get("X-Content-Type-Options"), "nosniff")
            self.assertEqual(response.get("Cache-Control"), "no-store")
            self.assertEqual(response.get("Cross-Origin-Resource-Policy"), "same-origin")

    async def test_bug(self) -> None:
        """A bug is a 500, and no end of the port."""
        service, port = self.admin()

        def broken(visit: Visit) -> None:
            raise ValueError("a secret")

        service.resource.get("/broken", broken)
        response = await self.send(port, "/broken")
        self.assertEqual(response.status, 500)
        self.assertNotIn(b"secret", response.body)
        self.assertEqual((await self.send(port, "/healthz")).status, 200)
