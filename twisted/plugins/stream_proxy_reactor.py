"""What ``twistd --reactor`` finds of this package."""

from twisted.application.reactors import Reactor

uvloop = Reactor(
    "uvloop",
    "stream_proxy.service.reactor",
    "The asyncio reactor on uvloop's event loop (pip install 'openai-stream-proxy[uvloop]').",
)
