"""A thousand reloads of the config."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.service.test_reload import ReloadTestCase, descriptors
from tests.service.test_workers import children
from tests.support.twistd import Process, free_port

_RELOADS = 1000
#: The growth in kilobytes that is allowed to a process after the first hundred reloads.
_GROWTH = 3000


def resident(pid: int) -> int:
    """Return the resident memory of a process, in kilobytes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


class ManyReloadsTests(ReloadTestCase):
    """Resources of the process after many reloads."""

    timeout = 300

    def pids(self, process: Process) -> list[int]:
        """Return the serving processes and the parent."""
        return [process.pid, *children(process.pid)]

    async def test_flat(self) -> None:
        """Reloads that change a rule, or open or close a port, leak neither memory nor descriptors."""
        upstream = await self.named(b"a")
        port, other = free_port(), free_port()
        rule = {"listenPort": port, "upstreamUrl": upstream.url}
        more = {**rule, "listenPort": other}
        process = await self.begin(rule)
        client = await self.client(port)
        before: list[tuple[int, int]] = []
        for number in range(_RELOADS):
            rules = [{**rule, "timeoutSeconds": 100 + number}, *([more] if number % 2 else [])]
            # The file is replaced atomically, so that the process never reads half of it.
            new = self.path.with_suffix(".new")
            new.write_text(json.dumps({"workers": self.workers, "rules": rules}))
            new.replace(self.path)
            await self.hang_up(process)
            self.assertEqual(await self.ask(client), b"a /x")
            if number % 2:
                probe = await self.client(other)
                self.assertEqual(await self.ask(probe), b"a /x")
                probe.close()
                await probe.gone()
            if number == 99:
                before = [(descriptors(pid), resident(pid)) for pid in self.pids(process)]
            process.output = process.output[-10_000:] if "was read" not in process.output else ""
        await self.reload(process, rule)
        await self.ask(client)
        after = [(descriptors(pid), resident(pid)) for pid in self.pids(process)]
        grown = [(a[0] - b[0], a[1] - b[1]) for a, b in zip(after, before, strict=True)]
        print(f"after {_RELOADS} reloads: {grown} more descriptors and kilobytes")
        for number_of_descriptors, kilobytes in grown:
            self.assertLessEqual(number_of_descriptors, 2)
            self.assertLess(kilobytes, _GROWTH)


class WorkersManyReloadsTests(ManyReloadsTests):
    """A thousand reloads with two workers."""

    workers = 2
