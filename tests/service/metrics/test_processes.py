"""Figures of processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

from prometheus_client import ProcessCollector
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.observe.metrics.exposition import exposition
from stream_proxy.service.metrics.processes import Processes
from tests.support.metrics import Scraped


class ProcessesTests(SynchronousTestCase):
    """What the system knows of a process."""

    def scraped(self, **pids: int) -> Scraped:
        """Return the figures of processes."""
        return Scraped(b"".join(exposition(Processes().series(pids), open_metrics=False)).decode())

    def test_same(self) -> None:
        """Names and values are those of prometheus_client."""
        found = self.scraped(main=os.getpid())
        wanted = {
            sample.name: (metric.type, sample.value)
            for metric in ProcessCollector(registry=None).collect()
            for sample in metric.samples
        }
        self.assertEqual({sample.name for sample in found.samples}, set(wanted))
        self.assertEqual({family.type for family in found.families if "cpu" in family.name}, {"counter"})
        for name, (_, value) in wanted.items():
            (own,) = found.values(name, worker="main")
            self.assertLess(abs(own - value), max(2, 0.2 * value), name)
        self.assertLess(found.sum("process_start_time_seconds"), time.time())

    def test_gone(self) -> None:
        """A process that is gone has no figures, and others keep theirs."""
        found = self.scraped(main=os.getpid(), gone=2**22 + 1)
        self.assertEqual(set(found.by("process_open_fds", "worker")), {"main"})
        self.assertEqual(Processes().series({"gone": 2**22 + 1}), [])

    def test_no_proc(self) -> None:
        """Where the system tells nothing, there is nothing."""

        def fail(path: Path) -> bytes:
            raise FileNotFoundError(path)

        self.patch(Path, "read_bytes", fail)
        self.assertEqual(Processes().series({"main": os.getpid()}), [])
