"""Main service of the process: signals, config file, reload, admin port.

The rules are served by a part of it, in this process or in workers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from twisted.python.failure import Failure

from stream_proxy.errors import ConfigError
from stream_proxy.observe.rows import Row
from stream_proxy.request_log import RequestLog
from stream_proxy.service.admin.access import AdminAccess
from stream_proxy.service.admin.capture.routes import serve_capture
from stream_proxy.service.admin.health import Status
from stream_proxy.service.admin.service import AdminService
from stream_proxy.service.configuration.loading import load_config
from stream_proxy.service.configuration.types import Admin, Config
from stream_proxy.service.control.signals import StoppableService
from stream_proxy.service.listening import endpoint_of, open_listeners
from stream_proxy.service.metrics.gathering import Gathering
from stream_proxy.service.naming import listening, rule_name
from stream_proxy.service.rules import ProxyService
from stream_proxy.service.workers.supervisor import WorkersService
from stream_proxy.transport.reactor import IReactor

if TYPE_CHECKING:
    from stream_proxy.service.metrics.route import MetricsRoute


class MainService(StoppableService):
    """A configuration, served until a signal ends it.

    :param named: returns the name that errors give to a key of the config.
    :param path: the file that the configuration was read from, and is read from again at SIGHUP.
    :raises ConfigError: a listener cannot be opened, or a rule needs something that does not exist.
    """

    def __init__(
        self,
        reactor: IReactor,
        config: Config,
        log: RequestLog,
        named: Callable[[str], str],
        path: Path | None = None,
    ) -> None:
        super().__init__(reactor, hang_up=None if path is None else self.reload)
        self._log = log
        self._named = named
        self._path = path
        self._config = config
        #: When the file was read again, and what was wrong with it.
        self._reloaded: tuple[float, str | None] | None = None
        _configure(log, config)
        self._listeners = open_listeners(config, named)
        #: All TCP ports that we have listened on: workers may still be about to close them.
        self._ours = self._ports()
        self._gathering = Gathering(reactor)
        self._metrics: MetricsRoute | None = None
        try:
            #: The rules, served by this process or by workers.
            self.serving = self._serve()
        except ConfigError:
            for listener in self._listeners.values():
                listener.close()
            raise
        self._admin = self._make_admin()

    def _serve(self) -> ProxyService | WorkersService:
        if self._config.workers > 1:
            return WorkersService(
                self._reactor, self._config, self._listeners, log=self._log, gathering=self._gathering
            )
        service = ProxyService(self._reactor, self._config, self._listeners, log=self._log)
        self._gathering.serves(service)
        return service

    def _ports(self) -> set[int]:
        return {each.port for each in self._listeners.values() if each.port is not None}

    def _make_admin(self) -> AdminService | None:
        admin = self._config.admin
        if admin is None:
            return None
        listener = self._listeners[endpoint_of(admin)]
        service = AdminService(
            self._reactor,
            listener,
            AdminAccess(_keys(admin), admin.hosts, local=listener.local, port=listener.port),
            status=self.status,
            source=self.serving.source,
            state=self._state,
            log=self._log,
        )
        serve_capture(service.resource, self.serving.captures)
        self._serve_metrics(service, admin, local=listener.local)
        return service

    def _serve_metrics(self, service: AdminService, admin: Admin, *, local: bool) -> None:
        # Imported late: it takes 0.1 s, and only where there is an admin port.
        from stream_proxy.service.metrics.route import MetricsRoute

        if self._metrics is None:
            self._metrics = MetricsRoute(self._reactor, self._gathering, self._log)
        self._metrics.serve(service.resource, open_to_all=admin.open_metrics or local)

    def status(self) -> Status:
        """Return the state of the process, for the admin port."""
        if self.draining:
            return "draining"
        return "ready" if self.serving.ready else "starting"

    @property
    def is_ready(self) -> bool:
        """Whether requests are accepted."""
        return bool(self.running) and self.serving.ready

    def privilegedStartService(self) -> None:
        """Start what may need privileges."""
        super().privilegedStartService()
        self.serving.privilegedStartService()

    def startService(self) -> None:
        """Start everything."""
        super().startService()
        self.serving.startService()
        self._gather()
        if self._admin is not None:
            self._admin.startService()
        for rule in self._config.rules:
            self._log.info(listening(rule))

    def _state(self) -> Row:
        """Return what the page says of the service."""
        state: Row = {"status": self.status()}
        if isinstance(self.serving, WorkersService):
            state["workers"] = dict(zip(("running", "wanted"), self.serving.processes, strict=True))
        if self._reloaded is not None:
            state["reload"] = dict(zip(("time", "problem"), self._reloaded, strict=True))
        return state

    def _gather(self) -> None:
        """Gather the metrics that the configuration says."""
        found = [(rule_name(rule), self._listeners[endpoint_of(rule)].expires) for rule in self._config.rules]
        self._gathering.apply(self._config, {name: at for name, at in found if at is not None})

    def leave(self) -> float:
        """Let clients learn that the process stops, and return for how many seconds the ports stay open."""
        seconds = self._config.drain_delay_seconds
        if seconds:
            self.serving.leave()
            self._log.info(f"stopping: /readyz is 503 now, and the ports close in {seconds:g} s")
        return seconds

    def abort(self) -> None:
        """Abort the requests that are running."""
        self.serving.abort()

    def reload(self) -> None:
        """Serve what the config file says now; a file that cannot be used changes nothing."""
        if self.draining or self._path is None:
            return
        try:
            config, warnings = load_config(self._path)
            if config.workers != self._config.workers:
                warnings.append(self._named("workers: another number takes effect at the next start"))
                config = msgspec.structs.replace(config, workers=self._config.workers)
            self._change(config)
        except ConfigError as error:
            *others, last = str(error).splitlines()
            for line in others:
                self._log.error(line)
            self._log.error(f"{last}; the configuration stays as it was")
            self._read_again(str(error))
            return
        except Exception:
            self._log.bug(Failure())
            self._read_again("a bug of the proxy; its log has the traceback")
            return
        self._read_again(None)
        for warning in warnings:
            self._log.warn(warning)
        self._log.info(f"{self._path} was read again")

    def _read_again(self, problem: str | None) -> None:
        self._reloaded = self._reactor.seconds(), problem
        self._gathering.reloaded(succeeded=problem is None)

    def _change(self, config: Config) -> None:
        listeners = open_listeners(config, self._named, self._listeners, self._ours)
        before = self._config
        _configure(self._log, config)  # the level goes to the workers, too
        try:
            self.serving.reload(config, listeners)
        except BaseException:
            _configure(self._log, before)
            for endpoint in listeners.keys() - self._listeners.keys():
                listeners[endpoint].close()
            raise
        for rule in config.rules:
            if endpoint_of(rule) not in self._listeners:
                self._log.info(listening(rule))
        old_admin, admin = self._config.admin, config.admin
        self._config, self._listeners = config, listeners
        self._ours |= self._ports()
        self._gather()
        if (old_admin and endpoint_of(old_admin)) != (admin and endpoint_of(admin)):
            stopping, self._admin = self._admin, self._make_admin()
            if stopping is not None:
                stopping.stopService()
            if self._admin is not None:
                self._admin.startService()
        elif admin is not None and self._admin is not None:
            self._admin.change_access(_keys(admin), admin.hosts)
            self._serve_metrics(self._admin, admin, local=listeners[endpoint_of(admin)].local)

    async def finish(self) -> None:
        """Stop listening and wait for running requests; meanwhile the admin port goes on."""
        await self.serving.stopService()
        if self._admin is not None:
            await self._admin.stopService()
        self._gathering.stop()


def _keys(admin: Admin) -> list[bytes]:
    try:
        return [] if admin.key is None else admin.key.read()
    except ValueError as error:  # the configuration was valid, but the file may have changed since
        raise ConfigError(f"admin.key: {error}") from None


def _configure(log: RequestLog, config: Config) -> None:
    log.configure(config.log.level, as_json=config.log.format == "json")
