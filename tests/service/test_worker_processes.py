"""The supervisor and its messages, without processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Mapping
from typing import Any, cast
from unittest import mock

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, formatEvent, formatEventAsClassicLogText
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.errors import ConfigError
from stream_proxy.request_log import RequestLog
from stream_proxy.service.configuration.types import Config, Rule
from stream_proxy.service.listening import Listener, endpoint_of
from stream_proxy.service.workers import child, slot, supervisor
from stream_proxy.service.workers.messages import (
    COMMANDS,
    PARENTS_SIGNALS,
    RECORDS,
    Abort,
    Command,
    CommandReceiver,
    CommandSender,
    Serve,
    Stop,
    packed,
)
from stream_proxy.service.workers.process import WorkerProcess
from stream_proxy.service.workers.supervisor import WorkersService

CONFIG = Config(
    workers=1,
    rules=[Rule(listen_port=1, upstream_url="http://x", include_usage="never")],
    timeout_seconds=float("inf"),
    shutdown_grace_seconds=7,
)
READY = b'["ready"]\n'


class _Transport:
    """The transport of a process that does not exist."""

    pid = 42

    def __init__(self, commands: socket.socket | None = None) -> None:
        self.commands = commands
        self.descriptors: list[int] = []
        self.signals: list[str] = []
        self.paused = False
        self.dead = False

    def sent(self) -> list[Command]:
        """Return the commands that came since the last call."""
        assert self.commands is not None
        self.commands.setblocking(False)
        found: list[Command] = []

        def command(one: Command, descriptors: list[int]) -> None:
            found.append(one)
            self.descriptors += descriptors

        receiver = CommandReceiver(command, lambda: None)
        with contextlib.suppress(BlockingIOError):
            while True:
                data, descriptors, _, _ = socket.recv_fds(self.commands, 65_536, 100)
                for descriptor in descriptors:
                    receiver.fileDescriptorReceived(descriptor)
                receiver.dataReceived(data)
                if not data:
                    break
        return found

    def close(self) -> None:
        """Close everything that was received."""
        if self.commands is not None:
            self.commands.close()
        for descriptor in self.descriptors:
            os.close(descriptor)

    def signalProcess(self, name: str) -> None:
        if self.dead:
            raise ProcessExitedAlready
        self.signals.append(name)

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False


class _Reactor(Clock):
    """A clock that pretends to start processes."""

    def __init__(self) -> None:
        super().__init__()
        #: The processes that were started.
        self.spawned: list[tuple[Any, _Transport]] = []
        #: Why no process can be started.
        self.failure: OSError | None = None
        self.blocked: set[int] = set()

    def callWhenRunning(self, call: Any, *args: Any) -> None:
        call(*args)

    def spawnProcess(
        self, protocol: ProcessProtocol, *args: Any, childFDs: dict[int, Any], **kwargs: Any
    ) -> None:
        if self.failure is not None:
            raise self.failure
        self.blocked = set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        transport: Any = _Transport(socket.socket(fileno=os.dup(childFDs[COMMANDS])))
        self.spawned.append((protocol, transport))
        protocol.makeConnection(transport)


def end(process: tuple[WorkerProcess, _Transport], number: int | None = signal.SIGKILL) -> None:
    """End a process, by a signal or normally."""
    protocol, transport = process
    transport.dead = True
    reason = Failure(ProcessDone(0) if number is None else ProcessTerminated(None, number, number))
    protocol.processExited(reason)
    protocol.processEnded(reason)


class CommandTests(SynchronousTestCase):
    """Commands."""

    def test_adapter(self) -> None:
        """An adapter's rule arrives unchanged."""
        config = Config(
            workers=2,
            rules=[
                Rule(
                    listen_port=2, upstream_url="http://x/{{model}}", adapter=AdapterConfig(request={"q": []})
                ),
                Rule(
                    listen_port=3, upstream_url="http://x", adapter=AdapterConfig(events=("a",), content="b")
                ),
            ],
        )
        commands: list[tuple[Command, list[int]]] = []
        receiver = CommandReceiver(lambda *command: commands.append(command), lambda: None)
        for byte in packed(Serve(config, (), "info")) + packed(Stop()):
            receiver.dataReceived(bytes([byte]))
        self.assertEqual(commands, [(Serve(config, (), "info"), []), (Stop(), [])])


