"""The facade: a third-party streaming service, in the clothes of an OpenAI model.

What a rule's ``"adapter"`` says is a :class:`~stream_proxy.adapter.config.AdapterConfig`; compiled, it is a
:class:`~stream_proxy.adapter.dialect.Dialect`: what to send, and how to read what comes back. All but
``call`` and ``resource`` is sans-I/O.
"""
