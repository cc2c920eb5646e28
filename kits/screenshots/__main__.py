"""``python -m kits.screenshots``: starts mock and proxy, lets calls go through, and takes the pictures.

They go to ``docs/images``. Chromium comes from the system, Playwright from ``heavy_tests/requirements.txt``.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, sync_playwright

from kits.processes import free_ports, listens

IMAGES = Path(__file__).parents[2] / "docs" / "images"
#: How long calls go through before the first picture, in seconds.
WARM_UP = 75
#: Where a call goes: the rule's place, the API's path, the model.
KINDS = (
    (0, "/v1/chat/completions", "gpt-5.2"),
    (0, "/v1/chat/completions", "gpt-5.2-mini"),
    (0, "/v1/responses", "gpt-5.2"),
    (1, "/v1/chat/completions", "qwen3-omni-flash"),
    (1, "/v1/chat/completions", "qwen-long"),
)


@contextlib.contextmanager
def serving(*arguments: str, port: int) -> Iterator[None]:
    """Run a plugin of twistd until the block ends."""
    twistd = str(Path(sys.executable).with_name("twistd"))
    process = subprocess.Popen([twistd, "-n", "--pidfile=", *arguments], stdout=subprocess.DEVNULL)
    try:
        while not listens(port):
            time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


class Traffic:
    """Calls of all kinds, some of which fail, until it is stopped.

    :param ports: those of the rules.
    """

    def __init__(self, ports: list[int]) -> None:
        self._ports = ports
        self._random = random.Random(7)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Begin no more calls."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        hangs = {"X-Mock-Fail": "hang", "X-Mock-After": "9"}
        self._call(1, "/v1/chat/completions", "qwen-long", hangs)
        while not self._stopped.wait(self._random.expovariate(1.6)):
            rule, path, model = self._random.choice(KINDS)
            choose = self._random.choice
            headers = {
                "X-Mock-Words": choose(["30", "80", "200"]),
                "X-Mock-Pace": choose(["0.02", "0.04", "0.06"]),
                "X-Mock-Delay": choose(["0.1", "0.2", "0.4", "0.9"]),
            }
            if self._random.random() < 0.05:
                headers |= choose([{"X-Mock-Status": "429"}, {"X-Mock-Fail": "break", "X-Mock-After": "7"}])
            self._call(rule, path, model, headers)

    def _call(self, rule: int, path: str, model: str, headers: dict[str, str]) -> None:
        body = {"model": model, "input": "Hello!", "messages": [{"role": "user", "content": "Hello!"}]}
        body.pop("messages" if path.endswith("/responses") else "input")
        if self._random.random() < 0.25:
            body["stream"] = True  # type: ignore[assignment]
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._ports[rule]}{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": "Bearer sk-example", **headers},
        )
        threading.Thread(target=_send, args=(request,), daemon=True).start()


# Name, size and colours.
_PICTURES: tuple[tuple[str, int, int, Literal["dark", "light"]], ...] = (
    ("page-light", 1280, 760, "light"),
    ("page-dark", 1280, 760, "dark"),
    ("page-narrow", 360, 780, "dark"),
)


def _send(request: urllib.request.Request) -> None:
    # An error status, a response that breaks off, a proxy that has been ended.
    with contextlib.suppress(OSError, HTTPException), urllib.request.urlopen(request) as response:
        response.read()


def take(browser: Browser, url: str) -> None:
    """Take all pictures."""
    for name, width, height, scheme in _PICTURES:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            reduced_motion="reduce",
        )
        page = context.new_page()
        page.goto(url)
        page.wait_for_selector("#recent tbody tr")
        page.wait_for_timeout(2500)
        page.screenshot(path=IMAGES / f"{name}.png")
        if name == "page-light":
            row = page.locator("#recent tbody tr", has_text="converted").filter(has_text="200").first
            row.locator(".open").click()
            page.wait_for_selector("dialog[open]")
            page.locator("dialog").screenshot(path=IMAGES / "page-details.png")
        context.close()


def main() -> None:
    """Start everything, take the pictures, end everything."""
    mock, first, second, admin = free_ports(4)
    rules = [
        {"name": name, "listenPort": port, "upstreamUrl": f"http://127.0.0.1:{mock}", "timeoutSeconds": 120}
        for name, port in (("openai", first), ("dashscope", second))
    ]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        config.write_text(json.dumps({"rules": rules, "admin": {"listenPort": admin}}))
        with (
            serving("openai-stream-mock", "--port", str(mock), port=mock),
            serving("openai-stream-proxy", "--config", str(config), port=admin),
            sync_playwright() as playwright,
        ):
            traffic = Traffic([first, second])
            time.sleep(WARM_UP)
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            take(browser, f"http://127.0.0.1:{admin}/")
            browser.close()
            traffic.stop()


if __name__ == "__main__":
    main()
