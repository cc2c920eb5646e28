"""Plugin of ``twistd openai-stream-mock``: its options and its service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.application.internet import TCPServer
from twisted.application.service import IService
from twisted.internet.interfaces import IReactorTime
from twisted.python import usage
from twisted.web.resource import Resource

from stream_proxy.errors import ConfigError
from stream_proxy.mock.replay.recording import RecordingError, read_recording
from stream_proxy.mock.replay.resource import ReplayResource
from stream_proxy.mock.resource import mock_site
from stream_proxy.request_log import RequestLog
from stream_proxy.transport.ports import BACKLOG, probe

_MAX_PORT = 65535
_PACES = ("recorded", "fast")


class Options(usage.Options):
    """Command-line options of ``twistd openai-stream-mock``."""

    optParameters = [
        ["port", "p", "28080", "The port to listen on."],
        ["host", None, "127.0.0.1", "The address to listen on; :: for all, 0.0.0.0 for all of IPv4."],
        ["replay", None, None, "Serve a capture again: a file in HAR or JSON lines."],
        ["pace", None, "recorded", "The pace of that: recorded, or fast for at once."],
    ]
    longdesc = (
        "An OpenAI-compatible upstream without a key or a network, and at /stream an SSE service of another "
        "shape. Request headers choose its responses: python -m pydoc stream_proxy.mock."
    )


def makeService(options: Options) -> IService:
    """Return the service for `options`.

    :raises SystemExit: with one line, if the mock cannot listen on the port.
    """
    from twisted.internet import reactor

    try:
        resource = _replay(reactor, options["replay"], options["pace"])
        return MockService(reactor, options["host"], _port(options["port"]), resource)
    except ConfigError as error:
        raise SystemExit(str(error)) from None


class MockService(TCPServer):
    """The mock upstream on one port.

    :param resource: is served in place of the mock's own.
    :raises ConfigError: the mock cannot listen on the port.
    """

    def __init__(self, reactor: Any, host: str, port: int, resource: Resource | None = None) -> None:
        try:
            probe(port, host)
        except TypeError:
            # Python raises this for a host name that IDNA cannot encode.
            raise ConfigError(f"--host {host}: is neither an address nor a host name") from None
        except OSError as error:
            problem = f"cannot listen on port {port}: {error.strerror}"
            raise ConfigError(f"--host {host} --port {port}: {problem}") from None
        site = mock_site(reactor, resource=resource)
        site.noisy = False
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._listening = (
            f"the mock is at {url}/v1 and {url}/stream" if resource is None else f"the recording is at {url}"
        )
        super().__init__(port, site, interface=host, backlog=BACKLOG, reactor=reactor)  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        """Listen, and log where."""
        super().startService()  # type: ignore[no-untyped-call]
        RequestLog().info(self._listening)


def _replay(reactor: IReactorTime, path: str | None, pace: str) -> Resource | None:
    """Return what serves a recording, ``None`` without one.

    :raises ConfigError: the file cannot be used, or there is no such pace.
    """
    if pace not in _PACES:
        raise ConfigError(f"--pace {pace}: must be {' or '.join(_PACES)}")
    if path is None:
        return None
    try:
        exchanges = read_recording(Path(path).read_bytes())
    except OSError as error:
        raise ConfigError(f"--replay {path}: cannot be read: {error.strerror}") from None
    except RecordingError as error:
        raise ConfigError(f"--replay {path}: {error}") from None
    return ReplayResource(reactor, exchanges, paced=pace == _PACES[0])


def _port(text: str) -> int:
    """Return the port number in `text`.

    :raises ConfigError: `text` is not a port number.
    """
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= _MAX_PORT):
        raise ConfigError(f"--port {text}: must be a number from 1 to {_MAX_PORT}")
    return int(text)
