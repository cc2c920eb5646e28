"""Several worker processes behind the same ports, with the real twistd."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
from pathlib import Path

from twisted.internet.defer import Deferred, gatherResults

from tests.service import test_process
from tests.support.admin import OPEN, Viewer
from tests.support.payloads import CHAT, CHAT_BODY
from tests.support.twistd import Process, ProcessTestCase, eventually, free_port
from tests.support.wire import Message, Stream, read_head, send_request

#: A module that cannot be imported in a worker, and imports the real one elsewhere.
BROKEN = """
import sys
if "stream_proxy.service.workers.child" in sys.orig_argv:
    raise ImportError("broken")
sys.path.remove({directory!r})
del sys.modules["treq"]
import treq
"""


def sockets(pid: int) -> int:
    """Count the open sockets of a process."""
    count = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += os.readlink(descriptor).startswith("socket:")
        except FileNotFoundError:  # closed in between
            continue
    return count


def children(pid: int) -> list[int]:
    """Return the child processes of a process, including zombies."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def gone(pid: int) -> None:
    """Wait for the end of a process that is not our child."""

    async def look() -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        return state == "Z"

    await eventually(look)


class WorkersTestCase(ProcessTestCase):
    """Starts twistd with two workers."""

    workers = 2

    async def serve(self, *upstream_urls: str, **config: object) -> tuple[Process, list[int]]:
        """Start it, and wait until both workers accept."""
        process, ports = await super().serve(*upstream_urls, **config)
        await self.pids(process)
        return process, ports

    async def pids(self, process: Process) -> list[int]:
        """Return the process ids of the first two processes."""
        return [int((await process.line(rf"worker {n} of 2 is process (\d+)"))[1]) for n in (1, 2)]


class ObservationTests(WorkersTestCase):
    """The admin port of the parent."""

    async def test_rows(self) -> None:
        """It shows the requests of the workers; a dead worker's go, and so do the sockets at the end."""
        place = Path(tempfile.mkdtemp())  # whose path is short enough for sockets
        self.addCleanup(shutil.rmtree, place)
        self.patch(os, "environ", {**os.environ, "TMPDIR": str(place)})
        url, go_on = await self.streaming()
        admin = free_port()
        process, (port,) = await self.serve(url, admin={"listenPort": admin})
        pids = await self.pids(process)
        asking = await self.client(port)
        send_request(asking, "POST", CHAT, CHAT_BODY)
        stream = await self.client(admin)
        stream.write(OPEN)
        await read_head(stream)
        viewer = Viewer(stream)
        await viewer.until(lambda: viewer.live)
        (name,) = viewer.live
        self.assertRegex(name, r"^[12]-1$")
        self.assertEqual((viewer.state or {})["workers"], {"running": 2, "wanted": 2})
        details = await self.request(admin, "GET", f"/requests/{name}")
        self.assertEqual(details.json()["path"], CHAT)

        (sockets,) = place.iterdir()
        self.assertEqual(sockets.stat().st_mode & 0o777, 0o700)

        os.kill(pids[int(name[0]) - 1], signal.SIGKILL)
        await asking.gone()
        await viewer.until(lambda: not viewer.live and viewer.flight == 0)
        go_on.callback(None)
        process.signal("TERM")
        await process.ended()
        self.assertEqual(list(place.iterdir()), [])


class ServingTests(WorkersTestCase):
    """Two workers and their log."""

    async def test_both_work(self) -> None:
        """Both workers get connections; the parent gets none, and has no other children."""
        self.workers_forked = False
        process, (port,) = await self.serve("http://127.0.0.1:9")
        pids = await self.pids(process)
        parent = process.pid
        self.assertEqual(sorted(children(parent)), sorted(pids))
        before = [sockets(pid) for pid in (parent, *pids)]
        for _ in range(30):
            await self.client(port)
        grown: list[int] = []

        async def accepted() -> bool:
            grown[:] = [sockets(pid) - count for pid, count in zip((parent, *pids), before, strict=True)]
            return sum(grown) == 30

        await eventually(accepted)
        self.assertEqual(grown[0], 0)
        self.assertTrue(all(grown[1:]), grown)

    async def test_log(self) -> None:
        """Each request is one whole line in the parent's log, without secrets."""
        process, (port,) = await self.serve(await self.mock())
        key = [("Authorization", "Bearer header-secret")]
        body = {**CHAT_BODY, "user": "body-secret"}
        target = f"{CHAT}?key=query-secret"
        asking = [Deferred.fromCoroutine(self.request(port, "POST", target, body, key)) for _ in range(20)]
        for answer in await gatherResults(asking):
            self.assertEqual(answer.status, 200)
        await process.times("POST", 20)
        process.signal("TERM")
        await process.ended()
        self.assert_ended_by(signal.SIGTERM, process)
        self.assertNotIn("secret", process.output)
        lines = [line for line in process.output.splitlines() if "POST" in line]
        self.assertEqual(len(lines), 20)
        for line in lines:
            wanted = (
                rf"\A\S+T\S+ \[stream_proxy#info\] POST {CHAT} 200 converted http://\S+ \d+ bytes \d+ ms \|"
            )
            self.assertRegex(line, wanted)
        self.assertEqual(len(re.findall(rf"listening on port {port} for", process.output)), 1)

    async def test_quiet(self) -> None:
        """LOG_LEVEL applies to the workers as well."""
        port = free_port()
        rule = {"listenPort": port, "upstreamUrl": await self.mock()}
        path = self.write_config({"workers": 2, "rules": [rule]})
        process = self.twistd("-c", str(path), env={"LOG_LEVEL": "error"})
        await self.assert_accepts(port)
        self.assertEqual((await self.request(port, body=CHAT_BODY)).status, 200)
        process.signal("TERM")
        await process.ended()
        self.assertEqual(process.output, "")

    async def test_port_in_use(self) -> None:
        """A port that other workers share counts as in use."""
        _, (port,) = await self.serve("http://127.0.0.1:9")
        rule = {"listenPort": port, "upstreamUrl": "http://127.0.0.1:9"}
        path = self.write_config({"workers": 2, "rules": [rule]})
        second = self.twistd("-c", str(path))
        self.assertEqual(await second.ended(), 1)
        problem = f"cannot listen on port {port}: Address already in use"
        self.assertEqual(second.output, f"{path}: rules[0].listenPort: {problem}\n")


