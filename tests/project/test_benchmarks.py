"""Benchmarks: ratios in pairs, goals, versions compared, results kept as JSON, the page made from them."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import TestCase

from kits.benchmarks.goals import GOALS, LITELLM_LEAST
from kits.benchmarks.progress import Estimate
from kits.benchmarks.report.page import KEPT, PAGE, filled, made_tables
from kits.benchmarks.report.tables import goal_cells, pairs_of_versions
from kits.benchmarks.report.text import render
from kits.benchmarks.results import Crowd, Figures, Results, Stall, read
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
        results = measured(product=[1.2, 10.0, 1.0, 7.0], aiohttp=[2.0, 20.0, 2.0])
        self.assertEqual(results.ratios("small", "product", "aiohttp"), [0.5, 0.5, 0.6])
        self.assertEqual(results.ratio("small", "product", "aiohttp"), 0.5)

    def test_missing(self) -> None:
        """Without a common round there is no ratio."""
        self.assertIsNone(measured(product=[1.0]).ratio("small", "product", "aiohttp"))

    def test_json(self) -> None:
        """Results that were written are read back whole."""
        results = measured(product=[1.0, 2.0], nginx=[0.1])
        results.figures["idle-ws"] = {"product": {0: Figures(1000, 0.0, held_kib=30.5, resident_mib=80.0)}}
        results.crowds["1000x3"] = {"direct": {2: Crowd(3000, 0.5, 0.01, 0.05, 3.0)}}
        results.stalls["upload"] = {"product": {0: Stall(12.5, 3.0, 0.4, "200")}}
        results.relayed.add(("convert", "nginx"))
        results.failures["upload", "litellm"] = "status 404"
        results.skipped["portkey"] = "node"
        results.about["python"] = "3.11.7"
        path = Path(self.mktemp()) / "run.json"
        results.write(path)
        self.assertEqual(read(path), results)

    def test_update(self) -> None:
        """A later run replaces the workloads that it has, with all contestants, and leaves the others."""
        kept = measured(product=[1.0], nginx=[0.1])
        kept.figures["stream"] = {"product": {0: Figures(10, 1.0, 3.0)}}
        kept.failures["small", "litellm"] = "status 404"
        kept.failures["stream", "litellm"] = "status 404"
        kept.about["scale"] = {"rounds": 3}
        kept.figures["upload"] = {"product": {0: Figures(10, 1.0, 3.0)}}
        newer = measured(product=[2.0])
        newer.failures["upload", "product"] = "status 500"
        newer.about["workloads"] = {"rounds": 5}
        kept.update(newer)
        self.assertEqual(kept.figures["small"], newer.figures["small"])
        self.assertIn("stream", kept.figures)
        self.assertNotIn("upload", kept.figures)
        failures = {("stream", "litellm"): "status 404", ("upload", "product"): "status 500"}
        self.assertEqual(kept.failures, failures)
        self.assertEqual(kept.about, {"scale": {"rounds": 3}, "workloads": {"rounds": 5}})


class ProgressTests(TestCase):
    """The time that is left is estimated from what the steps took so far."""

    def test_guessed(self) -> None:
        """Before anything is done, the guesses are summed."""
        self.assertEqual(Estimate([("a", 1.0), ("b", 2.0), ("a", 1.0)]).left, 4.0)

    def test_scaled(self) -> None:
        """A step that is done stands for its repetition, and scales the guesses for the others."""
        estimate = Estimate([("a", 1.0), ("b", 2.0), ("a", 1.0)])
        estimate.took(3.0)
        self.assertEqual(estimate.left, 6.0 + 3.0)
        estimate.took(1.0)
        self.assertEqual(estimate.left, 3.0)

    def test_done(self) -> None:
        """Nothing is left at the end."""
        estimate = Estimate([("a", 1.0)])
        estimate.took(3.0)
        self.assertEqual(estimate.left, 0.0)


class ReportTests(TestCase):
    """The tables judge the product by its goals, and compare checkouts."""

    def test_goal(self) -> None:
        """A goal is reached at its very ratio, and not a hair above."""
        most = GOALS["small"].most
        for cost, verdict in ((most, "yes"), (most + 0.01, "no")):
            results = measured(product=[cost], aiohttp_tuned=[1.0])
            self.assertEqual(goal_cells(results, "small", "aiohttp-tuned"), [f"{most:g}", verdict])

    def test_other_reference(self) -> None:
        """A goal that is set against another contestant names it, and the ratio to it."""
        results = measured(product=[1.2], aiohttp_tuned=[2.0], nginx=[1.0])
        cells = goal_cells(results, "small", "nginx")
        self.assertEqual(cells, [f"{GOALS['small'].most:g} of aiohttp-tuned", "yes (0.6)"])

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


class PageTests(TestCase):
    """The page of the documentation has the tables of the results that are kept."""

    def test_filled(self) -> None:
        """What stands between a table's markers is replaced, and nothing else."""
        page = "before\n<!-- table: a -->\nold\n<!-- end -->\nbetween\n<!-- table: b -->\n<!-- end -->\n"
        wanted = (
            "before\n<!-- table: a -->\n\n1\n\n<!-- end -->\n"
            "between\n<!-- table: b -->\n\n2\n\n<!-- end -->\n"
        )
        self.assertEqual(filled(page, {"a": "1", "b": "2"}), wanted)
        self.assertEqual(filled(wanted, {"a": "1", "b": "2"}), wanted)

    def test_current(self) -> None:
        """The page shows what is kept: ``make bench-plots`` was run since."""
        page = PAGE.read_text()
        self.assertEqual(filled(page, made_tables(read(KEPT))), page)

    def test_failed_crowd(self) -> None:
        """A contestant that cannot open all streams is said to fail; fewer streams come first."""
        results = Results()
        results.crowds["9900x1"] = {"aiohttp": {0: Crowd(9000, 9.0, 1.5, 20.0, 30.0, 40.0, 35.0, 400.0)}}
        results.crowds["1000x3"] = {"product": {0: Crowd(9000, 1.0, 0.1, 0.25, 3.0, 28.0, 20.0, 80.0)}}
        results.failures["9900x1", "product"] = "took longer than 60 s"
        made = made_tables(results)["crowds"]
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in made.splitlines()]
        self.assertEqual(rows[0][1:], ["aiohttp", "product"])
        self.assertEqual(rows[3], ["9,900 streams, 1 event a second each", "1.5 / 20", "fails"])
        self.assertEqual(rows[2], ["1,000 streams, 3 events a second each", "-", "0.1 / 0.25"])

    def test_gateways(self) -> None:
        """LiteLLM is expected to take a multiple of the product's CPU time, and others have no goal."""
        for cost, verdict in ((LITELLM_LEAST, "yes"), (LITELLM_LEAST - 1, "no")):
            results = measured(product=[1.0], litellm=[cost], mitmproxy=[5.0])
            last = made_tables(results)["gateways"].splitlines()[-1]
            cells = [cell.strip() for cell in last.strip("|").split("|")]
            self.assertEqual(cells, ["small", f"{cost:g}", "5", f"{LITELLM_LEAST:g}", verdict])

    def test_refused_body(self) -> None:
        """The wait beside a large body names the status of a request that was refused."""
        results = Results()
        results.stalls["objects"] = {
            "product": {0: Stall(9.0, 3.0, 0.4, "413"), 1: Stall(11.0, 3.0, 0.4, "413")},
            "aiohttp": {0: Stall(800.0, 3.0, 0.4, "200")},
        }
        last = made_tables(results)["stalls"].splitlines()[-1]
        self.assertEqual([cell.strip() for cell in last.strip("|").split("|")][1:], ["800", "10 (413)"])
