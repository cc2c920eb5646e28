"""Chromium, driven by the tests: its steps run in a thread, while the reactor serves what it looks at."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from playwright.sync_api import Browser, Page, sync_playwright
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from tests.support.admin import FeedTestCase
from tests.support.loopback import reactor

#: The colours that a page is shown in.
Scheme: TypeAlias = Literal["dark", "light"]

_T = TypeVar("_T")
#: Milliseconds that a step may take; only a guard, since a loaded machine is slow.
PATIENCE = 30_000
AXE = Path(__file__).parent / "clients" / "node_modules" / "axe-core" / "axe.min.js"


def launch(playwright: Any) -> Browser:
    """Start the system's Chromium."""
    path = shutil.which("chromium")
    assert path is not None, "on Debian: apt-get install chromium"
    # No sandbox: tests run as root in containers, and the only page is ours.
    browser: Browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
    return browser


class BrowserTestCase(FeedTestCase):
    """Tests that look at pages. All steps run in one thread, as Playwright wants it."""

    timeout = 300

    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        #: What the pages complained about: errors of scripts, and what the policy forbade.
        self.complaints: list[str] = []
        self.pool = ThreadPool(minthreads=1, maxthreads=1, name="browser")
        self.pool.start()
        self.addCleanup(self.pool.stop)
        playwright = await self.do(lambda: sync_playwright().start())
        self.addCleanup(self.do, playwright.stop)
        self.browser = await self.do(lambda: launch(playwright))
        self.addCleanup(self.do, self.browser.close)

    def tearDown(self) -> None:
        self.assertEqual(self.complaints, [])

    def do(self, step: Callable[[], _T]) -> Deferred[_T]:
        """Take a step in the browser's thread."""
        return deferToThreadPool(reactor, self.pool, step)

    async def open(self, url: str, *, width: int = 1440, height: int = 900, scheme: Scheme = "light") -> Page:
        """Open a page in a browser of its own."""

        def step() -> Page:
            context = self.browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme=scheme,
            )
            context.set_default_timeout(PATIENCE)
            page = context.new_page()
            page.on("pageerror", lambda error: self.complaints.append(str(error)))
            page.on("console", self._said)
            page.goto(url)
            return page

        page = await self.do(step)
        self.addCleanup(self.do, page.context.close)
        return page

    def _said(self, message: Any) -> None:
        # The browser itself tells of each response that is an error.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.complaints.append(message.text)

    async def assert_accessible(self, page: Page, what: str) -> None:
        """Fail if axe-core finds a violation, minor ones and best practices included."""

        def step() -> list[str]:
            # The policy allows no script but the page's own; the debugger may run any.
            page.evaluate(AXE.read_text())
            found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            return [f"{each['id']}: {each['nodes'][0]['html']}" for each in found["violations"]]

        self.assertEqual(await self.do(step), [], what)

    async def assert_fits(self, page: Page, what: str) -> None:
        """Fail if the page is wider than its window."""
        widths = await self.do(lambda: page.evaluate("[document.documentElement.scrollWidth, innerWidth]"))
        self.assertLessEqual(widths[0], widths[1], what)
