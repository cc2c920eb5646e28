"""Tests of the log's output: its file, what is escaped, and what is left out."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import stat
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, Logger, LogLevel, LogPublisher, formatEventAsClassicLogText
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.observe.log_entries import log_received, log_request
from stream_proxy.observe.record import Record
from stream_proxy.printable import printable
from stream_proxy.request_log import RequestLog
from stream_proxy.service.log_output import LogFile, LogOutput, log_output
from tests.support.twistd import ProcessTestCase, eventually, free_port

#: Clears a terminal, and forges an entry.
EVIL = "\x1b[2J\x9b\r\n2026-01-01 [stream_proxy#info] all is well\u2028\u202e"


def ended(text: str | None = None) -> Record:
    """Return the record of a request that has ended, with a text wherever somebody else chose it."""
    record = Record(1, "main", 5.0)
    record.method, record.path, record.ended, record.status, record.sent = b"GET", b"/x", 5.1, 200, 13
    if text is not None:
        record.model = record.problem = record.detail = record.code = text
        record.request_fields = [(b"x-request-id", text.encode("utf-8", "surrogatepass"))]
    return record


def mode(path: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def kill(pid: int) -> None:
    """End a daemon, if it still runs."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class LogFileTests(SynchronousTestCase):
    """:class:`LogFile`."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        self.path.mkdir()
        self.path /= "proxy.log"
        self.addCleanup(os.umask, os.umask(0o022))

    def opened(self) -> LogFile:
        """Open the file."""
        file = LogFile(str(self.path))
        self.addCleanup(file.close)
        return file

    def test_moved(self) -> None:
        """After a rename a new file has the old mode, whatever the umask has become; the old is complete."""
        for given_mode in (0o644, 0o640, 0o600):
            file = self.opened()
            self.path.chmod(given_mode)
            file.write("old\n")
            moved = self.path.rename(self.path.with_suffix(".1"))
            file.write("late\n")
            before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
            os.umask(0o077)
            file.reopen()
            os.umask(0o022)
            file.write("new\n")
            self.assertEqual((moved.read_text(), self.path.read_text()), ("old\nlate\n", "new\n"))
            self.assertEqual((mode(moved), mode(self.path)), (given_mode, given_mode))
            if before:
                self.assertEqual(len(os.listdir("/proc/self/fd")), before)
            self.path.unlink()

    def test_made_by_others(self) -> None:
        """A file that is there already, such as one of logrotate's, keeps its mode and content."""
        self.path.write_text("before\n")
        file = self.opened()
        file.write("old\n")
        self.path.rename(self.path.with_suffix(".1"))
        self.path.write_text("made\n")
        self.path.chmod(0o604)
        file.reopen()
        file.write("new\n")
        self.assertEqual((self.path.read_text(), mode(self.path)), ("made\nnew\n", 0o604))

    def test_same(self) -> None:
        """Without a rename nothing is lost."""
        file = self.opened()
        file.write("one\n")
        file.reopen()
        file.write("two\n")
        self.assertEqual(self.path.read_text(), "one\ntwo\n")

    def test_impossible(self) -> None:
        """Where no file can be opened, the log goes on in the old one."""
        file = self.opened()
        folder = self.path.parent
        moved = folder.rename(folder.with_suffix(".gone"))
        self.assertRaises(OSError, file.reopen)
        file.write("still\n")
        self.assertEqual((moved / self.path.name).read_text(), "still\n")

    def test_size(self) -> None:
        """Nothing is rotated, however large it becomes, and half a surrogate pair is no error."""
        file = self.opened()
        for _ in range(30):
            file.write("x" * 100_000 + "\ud800\n")
        self.assertEqual(os.listdir(self.path.parent), [self.path.name])
        self.assertGreater(self.path.stat().st_size, 3_000_000)


