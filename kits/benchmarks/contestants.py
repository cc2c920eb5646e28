"""Who is measured: what each needs, how it is started, and which requests it understands."""

from __future__ import annotations

import importlib.util
import json
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kits import processes
from kits.benchmarks.workloads import Request, Workload, request_of

HERE = Path(__file__).parent
SCRIPTS = Path(sysconfig.get_path("scripts"))


@dataclass(frozen=True)
class Upstreams:
    """Where the provider listens.

    :ivar authority: a file with the certificate of who signed the TLS one's.
    """

    tcp_port: int
    tls_port: int
    authority: Path

    def url(self, leg: str) -> str:
        """Its base URL on a leg."""
        return f"https://localhost:{self.tls_port}" if leg == "tls" else f"http://127.0.0.1:{self.tcp_port}"


@dataclass(frozen=True)
class Start:
    """How to start a contestant.

    :ivar ports: where it will listen, by leg.
    :ivar seconds: how long that may take.
    """

    command: list[str]
    ports: Mapping[str, int]
    env: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 20


class Contestant:
    """One of those who are measured. This one is nobody: the client asks the upstream itself.

    :ivar only: the workloads that it can do; None for all.
    :ivar paced_streams: how many paced streams it can serve at a time, if fewer than there should be.
    """

    only: frozenset[str] | None = None
    paced_streams: int | None = None

    def __init__(self, name: str) -> None:
        self.name = name

    def missing(self) -> str | None:
        """What has to be installed first, if anything."""
        return None

    def start(self, upstreams: Upstreams, folder: Path) -> Start | None:
        """Write what it needs into its folder, and say how to start it; None if there is nothing to start."""
        return None

    def can(self, workload: Workload) -> bool:
        """Whether it can do this at all."""
        return workload.leg == "tcp"

    def request(self, workload: Workload, target: str, upstreams: Upstreams) -> Request:
        """A workload's request in its words."""
        return request_of(workload, target, workload.body)


class Started(Contestant):
    """One that is a process."""

    def can(self, workload: Workload) -> bool:
        return self.only is None or workload.name in self.only


def free_ports() -> dict[str, int]:
    """A port to listen on for each leg."""
    tcp, tls = processes.free_ports(2)
    return {"tcp": tcp, "tls": tls}


class AiohttpProxy(Started):
    """The hundred lines that everything is compared with."""

    def missing(self) -> str | None:
        return None if importlib.util.find_spec("aiohttp") else "aiohttp"

    def start(self, upstreams: Upstreams, folder: Path) -> Start:
        ports = free_ports()
        rules = [f"{port}={upstreams.url(leg)}" for leg, port in ports.items()]
        command = [sys.executable, str(HERE / "aiohttp_proxy.py"), *rules]
        return Start(command, ports, {"SSL_CERT_FILE": str(upstreams.authority)})


class Product(Started):
    """This product.

    :param reactor: the name of its reactor.
    :param checkout: where its source is; None for what is installed.
    """

    def __init__(
        self,
        name: str,
        *,
        reactor: str = "epoll",
        workers: int = 1,
        log: str = "warn",
        checkout: str | None = None,
    ) -> None:
        super().__init__(name)
        self._reactor = reactor
        self._workers = workers
        self._log = log
        self._checkout = checkout

    def of(self, name: str, checkout: str) -> Product:
        """The same out of another checkout."""
        return Product(name, reactor=self._reactor, workers=self._workers, log=self._log, checkout=checkout)

    def _source(self) -> Path:
        return Path(self._checkout) if self._checkout else HERE.parent.parent

    def missing(self) -> str | None:
        source = self._source()
        if not (source / "stream_proxy").is_dir():
            return f"a checkout in {source}"
        if self._workers > 1 and "workers" not in (source / "stream_proxy" / "config.py").read_text():
            return "a version that knows workers"
        if self._reactor == "uvloop":
            if not (source / "twisted" / "plugins" / "stream_proxy_reactor.py").exists():
                return "a version with the uvloop reactor"
            return None if importlib.util.find_spec("uvloop") else "uvloop"
        return None

    def start(self, upstreams: Upstreams, folder: Path) -> Start:
        ports = free_ports()
        rules = [{"listenPort": port, "upstreamUrl": upstreams.url(leg)} for leg, port in ports.items()]
        config: dict[str, object] = {"rules": rules}
        if self._workers > 1:
            config["workers"] = self._workers
        path = folder / "config.json"
        path.write_text(json.dumps(config))
        command = [str(SCRIPTS / "twistd"), "-n", "--pidfile=", "--reactor", self._reactor]
        env = {"SSL_CERT_FILE": str(upstreams.authority), "LOG_LEVEL": self._log}
        env["PYTHONPATH"] = str(self._source())
        return Start([*command, "openai-stream-proxy", "--config", str(path)], ports, env)
