"""Command line ``python -m kits.fuzz [TARGET ...]``: all targets, or one with the input of a file."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from kits.fuzz.targets import TARGETS

FOLDER = Path(__file__).parent / "build"
_RUNS = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
_WRITTEN = re.compile(r"Test unit written to (\S+)")


def main() -> int:
    """Run the targets; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m kits.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=float, default=60, help="for each target (60)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="give the target this input once")
    options = parser.parse_args()
    unknown = set(options.targets) - TARGETS.keys()
    if unknown:
        parser.error(f"there is no target {', '.join(sorted(unknown))}")
    if options.replay is not None:
        if len(options.targets) != 1:
            parser.error("--replay takes one target")
        TARGETS[options.targets[0]](options.replay.read_bytes())
        return 0
    failures = 0
    for name in options.targets or TARGETS:
        failures += not _run(name, options.seconds)
    return 1 if failures else 0


def _run(name: str, seconds: float) -> bool:
    command = [sys.executable, "-m", "kits.fuzz.engine", name, str(seconds), str(FOLDER)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    output = done.stdout.decode("utf-8", "replace")
    count = _RUNS.search(output)
    print(f"{name:12} {count[1] if count else '?':>9} inputs  {'ok' if not done.returncode else 'FAILED'}")
    sys.stdout.flush()
    if done.returncode:
        print(output[-4000:])
        written = _WRITTEN.search(output)
        if written:
            print(f"again: {sys.executable} -m kits.fuzz {name} --replay {written[1]}")
    return not done.returncode


if __name__ == "__main__":
    sys.exit(main())
