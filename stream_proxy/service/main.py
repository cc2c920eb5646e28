"""The process that was started: its signals, its config file, its admin port. What serves is a part of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from stream_proxy.errors import ConfigError
from stream_proxy.request_log import RequestLog
from stream_proxy.service.config import Config, load_config
from stream_proxy.service.health import AdminService, Status
from stream_proxy.service.listening import Listener, endpoint_of, open_listeners
from stream_proxy.service.rules import ProxyService, listening
from stream_proxy.service.signals import StoppableService


class Serving(Protocol):
    """What serves the rules, in this process or in others."""

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""

    def privilegedStartService(self) -> Any:
        """Begin what may need privileges."""

    def startService(self) -> Any:
        """Begin."""

    def stopService(self) -> Deferred[None]:
        """End in order."""

    def abort(self) -> None:
        """End at once."""

    def reload(self, config: Config, places: Mapping[str, Listener]) -> None:
        """Serve another configuration; `places` are all that are open."""


class MainService(StoppableService):
    """A configuration, served until a signal ends it.

    :param name: what an error calls the place of a key.
    :param path: the file that the configuration came from, and comes from again at SIGHUP.
    :raises ConfigError: something of it cannot be listened on, or is not there.
    """

    def __init__(
        self,
        reactor: Any,
        config: Config,
        log: RequestLog,
        named: Callable[[str], str],
        path: Path | None = None,
    ) -> None:
        super().__init__(reactor, handle_signals=True, hang_up=None if path is None else self.reload)
        self._log = log
        self._named = named
        self._path = path
        self._config = config
        self._draining = False
        self._places = open_listeners(config, named)
        #: The TCP ports that ever were ours: workers may still be about to close them.
        self._ours = self._ports()
        try:
            self.serving = self._serve()
        except ConfigError:
            for place in self._places.values():
                place.close()
            raise
        self._admin = self._make_admin()

    def _serve(self) -> Serving:
        if self._config.workers == 1:
            return ProxyService(self._reactor, self._config, self._places, log=self._log)
        from stream_proxy.service.workers.supervisor import WorkersService

        return WorkersService(self._reactor, self._config, self._places, log=self._log)

    def _ports(self) -> set[int]:
        return {place.port for place in self._places.values() if place.port is not None}

    def _make_admin(self) -> AdminService | None:
        admin = self._config.admin
        if admin is None:
            return None
        return AdminService(self._reactor, self._places[endpoint_of(admin)], self.status)

    def status(self) -> Status:
        """How the process is."""
        if self._draining:
            return "draining"
        return "ready" if self.serving.ready else "starting"

    def privilegedStartService(self) -> None:
        """Begin what may need privileges."""
        super().privilegedStartService()
        self.serving.privilegedStartService()

    def startService(self) -> None:
        """Begin to serve."""
        super().startService()
        self.serving.startService()
        if self._admin is not None:
            self._admin.startService()
        for rule in self._config.rules:
            self._log.info(listening(rule))

    def abort(self) -> None:
        """Wait no longer for requests under way."""
        self.serving.abort()

    def reload(self) -> None:
        """Read the config file again and do what it says; one that cannot be used changes nothing."""
        if self._draining or self._path is None:
            return
        try:
            config, warnings = load_config(self._path)
            if config.workers != self._config.workers:
                warnings.append(self._named("workers: another number takes effect at the next start"))
                config = msgspec.structs.replace(config, workers=self._config.workers)
            self._change(config)
        except ConfigError as error:
            self._log.error(f"{error}; the configuration stays as it was")
            return
        except Exception:
            self._log.bug(Failure())
            return
        for warning in warnings:
            self._log.warn(warning)
        self._log.info(f"{self._path} was read again")

    def _change(self, config: Config) -> None:
        places = open_listeners(config, self._named, self._places, self._ours)
        try:
            self.serving.reload(config, places)
        except BaseException:
            for endpoint in places.keys() - self._places.keys():
                places[endpoint].close()
            raise
        for rule in config.rules:
            if endpoint_of(rule) not in self._places:
                self._log.info(listening(rule))
        old_config, self._config, self._places = self._config, config, places
        self._ours |= self._ports()
        old_admin, admin = old_config.admin, config.admin
        if (old_admin and endpoint_of(old_admin)) != (admin and endpoint_of(admin)):
            stopping, self._admin = self._admin, self._make_admin()
            if stopping is not None:
                stopping.stopService()
            if self._admin is not None:
                self._admin.startService()

    async def _stop(self, others: Deferred[object]) -> None:
        await self.serving.stopService()
        if self._admin is not None:
            await self._admin.stopService()
        await others

    def stopService(self) -> Deferred[None]:
        """Serve no new requests, end what is under way, and be well until then."""
        self._draining = True
        return Deferred.fromCoroutine(self._stop(maybeDeferred(super().stopService)))
