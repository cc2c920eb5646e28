"""The page of the admin port, in Chromium."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from playwright.sync_api import Locator, Page, expect
from twisted.internet.defer import Deferred

from heavy_tests.browser import PATIENCE, BrowserTestCase
from stream_proxy.limits import Limits
from stream_proxy.observe.capture.capture import Capture
from stream_proxy.observe.record import Phase, Record, Usage
from stream_proxy.service.admin.capture.local import LocalCapture
from stream_proxy.service.admin.capture.routes import serve_capture
from tests.support.admin import KEY
from tests.support.loopback import reactor
from tests.support.payloads import CHAT, CHAT_BODY, chunk
from tests.support.wire import Stream, event_stream_head, read_request, read_response, send_request

expect.set_options(timeout=PATIENCE)

HOSTILE = "<img src=x onerror=document.title='hacked'>"


class PageTestCase(BrowserTestCase):
    """A page over a ledger that the test fills, by itself or by a proxy."""

    async def page(self, *, keys: tuple[str, ...] = (), **window: Any) -> Page:
        """Open the page, and wait until it knows what goes through."""
        self.service, self.port = self.admin(keys)
        page = await self.open(f"http://127.0.0.1:{self.port}/", **window)
        if not keys:
            await self.do(lambda: expect(page.locator("#status")).to_have_text("ready"))
        return page

    def ended(self, count: int = 1, **fields: Any) -> Record:
        """End requests, and return the last one."""
        for _ in range(count):
            record = self.begin(**fields)
            self.ledger.end(record)
        return record

    async def sees(self, locator: Locator, text: str) -> None:
        """Wait until a part of the page has a text."""
        await self.do(lambda: expect(locator).to_contain_text(text))

    async def count(self, locator: Locator, count: int) -> None:
        """Wait until there are so many."""
        await self.do(lambda: expect(locator).to_have_count(count))

    def fill(self) -> None:
        """Let many and various requests go through."""
        now = self.ledger.seconds()
        for number in range(60):
            record = self.begin(
                model=("m-1", "m-2", HOSTILE)[number % 3], mode="converted", client="10.0.0.1"
            )
            record.rule = ("first", "second")[number % 2]
            record.status, record.events = (200, 502, 499)[0 if number < 50 else number % 3], number
            if record.status != 200:
                record.code, record.problem = "upstream_cut", f"the upstream left, {number}"
            record.began = now - 90 + number
            record.decided = record.asked = record.began + 0.001
            record.head, record.first_event = record.began + 0.2, record.began + 0.5 + number / 100
            record.last_event = record.first_event + 1
            record.usage = Usage(input=number, output=2 * number)
            record.request_fields = [(b"Authorization", b"Bearer sk-secret"), (b"X-Note", HOSTILE.encode())]
            record.response_fields = [(b"Content-Type", b"text/event-stream")]
            self.ledger.end(record)
        for phase in Phase:
            record = self.begin(model="m-1", phase=phase, client="::1", mode="converted", events=3)
            record.silence = _Silence(now - 50, 60.0)
            self.addCleanup(self.ledger.end, record)


class _Silence:
    """A silence that lasts."""

    def __init__(self, touched: float, seconds: float) -> None:
        self.touched = touched
        self.seconds = seconds


class LiveTests(PageTestCase):
    """Requests that run."""

    async def test_stream(self) -> None:
        """A row appears, ages, fills its bar, and goes; what it was is text, whatever it holds."""
        page = await self.page()
        connected: Deferred[Stream] = Deferred()

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            stream.chunk(chunk({"content": "a"}))
            connected.callback(stream)
            await stream.gone()

        upstream = await self.upstream(script)
        proxy = await self.proxy(
            upstream.url, ledger=self.ledger, name="first", limits=Limits(timeout_seconds=6)
        )
        client = await self.client(proxy)
        send_request(client, "POST", CHAT, {**CHAT_BODY, "model": HOSTILE})
        await connected
        rows = page.locator("#live tbody tr")
        await self.count(rows, 1)
        await self.sees(rows, "converted")
        await self.sees(rows, "1 s")
        meter = rows.locator("[role=meter]")
        for level in ("warn", "bad"):
            await self.do(partial(expect(meter).to_have_attribute, "data-level", level))
        words: Any = await self.do(lambda: meter.get_attribute("aria-valuetext"))
        self.assertRegex(words, r"^[45] s of 6 s$")
        self.assertEqual((await read_response(client)).status, 504)
        await self.count(rows, 0)
        await self.sees(page.locator("#live + .empty"), "Nothing is under way")
        ended = page.locator("#recent tbody tr")
        await self.sees(ended, "504")
        self.assertNotEqual(await self.do(page.title), "hacked")
        self.assertEqual(await self.do(lambda: page.locator("td img").count()), 0)

    async def test_cancel(self) -> None:
        """Pressing cancel twice ends a request; once does nothing."""
        page = await self.page()

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            await stream.gone()

        upstream = await self.upstream(script)
        proxy = await self.proxy(upstream.url, ledger=self.ledger, name="first")
        client = await self.client(proxy)
        send_request(client, "POST", CHAT, CHAT_BODY)
        button = page.get_by_role("button", name="Cancel the request")
        await self.do(button.click)
        sure = page.get_by_role("button", name="Press again to cancel")
        await self.do(lambda: expect(sure).to_have_text("Sure?"))
        self.assertEqual(len(self.ledger.live), 1)
        await self.do(sure.click)
        response = await read_response(client)
        self.assertEqual((response.status, response.json()["error"]["code"]), (503, "cancelled"))
        await self.sees(page.locator("#recent tbody tr"), "an operator cancelled it")

    async def test_cancel_is_taken_back(self) -> None:
        """A button that is not pressed again asks anew."""
        page = await self.page()
        record = self.begin()
        await self.do(page.get_by_role("button", name="Cancel the request").click)
        await self.do(lambda: expect(page.get_by_text("Sure?")).to_have_count(1))
        await self.do(lambda: expect(page.get_by_text("Sure?")).to_have_count(0))
        self.ledger.end(record)

    async def test_many(self) -> None:
        """Of a thousand requests the oldest and the newest are shown, and all are counted."""
        page = await self.page()
        records = [self.begin() for _ in range(1000)]
        await self.count(page.locator("#live tbody tr"), 200)
        await self.sees(page.locator("#live-title"), "200 of 1000")
        await self.sees(page.locator("#tile-flight"), "1,000")
        for record in records:
            self.ledger.end(record)
        await self.count(page.locator("#live tbody tr"), 0)

    async def test_lost(self) -> None:
        """A page whose proxy is gone says so, and goes on when it is back."""
        page = await self.page()
        await self.do(lambda: page.context.set_offline(True))
        self.service._feed.send_away()
        await self.sees(page.locator("#status"), "connection lost")
        await self.sees(page.locator("#announcement"), "lost")
        await self.do(lambda: page.context.set_offline(False))
        await self.sees(page.locator("#status"), "ready")
        await self.do(lambda: expect(page.locator("#announcement")).to_be_hidden())

    async def test_drain(self) -> None:
        """A drain is shown."""
        page = await self.page()
        self.status = "draining"
        await self.sees(page.locator("#status"), "draining")


class RecentTests(PageTestCase):
    """Requests that have ended, filters and details."""

    async def test_filter(self) -> None:
        """Rows are filtered by rule, model, status and text, and all come back."""
        self.fill()
        page = await self.page()
        count = page.locator("#tab-recent .count")
        await self.sees(count, "60")
        for name, value, left in (
            ("rule", "first", "30 of 60"),
            ("model", HOSTILE, "20 of 60"),
            ("status", "error", "3 of 60"),
            ("status", "left", "4 of 60"),
            ("status", "good", "53 of 60"),
        ):
            await self.do(partial(page.locator(f"select[name={name}]").select_option, value))
            await self.sees(count, left)
            await self.do(page.get_by_role("button", name="Clear").click)
            await self.do(lambda: expect(count).to_have_text("60"))
        text = page.get_by_label("Text")
        await self.do(lambda: text.fill("LEFT, 5"))
        await self.sees(count, "7 of 60")
        await self.do(lambda: text.fill("nothing has this"))
        await self.sees(page.locator("#recent + .empty"), "Nothing here fits the filter.")

    async def test_sort(self) -> None:
        """A press on a column's head sorts by it, a second one the other way round."""
        self.fill()
        page = await self.page()
        first = page.locator("#recent tbody tr").first
        heads = page.locator("#recent thead")
        await self.sees(first, "59 / 118")
        for name, text in (("Tokens in / out", "59 / 118"), ("Tokens in / out", "0 / 0"), ("Total", "0 / 0")):
            await self.do(heads.get_by_role("button", name=name).click)
            await self.sees(first, text)
        sorted_by = heads.locator("[aria-sort]")
        await self.do(lambda: expect(sorted_by).to_have_text("Total"))

    async def test_more(self) -> None:
        """Twenty-five are shown at first, and more on demand."""
        self.fill()
        page = await self.page()
        rows = page.locator("#recent tbody tr")
        await self.count(rows, 25)
        await self.do(page.get_by_role("button", name="Show more").click)
        await self.count(rows, 60)
        await self.do(lambda: expect(page.locator("#more")).to_be_hidden())

    async def test_details(self) -> None:
        """A click shows heads without secrets, and where the time went."""
        self.fill()
        page = await self.page()
        await self.do(page.locator("#recent tbody tr").first.locator("td").nth(2).click)
        dialog = page.get_by_role("dialog")
        await self.sees(dialog, "POST /v1/chat/completions")
        await self.sees(dialog.locator("#details-request"), HOSTILE)
        await self.sees(dialog.locator("#details-request"), "***")
        await self.sees(dialog.locator("#details-response"), "text/event-stream")
        steps = await self.do(dialog.locator(".waterfall li").all_text_contents)
        waits = ("Waiting for the head", "Waiting for the first event")
        for step, words in zip(steps, ("Reading the request", *waits, "Streaming", "Answering"), strict=True):
            self.assertIn(words, step)
        self.assertNotIn("sk-secret", await self.do(page.content))

    async def test_details_of_a_running_request(self) -> None:
        """Details of what runs go on, and end with it."""
        record = self.begin(phase=Phase.HEAD)
        page = await self.page()
        await self.do(page.locator("#live tbody tr").first.locator(".open").click)
        facts = page.locator("#details-facts")
        await self.sees(facts, "waiting for the head")
        record.phase = Phase.STREAMING
        await self.sees(facts, "streaming")
        record.status = 200
        self.ledger.end(record)
        await self.sees(facts, "200")

    async def test_why(self) -> None:
        """A call that was not converted says why, and one that failed what happened."""
        page = await self.page()
        self.ended(mode="passed", why="no model", status=400, problem="the upstream said no")
        row = page.locator("#recent tbody tr")
        await self.sees(row, "passed: no model")
        await self.sees(row, "the upstream said no")

    async def test_models(self) -> None:
        """Models are counted."""
        self.fill()
        page = await self.page()
        await self.do(page.get_by_role("tab", name="Models").click)
        await self.sees(page.locator("#models"), HOSTILE)
        row = page.locator("#models tbody tr", has_text="m-2")
        cells = await self.do(lambda: row.locator("td").all_text_contents())
        self.assertEqual(cells[1:3], ["20", "3"])

    async def test_figures(self) -> None:
        """The tiles tell of what ended before the page was opened."""
        self.fill()
        page = await self.page()
        await self.sees(page.locator("#tile-errors"), "3 of 60, 5 %")
        await self.sees(page.locator("#tile-flight"), str(len(Phase)))
        self.assertGreater(await self.do(lambda: page.locator("#tile-errors rect").count()), 0)
        self.assertGreater(await self.do(lambda: page.locator("#tile-rate path").count()), 0)


