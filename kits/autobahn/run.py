"""Autobahn Testsuite with and without the relay, case by case: ``python kits/autobahn/run.py``.

The suite's fuzzing client tests a strict echo server, directly and through the proxy. Both runs must agree in
behaviour, closing behaviour and close code. Every difference has to be listed in ``expected.json`` with its
reason. The compression cases (12 and 13) are left out, because the relay negotiates no extensions.

The suite needs Python 2.7, which is looked up on the PATH and in pyenv.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
COMPARED = ("behavior", "behaviorClose", "remoteCloseCode")
TWISTD = "from twisted.scripts.twistd import run; run()"
_START_SECONDS = 20.0

Results = dict[str, dict[str, Any]]


def python27() -> str | None:
    """Return a Python 2.7 that runs, or ``None``."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    on_path = shutil.which("python2.7")
    candidates = [*([on_path] if on_path else []), *map(str, pyenv.glob("versions/2.7*/bin/python2.7"))]
    for candidate in candidates:
        # pyenv's shim is on the PATH even if it refuses to run because another version is selected.
        if subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def wstest(environment: Path) -> str:
    """Return the suite's command, and install it into the virtual environment if necessary.

    :raises SystemExit: if it cannot be installed.
    """
    command = environment / "bin" / "wstest"
    if command.exists():
        return str(command)
    if (found := shutil.which("wstest")) is not None:
        return found
    python = python27()
    if python is None:
        raise SystemExit(
            "The Autobahn Testsuite needs Python 2.7, and there is none on the PATH or in pyenv."
        )
    print(f"installing the Autobahn Testsuite into {environment}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        pip = ["pip", "install", "-qq", "--disable-pip-version-check"]
        # The dependencies of virtualenv must not be visible while the suite's are being installed.
        steps: tuple[tuple[list[str], dict[str, str]], ...] = (
            ([python, "-W", "ignore", "-m", *pip, "--target", scratch, "virtualenv"], {}),
            ([python, "-m", "virtualenv", "--quiet", str(environment)], {"PYTHONPATH": scratch}),
            ([str(environment / "bin" / "python"), "-W", "ignore", "-m", *pip, "autobahntestsuite"], {}),
        )
        for step, more in steps:
            if subprocess.run(step, env={**_clean(), **more}, check=False).returncode:
                shutil.rmtree(environment, ignore_errors=True)
                raise SystemExit(f"The Autobahn Testsuite cannot be installed: {' '.join(step)} failed.")
    return str(command)


def _clean() -> dict[str, str]:
    """Return the environment without the settings of this Python."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@contextmanager
def process(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a child process, and terminate it at the end."""
    with subprocess.Popen(command, text=True, **options) as child:
        try:
            yield child
        finally:
            child.terminate()


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until something listens on a port of 127.0.0.1.

    :raises SystemExit: if nothing does in time.
    """
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"The proxy did not listen within {_START_SECONDS:g} seconds.")


def run(command: str, cases: list[str], report: Path) -> tuple[Results, Results]:
    """Run the suite both ways; return the results by case, without the relay and with it."""
    with ExitStack() as stack:
        echo = stack.enter_context(process([sys.executable, str(HERE / "echo.py")], stdout=subprocess.PIPE))
        assert echo.stdout is not None
        echo_port = int(echo.stdout.readline())
        port = free_port()
        config = report / "config.json"
        rules = [{"listenPort": port, "upstreamUrl": f"http://127.0.0.1:{echo_port}"}]
        config.write_text(json.dumps({"rules": rules}))
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        log = stack.enter_context(open(report / "proxy.log", "w"))
        proxy = [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "openai-stream-proxy", "-c", str(config)]
        stack.enter_context(process(proxy, stdout=log, cwd=report, env={**os.environ, "PYTHONPATH": path}))
        wait_for(port)
        specification = report / "fuzzingclient.json"
        servers = [
            {"agent": agent, "url": f"ws://127.0.0.1:{at}"}
            for agent, at in (("direct", echo_port), ("relayed", port))
        ]
        specification.write_text(
            json.dumps(
                {
                    "outdir": str(report / "cases"),
                    "servers": servers,
                    "cases": cases,
                    "exclude-cases": ["12.*", "13.*"],
                    "exclude-agent-cases": {},
                }
            )
        )
        with open(report / "wstest.log", "w") as told:
            done = subprocess.run(
                [command, "-m", "fuzzingclient", "-s", str(specification)],
                cwd=report,
                env=_clean(),
                stdout=told,
                stderr=subprocess.STDOUT,
                check=False,
            )
    index = report / "cases" / "index.json"
    if done.returncode or not index.exists():
        raise SystemExit(f"The fuzzing client failed; see {report}/wstest.log.")
    results = json.loads(index.read_text())
    return results["direct"], results["relayed"]


def _ends(results: Results, case: str) -> str:
    return " / ".join(str(results.get(case, {}).get(what)) for what in COMPARED)


def compare(direct: Results, relayed: Results, expected: dict[str, str]) -> bool:
    """Print the differences; return whether all of them are expected."""
    names = sorted({*direct, *relayed}, key=lambda case: [int(part) for part in case.split(".")])
    nothing: dict[str, Any] = {}
    differing = [
        name
        for name in names
        if any(
            direct.get(name, nothing).get(what) != relayed.get(name, nothing).get(what) for what in COMPARED
        )
    ]
    if differing:
        print(f"{'case':<10}{'without the relay':<42}{'with it':<42}reason")
    for name in differing:
        reason = expected.get(name, "NOT EXPECTED")
        print(f"{name:<10}{_ends(direct, name):<42}{_ends(relayed, name):<42}{reason}")
    unexpected = [name for name in differing if name not in expected]
    passed = sum(result["behavior"] != "FAILED" for result in relayed.values())
    print(
        f"{len(names)} cases, {passed} not failed through the relay; {len(differing)} differ, "
        f"{len(unexpected)} of them without an explanation"
    )
    return bool(names) and not unexpected


def main() -> int:
    """Run the suite and compare the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("cases", nargs="*", default=["*"], help="such as 7.* or 5.19 [default: all]")
    parser.add_argument(
        "--environment",
        type=Path,
        default=Path(sys.prefix) / "wstest",
        help="the virtual environment of the suite",
    )
    parser.add_argument("--report", type=Path, help="keep the suite's reports here")
    arguments = parser.parse_args()
    command = wstest(arguments.environment)
    expected = json.loads((HERE / "expected.json").read_text())
    with tempfile.TemporaryDirectory() as scratch:
        report = (arguments.report or Path(scratch)).resolve()
        report.mkdir(parents=True, exist_ok=True)
        direct, relayed = run(command, arguments.cases, report)
    return 0 if compare(direct, relayed, expected) else 1


if __name__ == "__main__":
    sys.exit(main())
