"""Plugin for ``twistd --reactor``: the asyncio reactor on uvloop."""

from twisted.application.reactors import Reactor

uvloop = Reactor(
    "uvloop",
    "stream_proxy.service.reactor",
    "The asyncio reactor on uvloop's event loop (pip install 'openai-stream-proxy[uvloop]').",
)
