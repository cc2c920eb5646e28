"""Alternatives of other makers: a general relay, a debugging proxy, and two gateways for models."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from kits.benchmarks.contestants.base import HERE, Start, Started, Upstreams, free_ports
from kits.benchmarks.workloads import (
    KEY,
    PACED_EVENTS,
    PACED_RATE,
    QUICK_PACED_EVENTS,
    Request,
    Workload,
    request_of,
)

#: The folder in which `make bench BENCH_FULL=1` installs those with dependencies of their own.
OTHERS = Path(sys.prefix) / "others"


class Nginx(Started):
    """A general relay in C, which does not aggregate streams."""

    def _program(self) -> str | None:
        return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")

    def missing(self) -> str | None:
        return None if self._program() else "nginx"

    def start(self, upstreams: Upstreams, folder: Path) -> Start:
        ports = free_ports()
        config = (HERE / "nginx.conf").read_text()
        values = {
            "folder": folder,
            "tcp_port": ports["tcp"],
            "tls_port": ports["tls"],
            "tcp_upstream": upstreams.tcp_port,
            "tls_upstream": upstreams.tls_port,
            "authority": upstreams.authority,
        }
        for name, value in values.items():
            config = config.replace(f"@{name}@", str(value))
        path = folder / "nginx.conf"
        path.write_text(config)
        command = [str(self._program()), "-p", str(folder), "-e", "stderr", "-c", str(path)]
        return Start(command, ports)


class Mitmproxy(Started):
    """The debugging proxy in reverse mode, configured to stream bodies."""

    def _program(self) -> str | None:
        own = OTHERS / "mitmproxy" / "bin" / "mitmdump"
        return str(own) if own.exists() else shutil.which("mitmdump")

    def missing(self) -> str | None:
        return None if self._program() else "mitmproxy"

    def start(self, upstreams: Upstreams, folder: Path) -> Start:
        ports = free_ports()
        modes = []
        for leg, port in ports.items():
            modes += ["--mode", f"reverse:{upstreams.url(leg)}@127.0.0.1:{port}"]
        options = [
            f"confdir={folder}",
            "stream_large_bodies=1",
            f"ssl_verify_upstream_trusted_ca={upstreams.authority}",
        ]
        sets = [word for option in options for word in ("--set", option)]
        return Start([str(self._program()), "--quiet", *modes, *sets], ports)


class LiteLLM(Started):
    """A translating gateway: it decodes each event and writes a new one."""

    only = frozenset({"stream", "stream-paced", "small", "tls-stream", "tls-paced"})
    paced_streams = 20
    warm = 8

    def _program(self) -> str | None:
        own = OTHERS / "litellm" / "bin" / "litellm"
        return str(own) if own.exists() else shutil.which("litellm")

    def missing(self) -> str | None:
        return None if self._program() else "litellm[proxy]"

    def start(self, upstreams: Upstreams, folder: Path) -> Start:
        port = free_ports()["tcp"]
        prefixes = ("n200", *(f"rate{PACED_RATE}x{events}" for events in (PACED_EVENTS, QUICK_PACED_EVENTS)))
        models = [
            {
                "model_name": f"{leg}-{prefix}",
                "litellm_params": {
                    "model": "openai/gpt-4o-mini",
                    "api_base": f"{upstreams.url(leg)}/{prefix}/v1",
                    "api_key": KEY,
                },
            }
            for leg in ("tcp", "tls")
            for prefix in prefixes
        ]
        config = {
            "model_list": models,
            "general_settings": {
                "master_key": KEY,
                "pass_through_endpoints": [{"path": "/small", "target": f"{upstreams.url('tcp')}/small"}],
            },
        }
        path = folder / "config.yaml"
        path.write_text(json.dumps(config))  # JSON is valid YAML
        command = [str(self._program()), "--config", str(path), "--host", "127.0.0.1", "--port", str(port)]
        env = {
            "SSL_CERT_FILE": str(upstreams.authority),
            "LITELLM_LOG": "ERROR",
            "LITELLM_TELEMETRY": "False",
        }
        env["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # otherwise it fetches prices from the Internet
        return Start(command, {"tcp": port, "tls": port}, env, seconds=120)

    def request(self, workload: Workload, target: str, upstreams: Upstreams) -> Request:
        """Return a request whose model's name selects the upstream and its path prefix."""
        if workload.body is None:
            return request_of(workload, target, None)
        _, prefix, rest = target.split("/", 2)
        return request_of(workload, f"/{rest}", {**workload.body, "model": f"{workload.leg}-{prefix}"})


class Portkey(Started):
    """A gateway on Node that relays requests in OpenAI's format."""

    only = frozenset({"stream", "stream-paced", "tls-stream", "tls-paced"})

    def _script(self) -> Path:
        return HERE.parent / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"

    def missing(self) -> str | None:
        return None if self._script().exists() and shutil.which("node") else "node and @portkey-ai/gateway"

    def start(self, upstreams: Upstreams, folder: Path) -> Start:
        port = free_ports()["tcp"]
        command = ["node", str(self._script()), f"--port={port}", "--headless"]
        env = {"NODE_EXTRA_CA_CERTS": str(upstreams.authority), "NODE_ENV": "production"}
        return Start(command, {"tcp": port, "tls": port}, env)

    def request(self, workload: Workload, target: str, upstreams: Upstreams) -> Request:
        """Return a request whose headers name the upstream and its path prefix."""
        _, prefix, rest = target.split("/", 2)
        headers = {
            "x_portkey_provider": "openai",
            "x_portkey_custom_host": f"{upstreams.url(workload.leg)}/{prefix}/v1",
        }
        return request_of(workload, f"/{rest}", workload.body, **headers)
