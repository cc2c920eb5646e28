"""``Dockerfile``, ``.dockerignore`` and ``compose.yaml``: the files that they name exist, and they agree."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.service.configuration.loading import load_config
from tests.support.loopback import LoopbackTestCase, reactor
from tests.support.twistd import free_port
from tests.support.wire import Stream, read_request, respond

ROOT = Path(__file__).resolve().parent.parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "compose.yaml").read_text()
CONFIG = "/etc/openai-stream-proxy/config.json"


def services() -> dict[str, str]:
    """Return the text of each service in ``compose.yaml``."""
    parts = re.split(r"^  (\w+):\n", COMPOSE.partition("\nservices:\n")[2], flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def first(pattern: str, text: str) -> str:
    """Return the group of the first match of `pattern`."""
    found = re.search(pattern, text, re.M)
    assert found is not None, pattern
    return found[1]


class ContainerFileTests(SynchronousTestCase):
    """Container files, read as text because Docker may be absent."""

    def test_context(self) -> None:
        """The build context has everything that a wheel needs, and every file that it lists exists."""
        sent = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.M))
        self.assertEqual([name for name in sent if not (ROOT / name).exists()], [])
        needed = {"pyproject.toml", "setup.cfg", "README.md", "LICENSE", "stream_proxy", "twisted"}
        self.assertEqual(sent, needed)

    def test_commands(self) -> None:
        """The image runs the command of this project, by default the proxy; a service runs the mock."""
        self.assertIn('ENTRYPOINT ["openai-stream-proxy"]', DOCKERFILE)
        commands = re.findall(r"^(?:CMD|    command:) (\[.*\])$", DOCKERFILE + COMPOSE, re.M)
        self.assertEqual([json.loads(command)[0] for command in commands], ["--config", "mock"])

    def test_mounts(self) -> None:
        """A service mounts an existing config at the path that the image reads, and publishes its port."""
        exposed = first(r"^EXPOSE (.*)$", DOCKERFILE).split()
        self.assertIn(f'"--config", "{CONFIG}"', DOCKERFILE)
        found = services()
        self.assertEqual(sorted(found), ["adapter", "mock", "proxy"])
        for name in ("adapter", "proxy"):
            source = first(rf"^ +- (\./.*):{CONFIG}:ro$", found[name])
            config, _ = load_config(ROOT / source)
            ports = [str(rule.listen_port) for rule in config.rules]
            self.assertEqual(re.findall(r'"127\.0\.0\.1:(\d+):\1"', found[name]), ports)
            self.assertLessEqual(set(ports), set(exposed))
            if config.admin is not None:
                self.assertIn(f":{config.admin.listen_port}/readyz", DOCKERFILE)
                grace = config.drain_delay_seconds + config.shutdown_grace_seconds
                self.assertGreater(int(first(r"^  stop_grace_period: (\d+)s$", COMPOSE)), grace)
            else:
                self.assertIn(f"HEALTHCHECK_URL: http://127.0.0.1:{ports[0]}/", found[name])
        self.assertIn("http://mock:28080/stream", (ROOT / "examples/adapter/compose.json").read_text())
        self.assertIn('"127.0.0.1:28080:28080"', found["mock"])


class HealthCheckTests(LoopbackTestCase):
    """The image's ``HEALTHCHECK``, run on this machine."""

    async def test_health(self) -> None:
        """The check succeeds if what HEALTHCHECK_URL names answers, and fails at a 503 or a closed port."""
        python, *arguments = json.loads(first(r"^  CMD (\[.*\])$", DOCKERFILE))
        self.assertEqual(python, "python")
        self.assertIn("or 'http://127.0.0.1:9901/readyz'", arguments[-1])

        async def script(stream: Stream) -> None:
            request = await read_request(stream)
            respond(stream, 200 if request.target == "/readyz" else 503, b"{}")

        ready = (await self.upstream(script)).url
        closed = f"http://127.0.0.1:{free_port()}"
        for url, healthy in ((f"{ready}/readyz", True), (f"{ready}/x", False), (closed, False)):
            _, _, code = await getProcessOutputAndValue(
                sys.executable, arguments, env={"HEALTHCHECK_URL": url}, reactor=reactor
            )
            self.assertEqual(code == 0, healthy)
