"""The text of a scrape."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.observe.metrics.cells import Cells
from stream_proxy.observe.metrics.exposition import (
    SLICE_LABEL_SETS,
    SLICE_LINES,
    accepts_open_metrics,
    exposition,
)
from stream_proxy.observe.metrics.families import FAMILIES
from stream_proxy.observe.metrics.recorder import Recorder
from stream_proxy.observe.record import Usage
from tests.support.metrics import Scraped, ended, series

#: What tells the lines of one histogram apart.
_PART = r'_(bucket|sum|count)\b|,?le="[^"]*",?'


def many(count: int) -> Cells:
    """Return cells with so many models."""
    cells = Cells()
    for number in range(count):
        record = ended(number, f"rule {number % 2}", usage=Usage(1, 2), model=f"m{number}", first_event=101.0)
        Recorder(cells).ended(record)
    return cells


class ExpositionTests(SynchronousTestCase):
    """Texts in slices."""

    def test_slices(self) -> None:
        """However many label sets there are, a slice has few of them, and no family begins twice."""
        for open_metrics in (False, True):
            for count in (1, 7, 10, 20, 21, 100):
                slices = list(exposition(series(many(count)), open_metrics=open_metrics))
                for each in slices:
                    lines = [line for line in each.decode().splitlines() if not line.startswith("#")]
                    sets = {
                        re.sub(r'_(bucket|sum|count)\b|,?le="[^"]*",?', "", line.split(" ")[0])
                        for line in lines
                    }
                    self.assertLessEqual(len(sets), SLICE_LABEL_SETS)
                    self.assertLessEqual(len(lines), SLICE_LINES)
                text = b"".join(slices).decode()
                types = re.findall("^# TYPE (.*)", text, re.MULTILINE)
                self.assertEqual(len(types), len(set(types)))
                found = Scraped(text, open_metrics=open_metrics)
                self.assertEqual(found.sum("requests_total"), count)
                self.assertEqual(found.sum("time_to_first_event_seconds_count"), count)
                self.assertEqual(len(found.by("tokens_total", "model", "type")), 2 * count)

    def test_end(self) -> None:
        """OpenMetrics ends with its mark, the older text has none; nothing at all is a text, too."""
        slices = list(exposition(series(many(30)), open_metrics=True))
        self.assertEqual((slices[-1], b"".join(slices).count(b"# EOF")), (b"# EOF\n", 1))
        self.assertNotIn(b"EOF", b"".join(exposition(series(many(30)), open_metrics=False)))
        self.assertEqual(list(exposition([], open_metrics=True)), [b"# EOF\n"])

    def test_hostile_labels(self) -> None:
        """Whatever a label holds, it reads as what it is."""
        cells = Cells()
        name = 'x"} 1\\n\\" {y="<img>'
        cells.counter("tokens_total", "main", name, "input").value += 4
        for open_metrics in (False, True):
            text = b"".join(exposition(series(cells), open_metrics=open_metrics)).decode()
            self.assertEqual(Scraped(text, open_metrics=open_metrics).by("tokens_total", "model"), {name: 4})

    def test_gauges(self) -> None:
        """Gauges and cells without labels have their values."""
        family = FAMILIES["upstream_waiting"]
        text = b"".join(exposition([(family, [(("main",), 3.0)])], open_metrics=False))
        self.assertIn(b'\nstream_proxy_upstream_waiting{rule="main"} 3.0\n', text)
        cells = Cells()
        cells.counter("worker_restarts_total").value += 1
        self.assertIn(
            b"\nstream_proxy_worker_restarts_total 1.0\n",
            b"".join(exposition(series(cells), open_metrics=False)),
        )


class AcceptTests(SynchronousTestCase):
    """The format that a scraper wants."""

    def test_prometheus(self) -> None:
        """What Prometheus sends asks for OpenMetrics, unless its configuration prefers the text."""
        for accept in (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
            "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;"
            "q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            'Application/OpenMetrics-Text ; Version="1.0.0"',
            "application/openmetrics-text",
        ):
            self.assertTrue(accepts_open_metrics(accept), accept)

    def test_others(self) -> None:
        """Everyone else gets the text."""
        for accept in (
            "",
            "*/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "text/plain;version=0.0.4;q=1,application/openmetrics-text;version=1.0.0;q=0.5",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=nan,text/plain",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;version=99;q=1",
            ";;;=,q=;",
        ):
            self.assertFalse(accepts_open_metrics(accept), accept)


class FamiliesTests(SynchronousTestCase):
    """All families."""

    def test_names(self) -> None:
        """Counters end in `_total`, and nothing else does; labels are few."""
        for family in FAMILIES.values():
            self.assertEqual(family.name.endswith("_total"), family.kind == "counter", family.name)
            self.assertEqual(bool(family.bounds), family.kind == "histogram")
            self.assertEqual(list(family.bounds), sorted(set(family.bounds)))

    def test_durations(self) -> None:
        """Durations go from 0.01 s to 655.36 s, overhead from 50 µs to 250 ms."""
        bounds = FAMILIES["request_duration_seconds"].bounds
        self.assertEqual((bounds[0], bounds[-1], len(bounds)), (0.01, 655.36, 17))
        bounds = FAMILIES["overhead_seconds"].bounds
        self.assertEqual((bounds[0], bounds[-1]), (50e-6, 0.25))