class DeathTests(WorkersTestCase):
    """Processes that are killed."""

    async def begin(self, port: int) -> Stream:
        """Connect a client, and read the beginning of a stream."""
        client = await self.client(port)
        client.write(b"GET /v1/stream HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.until(b"Hel")
        return client

    async def test_worker(self) -> None:
        """A worker is replaced at once; no connection is refused meanwhile, and the other goes on."""
        self.workers_forked = False
        url, go_on = await self.streaming()
        process, (port, other) = await self.serve(url, await self.mock())
        pids = await self.pids(process)
        before = [sockets(pid) for pid in pids]
        client = await self.begin(port)
        busy = max((0, 1), key=lambda i: sockets(pids[i]) - before[i])
        victim = pids[1 - busy]
        os.kill(victim, signal.SIGKILL)
        await process.line(rf"worker {2 - busy} of 2 \(process {victim}\) was ended by signal 9")
        asking = [Deferred.fromCoroutine(self.request(other, body=CHAT_BODY)) for _ in range(20)]
        answers: list[Message] = await gatherResults(asking)
        self.assertEqual({answer.status for answer in answers}, {200})
        found = await process.line(rf"(?s)ended by signal 9.*worker {2 - busy} of 2 is process (\d+)")
        self.assertEqual(sorted(children(process.pid)), sorted([pids[busy], int(found[1])]))
        go_on.callback(None)
        self.assertIn(b"lo", await client.until(b"0\r\n\r\n"))
        process.signal("TERM")
        await process.ended()
        self.assert_ended_by(signal.SIGTERM, process)

    async def test_start(self) -> None:
        """A worker that cannot start logs the reason, and is started again."""
        self.workers_forked = False
        directory = self.directory()
        (directory / "treq.py").write_text(BROKEN.format(directory=str(directory)))
        port = free_port()
        rule = {"listenPort": port, "upstreamUrl": await self.mock()}
        path = self.write_config({"workers": 2, "rules": [rule]}, directory)
        environment = os.pathsep.join([str(directory), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = self.twistd("-c", str(path), env={"PYTHONPATH": environment})
        await process.line(r"(?s)the worker cannot start\n\tTraceback.*\n\tbuiltins.ImportError: broken")
        await process.line(r"worker 1 of 2 \(process \d+\) ended with status 1; another process")
        (directory / "treq.py").unlink()
        await self.pids(process)
        self.assertEqual((await self.request(port, body=CHAT_BODY)).status, 200)

    async def test_parent(self) -> None:
        """Workers without a parent stop listening, serve their requests, and exit."""
        url, go_on = await self.streaming()
        process, (port,) = await self.serve(url)
        client = await self.begin(port)
        process.signal("KILL")
        await process.ended()
        await self.assert_refused(port)
        go_on.callback(None)
        self.assertIn(b"lo", await client.until(b"0\r\n\r\n"))
        for pid in await self.pids(process):
            await gone(pid)

    async def test_signals_to_all(self) -> None:
        """A signal that a terminal or service manager sends to all processes counts once."""
        url, go_on = await self.streaming()
        process, (port,) = await self.serve(url)
        client = await self.begin(port)
        for pid in await self.pids(process):
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
                os.kill(pid, number)
        process.signal("INT")
        await self.closed(process, port)
        go_on.callback(None)
        self.assertIn(b"lo", await client.until(b"0\r\n\r\n"))
        await process.ended()
        self.assert_ended_by(signal.SIGINT, process)


class WorkersStopTests(WorkersTestCase, test_process.StopTests):
    """SIGTERM and SIGINT, as with one process."""


class WorkersDaemonTests(WorkersTestCase, test_process.DaemonTests):
    """A daemon with workers; the pid file is the parent's."""


class WorkersReactorTests(WorkersTestCase):
    """The workers run on the parent's reactor."""

    twistd_options = ("--reactor", "uvloop")

    async def test_uvloop(self) -> None:
        """Workers on uvloop serve, are replaced, and stop."""
        process, (port,) = await self.serve(await self.mock())
        pids = await self.pids(process)
        for pid in pids:
            self.assertIn("uvloop", Path(f"/proc/{pid}/maps").read_text())
        os.kill(pids[0], signal.SIGKILL)
        await process.line(r"(?s)ended by signal 9.*worker 1 of 2 is process \d+")
        self.assertEqual((await self.request(port, body=CHAT_BODY)).status, 200)
        process.signal("TERM")
        await process.ended()
        self.assert_ended_by(signal.SIGTERM, process)
