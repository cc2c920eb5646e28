"""Load balancers in front of two instances: real HAProxy, nginx and Caddy, as ``deploy/`` configures them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from heavy_tests.hops import nginx_command, program
from tests.support.twistd import Process, ProcessTestCase, eventually, free_port

DEPLOY = Path(__file__).parent.parent / "deploy"
#: The addresses of the two instances: in the files, and here.
_THERE, HERE = ("192.0.2.11", "192.0.2.12"), ("127.0.0.1", "127.0.0.2")
#: The line by which each listens: in the files, and here.
_LISTENS = {
    "haproxy": ("bind :8000", "bind 127.0.0.1:{port}"),
    "nginx": ("listen 8000;", "listen 127.0.0.1:{port};"),
    "caddy": (":8000 {", "{{\n\tadmin off\n}}\n:{port} {{\n\tbind 127.0.0.1"),
}


class Pair(ProcessTestCase):
    """Two instances, and one of the load balancers in front of them.

    Both have the same ports, as on two hosts, on two addresses of this machine.
    """

    timeout = 300
    #: The load balancer.
    front = "haproxy"
    #: Lines of its file that are replaced.
    changes: Sequence[tuple[str, str]] = ()
    #: Members of the configuration of both instances.
    config: dict[str, object] = {}
    #: Further members of their rules.
    rule: dict[str, object] = {}
    #: In place of a ``listenPort``: a Twisted endpoint with ``{port}`` and ``{address}``.
    endpoint: str | None = None

    async def begin(self, upstream: str) -> None:
        """Start all three."""
        self.upstream_url = upstream
        self.port, self.admin = free_port(), free_port()
        self.instances = [self.start(number) for number in range(2)]
        for number in range(2):
            await self.listens(number)
        self.front_port = await self.start_front()

    def start(self, number: int) -> Process:
        """Start an instance."""
        address = HERE[number]
        rule: dict[str, object] = {"upstreamUrl": self.upstream_url, **self.rule}
        if self.endpoint is None:
            rule |= {"listenPort": self.port, "listenAddress": address}
        else:
            rule |= {"listen": self.endpoint.format(port=self.port, address=address)}
        admin = {"listenPort": self.admin, "listenAddress": address}
        content = {"workers": self.workers, **self.config, "rules": [rule], "admin": admin}
        return self.twistd("-c", str(self.write_config(content)))

    async def listens(self, number: int) -> None:
        """Wait until an instance is ready."""
        process = self.instances[number]
        await process.line("listening on")
        for worker in range(1, self.workers + 1 if self.workers > 1 else 1):
            await process.line(rf"worker {worker} of {self.workers} is process")

    async def start_front(self) -> int:
        """Start the load balancer, and return its port."""
        path, port = self.directory(), free_port()
        files = {
            "haproxy": "haproxy/haproxy.cfg",
            "nginx": "nginx/openai-stream-proxy.conf",
            "caddy": "caddy/Caddyfile",
        }
        text = (DEPLOY / files[self.front]).read_text()
        # Words of the comments are replaced as well, which does no harm.
        wanted = [*zip(_THERE, HERE, strict=True), (":8080", f":{self.port}"), *self.changes]
        if self.front != "nginx":  # which has no checks
            wanted.append(("9901", str(self.admin)))
        start, here = _LISTENS[self.front]
        for old, new in [*wanted, (start, here.format(port=port))]:
            self.assertIn(old, text)
            text = text.replace(old, new)
        (path / "front.conf").write_text(text)
        command = {
            "haproxy": ["haproxy", "-db", "-f", "front.conf"],
            "nginx": nginx_command(path, f"include {path}/front.conf;", errors="stderr"),
            "caddy": ["caddy", "run", "--config", "front.conf", "--adapter", "caddyfile"],
        }[self.front]
        self.balancer = Process([program(command[0]), *command[1:]], path=str(path), env={"HOME": str(path)})
        self.addCleanup(self.balancer.kill)

        async def answers() -> bool:
            if self.balancer.status is not None:
                raise AssertionError(f"{self.front} ended:\n{self.balancer.output}")
            try:
                return (await self.request(port, "GET", "/v1/models")).status == 200
            except (OSError, EOFError):
                return False
            except Exception as error:
                if "refused" in str(error):
                    return False
                raise

        await eventually(answers)
        return port
