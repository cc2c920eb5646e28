"""The benchmarks' arithmetic and tables: ratios in pairs, goals, versions compared, results kept as JSON."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import TestCase

from kits.benchmarks.goals import GOALS
from kits.benchmarks.report import goal_cells, pairs_of_versions, render
from kits.benchmarks.results import Figures, Results, read
from kits.benchmarks.workloads import WORKLOADS, chosen_workloads


def measured(**costs: list[float]) -> Results:
    """Return results of *small* with these CPU times, one a round, by contestant; ``_`` stands for ``-``."""
    results = Results()
    results.figures["small"] = {
        name.replace("_", "-"): {number: Figures(10, 1.0, cost) for number, cost in enumerate(values)}
        for name, values in costs.items()
    }
    return results


class ResultsTests(TestCase):
    """Ratios compare the figures of the same round, and JSON keeps everything."""

    def test_paired(self) -> None:
        """A round that slows both down leaves the ratio as it is; one that only one has is left out."""
        results = measured(product=[1.0, 10.0, 1.2, 7.0], aiohttp=[2.0, 20.0, 2.0])
        self.assertEqual(results.ratios("small", "product", "aiohttp"), [0.5, 0.5, 0.6])
        self.assertEqual(results.ratio("small", "product", "aiohttp"), 0.5)

    def test_missing(self) -> None:
        """Without a common round there is no ratio."""
        self.assertIsNone(measured(product=[1.0]).ratio("small", "product", "aiohttp"))

    def test_json(self) -> None:
        """Results that were written are read back whole."""
        results = measured(product=[1.0, 2.0], nginx=[0.1])
        results.figures["idle-ws"] = {"product": {0: Figures(1000, 0.0, held_kib=30.5, resident_mib=80.0)}}
        results.relayed.add(("convert", "nginx"))
        results.failures["upload", "litellm"] = "status 404"
        results.skipped["portkey"] = "node"
        results.about["python"] = "3.11.7"
        path = Path(self.mktemp()) / "run.json"
        results.write(path)
        self.assertEqual(read(path), results)


class ReportTests(TestCase):
    """The tables judge the product by its goals, and compare checkouts."""

    def test_goal(self) -> None:
        """A goal is reached at its very ratio, and not a hair above."""
        most = GOALS["small"].most
        for cost, verdict in ((most, "yes"), (most + 0.01, "no")):
            results = measured(product=[cost], aiohttp_tuned=[1.0])
            self.assertEqual(goal_cells(results, "small", "aiohttp-tuned"), (f"{most:g}", verdict))

    def test_other_reference(self) -> None:
        """A goal that is set against another contestant names it, and the ratio to it."""
        results = measured(product=[1.2], aiohttp_tuned=[2.0], nginx=[1.0])
        cells = goal_cells(results, "small", "nginx")
        self.assertEqual(cells, (f"{GOALS['small'].most:g} of aiohttp-tuned", "yes (0.6)"))

    def test_versions(self) -> None:
        """Each version of the product is compared with the first checkout that is named."""
        names = ["aiohttp", "product@/old", "product", "nginx", "product@/other"]
        self.assertEqual(
            pairs_of_versions(names), [("product@/old", "product"), ("product@/old", "product@/other")]
        )
        self.assertEqual(pairs_of_versions(["product", "product-uvloop", "aiohttp"]), [])

    def test_spread(self) -> None:
        """The comparison of two versions shows the median of the rounds' ratios and how far they spread."""
        results = measured(product=[0.5, 0.6, 0.8], old=[1.0, 1.0, 1.0])
        results.figures["small"]["product@/old"] = results.figures["small"].pop("old")
        text = render(results, chosen_workloads("small"), ["product@/old", "product"], "aiohttp-tuned")
        line = next(line for line in text.splitlines() if "0.55 to 0.7" in line)
        self.assertEqual(
            [cell.strip() for cell in line.strip("|").split("|")],
            ["small", "0.6", "0.55 to 0.7", "0.5", "0.8", "3"],
        )

    def test_goals_exist(self) -> None:
        """Each goal belongs to a workload."""
        self.assertLessEqual(GOALS.keys(), {workload.name for workload in WORKLOADS})
