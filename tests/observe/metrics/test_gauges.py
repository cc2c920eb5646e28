"""Gauges of requests under way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.observe.metrics.gauges import Gauge, LiveGauges, merged
from stream_proxy.observe.record import Phase
from tests.support.metrics import ended


def live(number: int, **fields: Any) -> Any:
    """Return the record of a request under way since 100 s."""
    return ended(number, **{"ended": None, **fields})


class LiveTests(SynchronousTestCase):
    """What requests under way amount to."""

    def test_look(self) -> None:
        """Requests are counted by mode, and the oldest and what is held are found."""
        gauges = LiveGauges()
        upload = SimpleNamespace(received=50)
        records = [
            live(1, read=1000, phase=Phase.FIRST_EVENT),
            live(2, read=500, phase=Phase.STREAMING, mode="passed"),
            live(3, phase=Phase.READING, mode="passed", upload=upload),
            live(4, phase=Phase.STREAMING, mode="websocket", rule="second"),
        ]
        list(gauges.look(records, 130.0))
        self.assertEqual(
            gauges.values,
            {
                ("requests_in_flight", ("main", "converted")): 1,
                ("requests_in_flight", ("main", "passed")): 2,
                ("requests_in_flight", ("second", "websocket")): 1,
                ("oldest_request_seconds", ("main",)): 30,
                ("websocket_sessions", ("second",)): 1,
                ("buffered_bytes", ("main",)): 1050,
            },
        )
        list(gauges.look([], 140.0))
        self.assertEqual((len(gauges.values), set(gauges.values.values())), (6, {0}))

    def test_watch(self) -> None:
        """A rule has its gauges before its first request, and not after it was removed."""
        gauges = LiveGauges()
        gauges.watch({"main": ["converted"]})
        self.assertEqual(len(gauges.values), 4)
        list(gauges.look([live(1)], 130.0))
        gauges.watch({"second": []})
        self.assertIn(("requests_in_flight", ("main", "converted")), gauges.values)
        list(gauges.look([], 130.0))
        gauges.watch({"second": []})
        self.assertEqual({labels for _, labels in gauges.values}, {("second",)})

    def test_steps(self) -> None:
        """Thousands of requests are looked at in several steps."""
        gauges = LiveGauges()
        steps = list(gauges.look([live(number) for number in range(5000)], 130.0))
        self.assertEqual((len(steps), gauges.values["requests_in_flight", ("main", "converted")]), (2, 5000))

    def test_merged(self) -> None:
        """Gauges of several processes are sums, but ages."""
        first = [Gauge("buffered_bytes", ("a",), 3), Gauge("oldest_request_seconds", ("a",), 5)]
        second = [Gauge("buffered_bytes", ("a",), 4), Gauge("oldest_request_seconds", ("a",), 2)]
        self.assertEqual(
            merged([first, second]), {("buffered_bytes", ("a",)): 7, ("oldest_request_seconds", ("a",)): 5}
        )
