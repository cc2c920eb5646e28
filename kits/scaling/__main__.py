"""``python -m kits.scaling``: how evenly policies spread calls that take minutes, as a table and a plot."""

from __future__ import annotations

import argparse
from pathlib import Path

from kits.scaling.simulation import POLICIES, Plan, Traffic, balance, simulate

_PICTURE = Path(__file__).parent.parent.parent / "docs" / "images" / "scaling-policies.svg"
#: Four instances are full of calls, then two are added, then all six are restarted in turn.
WARM, ADDED, RESTARTED, END = 900, 1800, 3600, 5400
_PLAN = Plan(
    instances=6,
    seconds=END,
    away=(
        (4, 0, ADDED),
        (5, 0, ADDED),
        *((number, RESTARTED + 200.0 * number, RESTARTED + 200.0 * number + 60) for number in range(6)),
    ),
)


def main() -> None:
    """Print the table, and draw the plot if that is wanted."""
    parser = argparse.ArgumentParser(prog="kits.scaling", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--draw", action="store_true", help=f"draw {_PICTURE.name}, which needs matplotlib")
    options = parser.parse_args()
    traffic = Traffic()
    runs = {name: simulate(policy, traffic, _PLAN, options.seed) for name, policy in POLICIES.items()}
    print(f"{traffic.per_second:g} calls a second, each of {traffic.mean_seconds:.0f} s on average")
    print("| the most loaded instance, in times of the mean | steady | two added | restarts |")
    print("| --- | --- | --- | --- |")
    for name, rows in runs.items():
        steady = balance([row[:4] for row in rows[WARM:ADDED]])
        added, restarts = balance(rows[ADDED:RESTARTED]), balance(rows[RESTARTED:])
        print(
            f"| {name} | {steady.usual:.2f}, at worst {steady.worst:.2f} "
            f"| above 1.25 for {added.seconds_over} s | above 1.25 for {restarts.seconds_over} s |"
        )
    if options.draw:
        from kits.scaling.plot import draw

        draw(runs, {"two are added": ADDED, "restarts begin": RESTARTED}, WARM, _PICTURE)
        print(f"drawn: {_PICTURE}")


if __name__ == "__main__":
    main()
