"""What twistd finds of this package."""

from twisted.application.service import ServiceMaker

openai_stream_proxy = ServiceMaker(
    "openai-stream-proxy",
    "stream_proxy.tap",
    "A transparent proxy that answers ordinary OpenAI calls out of an upstream stream.",
    "openai-stream-proxy",
)
