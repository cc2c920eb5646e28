"""``deploy``: its files agree with each other, and with the limits of what they start."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from twisted.trial.unittest import SynchronousTestCase

import stream_proxy
from stream_proxy.limits import Limits
from stream_proxy.service.configuration.loading import load_config
from stream_proxy.service.configuration.types import Config

DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy"
KUBERNETES = DEPLOY / "kubernetes"


def document(path: Path) -> Any:
    """Return the one document of a YAML file."""
    return yaml.safe_load(path.read_text())


def config(path: Path) -> Config:
    """Read a configuration, with keys in the variables that it names."""
    keys = dict.fromkeys(re.findall(r'environment = "(\w+)"', path.read_text()), "secret")
    with patch.dict("os.environ", keys):
        found, warnings = load_config(path)
    assert not warnings
    return found


class KubernetesTests(SynchronousTestCase):
    """The manifests."""

    def test_grace(self) -> None:
        """Pods have the time of both clocks, and 30 s more, in the base and in each overlay."""
        folders = [KUBERNETES / "base", *(KUBERNETES / "overlays").iterdir()]
        self.assertEqual(len(folders), 2)
        for folder in folders:
            served = config(folder / "config.toml")
            pod = document(folder / "deployment.yaml")["spec"]["template"]["spec"]
            wanted = served.drain_delay_seconds + served.shutdown_grace_seconds + 30
            self.assertEqual(pod["terminationGracePeriodSeconds"], wanted, folder.name)

    def test_ports(self) -> None:
        """The ports are those of the configuration, everywhere."""
        served = config(KUBERNETES / "base" / "config.toml")
        assert served.admin is not None
        ports = {"http": served.rules[0].listen_port, "admin": served.admin.listen_port}
        deployment = document(KUBERNETES / "base" / "deployment.yaml")
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        self.assertEqual({each["name"]: each["containerPort"] for each in container["ports"]}, ports)
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            self.assertEqual(container[probe]["httpGet"]["port"], "admin")
        service = document(KUBERNETES / "base" / "service.yaml")
        self.assertEqual({each["targetPort"] for each in service["spec"]["ports"]}, set(ports))

    def test_rights(self) -> None:
        """The container may do nothing but serve, as the image's user."""
        pod = document(KUBERNETES / "base" / "deployment.yaml")["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        security = container["securityContext"]
        self.assertEqual(
            (security["readOnlyRootFilesystem"], security["capabilities"]), (True, {"drop": ["ALL"]})
        )
        user = f"USER {pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
        self.assertIn(user, (DEPLOY.parent / "Dockerfile").read_text())

    def test_names(self) -> None:
        """Each file of the base is named in it, and the metric that Pods are counted by exists."""
        base = KUBERNETES / "base"
        resources = document(base / "kustomization.yaml")["resources"]
        here = {path.name for path in base.glob("*.yaml")} - {"kustomization.yaml"}
        self.assertEqual(set(resources), here)
        (metric,) = document(base / "horizontalpodautoscaler.yaml")["spec"]["metrics"]
        name = metric["pods"]["metric"]["name"]
        self.assertIn(
            f"`{name.removeprefix('stream_proxy_')}`", (DEPLOY.parent / "docs/observing.md").read_text()
        )


class ReleaseTests(SynchronousTestCase):
    """The workflow that makes a release."""

    def test_version(self) -> None:
        """It finds the version where the package has it."""
        workflow = document(DEPLOY.parent / ".github/workflows/release.yml")
        (script,) = [
            step["run"] for step in workflow["jobs"]["build"]["steps"] if "version=" in step.get("run", "")
        ]
        command = script.splitlines()[0] + '; echo "$version"'
        found = subprocess.run(
            ["sh", "-c", command], cwd=DEPLOY.parent, capture_output=True, text=True, check=True
        )
        self.assertEqual(found.stdout.strip(), stream_proxy.__version__)


class TimesTests(SynchronousTestCase):
    """Times of load balancers and service managers, which depend on those of the proxy."""

    def test_silence(self) -> None:
        """Load balancers wait longer than the proxy does, and keep connections for a shorter time."""
        haproxy = (DEPLOY / "haproxy/haproxy.cfg").read_text()
        nginx = (DEPLOY / "nginx/openai-stream-proxy.conf").read_text()
        for wait in re.findall(
            r"timeout (?:server|client) (\d+)s|proxy_read_timeout (\d+)s", haproxy + nginx
        ):
            self.assertGreater(int("".join(wait)), Limits().timeout_seconds)
        caddy = (DEPLOY / "caddy/Caddyfile").read_text()
        kept = re.findall(
            r"\bkeepalive_timeout (\d+)s|\bkeepalive (\d+)s|http-keep-alive (\d+)s", haproxy + nginx + caddy
        )
        self.assertEqual(len(kept), 3)
        for each in kept:
            self.assertLess(int("".join(each)), Limits().client_idle_seconds)

    def test_delay(self) -> None:
        """The delay that HAProxy's file names is longer than its checks take to notice."""
        haproxy = (DEPLOY / "haproxy/haproxy.cfg").read_text()
        delay, inter, fall = re.findall(r'"drainDelaySeconds": (\d+)|inter (\d+)s|fall (\d+)', haproxy)
        self.assertGreater(int(delay[0]), int(inter[1]) * int(fall[2]))

    def test_systemd(self) -> None:
        """systemd waits longer than a process with the defaults, or with the file beside, takes to stop."""
        unit = (DEPLOY / "systemd/openai-stream-proxy.service").read_text()
        (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.M)
        for served in (Config(rules=[]), config(DEPLOY / "config.json")):
            self.assertGreater(int(seconds), served.drain_delay_seconds + served.shutdown_grace_seconds)
