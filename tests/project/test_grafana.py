"""Dashboard and alerts: they name what a scrape has, and nothing else."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.observe.metrics.exposition import exposition
from stream_proxy.observe.metrics.families import FAMILIES
from stream_proxy.observe.record import Usage
from stream_proxy.request_log import RequestLog
from stream_proxy.service.configuration.types import Admin, Config, Rule
from stream_proxy.service.listening import Listener, endpoint_of
from stream_proxy.service.metrics.gathering import Gathering
from stream_proxy.service.metrics.processes import Processes
from stream_proxy.service.rules import ProxyService
from tests.support.metrics import Scraped, ended, failed

ROOT = Path(__file__).parent.parent.parent
GRAFANA, DOCS = ROOT / "deploy" / "grafana", ROOT / "docs" / "observing.md"
CONFIG = Config(
    admin=Admin(listen_port=9), rules=[Rule(listen_port=8080, upstream_url="http://x", name="main")]
)
#: Requests that together have everything that is counted.
RECORDS = (
    ended(
        connecting=100.1,
        connected=100.2,
        first_event=101.0,
        last_event=101.9,
        usage=Usage(1, 2, 3, 4),
        attempts=("stale connection",),
        kept_alive=True,
        model="gpt-5",
    ),
    ended(2),
    ended(3, status=499, left=True, events=5),
    ended(4, mode="websocket", status=101, messages_up=1, messages_down=1),
    failed(401, "invalid_api_key"),
    failed(502, "upstream_dns"),
)


def full_scrape() -> Scraped:
    """Return a scrape that has every family."""
    clock: Any = Clock()
    gathering = Gathering(clock)
    log = RequestLog(observer=cast(Any, lambda _: None))
    listeners = {endpoint_of(rule): Listener(endpoint_of(rule), []) for rule in CONFIG.rules}
    service = ProxyService(clock, CONFIG, listeners, log=log)
    gathering.serves(service)
    gathering.apply(CONFIG, {"main": 2e9})
    for record in RECORDS:
        for hook in service.shared.ledger.ended_hooks:
            hook(record)
    service.shared.ledger.count("resumed_total", "main", "joined")
    clock.advance(0.5)
    list(gathering.look())
    series = [*gathering.series(), *Processes().series({"main": os.getpid()})]
    gathering.stop()
    return Scraped(b"".join(exposition(series, open_metrics=False)).decode())


def expressions(value: Any) -> Iterator[str]:
    """Yield all queries of a dashboard."""
    if isinstance(value, dict):
        for key, member in value.items():
            if key in ("expr", "query", "definition") and isinstance(member, str):
                yield member
            else:
                yield from expressions(member)
    elif isinstance(value, list):
        for each in value:
            yield from expressions(each)


class GrafanaTests(SynchronousTestCase):
    """What is to be used with Grafana and Prometheus."""

    def setUp(self) -> None:
        self.dashboard = json.loads((GRAFANA / "openai-stream-proxy.json").read_text())
        self.alerts = (GRAFANA / "alerts.yaml").read_text()
        self.queries = [*expressions(self.dashboard), self.alerts]
        self.scraped = full_scrape()

    def test_all_families(self) -> None:
        """The scrape has every family that there is, each with a value."""
        names = {family.name.removesuffix("_total") for family in self.scraped.families}
        wanted = {family.name.removesuffix("_total") for family in FAMILIES.values()}
        self.assertEqual(wanted - names, set())
        self.assertEqual({family.name for family in self.scraped.families if not family.samples}, set())

    def test_names(self) -> None:
        """Each metric that a panel or an alert names exists, and each family has its place in a panel."""
        samples = {sample.name for sample in self.scraped.samples}
        named: set[str] = set()
        for query in self.queries:
            found = set(re.findall(r"\b(?:stream_proxy|process)_\w+", query))
            self.assertEqual(found - samples, set(), query)
            named |= found
        families = {re.sub("_(bucket|sum|count)$", "", name) for name in named}
        shown = {re.sub("^stream_proxy_", "", name) for name in families}
        self.assertEqual(set(FAMILIES) - shown, {"config_reloads_total"})

    def test_labels(self) -> None:
        """Each label that is asked for is one that some metric of the query has."""
        own = {label for sample in self.scraped.samples for label in sample.labels}
        for query in self.queries:
            asked = set(re.findall(r"(\w+)=~?\"", query))
            for names in re.findall(r"\bby \(([^)]*)\)", query):
                asked |= set(names.replace(" ", "").split(","))
            self.assertLessEqual(asked, own | {"job", "instance"}, query)

    def test_dashboard(self) -> None:
        """The panels are in four rows, do not overlap, and say what they show."""
        panels = self.dashboard["panels"]
        self.assertGreaterEqual(self.dashboard["schemaVersion"], 39)
        self.assertEqual(
            [panel["title"] for panel in panels if panel["type"] == "row"],
            ["Is it well?", "Upstream", "Work", "Itself"],
        )
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            self.assertEqual(cells & taken, set(), panel["title"])
            taken |= cells
            self.assertTrue(panel["type"] == "row" or panel["description"])
        self.assertLess(max(x for x, _ in taken), 24)

    def test_alerts(self) -> None:
        """There are five alerts."""
        self.assertEqual(len(re.findall(r"^ +- alert: ", self.alerts, re.M)), 5)

    def test_docs(self) -> None:
        """The documentation has each family with its labels, and queries of what there is."""
        page = DOCS.read_text()
        section = page.partition("## Metrics\n")[2].partition("\n## ")[0]
        rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
        listed = {row[1].strip(" `"): tuple(re.findall(r"`(\w+)`", row[2])) for row in rows}
        own = {name: family.labels for name, family in FAMILIES.items()}
        self.assertEqual({name: labels for name, labels in listed.items() if name != "process_…"}, own)
        samples = {sample.name for sample in self.scraped.samples}
        self.assertEqual(set(re.findall(r"\bstream_proxy_\w+\b", page)) - samples, set())
