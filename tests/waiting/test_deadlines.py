"""When a client that waits receives bytes."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from stream_proxy.waiting.deadlines import Schedule, announced_timeout, schedule


class AnnouncedTests(TestCase):
    """The time-out that a client announces."""

    def test_values(self) -> None:
        """Only a positive, finite number as SDKs write it counts, and a second is the least."""
        for value, seconds in {
            b"600": 600.0,
            b"600.0": 600.0,
            b" 10 ": 10.0,
            b"0.2": 1.0,
            b"0": None,
            b"-5": None,
            b"nan": None,
            b"inf": None,
            b"1e3": None,
            b"1_0": None,
            b"": None,
            b"NOT_GIVEN": None,
            b"9" * 400: None,
        }.items():
            found = announced_timeout([(b"X-Stainless-Read-Timeout", value)])
            self.assertEqual(found, seconds, value)

    def test_several(self) -> None:
        """The least of several counts, whichever field it stands in."""
        fields = [(b"x-stainless-timeout", b"30"), (b"x-stainless-read-timeout", b"600")]
        self.assertEqual(announced_timeout(fields), 30.0)


class ScheduleTests(TestCase):
    """The first byte and the interval."""

    def test_number(self) -> None:
        """A number in the configuration is both."""
        self.assertEqual(schedule(7.0, [(b"x-stainless-timeout", b"1")], hop=True), Schedule(7.0, 7.0))

    def test_nobody(self) -> None:
        """Without a hint the first byte comes before Node's fetch gives up."""
        self.assertEqual(schedule("auto", [], hop=False), Schedule(240.0, 15.0))

    def test_hops(self) -> None:
        """A hop that shows itself, in a field or by its connection, is taken to cut after a minute."""
        for name in (b"Via", b"Forwarded", b"X-Forwarded-For", b"CF-Ray", b"X-Amzn-Trace-Id"):
            self.assertEqual(schedule("auto", [(name, b"x")], hop=False), Schedule(50.0, 15.0), name)
        self.assertEqual(schedule("auto", [], hop=True), Schedule(50.0, 15.0))

    def test_announced(self) -> None:
        """An announced time-out gets its first byte at 80 % of it, and the others at 40 % at most."""
        for value, expected in {
            b"600": Schedule(240.0, 15.0),
            b"10": Schedule(8.0, 4.0),
            b"1": Schedule(0.8, 0.5),
        }.items():
            fields = [(b"x-stainless-read-timeout", value)]
            self.assertEqual(schedule("auto", fields, hop=False), expected, value)

    def test_announced_behind_hop(self) -> None:
        """The earlier of the two counts."""
        fields = [(b"x-stainless-timeout", b"100"), (b"Via", b"1.1 x")]
        self.assertEqual(schedule("auto", fields, hop=False).first, 50.0)
        fields[0] = (b"x-stainless-timeout", b"20")
        self.assertEqual(schedule("auto", fields, hop=False).first, 16.0)
