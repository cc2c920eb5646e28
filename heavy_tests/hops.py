"""Hops between client and proxy: real nginx, Caddy and HAProxy with next to no configuration."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from twisted.internet.error import ConnectError

from tests.support.twistd import Process, ProcessTestCase, eventually, free_port

_NGINX = """
daemon off;
master_process off;
pid {path}/nginx.pid;
error_log {errors};
events {{}}
http {{
    access_log off;
    client_body_temp_path {path}/client;
    proxy_temp_path {path}/proxy;
    fastcgi_temp_path {path}/fastcgi;
    uwsgi_temp_path {path}/uwsgi;
    scgi_temp_path {path}/scgi;
    {http}
}}
"""
_NGINX_SERVER = """
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{to};
            {more}
        }}
    }}
"""
_CADDY = """
{{
    admin off
    auto_https off
}}
http://127.0.0.1:{port} {{
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:{to}
}}
"""
_HAPROXY = """
defaults
    mode http
    timeout connect 10s
    timeout client 600s
    timeout server 600s
listen here
    bind 127.0.0.1:{port}
    server proxy 127.0.0.1:{to}
"""


def nginx_command(path: Path, http: str, *, errors: str) -> list[str]:
    """Return what starts an nginx that keeps everything in a folder; `http` is what it does there.

    :param errors: where it logs.
    """
    (path / "nginx.conf").write_text(_NGINX.format(path=path, http=http, errors=errors))
    return ["nginx", "-e", errors, "-p", str(path), "-c", str(path / "nginx.conf")]


def _nginx(more: str) -> Callable[[Path, int, int], list[str]]:
    def command(path: Path, port: int, to: int) -> list[str]:
        server = _NGINX_SERVER.format(port=port, to=to, more=more)
        return nginx_command(path, server, errors=str(path / "error.log"))

    return command


def _caddy(path: Path, port: int, to: int) -> list[str]:
    (path / "Caddyfile").write_text(_CADDY.format(port=port, to=to))
    return ["caddy", "run", "--config", str(path / "Caddyfile"), "--adapter", "caddyfile"]


def _haproxy(path: Path, port: int, to: int) -> list[str]:
    (path / "haproxy.cfg").write_text(_HAPROXY.format(port=port, to=to))
    return ["haproxy", "-db", "-f", str(path / "haproxy.cfg")]


#: What starts each hop: a function of its directory, its port and the port that it forwards to.
HOPS: dict[str, Callable[[Path, int, int], list[str]]] = {
    "nginx": _nginx(""),  # which speaks HTTP/1.0 to the proxy
    "nginx with HTTP/1.1": _nginx('proxy_http_version 1.1; proxy_set_header Connection "";'),
    "caddy": _caddy,
    "haproxy": _haproxy,
}


def program(name: str) -> str:
    """Return the path of a program that the heavy tests need."""
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    if path is None:
        raise AssertionError(f"{name} is missing: make test-heavy says what to install")
    return path


class HopTestCase(ProcessTestCase):
    """Starts hops."""

    async def hop(self, name: str, to: int) -> int:
        """Start the hop `name` in front of a port, and return its own."""
        path, port = self.directory(), free_port()
        command = HOPS[name](path, port, to)
        process = Process([program(command[0]), *command[1:]], path=str(path), env={"HOME": str(path)})
        self.addCleanup(process.kill)

        async def listens() -> bool:
            if process.status is not None:
                raise AssertionError(f"{name} ended with {process.status}:\n{process.output}")
            try:
                await self.client(port)
            except ConnectError:
                return False
            return True

        await eventually(listens)
        return port