class OutputTests(SynchronousTestCase):
    """:class:`LogOutput`."""

    def written(self, level: str, *entries: tuple[str, str, str]) -> list[str]:
        """Return what is written of entries, each a namespace, a level and a text."""
        stream = io.StringIO()
        publisher = LogPublisher(LogOutput(stream, RequestLog(level)))
        for namespace, how, text in entries:
            getattr(Logger(namespace, observer=publisher), how)("{text}", text=text)
        return [line.partition(" ")[2] for line in stream.getvalue().splitlines()]

    def test_level(self) -> None:
        """The level holds for the entries of everything in the process."""
        entries = (("a", "debug", "1"), ("twisted.web", "info", "2"), ("stream_proxy", "warn", "3"))
        self.assertEqual(
            self.written("debug", *entries), ["[a#debug] 1", "[twisted.web#info] 2", "[stream_proxy#warn] 3"]
        )
        self.assertEqual(self.written("info", *entries), ["[twisted.web#info] 2", "[stream_proxy#warn] 3"])
        self.assertEqual(self.written("error", *entries), [])

    def test_handshakes(self) -> None:
        """The words of autobahn, which quote what peers sent, are left out at every level."""
        namespaces = ("autobahn.websocket.protocol.WebSocketProtocol", "txaio")
        self.assertEqual(self.written("debug", *((name, "critical", "quoted") for name in namespaces)), [])

    def test_escaped(self) -> None:
        """Control characters, the beginnings of forged entries among them, are escaped."""
        (line, forged) = self.written("info", ("twisted", "error", EVIL))
        self.assertIn(r"\x1b[2J\x9b\r", line)
        self.assertTrue(forged.startswith("[stream_proxy#info] all is well"), forged)
        self.assertTrue(forged.isprintable())

    def test_traceback(self) -> None:
        """A traceback keeps its lines, which are indented."""
        stream = io.StringIO()
        log = RequestLog(observer=LogPublisher(LogOutput(stream, RequestLog())))
        try:
            raise ValueError(EVIL)
        except ValueError:
            log.bug(Failure())
        first, *others = stream.getvalue().splitlines()
        self.assertIn("something failed in the proxy", first)
        self.assertGreater(len(others), 2)
        self.assertTrue(all(line.startswith("\t") for line in others), others)
        self.assertNotIn("\x1b", stream.getvalue())

    @given(st.text(min_size=1))
    def test_lines(self, text: str) -> None:
        """An entry of the request log is one printable line, whatever it quotes."""
        stream = io.StringIO()
        settings = RequestLog("debug")
        log = RequestLog("debug", observer=LogPublisher(LogOutput(stream, settings)))
        for as_json in (False, True):
            for each in (settings, log):
                each.configure(as_json=as_json)
            log_received(log, ended(text))
            log_request(log, ended(text))
            for tell in (log.info, log.warn, log.error):
                tell(text)
        lines = stream.getvalue().split("\n")
        self.assertEqual((len(lines), lines[-1]), (13, ""))
        self.assertTrue(all(line.isprintable() for line in lines))
        entries = [json.loads(line) for line in lines[6:-1]]
        levels = ["debug", "info", "debug", "info", "warn", "error"]
        self.assertEqual([each["level"] for each in entries], levels)
        self.assertEqual((entries[1]["model"], entries[1]["problem"]), (text, text))

    def test_as_twisted(self) -> None:
        """The entry of a request reads as Twisted's formatter writes it, second by second."""
        events: list[LogEvent] = []
        log = RequestLog(observer=events.append)  # type: ignore[arg-type]
        log_request(log, ended())
        log.info("a notice")
        request, notice = events
        self.assertLessEqual({*notice} - {"message"}, {*request})
        from_worker = {**request, "log_system": "worker 1", "log_level": LogLevel.warn, "line": "{a}\nb"}
        stream = io.StringIO()
        output, expected = LogOutput(stream, RequestLog()), ""
        for seconds in (5.2, 5.9, 6.0, 5.0, 1_800_000_000.7):
            for each in (request, notice, from_worker):
                event = {**each, "log_time": seconds}
                output(event)
                expected += formatEventAsClassicLogText(event) or ""
        self.assertEqual(stream.getvalue(), expected)

    def test_printable(self) -> None:
        """What is printable stays as it is."""
        for text in ("", "GET /v1 200", "größer 日本 🎉", "a\\b"):
            self.assertEqual(printable(text), text)

    def test_options(self) -> None:
        """Other kinds of logs are left to twistd; a daemon without a name has twistd's."""
        self.assertIsNone(log_output({"logger": object()}, RequestLog()))
        self.assertIsNone(log_output({"syslog": True, "logfile": "x"}, RequestLog()))
        self.assertIsNone(log_output({"logfile": "-", "nodaemon": False}, RequestLog()))
        path = self.mktemp()
        for options, expected in (
            ({"logfile": path}, path),
            ({"logfile": path, "nodaemon": True}, path),
            ({"nodaemon": False}, "twistd.log"),
        ):
            output = log_output(options, RequestLog())
            assert output is not None and isinstance(output.stream, LogFile)
            self.assertEqual(output.stream.path, os.path.abspath(expected))
            output.stream.close()
            os.unlink(expected)
        foreground: Any = log_output({"nodaemon": True}, RequestLog())
        self.assertNotIsInstance(foreground.stream, LogFile)


