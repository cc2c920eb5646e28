"""``twistd --reactor uvloop``, with the real process."""

from __future__ import annotations

import signal
import sys

from tests.service import test_process
from tests.support.payloads import CHAT_BODY
from tests.support.sessions import KEY, TEXT, WebSocketTestCase, frame
from tests.support.twistd import Process, ProcessTestCase

UVLOOP = ("--reactor", "uvloop")
CHILD = """
import sys
from stream_proxy.service.reactor import install
install()
from twisted.internet import protocol, reactor

class Child(protocol.ProcessProtocol):
    def processExited(self, reason):
        print("exited", reason.value.exitCode)
        self.transport.loseConnection()
        reactor.stop()

source = "import os; os.closerange(0, 3); os._exit(7)"
reactor.callWhenRunning(reactor.spawnProcess, Child(), sys.executable, ["python", "-c", source], None)
reactor.run()
"""
HANGUP = """
import os, signal
from stream_proxy.service.reactor import install
install()
from twisted.internet import reactor

def hung_up(number, frame):
    print("hung up")
    reactor.callFromThread(reactor.stop)

reactor.callWhenRunning(signal.signal, signal.SIGHUP, hung_up)
reactor.callWhenRunning(os.kill, os.getpid(), signal.SIGHUP)
reactor.run()
"""


class UvloopTests(WebSocketTestCase, ProcessTestCase):
    """Traffic, signals and child processes."""

    twistd_options = UVLOOP

    async def test_traffic(self) -> None:
        """An ordinary call is converted, and a WebSocket's frames travel both ways."""
        upstream, came = await self.accepting()
        process, (chat, realtime) = await self.serve(await self.mock(), upstream.url)
        self.assertIn("stream_proxy.service.reactor.UvloopReactor", process.output)
        answer = await self.request(chat, body=CHAT_BODY)
        self.assertEqual((answer.status, answer.json()["object"]), (200, "chat.completion"))
        pair = await self.join(realtime, came)
        await self.assert_passes(pair.client, pair.server, frame(TEXT, b"up", key=KEY))
        await self.assert_passes(pair.server, pair.client, frame(TEXT, b"down"))
        process.signal("INT")
        await process.ended()
        self.assert_ended_by(signal.SIGINT, process)

    async def run_source(self, source: str) -> Process:
        """Run a program in a process."""
        process = Process([sys.executable, "-c", source])
        self.addCleanup(process.kill)
        await process.ended()
        return process

    async def test_child(self) -> None:
        """The end of a child is noticed even if its pipes were closed before."""
        process = await self.run_source(CHILD)
        self.assertEqual((process.status, process.output), (0, "exited 7\n"))

    async def test_hangup(self) -> None:
        """A handler of SIGHUP is called, and the process goes on."""
        process = await self.run_source(HANGUP)
        self.assertEqual((process.status, process.output), (0, "hung up\n"))

    async def test_not_installed(self) -> None:
        """Without uvloop the error is one sentence that says what to install."""
        directory = self.directory()
        (directory / "uvloop.py").write_text("""raise ImportError("No module named 'uvloop'")""")
        process = self.twistd("--demo", env={"PYTHONPATH": str(directory)}, forked=False)
        self.assertEqual(await process.ended(), 1)
        problem = "The uvloop reactor needs uvloop (No module named 'uvloop')"
        self.assertEqual(process.output, f"{problem}: pip install 'openai-stream-proxy[uvloop]'\n")


class UvloopStopTests(test_process.StopTests):
    """SIGTERM and SIGINT on uvloop."""

    twistd_options = UVLOOP


class UvloopDaemonTests(test_process.DaemonTests):
    """A daemon on uvloop: the loop is made before the process forks."""

    twistd_options = UVLOOP
