"""Adapter: an OpenAI API in front of a streaming service that speaks a format of its own.

The ``"adapter"`` of a rule is an :class:`~stream_proxy.adapter.config.AdapterConfig`; compiled, it is a
:class:`~stream_proxy.adapter.dialect.Dialect`: the request to send, and how to read the response. All but
``flow`` and ``resource`` is sans-I/O.
"""