class DescriptorTests(SynchronousTestCase):
    """Descriptors that are sent to a worker."""

    def test_many(self) -> None:
        """Descriptors too many for one message arrive in order, before the command."""
        ours, theirs = socket.socketpair()
        with ours, theirs, open(os.devnull) as nothing:
            config = Config(rules=[Rule(listen_port=1, upstream_url="http://x")])
            command = Serve(config, tuple(map(str, range(450))), "info")
            CommandSender(ours).send(command, [nothing.fileno()] * 450)
            got: list[tuple[Command, list[int]]] = []
            receiver = CommandReceiver(lambda *each: got.append(each), lambda: None)
            while not got:
                data, descriptors, _, _ = socket.recv_fds(theirs, 65_536, 500)
                for descriptor in descriptors:
                    receiver.fileDescriptorReceived(descriptor)
                receiver.dataReceived(data)
            ((received, taken),) = got
            for descriptor in taken:
                os.close(descriptor)
        self.assertEqual((received, len(taken)), (command, 450))


class WorkerTests(SynchronousTestCase):
    """A worker and its processes, one after the other."""

    def setUp(self) -> None:
        self.reactor = _Reactor()
        self.logged: list[str] = []
        log = RequestLog(observer=cast(Any, self.log))
        self.service = WorkersService(cast(Any, self.reactor), CONFIG, self.listeners(CONFIG), log=log)
        self.service.startService()
        self.addCleanup(self.close)

    def listeners(self, config: Config) -> dict[str, Listener]:
        """Return listeners for `config`."""
        listeners = {}
        for rule in config.rules:
            server = socket.socket()
            self.addCleanup(server.close)
            listeners[endpoint_of(rule)] = Listener(endpoint_of(rule), [server])
        return listeners

    def close(self) -> None:
        """Close all connections."""
        for each in self.service._slots:
            if each._commands is not None:
                each._commands.close()
        for _, transport in self.reactor.spawned:
            transport.close()

    def log(self, event: LogEvent) -> None:
        """Record a log entry."""
        self.logged.append(formatEvent(event))

    @property
    def last(self) -> tuple[WorkerProcess, _Transport]:
        """The process that was started last."""
        return self.reactor.spawned[-1]

    def started_after(self, seconds: float) -> None:
        """Check that a process is started then, and not before."""
        count = len(self.reactor.spawned)
        self.reactor.advance(seconds - 0.01)
        self.assertEqual(len(self.reactor.spawned), count)
        self.reactor.advance(0.02)
        self.assertEqual(len(self.reactor.spawned), count + 1)

    def test_start(self) -> None:
        """A process gets its configuration, and starts with the parent's signals blocked."""
        (endpoint,) = self.service._listeners
        self.assertEqual(self.last[1].sent(), [Serve(CONFIG, (endpoint,), "info")])
        self.assertEqual(len(self.last[1].descriptors), 1)
        self.assertEqual(self.reactor.blocked & PARENTS_SIGNALS, PARENTS_SIGNALS)
        self.assertFalse(signal.pthread_sigmask(signal.SIG_BLOCK, ()) & PARENTS_SIGNALS)

    def test_reload(self) -> None:
        """A running process gets only the new sockets; its replacement gets all."""
        (first,) = CONFIG.rules
        second = Rule(listen_port=2, upstream_url="http://y")
        self.last[1].sent()
        config = Config(workers=1, rules=[first, second])
        listeners = {**self.service._listeners, **self.listeners(Config(rules=[second]))}
        self.service.reload(config, listeners)
        old, new = endpoint_of(first), endpoint_of(second)
        self.assertEqual(self.last[1].sent(), [Serve(config, (new,), "info")])
        end(self.last)
        self.reactor.advance(1)
        self.assertEqual(self.last[1].sent(), [Serve(config, (old, new), "info")])
        self.service.reload(Config(workers=1, rules=[second]), {new: listeners[new]})
        self.assertEqual(self.last[1].sent(), [Serve(Config(workers=1, rules=[second]), (), "info")])
        self.assertEqual([listeners[each].sockets[0].fileno() < 0 for each in (old, new)], [True, False])

    def test_shares(self) -> None:
        """Limits on connections are divided between the workers."""
        rule = Rule(listen_port=1, upstream_url="http://x", max_connections=3)
        config = Config(workers=2, rules=[rule], max_connections=101, max_upstream_waiting=0)
        shared = supervisor._share(config)
        self.assertEqual((shared.rules[0].max_connections, shared.max_connections), (2, 51))
        self.assertEqual((shared.rules[0].max_upstream_waiting, shared.max_upstream_waiting), (None, 0))

    def test_reads_nothing(self) -> None:
        """A process that no longer reads its commands is killed."""
        for _ in range(10_000):
            self.service.reload(CONFIG, self.service._listeners)
            if self.last[1].signals:
                break
        self.assertEqual(self.last[1].signals, ["KILL"])

    def test_replaced_at_once(self) -> None:
        """A process that was ready is replaced without delay, every time."""
        for count in range(1, 5):
            self.last[0].childDataReceived(RECORDS, READY)
            end(self.last)
            self.assertEqual(len(self.reactor.spawned), count + 1)
        expected = "worker 1 of 1 (process 42) was ended by signal 9; another process takes its place"
        self.assertEqual(self.logged[:2], ["worker 1 of 1 is process 42", expected])

    def test_dies_at_start(self) -> None:
        """A process that dies before it is ready is replaced more and more slowly."""
        for delay in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0):
            end(self.last)
            self.started_after(delay)
        self.last[0].childDataReceived(RECORDS, READY)
        end(self.last)
        end(self.last)
        self.started_after(0.25)

    def test_cannot_be_started(self) -> None:
        """A process that the system refuses is tried again."""
        self.reactor.failure = OSError(11, "Resource temporarily unavailable")
        self.last[0].childDataReceived(RECORDS, READY)
        end(self.last)
        self.reactor.failure = None
        self.started_after(0.25)
        self.assertIn("worker 1 of 1 cannot be started: [Errno 11]", self.logged[-1])

    def test_leave(self) -> None:
        """Workers learn that the ports will close, those that replace them as well; the sockets stay open."""
        (endpoint,) = self.service._listeners
        self.last[1].sent()
        self.service.leave()
        self.assertEqual(self.last[1].sent(), [Serve(CONFIG, (), "info", leaving=True)])
        self.last[0].childDataReceived(RECORDS, READY)
        end(self.last)
        self.assertEqual(self.last[1].sent(), [Serve(CONFIG, (endpoint,), "info", leaving=True)])
        self.assertEqual(len(self.last[1].descriptors), 1)

    def test_stop(self) -> None:
        """Stopping waits for the process, and starts no other."""
        stopped = self.service.stopService()
        self.assertEqual(self.last[1].sent()[1:], [Stop()])
        self.assertNoResult(stopped)
        end(self.last, None)
        self.successResultOf(stopped)
        self.assertEqual((len(self.reactor.spawned), self.reactor.getDelayedCalls()), (1, []))

    def test_stop_between(self) -> None:
        """Stopping does not wait if no process runs."""
        end(self.last)
        self.successResultOf(self.service.stopService())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_killed(self) -> None:
        """A process that does not stop in time is killed."""
        self.service.stopService()
        self.reactor.advance(11.9)
        self.assertEqual(self.last[1].signals, [])
        self.reactor.advance(0.2)
        self.assertEqual(self.last[1].signals, ["KILL"])

    def test_abort(self) -> None:
        """A second signal shortens the time to stop."""
        self.service.stopService()
        self.service.abort()
        self.assertEqual(self.last[1].sent()[1:], [Stop(), Abort()])
        self.reactor.advance(5.1)
        self.assertEqual(self.last[1].signals, ["KILL"])
        self.last[1].dead = True
        self.last[0].kill()