class CaptureTests(PageTestCase):
    """Whole exchanges, kept on demand."""

    async def test_capture(self) -> None:
        """The next requests are captured, downloaded, shown as files of one request, and cleared."""
        page = await self.page(keys=(KEY,))
        capture = Capture(self.ledger, always=False, megabytes=8, bodies=True, secrets=[])
        serve_capture(self.service.resource, LocalCapture(reactor, capture))
        await self.do(lambda: page.get_by_label("Key of the admin port").fill(KEY))
        await self.do(page.get_by_role("button", name="Log in").click)
        await self.do(page.get_by_role("tab", name="Capture").click)
        state = page.locator("#capture-state")
        await self.sees(state, "It is off. 0 kept")
        await self.assert_accessible(page, "capture")
        await self.do(page.get_by_role("button", name="Capture the next 20 requests").click)
        await self.sees(state, "The next 20 are captured.")

        proxy = await self.proxy(await self.mock(), ledger=self.ledger, name="first")
        self.assertEqual((await self.request(proxy, "POST", CHAT, CHAT_BODY)).status, 200)
        await self.sees(state, "The next 19 are captured. 1 kept")
        await self.do(page.get_by_role("button", name="Stop").click)
        await self.sees(state, "It is off. 1 kept")

        def download() -> Any:
            with page.expect_download() as coming:
                page.get_by_role("link", name="HAR").click()
            return json.loads(coming.value.path().read_text())

        har = await self.do(download)
        # Both sides of the call: the client's, and the upstream's stream.
        self.assertEqual([CHAT in entry["request"]["url"] for entry in har["log"]["entries"]], [True, True])
        await self.do(page.get_by_role("tab", name="Recent").click)
        await self.do(page.locator("#recent tbody .open").click)
        curl = page.get_by_role("dialog").get_by_role("link", name="curl")
        await self.do(lambda: expect(curl).to_have_attribute("href", "/capture/1.curl"))
        await self.do(lambda: page.keyboard.press("Escape"))
        await self.do(page.get_by_role("tab", name="Capture").click)
        await self.do(page.get_by_role("button", name="Clear the capture").click)
        await self.do(page.get_by_role("button", name="Press again to clear the capture").click)
        await self.sees(state, "0 kept")

    async def test_no_key(self) -> None:
        """Without a key there is no capture to see."""
        page = await self.page()
        capture = Capture(self.ledger, always=True, megabytes=8, bodies=True, secrets=[])
        serve_capture(self.service.resource, LocalCapture(reactor, capture))
        await self.do(page.reload)
        await self.sees(page.locator("#status"), "ready")
        await self.do(lambda: expect(page.locator("#tab-capture")).to_be_hidden())


