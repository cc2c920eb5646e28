"""Plugins for ``twistd``: the proxy, the adapter and the mock."""

from twisted.application.service import ServiceMaker

openai_stream_proxy = ServiceMaker(
    "openai-stream-proxy",
    "stream_proxy.service.tap",
    "A transparent proxy that answers ordinary OpenAI calls from an upstream event stream.",
    "openai-stream-proxy",
)

openai_stream_adapter = ServiceMaker(
    "openai-stream-adapter",
    "stream_proxy.service.adapter_tap",
    "A facade that makes any streaming service an OpenAI model.",
    "openai-stream-adapter",
)

openai_stream_mock = ServiceMaker(
    "openai-stream-mock",
    "stream_proxy.mock.tap",
    "A mock of an OpenAI-compatible upstream and of another streaming service.",
    "openai-stream-mock",
)
