"""The service in this process: signals, reloads, ports."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, cast
from unittest.mock import patch

import msgspec
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.errors import ConfigError
from stream_proxy.request_log import RequestLog
from stream_proxy.service.configuration.types import Config, Rule
from stream_proxy.service.keys import KeySource
from stream_proxy.service.listening import Listener, any_interface, open_listeners
from stream_proxy.service.main import MainService
from stream_proxy.service.memory import settle
from stream_proxy.service.rules import ProxyService, Served
from tests.support.twistd import free_port

Handler = Callable[[int, FrameType | None], object]


class _Reactor(MemoryReactorClock):
    """A reactor that runs calls from threads and signal handlers at once."""

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        callable(*args, **kwargs)


class SignalTests(SynchronousTestCase):
    """The handlers of SIGTERM and SIGINT."""

    def start(self, delay: float) -> None:
        """Start a service; its stops and aborts are noted."""
        self.reactor = cast(Any, _Reactor())  # provides what is used here of IReactor
        self.stopped, self.handlers = list[int](), dict[int, Handler]()
        rule = Rule(listen_port=free_port(), upstream_url="http://x")
        log = RequestLog(observer=cast(Any, lambda _: None))
        self.service = MainService(self.reactor, Config(rules=[rule], drain_delay_seconds=delay), log, str)
        for listener in self.service._listeners.values():
            self.addCleanup(listener.close)
        with (
            patch("signal.getsignal", lambda number: lambda *_: self.stopped.append(number)),
            patch("signal.signal", self.handlers.__setitem__),
        ):
            self.service.startService()
            for hook in self.reactor.whenRunningHooks:
                hook[0](*hook[1], **hook[2])
        self.aborted: list[None] = []
        self.service.abort = lambda: self.aborted.append(None)  # type: ignore[method-assign]

    def signal(self, *numbers: int) -> tuple[int, int]:
        """Send signals, and return how often the service has been stopped and aborted."""
        for number in numbers:
            self.handlers[number](number, None)
        return len(self.stopped), len(self.aborted)

    def test_twice_at_once(self) -> None:
        """The reactor is stopped once, even when the second signal comes before it has begun to stop."""
        self.start(0)
        self.assertEqual(self.signal(signal.SIGTERM, signal.SIGTERM, signal.SIGINT), (1, 2))
        self.assertEqual(self.stopped, [signal.SIGTERM])

    def test_delay(self) -> None:
        """After the first signal the delay passes; connections are told of the end, new ones as well."""
        self.start(15)
        (rule,) = cast(ProxyService, self.service.serving).rules.values()
        self.assertFalse(rule.site.leaving)
        self.assertEqual((self.signal(signal.SIGTERM), self.service.status()), ((0, 0), "draining"))
        self.assertTrue(rule.site.leaving)
        self.reactor.advance(14.9)
        self.assertEqual(self.stopped, [])
        self.reactor.advance(0.2)
        self.assertEqual(self.stopped, [signal.SIGTERM])
        self.assertEqual(self.signal(signal.SIGTERM), (1, 1))

    def test_delay_ended(self) -> None:
        """A second signal ends the delay, a third the grace."""
        self.start(15)
        self.assertEqual(self.signal(signal.SIGTERM, signal.SIGINT), (1, 0))
        self.reactor.advance(20)
        self.assertEqual(self.signal(), (1, 0))
        self.assertEqual(self.signal(signal.SIGINT), (1, 1))


class _Port:
    """A port that was opened."""

    stopped = False

    def stopListening(self) -> None:
        """Remember it."""
        self.stopped = True


class _Ports(MemoryReactorClock):
    """Opens ports that accept nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.ports: list[_Port] = []

    def adoptStreamPort(self, *_: object) -> _Port:
        self.ports.append(_Port())
        return self.ports[-1]