class AccessTests(PageTestCase):
    """Whoever uses the page, however."""

    async def test_keyboard(self) -> None:
        """Everything can be done by keyboard: sort, details, tabs, cancel."""
        self.fill()
        cancelled: list[int] = []
        record = next(iter(self.ledger.live.values()))
        record.cancel = lambda: cancelled.append(1)
        page = await self.page()

        async def press(*keys: str) -> None:
            for key in keys:
                await self.do(partial(page.keyboard.press, key))

        async def focused(selector: str) -> None:
            await self.do(lambda: expect(page.locator(f"{selector}:focus")).to_have_count(1))

        await self.do(lambda: page.get_by_label("Text").focus())
        await press("Tab")
        await focused("#live thead button")
        await press("Enter")
        await self.do(lambda: expect(page.locator("#live [aria-sort=descending]")).to_have_text("Started"))
        await press("Enter")
        await press(*["Tab"] * 11)
        await focused("#live tbody .open")
        await press("Enter")
        await self.do(lambda: expect(page.get_by_role("dialog")).to_be_visible())
        await press("Escape")
        await focused("#live tbody .open")
        await press("Tab")
        await press("Enter", "Enter")
        while not cancelled:
            await self.turn()
        await self.do(lambda: page.locator("#tab-recent").focus())
        await press("ArrowRight")
        await focused("#tab-models")
        await self.do(lambda: expect(page.locator("#panel-models")).to_be_visible())
        await press("ArrowLeft")
        await focused("#tab-recent")
        await press("Tab", "Tab")
        await focused("#recent thead button")

    async def turn(self) -> None:
        """Wait for a turn of the reactor."""
        turned: Deferred[None] = Deferred()
        reactor.callLater(0.01, turned.callback, None)
        await turned

    async def test_axe(self) -> None:
        """Axe-core finds nothing: wide and narrow, light and dark, with many rows, with none, in a dialog."""
        empty = await self.page(width=360, scheme="dark")
        await self.assert_accessible(empty, "empty")
        await self.assert_fits(empty, "empty")
        self.fill()
        for width, scheme in ((1440, "light"), (1440, "dark"), (800, "light"), (360, "light"), (360, "dark")):
            what = f"{width} {scheme}"
            page = await self.page(width=width, scheme=scheme)
            await self.count(page.locator("#recent tbody tr"), 25)
            await self.assert_accessible(page, what)
            await self.assert_fits(page, what)
            await self.do(page.get_by_role("tab", name="Models").click)
            await self.assert_accessible(page, f"{what} models")
            await self.assert_fits(page, f"{what} models")
            await self.do(page.locator("#live tbody .open").first.click)
            await self.do(expect(page.get_by_role("dialog")).to_be_visible)
            await self.assert_accessible(page, f"{what} details")
            await self.assert_fits(page, f"{what} details")

    async def test_log_in(self) -> None:
        """With a key the page asks for it, and shows all after that; logging out hides it again."""
        page = await self.page(keys=(KEY,))
        field = page.get_by_label("Key of the admin port")
        await self.assert_accessible(page, "log in")
        await self.do(lambda: field.fill("wrong"))
        await self.do(lambda: field.press("Enter"))
        await self.sees(page.get_by_role("alert"), "not a key")
        await self.assert_accessible(page, "log in again")
        await self.do(lambda: page.get_by_label("Key of the admin port").fill(KEY))
        await self.do(lambda: page.get_by_role("button", name="Log in").click())
        await self.sees(page.locator("#status"), "ready")
        self.assertEqual(await self.do(lambda: page.evaluate("document.cookie")), "")
        await self.do(page.get_by_role("button", name="Log out").click)
        await self.do(lambda: expect(page.get_by_label("Key of the admin port")).to_be_visible())

    async def test_keys_change(self) -> None:
        """A page whose key is taken away goes back to the form."""
        page = await self.page(keys=(KEY,))
        await self.do(lambda: page.get_by_label("Key of the admin port").fill(KEY))
        await self.do(lambda: page.get_by_role("button", name="Log in").click())
        await self.sees(page.locator("#status"), "ready")
        self.service.change_access([b"another"], [])
        await self.do(lambda: expect(page.get_by_label("Key of the admin port")).to_be_visible())
