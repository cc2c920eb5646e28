"""Run of the soak: the process, its upstream, its clients, and the verdict."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kits.processes import free_ports, listens
from kits.soak.actor import Actor, Ports, Tally
from kits.soak.load import DEADLINE_SECONDS, act
from kits.soak.proxy import Proxy, Sample
from kits.soak.upstream import Upstream

#: The first part of a run, in which caches fill and the allocator settles.
WARM_SHARE = 0.3
#: The growth of memory allowed after that, by the straight line through the samples.
GROWTH_BYTES = 8 * 2**20
#: The share of uploads that may meet a connection that the upstream is closing.
STALE_SHARE = 0.02
#: The time for the process to close its last descriptors: idle connections are kept for 30 s.
SETTLE_SECONDS = 45.0
_TIME_LIMIT = 5.0


@dataclass(frozen=True)
class Settings:
    """The settings of a run.

    :ivar pause: the average time between two actions of a client.
    :ivar reload: replace the config every few seconds.
    """

    seconds: float
    seed: int
    workers: int = 1
    clients: int = 24
    pause: float = 0.1
    reload: bool = True
    sample_seconds: float = 2.0

    @property
    def joins(self) -> bool:
        """Whether each retry of a lost call comes to the process that keeps it, which forgets nothing."""
        return self.workers == 1 and not self.reload


@dataclass
class Report:
    """The results; the run passed if there are no `reasons`."""

    settings: Settings
    tally: Tally
    requests: int = 0
    reloads: int = 0
    samples: list[Sample] = field(default_factory=list)
    baseline: int = 0
    descriptors_after: int = 0
    growth: float | None = None
    reasons: list[str] = field(default_factory=list)


async def soak(settings: Settings, say: Callable[[str], None] = print) -> Report:
    """Run the soak."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        upstream = Upstream()
        config = _config(await upstream.start(), settings)
        proxy = Proxy(Path(folder), config)
        try:
            run = _Run(settings, upstream, proxy, config, say)
            await run.all()
            return run.report
        finally:
            proxy.stop()
            await upstream.stop()