class PlanTests(SynchronousTestCase):
    """`ProxyService.plan` and `apply`: a reload happens as a whole, or not at all."""

    def setUp(self) -> None:
        self.keys = Path(self.mktemp())
        self.keys.write_text("key\n")
        self.reactor = _Ports()
        self.plain = self.rule()
        self.guarded = self.rule(client_keys=KeySource(file=str(self.keys)))
        config = Config(rules=[self.plain, self.guarded])
        self.listeners: dict[str, Listener] = {}
        self.service = ProxyService(cast(Any, self.reactor), config, self.opened(config), log=RequestLog())
        self.service.startService()
        self.addCleanup(self.close)

    def rule(self, **more: Any) -> Rule:
        """A rule on a free port."""
        port = free_port()
        return Rule(listen_port=port, listen_address="127.0.0.1", upstream_url="http://x", **more)

    def opened(self, config: Config) -> dict[str, Listener]:
        """The listeners of a configuration, with those that are open already."""
        self.listeners |= open_listeners(config, str, self.listeners)
        return self.listeners

    def close(self) -> None:
        """Close them."""
        for listener in self.listeners.values():
            listener.close()

    def served(self) -> dict[str, Served]:
        """What is served, by endpoint."""
        return {endpoint: rule.served for endpoint, rule in self.service.rules.items()}

    def test_failure(self) -> None:
        """A rule that fails undoes those before it: a change, and a listener that is new."""
        before = self.served()
        self.keys.unlink()
        config = Config(rules=[self.plain, self.rule(), self.guarded], timeout_seconds=5)
        self.assertRaises(ConfigError, self.service.reload, config, self.opened(config))
        self.assertEqual(self.served(), before)
        self.assertEqual([port.stopped for port in self.reactor.ports], [False, False, True])

    def test_apply(self) -> None:
        """A plan changes nothing until it is applied."""
        before, new = self.served(), self.rule()
        config = Config(rules=[msgspec.structs.replace(self.plain, upstream_url="http://y"), new])
        change = self.service.plan(config, self.opened(config))
        self.assertEqual(self.served(), before)
        self.service.apply(change)
        self.assertEqual([each.rule for each in self.served().values()], config.rules)

    def test_lost_calls(self) -> None:
        """The bounds of the calls that are kept are those of the configuration that was read last."""
        config = Config(rules=[self.plain], resume_max_calls=3, resume_max_bytes=7)
        self.service.reload(config, self.opened(config))
        orphans = self.service.shared.lost.orphans
        self.assertEqual((orphans.most, orphans.most_bytes), (3, 7))

    def test_places(self) -> None:
        """A rule whose name is the port of another keeps its lost calls apart."""
        other = self.rule(name=str(self.plain.listen_port))
        config = Config(rules=[self.plain, other])
        self.service.reload(config, self.opened(config))
        places = {each.resource.place for each in self.served().values()}  # type: ignore[union-attr]
        self.assertEqual(len(places), 2)


class SettleTests(SynchronousTestCase):
    """`settle`."""

    def test_frozen(self) -> None:
        """Objects that exist are exempt from later garbage collections."""
        self.addCleanup(gc.unfreeze)
        settle()
        self.assertGreater(gc.get_freeze_count(), 1000)


class PortTests(SynchronousTestCase):
    """`open_listeners` and `any_interface`."""

    def test_no_ipv6(self) -> None:
        """Only IPv4 is listened on if no IPv6 socket can be made."""
        with patch("socket.socket", side_effect=OSError("no IPv6 here")):
            self.assertEqual(any_interface(), "")

    def test_forbidden(self) -> None:
        """The system's objection to a port is quoted, with the key that names the port."""
        config = Config(rules=[Rule(listen_port=80, listen_address="::1", upstream_url="http://x")])
        with patch("socket.socket", side_effect=PermissionError(13, "Permission denied")):
            error = self.assertRaises(ConfigError, open_listeners, config, "c: {}".format)
        self.assertEqual(str(error), "c: rules[0].listenPort: cannot listen on port 80: Permission denied")