class RotationTests(ProcessTestCase):
    """SIGUSR1, with the real process."""

    workers = 1

    async def test_daemon(self) -> None:
        """A renamed log is complete, and the new file has the lines after it, and its mode."""
        port, directory = free_port(), self.directory()
        rule = {"listenPort": port, "listenAddress": "127.0.0.1", "upstreamUrl": await self.mock()}
        path = self.write_config({"workers": self.workers, "rules": [rule]}, directory)
        pidfile, logfile = directory / "proxy.pid", directory / "proxy.log"
        options = [f"--pidfile={pidfile}", f"--logfile={logfile}"]
        start = self.twistd("-c", str(path), options=options)
        self.assertEqual((await start.ended(), start.output), (0, ""))
        pid = int(pidfile.read_text())
        self.addCleanup(kill, pid)
        before = mode(logfile)
        await self.request(port, "GET", "/v1/before")
        old = await self.holds(logfile, "GET /v1/before")
        moved = logfile.rename(directory / "proxy.log.1")
        os.kill(pid, signal.SIGUSR1)

        async def opened() -> bool:
            return logfile.exists()

        await eventually(opened)
        await self.request(port, "GET", "/v1/after")
        await self.holds(logfile, "GET /v1/after")
        self.assertEqual((moved.read_text(), mode(logfile)), (old, before))

    async def holds(self, path: Path, words: str) -> str:
        """Wait until a log has an entry, and return all of it."""

        async def found() -> bool:
            return words in path.read_text()

        await eventually(found)
        return path.read_text()

    async def test_foreground(self) -> None:
        """Without a file the signal does nothing."""
        process, (port,) = await self.serve(await self.mock())
        os.kill(process.pid, signal.SIGUSR1)
        await self.request(port, "GET", "/v1/after")
        await process.line("GET /v1/after")
        self.assertIsNone(process.status)

    async def test_json(self) -> None:
        """All entries are JSON if that is wanted, those of requests, their steps and the end among them."""
        log = {"format": "json", "level": "debug"}
        process, (port,) = await self.serve(await self.mock(), log=log)
        await self.request(port, "GET", "/v1/none?secret")
        await process.line('"event":"steps"')
        process.signal("TERM")
        await process.ended()
        entries = [json.loads(line) for line in process.output.splitlines()]
        self.assertNotIn("secret", process.output)
        (request,) = (each for each in entries if each["event"] == "request")
        self.assertEqual((request["path"], request["status"], request["rule"]), ("/v1/none", 404, str(port)))
        self.assertEqual((request["level"], request["client"]), ("info", "127.0.0.1"))
        self.assertRegex(request["time"], r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")
        (steps,) = (each for each in entries if each["event"] == "steps")
        self.assertEqual((steps["level"], steps["number"]), ("debug", request["number"]))
        drains = [each for each in entries if "stops; open: 0 requests" in each.get("message", "")]
        self.assertEqual(len(drains), self.workers)

    async def test_reload(self) -> None:
        """A reload changes format and level."""
        port, directory = free_port(), self.directory()
        rule = {"listenPort": port, "listenAddress": "127.0.0.1", "upstreamUrl": await self.mock()}
        config = {"workers": self.workers, "rules": [rule]}
        path = self.write_config({**config, "log": {"level": "warning"}}, directory)
        process = self.twistd("-c", str(path))
        await self.assert_accepts(port)
        await self.request(port, "GET", "/v1/before")
        self.write_config({**config, "log": {"format": "json"}}, directory)
        os.kill(process.pid, signal.SIGHUP)
        await process.line("was read again")

        async def asked() -> bool:
            await self.request(port, "GET", "/v1/after")
            return '"path":"/v1/after"' in process.output

        await eventually(asked)  # the workers read their commands a little later
        self.assertNotIn("/v1/before", process.output)

    async def test_no_file(self) -> None:
        """A log that cannot be opened is an error of one line."""
        path = self.write_config({"rules": [{"listenPort": free_port(), "upstreamUrl": "http://x"}]})
        missing = self.directory() / "no" / "proxy.log"
        process = self.twistd("-c", str(path), options=["-n", "--pidfile=", f"--logfile={missing}"])
        self.assertEqual(await process.ended(), 1)
        words = "the log cannot be written there: No such file or directory"
        self.assertEqual(process.output, f"{missing}: {words}\n")


class WorkersRotationTests(RotationTests):
    """SIGUSR1 with two workers, whose lines go through the first process."""

    workers = 2
