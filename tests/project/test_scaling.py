"""The simulation of load balancers: what ``docs/scaling.md`` says holds for other seeds as well."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kits.scaling.simulation import POLICIES, Plan, Traffic, balance, least_connections, simulate


class SimulationTests(SynchronousTestCase):
    """Calls under way by instance."""

    def test_added(self) -> None:
        """An instance that is added gets its share sooner with least connections than in turn."""
        plan = Plan(instances=3, seconds=1200, away=((2, 0, 600),))
        for seed in (2, 3):
            over = {
                name: balance(simulate(policy, Traffic(), plan, seed)[600:]).seconds_over
                for name, policy in POLICIES.items()
            }
            self.assertLess(over["least connections"], over["round robin"] / 2)
            self.assertLess(over["two choices"], over["random"] / 2)

    def test_conserved(self) -> None:
        """All calls are somewhere, those of an instance that takes no more as well, and end."""
        traffic = Traffic(per_second=2, median_seconds=5, spread=0)
        rows = simulate(least_connections, traffic, Plan(instances=2, seconds=400, away=((0, 200, 400),)), 1)
        mean = sum(map(sum, rows[50:])) / len(rows[50:])
        self.assertTrue(8 < mean < 12, mean)
        self.assertTrue(rows[200][0] > 0)
        self.assertEqual({row[0] for row in rows[206:]}, {0})