class _Run:
    def __init__(
        self,
        settings: Settings,
        upstream: Upstream,
        proxy: Proxy,
        config: dict[str, Any],
        say: Callable[[str], None],
    ) -> None:
        self.report = Report(settings, Tally())
        self._settings = settings
        self._upstream = upstream
        self._proxy = proxy
        self._config = config
        self._say = say
        self._end = 0.0

    async def all(self) -> None:
        settings, report = self._settings, self.report
        ports = [rule["listenPort"] for rule in self._config["rules"]]
        await asyncio.to_thread(self._proxy.wait_for, ports)
        report.baseline = self._proxy.sample().descriptors
        self._end = time.monotonic() + settings.seconds
        seeds = random.Random(settings.seed)
        actors = [
            Actor(
                Ports(ports[0], ports[1]),
                report.tally,
                self._upstream.uploads.__contains__,
                self._upstream.lost,
                random.Random(seeds.getrandbits(64)),
                settings.reload,
                settings.joins,
            )
            for _ in range(settings.clients)
        ]
        work = [act(actor, self._over, settings.pause) for actor in actors] + [self._watch()]
        if settings.reload:
            work.append(self._reload(ports[2]))
        await asyncio.gather(*work)
        await self._settle()
        report.requests = self._upstream.requests
        self._judge()

    def _over(self) -> bool:
        return time.monotonic() > self._end or not self._proxy.running

    async def _watch(self) -> None:
        said = time.monotonic()
        while not self._over():
            await asyncio.sleep(self._settings.sample_seconds)
            sample = self._proxy.sample()
            self.report.samples.append(sample)
            if time.monotonic() - said > 30:
                said = time.monotonic()
                tally = self.report.tally
                self._say(
                    f"{sample.seconds:6.0f} s  {sum(tally.done.values()):7} done  {tally.wrong} wrong  "
                    f"{sample.memory / 2**20:.1f} MiB  {sample.descriptors} descriptors"
                )

    async def _reload(self, port: int) -> None:
        """Change an option of a rule, and open and close a port."""
        chance = random.Random(self._settings.seed)
        extra = False
        while not self._over():
            await asyncio.sleep(chance.uniform(2, 6))
            extra = not extra
            rules = list(self._config["rules"][:2])
            rules[0] = {**rules[0], "timeoutSeconds": chance.choice([_TIME_LIMIT, _TIME_LIMIT + 1])}
            if extra:
                rules.append({**self._config["rules"][2], "listenPort": port})
            self._proxy.write({**self._config, "rules": rules})
            self._proxy.reload()
            self.report.reloads += 1
            if not await self._eventually(lambda wanted=extra: listens(port) == wanted, 10):  # type: ignore[misc]
                what = "does not listen" if extra else "still listens"
                self.report.tally.problem(f"reload: {what} on {port} after 10 s")
        self._proxy.write(self._config)
        self._proxy.reload()
        await self._eventually(lambda: listens(port), 10)

    async def _eventually(self, held: Callable[[], bool], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not await asyncio.to_thread(held):
            if time.monotonic() > end:
                return False
            await asyncio.sleep(0.1)
        return True

    async def _settle(self) -> None:
        """Wait until the process has released everything that belonged to its clients."""
        report = self.report
        if not await self._eventually(lambda: self._upstream.busy == 0, DEADLINE_SECONDS / 2):
            report.reasons.append(f"{self._upstream.busy} upstream requests outlive their clients")

        def flat() -> bool:
            report.descriptors_after = self._proxy.sample().descriptors
            return report.descriptors_after <= report.baseline

        if not await self._eventually(flat, SETTLE_SECONDS):
            report.reasons.append(
                f"descriptors: {report.descriptors_after} at the end, {report.baseline} at the start"
            )

    def _judge(self) -> None:
        report, tally = self.report, self.report.tally
        if not self._proxy.running:
            report.reasons.append("the process has ended")
        if tally.wrong:
            report.reasons.append(f"{tally.wrong} of {sum(tally.done.values())} went wrong")
        if tally.stale > 2 + STALE_SHARE * tally.done["upload"]:
            report.reasons.append(f"{tally.stale} uploads met a connection that was closing")
        for mixed in self._upstream.mixed[:5]:
            report.reasons.append(f"the upstream got another request's: {mixed}")
        lost, picked = self._upstream.lost, tally.picked_up
        calls, known = lost.calls.total(), picked["answers"] + lost.dropped
        picked.update(calls=calls, dropped=lost.dropped)
        if calls != known if self._settings.joins else calls < known:
            report.reasons.append(f"{calls} lost calls upstream, but {known} answers and dropped ones")
        for complaint in self._proxy.complaints():
            report.reasons.append(f"the log has:\n{complaint}")
        report.growth = growth(report.samples, self._settings.seconds * WARM_SHARE)
        if report.growth is not None and report.growth > GROWTH_BYTES:
            report.reasons.append(f"memory grows by {report.growth / 2**20:.1f} MiB after the warm-up")


def growth(samples: list[Sample], after: float) -> float | None:
    """Return the rise of the line through the samples after the warm-up; ``None`` if there are too few."""
    late = [sample for sample in samples if sample.seconds >= after]
    if len(late) < 10:
        return None
    count = len(late)
    mean_x = sum(sample.seconds for sample in late) / count
    mean_y = sum(sample.memory for sample in late) / count
    spread = sum((sample.seconds - mean_x) ** 2 for sample in late)
    slope = sum((sample.seconds - mean_x) * (sample.memory - mean_y) for sample in late) / spread
    return slope * (late[-1].seconds - late[0].seconds)


def _config(upstream: int, settings: Settings) -> dict[str, Any]:
    url = f"http://127.0.0.1:{upstream}"
    proxy, adapter, extra = free_ports(3)
    return {
        "timeoutSeconds": _TIME_LIMIT,
        "maxResponseBytes": 8 * 2**20,
        "resumeSeconds": 3,
        "workers": settings.workers,
        "rules": [
            {"listenPort": proxy, "upstreamUrl": url},
            {
                "listenPort": adapter,
                "upstreamUrl": f"{url}/service",
                "adapter": {"models": ["m"], "endMarker": "[DONE]"},
            },
            {"listenPort": extra, "upstreamUrl": url},
        ],
    }
