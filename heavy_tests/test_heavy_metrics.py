"""Metrics under load, across reloads and the ends of workers, scraped by a real Prometheus."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections import Counter
from typing import Any, cast
from unittest import SkipTest
from urllib.parse import urlencode

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.task import LoopingCall, deferLater

from stream_proxy.observe.metrics.exposition import exposition
from stream_proxy.service.metrics.gathering import Gathering
from stream_proxy.service.metrics.scrapes import Scrape
from tests.project.test_grafana import GRAFANA, expressions
from tests.service.test_workers import children
from tests.support.loopback import reactor
from tests.support.metrics import Scraped
from tests.support.payloads import CHAT, CHAT_BODY
from tests.support.scraping import ScrapingTestCase
from tests.support.traffic import ACTS, Traffic
from tests.support.twistd import Process, eventually, free_port
from tests.support.wire import send_request

REQUESTS = 10_000
#: Makes a worker end itself, in an orderly way, at SIGUSR2.
ENDS_ITSELF = """
import signal, sys
if "stream_proxy.service.workers.child" in sys.orig_argv:
    def end(*_):
        from twisted.internet import reactor
        reactor.callFromThread(reactor.stop)
    signal.signal(signal.SIGUSR2, end)
"""
_PROMETHEUS = """
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: [{rules}]
scrape_configs:
  - job_name: stream-proxy
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""
#: What a dashboard's variables stand for.
_VARIABLES = {
    "$job": "stream-proxy",
    "$instance": ".*",
    "$rule": ".*",
    "$model": ".*",
    "$__rate_interval": "1m",
}


