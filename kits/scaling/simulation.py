"""Instances behind a load balancer, and the calls that each has under way. Sans-I/O, and the same for a seed.

Calls arrive at random (Poisson) and take a while (log-normal): most take seconds, and some take minutes. What
an instance costs is not the calls that it was given but those that it has, so these are what is counted.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: Chooses an instance: from the calls that each has, and the number of calls before this one.
Policy = Callable[[Sequence[int], int, random.Random], int]


@dataclass(frozen=True)
class Traffic:
    """Calls.

    :param per_second: how many come.
    :param median_seconds: half of the calls take less.
    :param spread: the standard deviation of the logarithm of how long they take.
    """

    per_second: float = 4.0
    median_seconds: float = 30.0
    spread: float = 1.5

    @property
    def mean_seconds(self) -> float:
        """How long a call takes on average."""
        return self.median_seconds * math.exp(self.spread**2 / 2)


@dataclass(frozen=True)
class Plan:
    """What happens to the instances.

    :param instances: how many there are at last.
    :param seconds: how long it goes on.
    :param away: when instances take no calls, because they restart or have not been added: instance, begin,
        end. What they have goes on.
    """

    instances: int = 4
    seconds: int = 3600
    away: tuple[tuple[int, float, float], ...] = ()

    def takes(self, now: float) -> list[int]:
        """Return the instances that take calls."""
        gone = {instance for instance, begin, end in self.away if begin <= now < end}
        return [instance for instance in range(self.instances) if instance not in gone]


def round_robin(loads: Sequence[int], number: int, chance: random.Random) -> int:
    """Choose the next one."""
    return number % len(loads)


def at_random(loads: Sequence[int], number: int, chance: random.Random) -> int:
    """Choose any, as a Kubernetes Service does with connections."""
    return chance.randrange(len(loads))


def two_choices(loads: Sequence[int], number: int, chance: random.Random) -> int:
    """Choose the less loaded of two (``random two least_conn``)."""
    first, second = chance.sample(range(len(loads)), 2) if len(loads) > 1 else (0, 0)
    return first if loads[first] <= loads[second] else second


def least_connections(loads: Sequence[int], number: int, chance: random.Random) -> int:
    """Choose one that has the fewest calls (``leastconn``, ``least_conn``)."""
    least = min(loads)
    return chance.choice([index for index, load in enumerate(loads) if load == least])


POLICIES: dict[str, Policy] = {
    "round robin": round_robin,
    "random": at_random,
    "two choices": two_choices,
    "least connections": least_connections,
}


def simulate(policy: Policy, traffic: Traffic, plan: Plan, seed: int) -> list[list[int]]:
    """Return the number of calls that each instance has, second by second."""
    chance = random.Random(seed)
    loads = [0] * plan.instances
    ends: list[tuple[float, int]] = []
    rows: list[list[int]] = []
    now, number = chance.expovariate(traffic.per_second), 0
    for second in range(plan.seconds):
        while now < second + 1:
            while ends and ends[0][0] <= now:
                loads[heapq.heappop(ends)[1]] -= 1
            open_to = plan.takes(now)
            chosen = open_to[policy([loads[index] for index in open_to], number, chance)]
            loads[chosen] += 1
            length = chance.lognormvariate(math.log(traffic.median_seconds), traffic.spread)
            heapq.heappush(ends, (now + length, chosen))
            number += 1
            now += chance.expovariate(traffic.per_second)
        while ends and ends[0][0] <= second + 1:
            loads[heapq.heappop(ends)[1]] -= 1
        rows.append(list(loads))
    return rows


@dataclass(frozen=True)
class Balance:
    """How evenly the calls were spread over some seconds.

    :param usual: how many times the mean the most loaded instance had, in the median second.
    :param worst: the same, in the worst second.
    :param seconds_over: seconds in which it was more than 1.25.
    """

    usual: float
    worst: float
    seconds_over: int


def balance(rows: Sequence[Sequence[int]]) -> Balance:
    """Return the balance of some seconds."""
    ratios = sorted(max(row) * len(row) / sum(row) for row in rows if sum(row))
    return Balance(
        usual=ratios[len(ratios) // 2], worst=ratios[-1], seconds_over=sum(ratio > 1.25 for ratio in ratios)
    )
