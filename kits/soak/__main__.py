"""Command line ``python -m kits.soak``: run, print the report, exit with 1 if anything was wrong."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys

from kits.soak.run import Report, Settings, soak


def main() -> int:
    """Run the soak that the command line describes."""
    parser = argparse.ArgumentParser(prog="python -m kits.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, help="seed of the clients' choices (random)")
    parser.add_argument("--workers", type=int, default=1, help="processes of the proxy (1)")
    parser.add_argument("--clients", type=int, default=24, help="clients at a time (24)")
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between a client's requests (0.1)")
    parser.add_argument("--reload", type=int, default=1, help="0: do not reload the config")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else secrets.randbits(32)
    settings = Settings(
        options.seconds, seed, options.workers, options.clients, options.pause, bool(options.reload)
    )
    print(f"seed {seed}")
    report = asyncio.run(soak(settings, lambda line: print(line, flush=True)))
    print(summary(report))
    return 1 if report.reasons else 0


def summary(report: Report) -> str:
    """Return the report as text."""
    tally, samples = report.tally, report.samples
    lines = [f"{'done':16} {sum(tally.done.values()):8}   ({report.requests} requests reached the upstream)"]
    lines += [f"  {name:14} {count:8}" for name, count in tally.done.most_common()]
    faults = ", ".join(f"{name} {count}" for name, count in sorted(tally.faults.items()))
    lines.append(f"{'outcomes asked':16} {faults}")
    statuses = ", ".join(f"{status or 'none'}: {count}" for status, count in sorted(tally.statuses.items()))
    lines.append(f"{'statuses':16} {statuses}")
    lines.append(f"{'stale uploads':16} {tally.stale:8}")
    picked = ", ".join(f"{name} {count}" for name, count in sorted(tally.picked_up.items()))
    lines.append(f"{'lost calls':16} {picked}")
    lines.append(f"{'reloads':16} {report.reloads:8}")
    if samples:
        memory = [sample.memory / 2**20 for sample in samples]
        lines.append(
            f"{'memory (Pss)':16} {memory[0]:8.1f} MiB first, {max(memory):.1f} most, {memory[-1]:.1f} last"
        )
        most = max(sample.descriptors for sample in samples)
        lines.append(
            f"{'descriptors':16} {report.baseline:8} first, {most} most, {report.descriptors_after} last"
        )
    if report.growth is not None:
        lines.append(f"{'memory trend':16} {report.growth / 2**20:+8.2f} MiB from the warm-up to the end")
    lines += [f"  wrong: {problem}" for problem in tally.problems]
    lines += [f"FAILED: {reason}" for reason in report.reasons] or ["all right"]
    return "\n".join([*lines, f"seed {report.settings.seed}"])


if __name__ == "__main__":
    sys.exit(main())