class CountingTests(ScrapingTestCase):
    """10,000 requests with every kind of end, through one process."""

    timeout = 600

    async def test_sums(self) -> None:
        """The sum is what clients saw, across reloads and workers that end themselves; none is in flight."""
        process = await self.start()
        traffic = Traffic(self, self.port)
        before: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for number in range(10):
            await traffic.run(REQUESTS // 10, 16)
            await self.reload(process, {**self.rule, "timeoutSeconds": 300 + number}, **self.config)
            await self.between(process, number)
            now = counters(await self.scrape())
            self.assertEqual([key for key, value in before.items() if now.get(key, -1) < value], [])
            before = now
        found = await self.settled(traffic)
        self.assertEqual(sum(traffic.seen.values()), REQUESTS)
        self.assertEqual(Counter(found.by("requests_total", "code")), traffic.seen)
        self.assertEqual(found.sum("requests_in_flight"), 0)
        self.assertEqual(found.sum("upstream_connections", state="active"), 0)
        self.assertNotIn("Traceback", process.output)
        print(dict(traffic.seen))

    async def between(self, process: Process, number: int) -> None:
        """Do what else may happen meanwhile."""


class WorkersCountingTests(CountingTests):
    """The same through two workers, of which some end themselves."""

    workers = 2

    def twistd(self, *arguments: str, **options: Any) -> Process:
        directory = self.directory()
        (directory / "sitecustomize.py").write_text(ENDS_ITSELF)
        return super().twistd(*arguments, env={"PYTHONPATH": str(directory)}, forked=False, **options)

    async def between(self, process: Process, number: int) -> None:
        if number % 3 == 1:
            os.kill(children(process.pid)[0], 12)
            await process.times(r"worker \d of 2 is process", 3 + number // 3)


class KilledTests(ScrapingTestCase):
    """A worker that is killed."""

    workers = 2
    timeout = 120

    async def test_killed(self) -> None:
        """What it did in its last second is missing at most; what it had under way is gone within 2 s."""
        process = await self.start()
        traffic, last = Traffic(self, self.port), Traffic(self, self.port)
        await traffic.run(40 * len(ACTS))
        known = await self.settled(traffic)
        waiting = [await self.client(self.port) for _ in range(20)]
        for client in waiting:
            send_request(client, "POST", CHAT, CHAT_BODY, [("X-Mock-Delay", "60")])
        await self.in_flight(20)
        await deferLater(reactor, 1.2)
        await last.run(4 * len(ACTS))
        victim = children(process.pid)[0]
        os.kill(victim, 9)
        killed = time.monotonic()
        await process.line(r"was ended by signal 9")

        async def right() -> bool:
            left = sum(client.lost is None for client in waiting)
            return left < 20 and (await self.scrape()).sum("requests_in_flight") == left

        await eventually(right)
        took = time.monotonic() - killed
        self.assertLess(took, 2)
        await deferLater(reactor, 1.5)  # until the other worker has told all
        found = await self.scrape()
        before, after = counters(known), counters(found)
        self.assertEqual([key for key, value in before.items() if after.get(key, -1) < value], [])
        self.assertEqual(found.values("worker_restarts_total"), [1])
        missing = sum(traffic.seen.values()) + sum(last.seen.values()) - found.sum("requests_total")
        self.assertLessEqual(missing, sum(last.seen.values()))
        print(
            f"in flight was right after {took:.2f} s; {missing:.0f} requests of the last second are missing"
        )

    async def in_flight(self, count: int) -> None:
        """Wait until so many requests are under way."""

        async def look() -> bool:
            return (await self.scrape()).sum("requests_in_flight") == count

        await eventually(look)


class PrometheusTests(ScrapingTestCase):
    """A real Prometheus, and its tools."""

    workers = 2
    timeout = 180

    def setUp(self) -> None:
        for program in ("prometheus", "promtool"):
            if shutil.which(program) is None:
                raise SkipTest(f"{program} is not installed")

    async def query(self, what: str, **parameters: str) -> Any:
        """Ask Prometheus."""
        query = f"?{urlencode(parameters)}" if parameters else ""
        return (await self.request(self.prometheus, "GET", f"/api/v1/{what}{query}")).json()

    async def begin_prometheus(self) -> None:
        """Start Prometheus, and wait until it answers."""
        self.prometheus = free_port()
        directory = self.directory()
        rules = GRAFANA / "alerts.yaml"
        (directory / "prometheus.yml").write_text(_PROMETHEUS.format(port=self.admin, rules=rules))
        process = Process(
            [
                "prometheus",
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.prometheus}",
            ]
        )
        self.addCleanup(process.kill)

        async def answers() -> bool:
            try:
                return (await self.request(self.prometheus, "GET", "/-/ready")).status == 200
            except (ConnectError, EOFError):
                return False

        await eventually(answers)

    async def test_scrapes(self) -> None:
        """It scrapes all that there is, and each query of the dashboard and of the alerts is one."""
        await self.start()
        traffic = Traffic(self, self.port)
        await traffic.run(5 * len(ACTS))
        await self.settled(traffic)
        await self.begin_prometheus()

        async def scraped() -> bool:
            found = (await self.query("query", query="sum(stream_proxy_requests_total)"))["data"]["result"]
            return bool(found) and float(found[0]["value"][1]) == sum(traffic.seen.values())

        await eventually(scraped)
        (target,) = (await self.query("targets"))["data"]["activeTargets"]
        self.assertEqual((target["health"], target["lastError"]), ("up", ""))
        dashboard = json.loads((GRAFANA / "openai-stream-proxy.json").read_text())
        for expression in expressions(dashboard):
            query = re.sub(r"^label_values\((.*), \w+\)$", r"\1", expression)
            for name, value in _VARIABLES.items():
                query = query.replace(name, value)
            if query != "prometheus":
                self.assertEqual((await self.query("query", query=query))["status"], "success", query)

        async def evaluated() -> bool:
            groups = (await self.query("rules"))["data"]["groups"]
            return [rule["health"] for group in groups for rule in group["rules"]] == ["ok"] * 5

        await eventually(evaluated)

    async def test_promtool(self) -> None:
        """Its tool finds nothing to say about the metrics or the alerts."""
        await self.start()
        traffic = Traffic(self, self.port)
        await traffic.run(2 * len(ACTS))
        await self.settled(traffic)
        text = (await self.metrics()).body
        for arguments, data in ((["metrics"], text), (["rules", str(GRAFANA / "alerts.yaml")], b"")):
            done = subprocess.run(
                ["promtool", "check", *arguments], input=data, capture_output=True, check=False, timeout=60
            )
            self.assertEqual((done.returncode, done.stderr), (0, b""), done.stdout)


class CostTests(ScrapingTestCase):
    """What a scrape costs."""

    async def test_slices(self) -> None:
        """No slice of a scrape with 200 label sets takes 3 ms of CPU; others wait 5 ms longer at most."""
        gathering = Gathering(reactor)
        cells = gathering._cells
        for number in range(200):
            cells.histogram("time_to_first_event_seconds", "main", f"model-{number}").observe(number)
            cells.counter("tokens_total", "main", f"model-{number}", "input").value += number
        for open_metrics in (False, True):
            # The best of several rounds: other programs need the CPU as well.
            rounds = [await self.scraped(gathering, open_metrics=open_metrics) for _ in range(10)]
            slices, size, longest, waited, idle = map(min, zip(*rounds, strict=True))
            kind = "OpenMetrics" if open_metrics else "text"
            print(
                f"{kind}: {size} bytes in {slices} slices, the longest {longest * 1e3:.2f} ms of CPU; "
                f"longest gap {waited * 1e3:.2f} ms, {idle * 1e3:.2f} ms without a scrape"
            )
            self.assertLessEqual(longest, 0.003)
            self.assertLessEqual(waited, idle + 0.005)

    async def scraped(
        self, gathering: Gathering, *, open_metrics: bool
    ) -> tuple[int, int, float, float, float]:
        """Scrape once; return slices, bytes, the longest slice's CPU time, longest gaps with and without."""
        times: list[float] = []
        steps = exposition(list(gathering.series()), open_metrics=open_metrics)

        def timed() -> Any:
            while True:
                begun = time.thread_time()
                step = next(steps, None)
                times.append(time.thread_time() - begun)
                if step is None:
                    return
                yield step

        idle = await self.gap(deferLater(reactor, 0.15))
        done: Deferred[Any] = Deferred()
        scrape = Scrape(reactor, timed(), done.callback)
        scrape.start()
        waited = await self.gap(done)
        size = len(cast(bytes, done.result))
        return len(times) - 1, size, max(times), waited, idle

    async def gap(self, until: Deferred[Any]) -> float:
        """Return the longest time between two calls of a loop of 1 ms, until something is done."""
        gaps: list[float] = [0.0]
        last = time.perf_counter()

        def tick() -> None:
            nonlocal last
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

        loop = LoopingCall(tick)
        loop.clock = reactor
        loop.start(0.001, now=False)
        result = await until
        loop.stop()
        until.addCallback(lambda _: result)
        return max(gaps)


def counters(scraped: Scraped) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return all that must not go back: counters, and the parts of histograms."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in scraped.families
        if family.type in ("counter", "histogram") and not family.name.startswith("process_")
        for sample in family.samples
    }
