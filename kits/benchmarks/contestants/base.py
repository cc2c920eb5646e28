"""Contestants: their requirements, how they are started, and the requests they understand."""

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

#: The name that stands for no proxy at all.
DIRECT = "direct"
HERE = Path(__file__).parent
ROOT = HERE.parent.parent.parent
SCRIPTS = Path(sysconfig.get_path("scripts"))


@dataclass(frozen=True)
class Upstreams:
    """The addresses of the provider.

    :ivar authority: a file with the certificate of the TLS address's authority.
    """

    tcp_port: int
    tls_port: int
    authority: Path

    def url(self, leg: str) -> str:
        """Return the base URL for a leg."""
        return f"https://localhost:{self.tls_port}" if leg == "tls" else f"http://127.0.0.1:{self.tcp_port}"


@dataclass(frozen=True)
class Start:
    """The command that starts a contestant.

    :ivar ports: the ports on which it will listen, by leg.
    :ivar seconds: the time that it may take.
    """

    command: list[str]
    ports: Mapping[str, int]
    env: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 20


class Contestant:
    """A contestant. The base class stands for no proxy at all: the client asks the upstream itself.

    :ivar only: the workloads that it supports; ``None`` for all.
    :ivar paced_streams: the number of paced streams that it can serve at a time, if limited.
    :ivar warm: the most requests in its warm-up, if it is slow.
    """

    only: frozenset[str] | None = None
    paced_streams: int | None = None
    warm: int | None = None

    def __init__(self, name: str) -> None:
        self.name = name

    def missing(self) -> str | None:
        """Return what has to be installed first, or nothing."""
        return None

    def start(self, upstreams: Upstreams, folder: Path) -> Start | None:
        """Write its config into `folder` and return the command that starts it, if any."""
        return None

    def can(self, workload: Workload) -> bool:
        """Report whether it supports a workload."""
        return workload.leg == "tcp"

    def request(self, workload: Workload, target: str, upstreams: Upstreams) -> Request:
        """Return the request of a workload in the form that it expects."""
        return request_of(workload, target, workload.body)


class Started(Contestant):
    """A contestant that runs as a process."""

    def can(self, workload: Workload) -> bool:
        return self.only is None or workload.name in self.only


def free_ports() -> dict[str, int]:
    """Return a port to listen on for each leg."""
    tcp, tls = processes.free_ports(2)
    return {"tcp": tcp, "tls": tls}


class AiohttpProxy(Started):
    """The hundred lines of aiohttp that everything is compared with.

    :param tuned: on uvloop and with orjson.
    """

    def __init__(self, name: str, *, tuned: bool = False) -> None:
        super().__init__(name)
        self._tuned = tuned

    def missing(self) -> str | None:
        needed = ("aiohttp", "orjson", "uvloop") if self._tuned else ("aiohttp",)
        return ", ".join(name for name in needed if not importlib.util.find_spec(name)) or None

    def start(self, upstreams: Upstreams, folder: Path) -> Start:
        ports = free_ports()
        rules = [f"{port}={upstreams.url(leg)}" for leg, port in ports.items()]
        command = [
            sys.executable,
            str(HERE / "aiohttp_proxy.py"),
            *(["--tuned"] if self._tuned else []),
            *rules,
        ]
        return Start(command, ports, {"SSL_CERT_FILE": str(upstreams.authority)})


class Product(Started):
    """This product.

    :param reactor: the name of its reactor.
    :param admin: it has an admin port, so that it counts its metrics, which nobody fetches.
    :param checkout: the folder of its source; ``None`` for the installed one.
    """

    def __init__(
        self,
        name: str,
        *,
        reactor: str = "epoll",
        workers: int = 1,
        log: str = "warn",
        admin: bool = False,
        checkout: str | None = None,
    ) -> None:
        super().__init__(name)
        self._reactor = reactor
        self._workers = workers
        self._log = log
        self._admin = admin
        self._checkout = checkout

    def of(self, name: str, checkout: str) -> Product:
        """Return the same product from another checkout."""
        return Product(
            name,
            reactor=self._reactor,
            workers=self._workers,
            log=self._log,
            admin=self._admin,
            checkout=checkout,
        )

    def _source(self) -> Path:
        return Path(self._checkout) if self._checkout else ROOT

    def missing(self) -> str | None:
        source = self._source()
        if not (source / "stream_proxy").is_dir():
            return f"a checkout in {source}"
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
        if self._admin:
            config["admin"] = {"listenPort": processes.free_ports(3)[-1]}
        path = folder / "config.json"
        path.write_text(json.dumps(config))
        command = [str(SCRIPTS / "twistd"), "-n", "--pidfile=", "--reactor", self._reactor]
        env = {"SSL_CERT_FILE": str(upstreams.authority), "LOG_LEVEL": self._log}
        env["PYTHONPATH"] = str(self._source())
        return Start([*command, "openai-stream-proxy", "--config", str(path)], ports, env)
