"""Files of ``deploy``, judged by the programs that read them: systemd, logrotate, kubernetes-validate."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import yaml

from heavy_tests.hops import program
from tests.project.test_deploy import DEPLOY, KUBERNETES, document
from tests.support.twistd import TWISTD, Process, ProcessTestCase, free_port

#: The versions of Kubernetes whose schemas the manifests must match.
_KUBERNETES = ("1.30", "1.34", "1.37")
_MOST_EXPOSED = 1.8


def run(*command: str) -> str:
    """Run a program, and return its output.

    :raises AssertionError: it fails.
    """
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}")
    return done.stdout


class SystemdTests(ProcessTestCase):
    """The unit and the socket."""

    def setUp(self) -> None:
        self.path = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.path)
        for name in ("openai-stream-proxy.service", "openai-stream-proxy.socket"):
            text = (DEPLOY / "systemd" / name).read_text()
            # Its command has to exist.
            command = "/opt/openai-stream-proxy/bin/openai-stream-proxy"
            (self.path / name).write_text(text.replace(command, TWISTD))

    def test_verify(self) -> None:
        """systemd finds nothing wrong."""
        output = run(program("systemd-analyze"), "verify", *(str(path) for path in self.path.iterdir()))
        self.assertEqual(output, "")

    def test_security(self) -> None:
        """The service is hardly exposed."""
        unit = str(self.path / "openai-stream-proxy.service")
        output = run(program("systemd-analyze"), "security", "--offline=true", "--no-pager", unit)
        found = re.search(r"Overall exposure level for \S+: ([\d.]+)", output)
        assert found is not None, output
        print(f"exposure {found[1]}")
        self.assertLessEqual(float(found[1]), _MOST_EXPOSED)

    async def test_socket(self) -> None:
        """The endpoint that the socket unit names takes the socket that systemd has opened."""
        text = (DEPLOY / "systemd" / "openai-stream-proxy.socket").read_text()
        endpoint = re.search(r'"listen": "(systemd:\S+)"', text)
        assert endpoint is not None
        port = free_port()
        rule = {"listen": endpoint[1], "upstreamUrl": await self.mock()}
        config = self.write_config({"rules": [rule], "workers": 1})
        activate = [
            program("systemd-socket-activate"),
            "--listen",
            f"[::]:{port}",
            "--fdname",
            "proxy.socket",
        ]
        process = Process([*activate, TWISTD, "-n", "--pidfile=", "openai-stream-proxy", "-c", str(config)])
        self.addCleanup(process.kill)
        await process.line("Listening on")
        self.assertEqual((await self.request(port, "GET", "/v1/models")).status, 200)
        process.signal("TERM")
        await process.ended()


class LogrotateTests(ProcessTestCase):
    """logrotate."""

    async def test_rotation(self) -> None:
        """A daemon goes on in the new file, and all its lines are in one of the two."""
        directory, port = self.directory(), free_port()
        pidfile, logfile = directory / "proxy.pid", directory / "proxy.log"
        rule = {"listenPort": port, "upstreamUrl": await self.mock()}
        config = self.write_config({"rules": [rule]}, directory)
        options = [f"--pidfile={pidfile}", f"--logfile={logfile}"]
        starter = self.twistd("-c", str(config), path=directory, options=options, forked=False)
        self.assertEqual(await starter.ended(), 0, starter.output)
        pid = int(pidfile.read_text())
        self.addCleanup(run, "kill", "-KILL", str(pid))
        text = (DEPLOY / "logrotate" / "openai-stream-proxy").read_text()
        text = text.replace("/var/log/openai-stream-proxy/proxy.log", str(logfile))
        rules = directory / "logrotate.conf"
        rules.write_text(text.replace("/run/openai-stream-proxy.pid", str(pidfile)))
        rules.chmod(0o644)
        logrotate = [program("logrotate"), "--force", "--state", str(directory / "state"), str(rules)]
        await self.request(port, "GET", "/v1/models?first")
        for rotation in range(1, 4):
            run(*logrotate)
            await self.request(port, "GET", "/v1/models")
            while not logfile.exists() or "GET /v1/models" not in logfile.read_text():
                await self.request(port, "GET", "/v1/models")
            self.assertIn("GET /v1/models", (directory / "proxy.log.1").read_text())
            self.assertEqual((directory / "proxy.log.2.gz").exists(), rotation > 1)


class KubernetesTests(ProcessTestCase):
    """The manifests, as they are and as the overlay makes them."""

    def validate(self, manifests: dict[str, Any]) -> None:
        """Check manifests against the schemas."""
        directory = self.directory()
        for name, manifest in manifests.items():
            # kubernetes-validate has no schemas of custom resources.
            if manifest["kind"] != "ServiceMonitor":
                (directory / name).write_text(yaml.safe_dump(manifest))
        validator = str(Path(sysconfig.get_path("scripts"), "kubernetes-validate"))
        files = [str(path) for path in sorted(directory.iterdir())]
        self.assertGreaterEqual(len(files), 5)
        for version in _KUBERNETES:
            output = run(validator, "-k", version, "--strict", *files)
            self.assertEqual(output.count(" passed "), len(files), output)

    def base(self) -> dict[str, Any]:
        """Return the manifests of the base by their files."""
        folder = KUBERNETES / "base"
        names = document(folder / "kustomization.yaml")["resources"]
        return {name: document(folder / name) for name in names}

    def test_base(self) -> None:
        """They match the schemas."""
        self.validate(self.base())

    def test_overlay(self) -> None:
        """So they do with the overlay's patches, each of which finds what it changes."""
        folder = KUBERNETES / "overlays" / "example"
        manifests = self.base()
        for each in document(folder / "kustomization.yaml")["patches"]:
            patch = document(folder / each["path"])
            (name,) = [
                name
                for name, manifest in manifests.items()
                if (manifest["kind"], manifest["metadata"]) == (patch["kind"], patch["metadata"])
            ]
            manifests[name] = merged(manifests[name], patch)
        pod = manifests["deployment.yaml"]["spec"]["template"]["spec"]
        self.assertEqual(pod["terminationGracePeriodSeconds"], 950)
        (container,) = pod["containers"]
        names = [variable["name"] for variable in container["env"]]
        self.assertEqual(sorted(names), ["ADMIN_KEY", "CLIENT_KEYS", "UPSTREAM_KEY"])
        self.validate(manifests)


def merged(value: Any, patch: Any) -> Any:
    """Return `value` with a strategic merge patch: what has a name is merged by it."""
    if isinstance(value, dict) and isinstance(patch, dict):
        both = {name: merged(value[name], patch[name]) for name in value.keys() & patch.keys()}
        return {**value, **patch, **both}
    if isinstance(value, list) and all("name" in each for each in patch):
        named = {each["name"]: each for each in copy.deepcopy(value)}
        for each in patch:
            named[each["name"]] = merged(named.get(each["name"]), each)
        return list(named.values())
    return patch