class FailedReloadTests(SynchronousTestCase):
    """A worker that could not do what a reload asked for."""

    def test_sockets(self) -> None:
        """The next reload finds the sockets that came with the one that failed."""
        seen: list[set[str]] = []

        class Service:
            """Service whose first reload fails."""

            def reload(self, config: Config, listeners: Mapping[str, Listener]) -> None:
                seen.append(set(listeners))
                if len(seen) == 1:
                    raise ConfigError("no key")

        worker: Any = child.Worker.__new__(child.Worker)
        worker._service, worker._unused = Service(), {}
        with mock.patch.object(child, "Logger"):
            for listeners in ({"tcp:2": Listener("tcp:2", [])}, {}, {}):
                worker._serve(Serve(CONFIG, tuple(listeners), "info"), listeners)
        self.assertEqual(seen, [{"tcp:2"}, {"tcp:2"}, set()])


class LogTests(SynchronousTestCase):
    """Records and output of a process, on their way to the log."""

    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        self.ready: list[WorkerProcess] = []
        self.reactor = Clock()
        self.transport: Any = _Transport()
        self.process = WorkerProcess(
            self.reactor,
            "worker 1 of 1",
            ready=self.ready.append,
            ended=lambda *_: None,
            observer=cast(Any, self.events.append),
        )
        self.process.makeConnection(self.transport)

    def test_events(self) -> None:
        """An event keeps its time, level, system and text."""
        written: list[bytes] = []

        def write(descriptor: int, data: bytes) -> int:
            """Write only a few bytes at once."""
            written.append(data[:50])
            return len(data[:50])

        self.patch(os, "write", write)
        observe = child._Observer()
        original = {"log_time": 5.0, "log_namespace": "n", "log_level": LogLevel.warn, "log_format": "{a}\nü"}
        for more in (
            {},
            {"log_system": "s,1"},
            {"log_failure": Failure(ValueError("x"))},
            {"log_format": "{line}", "line": "{b}\nready"},
            {"log_format": "{line}", "line": "ready", "log_failure": Failure(ValueError("x"))},
        ):
            event = {**original, "a": "{}", **more}
            observe(event)
            self.process.childDataReceived(RECORDS, b"".join(written))
            written.clear()
            self.assertEqual(
                formatEventAsClassicLogText(self.events.pop()), formatEventAsClassicLogText(event)
            )
        observe({"log_time": 5.0})
        self.assertEqual(written, [])

    def test_nobody_reads(self) -> None:
        """A worker whose parent is gone discards its log."""

        def broken(descriptor: int, data: bytes) -> int:
            raise BrokenPipeError

        self.patch(os, "write", broken)
        child._Observer()({"log_time": 5.0, "log_format": "text"})

    def test_split(self) -> None:
        """Records may come in pieces, or several at once; one that is cut off by the end is dropped."""
        line = b'["line",1.0,"info","n",null,"text"]\n'
        for piece in (line[:9], line[9:] + line + line[:5], line[5:] + READY, line[:-2]):
            self.process.childDataReceived(RECORDS, piece)
        end((self.process, self.transport))
        self.assertEqual([event["line"] for event in self.events], ["text"] * 3)
        self.assertEqual((self.ready, self.process.ready), ([self.process], True))

    def test_much(self) -> None:
        """A worker with much to tell does not wait for its parent: a full read is followed by no pause."""
        line = b'["line",1.0,"info","n",null,"' + b"x" * 16_000 + b'"]\n'
        for data, paused in (
            (line[:8192], False),
            (line[8192:], False),
            (line[:100], True),
        ):
            self.process.childDataReceived(RECORDS, data)
            self.assertEqual(self.transport.paused, paused)
        self.reactor.advance(1)
        self.assertFalse(self.transport.paused)

    def test_stray(self) -> None:
        """Output that is not a record, such as that of a Python that cannot start, is logged as an error."""
        self.process.childDataReceived(2, b"No module named \xff\nand")
        self.process.childDataReceived(RECORDS, b"no record\n")
        end((self.process, self.transport))
        said = "worker 1 of 1 (process 42) said: "
        self.assertEqual(
            [(event["log_level"], event["line"]) for event in self.events],
            [
                (LogLevel.error, f"{said}No module named \ufffd"),
                (LogLevel.error, f"{said}no record"),
                (LogLevel.error, f"{said}and"),
            ],
        )

    def test_pauses(self) -> None:
        """Each read is followed by a pause, but not after the exit, whose processing would be delayed."""
        self.process.childDataReceived(RECORDS, READY)
        self.assertTrue(self.transport.paused)
        self.reactor.advance(0.03)
        self.assertFalse(self.transport.paused)
        self.process.childDataReceived(RECORDS, READY)
        self.process.processExited(Failure(ProcessDone(0)))
        self.assertFalse(self.transport.paused)
        self.process.childDataReceived(RECORDS, READY)
        self.assertFalse(self.transport.paused)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class ReactorTests(SynchronousTestCase):
    """Reactors that workers run on."""

    def test_installer(self) -> None:
        """A worker installs the reactor of its parent, and of one derived from that the original."""
        from twisted.internet import selectreactor

        class Derived(selectreactor.SelectReactor):
            """A reactor whose module installs none."""

        for kind in (selectreactor.SelectReactor, Derived):
            reactor = kind.__new__(kind)
            self.assertEqual(slot._installer(reactor), "twisted.internet.selectreactor")
