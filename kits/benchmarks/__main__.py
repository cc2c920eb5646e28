"""Command line ``python -m kits.benchmarks``: measure, print tables, write ``results/TIME.json``."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from kits.benchmarks.goals import TUNED
from kits.benchmarks.registry import all_contestants, chosen_contestants
from kits.benchmarks.report import render
from kits.benchmarks.runner import Runner
from kits.benchmarks.workloads import PACED_EVENTS, QUICK_PACED_EVENTS, WORKLOADS, chosen_workloads

QUICK_WORKLOADS = "convert,responses,stream,stream-paced,small,ws-text,ws-pipe"
QUICK_CONTESTANTS = "aiohttp,aiohttp-tuned,nginx,product"


def main() -> None:
    """Run the benchmarks that the command line selects."""
    parser = argparse.ArgumentParser(prog="python -m kits.benchmarks", description=__doc__)
    parser.add_argument("--only", metavar="WORKLOADS", help="a comma-separated list; --list shows them")
    parser.add_argument(
        "--contestants",
        metavar="NAMES",
        help="a comma-separated list; product@DIRECTORY is another checkout's",
    )
    parser.add_argument(
        "--reference", metavar="NAME", default=TUNED, help="the contestant that is 1 (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, help="how often each is measured (5; quick: 3)")
    parser.add_argument("--cpu", type=float, help="CPU seconds of each measurement (1; quick: 0.3)")
    parser.add_argument(
        "--connections",
        type=int,
        help="how many requests or messages are under way at a time, instead of each workload's own",
    )
    parser.add_argument("--quick", action="store_true", help="the main workloads, in less than two minutes")
    parser.add_argument("--list", action="store_true", help="what there is")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{one.name:14} {one.about}" for one in WORKLOADS))
        print("contestants:", ", ".join(all_contestants()))
        return
    # An ordinary exit, so that the started processes are stopped.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    quick = options.quick
    workloads = chosen_workloads(options.only or (QUICK_WORKLOADS if quick else None))
    if options.connections:
        workloads = [
            replace(one, connections=options.connections) if one.kind in ("http", "ws") else one
            for one in workloads
        ]
    contestants = chosen_contestants(options.contestants or (QUICK_CONTESTANTS if quick else None))
    rounds = options.rounds or (3 if quick else 5)
    cpu_seconds = options.cpu or (0.3 if quick else 1.0)
    runner = Runner(
        contestants,
        workloads,
        cpu_seconds=cpu_seconds,
        paced_events=QUICK_PACED_EVENTS if quick else PACED_EVENTS,
    )
    results = runner.run(rounds)
    now = datetime.now(UTC)
    results.about = {
        "time": now.isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "rounds": rounds,
        "cpu_seconds": cpu_seconds,
        "connections": options.connections,
    }
    path = Path(__file__).parent / "results" / f"{now:%Y%m%d-%H%M%S}.json"
    results.write(path)
    print(render(results, workloads, [one.name for one in contestants], options.reference))
    print(f"\n{path}")


if __name__ == "__main__":
    main()
