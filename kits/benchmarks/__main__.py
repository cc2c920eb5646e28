"""Command line ``python -m kits.benchmarks``: measure, print tables, keep the results, draw plots."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kits.benchmarks.contestants.registry import all_contestants, chosen_contestants
from kits.benchmarks.goals import TUNED
from kits.benchmarks.progress import say
from kits.benchmarks.report.page import KEPT, write_page
from kits.benchmarks.report.plots import draw
from kits.benchmarks.report.text import render
from kits.benchmarks.results import Results, read
from kits.benchmarks.runner import Runner
from kits.benchmarks.scale import SCALE_CONTESTANTS, ScaleRunner
from kits.benchmarks.workloads import PACED_EVENTS, QUICK_PACED_EVENTS, WORKLOADS, chosen_workloads

RESULTS = Path(__file__).parent / "results"
CONTESTANTS = "nginx,aiohttp,aiohttp-tuned,product"
QUICK_WORKLOADS = "convert,responses,stream,stream-paced,small,ws-text,ws-pipe"


def options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m kits.benchmarks", description=__doc__)
    add = parser.add_argument
    add(
        "--only",
        metavar="NAMES",
        help="workloads, or cases of --scale, separated by commas; --list shows them",
    )
    add(
        "--contestants",
        metavar="NAMES",
        help=f"a comma-separated list ({CONTESTANTS}; LiteLLM, Portkey and mitmproxy if installed); "
        "product@DIRECTORY is another checkout's",
    )
    add("--reference", metavar="NAME", default=TUNED, help="the contestant that is 1 (%(default)s)")
    add("--rounds", type=int, help="how often each is measured (5; quick: 3, scale: 2)")
    add("--cpu", type=float, help="CPU seconds of each measurement (0.4; quick: 0.3)")
    add(
        "--connections",
        type=int,
        help="how many requests or messages are under way at a time, instead of each workload's own",
    )
    add("--quick", action="store_true", help="the main workloads, in less than two minutes")
    add(
        "--scale",
        action="store_true",
        help="instead of the workloads: thousands of open streams, and waits beside large bodies",
    )
    add(
        "--keep",
        action="store_true",
        help=f"keep the results in {KEPT.name} and draw docs/performance.md anew",
    )
    add("--draw", action="store_true", help=f"measure nothing; draw docs/performance.md from {KEPT.name}")
    add("--list", action="store_true", help="what there is")
    return parser.parse_args()


def measured(asked: argparse.Namespace) -> Results:
    """Run what the options ask for, and print its tables."""
    rounds = asked.rounds or (2 if asked.scale else 3 if asked.quick else 5)
    about: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "rounds": rounds,
    }
    if asked.scale:
        contestants = chosen_contestants(asked.contestants or SCALE_CONTESTANTS)
        results = ScaleRunner(contestants, asked.only and asked.only.split(",")).run(rounds)
        results.about["scale"] = about
        workloads = []
    else:
        workloads = chosen_workloads(asked.only or (QUICK_WORKLOADS if asked.quick else None))
        if asked.connections:
            workloads = [
                replace(one, connections=asked.connections) if one.kind in ("http", "ws") else one
                for one in workloads
            ]
        contestants = chosen_contestants(asked.contestants or CONTESTANTS)
        if not asked.contestants and not asked.quick:
            contestants += [
                one for one in chosen_contestants("litellm,portkey,mitmproxy") if not one.missing()
            ]
        cpu_seconds = asked.cpu or (0.3 if asked.quick else 0.4)
        events = QUICK_PACED_EVENTS if asked.quick else PACED_EVENTS
        runner = Runner(contestants, workloads, cpu_seconds=cpu_seconds, paced_events=events)
        results = runner.run(rounds)
        results.about["workloads"] = {**about, "cpu_seconds": cpu_seconds, "connections": asked.connections}
    print(render(results, workloads, [one.name for one in contestants], asked.reference))
    return results


def main() -> None:
    """Run the benchmarks that the command line selects."""
    asked = options()
    if asked.list:
        print("\n".join(f"{one.name:14} {one.about}" for one in WORKLOADS))
        print("contestants:", ", ".join(all_contestants()))
        return
    if asked.draw:
        write_page(read(KEPT))
        return
    # An ordinary exit, so that the started processes are stopped.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    results = measured(asked)
    path = RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    results.write(path)
    say("\n".join(map(str, ["", path, *draw(results, path.with_suffix(""))])))
    if asked.keep:
        kept = read(KEPT) if KEPT.exists() else Results()
        kept.update(results)
        kept.write(KEPT)
        write_page(read(KEPT))  # the file has fewer digits


if __name__ == "__main__":
    main()
