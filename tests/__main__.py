"""``python -m tests [TRIAL'S ARGUMENTS]``: trial, and then its result as a line that any tool can read.

The exit status is trial's own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

_SUMMARY = re.compile(r"(?:PASSED|FAILED)(?: \((.*)\))?\s*")
_COUNT = re.compile(r"(\w+)=(\d+)")


def closing_line(summary: str | None) -> str:
    """``N passed, N failed`` for the last line of trial's output; there is none where trial itself broke."""
    match = _SUMMARY.fullmatch(summary) if summary is not None else None
    if match is None:
        return "0 passed, 1 failed"
    counts = {name: int(number) for name, number in _COUNT.findall(match[1] or "")}
    passed = counts.get("successes", 0) + counts.get("expectedFailures", 0)
    failed = sum(counts.get(name, 0) for name in ("failures", "errors", "unexpectedSuccesses"))
    skipped = counts.get("skips", 0)
    return f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "")


def main(arguments: list[str]) -> int:
    """Run trial with `arguments`."""
    summary = None
    command = [sys.executable, "-m", "twisted.trial", *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as trial:
        assert trial.stdout is not None
        for line in trial.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            if _SUMMARY.fullmatch(line):
                summary = line
    print(closing_line(summary))
    return trial.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
