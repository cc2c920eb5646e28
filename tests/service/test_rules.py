"""The service where no process is needed to see what it does."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, cast
from unittest.mock import patch

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.errors import ConfigError
from stream_proxy.request_log import RequestLog
from stream_proxy.service.config import Config, Rule
from stream_proxy.service.listening import any_interface, open_listeners
from stream_proxy.service.main import MainService
from stream_proxy.service.rules import settle
from tests.support.twistd import free_port

Handler = Callable[[int, FrameType | None], object]


class _Reactor(MemoryReactorClock):
    """Runs at once what other threads, or signal handlers, ask for."""

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        callable(*args, **kwargs)


class SignalTests(SynchronousTestCase):
    """The handlers of SIGTERM and SIGINT."""

    def test_twice_at_once(self) -> None:
        """The reactor is stopped once, even when the second signal comes before it has begun to stop."""
        reactor, stopped, handlers = _Reactor(), list[int](), dict[int, Handler]()
        config = Config(rules=[Rule(listen_port=free_port(), upstream_url="http://x")])
        log = RequestLog(observer=cast(Any, lambda _: None))
        service = MainService(reactor, config, log, str)
        for place in service._places.values():
            self.addCleanup(place.close)
        with (
            patch("signal.getsignal", lambda number: lambda *_: stopped.append(number)),
            patch("signal.signal", handlers.__setitem__),
        ):
            service.startService()
            for hook in reactor.whenRunningHooks:
                hook[0](*hook[1], **hook[2])
        aborted: list[None] = []
        service.abort = lambda: aborted.append(None)  # type: ignore[method-assign]
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            handlers[number](number, None)
        self.assertEqual((stopped, len(aborted)), ([signal.SIGTERM], 2))


class SettleTests(SynchronousTestCase):
    """`settle`."""

    def test_frozen(self) -> None:
        """What exists is not looked at again by the garbage collector."""
        self.addCleanup(gc.unfreeze)
        settle()
        self.assertGreater(gc.get_freeze_count(), 1000)


class PortTests(SynchronousTestCase):
    """`open_listeners` and `any_interface`."""

    def test_no_ipv6(self) -> None:
        """Where no IPv6 socket can be made, IPv4 alone is listened on."""
        with patch("socket.socket", side_effect=OSError("no IPv6 here")):
            self.assertEqual(any_interface(), "")

    def test_forbidden(self) -> None:
        """Whatever the system has against a port is said, with the place that named it."""
        config = Config(rules=[Rule(listen_port=80, listen_address="::1", upstream_url="http://x")])
        with patch("socket.socket", side_effect=PermissionError(13, "Permission denied")):
            error = self.assertRaises(ConfigError, open_listeners, config, "c: {}".format)
        self.assertEqual(str(error), "c: rules[0].listenPort: cannot listen on port 80: Permission denied")
