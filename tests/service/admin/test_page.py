"""Tests of the files of the page, and of logging in. `heavy_tests` has those in a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.service.admin import files
from tests.support.admin import KEY, AdminTestCase
from tests.support.wire import Message

PAGE = Path(files.__file__).parent / "page"
VOID = {"meta", "link", "img", "input"}


class _Outline(HTMLParser):
    """The elements of a document, with what is wrong with their nesting."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.wrong: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.wrong += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.wrong.append(tag)

    def values(self, name: str) -> list[str]:
        """Return all values of an attribute."""
        return [value or "" for _, attributes in self.elements if (value := attributes.get(name)) is not None]


class FileTests(SynchronousTestCase):
    """The files."""

    def test_html(self) -> None:
        """The documents are well-formed, with a language and a title, and each id stands once."""
        for name in ("index.html", "login.html"):
            outline = _Outline((PAGE / name).read_text())
            self.assertEqual(outline.wrong, [], name)
            self.assertEqual(outline.elements[0], ("html", {"lang": "en"}))
            self.assertIn("title", [tag for tag, _ in outline.elements])
            ids = outline.values("id")
            self.assertEqual(len(ids), len(set(ids)))
            for each in (*outline.values("aria-controls"), *outline.values("aria-labelledby")):
                self.assertIn(each, ids)

    def test_policy(self) -> None:
        """They have no inline script or style and load nothing from elsewhere, which the policy forbids."""
        for name in ("index.html", "login.html"):
            outline = _Outline((PAGE / name).read_text())
            for tag, attributes in outline.elements:
                self.assertNotIn("style", (tag, *attributes))
                self.assertFalse([each for each in attributes if each.startswith("on")])
                if tag == "script":
                    self.assertEqual(attributes, {"src": "/page.js", "type": "module"})
            for each in (*outline.values("src"), *outline.values("href"), *outline.values("action")):
                self.assertRegex(each, r"^/[a-z.]*$")
        for name in ("page.js", "page.css", "icon.svg"):
            text = (PAGE / name).read_text().replace("http://www.w3.org/2000/svg", "")
            self.assertNotRegex(text, r"https?://|@import|url\(|\beval\b|new Function|data:[a-z]")

    def test_text(self) -> None:
        """What is shown goes in as text, never as HTML."""
        script = (PAGE / "page.js").read_text()
        self.assertNotRegex(
            script,
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|setAttribute\(\"(style|on|href|src)",
        )

    def test_names(self) -> None:
        """The script finds all that it looks for in the document."""
        ids = _Outline((PAGE / "index.html").read_text()).values("id")
        script = (PAGE / "page.js").read_text()
        looked_for = {*re.findall(r'byId\("([\w-]+)"\)', script), *re.findall(r'tile\("([\w-]+)"', script)}
        self.assertEqual(looked_for - set(ids), set())
        self.assertGreater(len(looked_for), 15)


class ServedTests(AdminTestCase):
    """The files as they are served."""

    async def test_types(self) -> None:
        """Each has its type, and the very content of the package."""
        _, port = self.admin()
        for target, name, content_type in (
            ("/", "index.html", "text/html; charset=utf-8"),
            ("/page.js", "page.js", "text/javascript; charset=utf-8"),
            ("/page.css", "page.css", "text/css; charset=utf-8"),
            ("/icon.svg", "icon.svg", "image/svg+xml"),
        ):
            response = await self.send(port, target)
            self.assertEqual((response.status, response.get("Content-Type")), (200, content_type))
            self.assertEqual(response.body, (PAGE / name).read_bytes())
            self.assertIn("default-src 'self'", response.get("Content-Security-Policy") or "")
        for target in ("/index.html", "/login.html", "/page/", "/../service.py", "/page.js/", "/%70age.js"):
            self.assertEqual((await self.send(port, target)).status, 404, target)


class LoginTests(AdminTestCase):
    """A key is exchanged for a cookie."""

    async def log_in(self, port: int, key: str) -> Message:
        """Send the form."""
        body = f"key={quote(key)}".encode()
        page = [("Origin", f"http://localhost:{port}"), ("Sec-Fetch-Site", "same-origin")]
        return await self.send(port, "/login", "POST", page, body=body, host=f"localhost:{port}")

    async def test_form(self) -> None:
        """A browser without a key is shown the form, and what that needs; all else is an error."""
        _, port = self.admin([KEY])
        response = await self.send(port, "/", headers=[("Accept", "text/html,*/*")])
        self.assertEqual((response.status, response.get("Content-Type")), (401, "text/html; charset=utf-8"))
        outline = _Outline(response.body.decode())
        self.assertIn(("/login"), outline.values("action"))
        for target in (*outline.values("href"), *outline.values("src")):
            self.assertEqual((await self.send(port, target)).status, 200, target)
        for target in ("/", "/page.js", "/events", "/requests/1"):
            response = await self.send(port, target)
            self.assertEqual((response.status, response.get("WWW-Authenticate")), (401, "Bearer"))

    async def test_exchange(self) -> None:
        """The cookie opens everything; no script can read it, and no other site can have it sent."""
        _, port = self.admin([KEY, "other"])
        response = await self.log_in(port, f" {KEY} ")
        self.assertEqual((response.status, response.get("Location")), (303, "/"))
        cookie, *attributes = (response.get("Set-Cookie") or "").split("; ")
        self.assertEqual(set(attributes), {"Path=/", "HttpOnly", "SameSite=Strict"})
        self.assertNotIn(KEY, cookie)
        for target in ("/", "/page.js"):
            response = await self.send(port, target, headers=[("Cookie", f"a=b; {cookie}")])
            self.assertEqual(response.status, 200)

    async def test_forged(self) -> None:
        """A cookie that this process did not make is worth nothing, be it another process's."""
        _, port = self.admin([KEY])
        _, other = self.admin([KEY])
        cookie = (await self.log_in(other, KEY)).get("Set-Cookie") or ""
        token = cookie.split(";")[0].partition("=")[2]
        name = f"stream_proxy_admin_{port}"
        for value in (token, KEY, "", token.upper(), "0" * 64):
            response = await self.send(port, "/page.js", headers=[("Cookie", f"{name}={value}")])
            self.assertEqual(response.status, 401)

    async def test_cookie_is_no_way_in_for_others(self) -> None:
        """With the cookie, too, a POST must come from the page."""
        _, port = self.admin([KEY])
        cookie = ((await self.log_in(port, KEY)).get("Set-Cookie") or "").split(";")[0]
        for fields in (
            [("Origin", "http://localhost:1")],
            [("Sec-Fetch-Site", "same-site")],
            [("Origin", "http://evil.example"), ("Sec-Fetch-Site", "cross-site")],
        ):
            response = await self.send(port, "/requests/1/cancel", "POST", [("Cookie", cookie), *fields])
            self.assertEqual(response.status, 403)

    async def test_wrong(self) -> None:
        """A wrong key leads back to the form, which says so."""
        _, port = self.admin([KEY])
        for key in ("", "x", KEY + "x"):
            response = await self.log_in(port, key)
            self.assertEqual((response.status, response.get("Set-Cookie")), (401, None))
            self.assertNotRegex(response.body.decode(), r"<p[^>]* hidden")
            self.assertNotIn(KEY.encode(), response.body)

    async def test_from_elsewhere(self) -> None:
        """Another site can log nobody in."""
        _, port = self.admin([KEY])
        response = await self.send(
            port, "/login", "POST", [("Origin", "http://evil.example")], body=f"key={KEY}".encode()
        )
        self.assertEqual((response.status, response.get("Set-Cookie")), (403, None))

    async def test_no_keys(self) -> None:
        """Where no key is configured there is nothing to log in to."""
        _, port = self.admin()
        self.assertEqual((await self.log_in(port, "")).status, 401)
        _, port = self.admin(local=False)
        response = await self.send(port, "/", headers=[("Accept", "text/html")])
        self.assertIn('set "key" of "admin"', response.json()["error"]["message"])

    async def test_log_out(self) -> None:
        """Logging out removes the cookie."""
        _, port = self.admin([KEY])
        cookie = ((await self.log_in(port, KEY)).get("Set-Cookie") or "").split(";")[0]
        response = await self.send(port, "/logout", "POST", [("Cookie", cookie)])
        self.assertEqual((response.status, response.get("Location")), (303, "/"))
        self.assertIn("Max-Age=0", response.get("Set-Cookie") or "")
