"""A thousand reloads of the config."""

from __future__ import annotations

import json

from heavy_tests.memory import resident_memory
from tests.service.test_reload import ReloadTestCase, descriptors
from tests.service.test_workers import children
from tests.support.twistd import Process, free_port

_RELOADS = 1000
#: The growth in bytes that is allowed to a process after the first hundred reloads.
_GROWTH = 3000 * 1024


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
                before = [(descriptors(pid), resident_memory(pid)) for pid in self.pids(process)]
            process.output = process.output[-10_000:] if "was read" not in process.output else ""
        await self.reload(process, rule)
        await self.ask(client)
        after = [(descriptors(pid), resident_memory(pid)) for pid in self.pids(process)]
        grown = [(a[0] - b[0], a[1] - b[1]) for a, b in zip(after, before, strict=True)]
        print(f"after {_RELOADS} reloads: {grown} more descriptors and bytes")
        for number_of_descriptors, memory in grown:
            self.assertLessEqual(number_of_descriptors, 2)
            self.assertLess(memory, _GROWTH)


class WorkersManyReloadsTests(ManyReloadsTests):
    """A thousand reloads with two workers."""

    workers = 2
    workers_forked = False  # the memory of a fork is in part its parent's
