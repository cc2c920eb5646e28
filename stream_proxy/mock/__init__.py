"""Mock upstream: an OpenAI-compatible API without a key or a network, for the demo, examples and tests.

``twistd -n openai-stream-mock`` serves it on its own, and with ``--replay FILE`` a capture of the proxy in
place of all that follows.

It serves ``/v1/chat/completions``, ``/v1/responses``, ``/v1/models``, ``/v1/embeddings`` and ``/v1/files``,
also below other prefixes and below Azure's ``/openai/deployments/NAME/``. For each request one full response
is made, from which the stream is derived, so that both modes have the same content. Equal requests get equal
responses: ids are hashes of the request without ``stream`` and ``stream_options``, and every object was
created at `EPOCH`.

As with the real API the request decides about the response. ``tools`` (unless ``tool_choice`` is ``none``, or
the conversation ends with the result of a tool) lead to one call per function, to a single one with
``parallel_tool_calls: false``. ``n``, ``logprobs``, ``max_tokens``, ``response_format`` and ``text.format``
work as documented by OpenAI. ``reasoning_effort`` adds ``reasoning_content``; ``reasoning`` adds a reasoning
item, and its ``summary`` the text in it. The model ``stream-only`` refuses requests without ``stream: true``.

WebSockets: any path that ends in ``/realtime``, with a ``model`` in the query, is a Realtime session in text.
It supports ``session.update``, ``conversation.item.create``, ``.retrieve`` and ``.delete``,
``input_audio_buffer.append``, ``.commit`` and ``.clear`` (of audio only the size matters; the response is a
text), ``response.create`` and ``.cancel``, with tools and ``max_output_tokens``. Any other event gets an
``error`` event. Any path that ends in ``/echo`` sends text and binary messages back. The subprotocol is
``realtime`` if it was offered, else the first one that is not ``openai-insecure-api-key.*``. There is no
compression. For the headers below a message counts as an event; the supported failures are ``break``,
``break-mid-event`` and ``hang``.

A streaming service for the adapter, whose format is not OpenAI's: any path that ends in ``/stream``. It
accepts a POST of a JSON object with ``messages`` (the response is to the user's last one) or with a text as
``prompt``, ``query`` or ``input``; ``model`` is optional. It requires ``Content-Type: application/json`` and
``Accept: text/event-stream``, else it responds with 415 or 406. Its events have no name, and no ``[DONE]``
follows the last one::

    data: {"seq": 1, "data": {"content": "You"}, "final": false}
    data: {"seq": 40, "data": {"content": ""}, "final": true, "finish": "stop",
           "usage": {"input_tokens": 5, "output_tokens": 39}}

(the last event is one line). Its errors are ``{"error": {"message": ..., "code": ...}}``, in a stream too. It
does not support the failure ``failed``, and ignores the two headers about ``stream``.

Everything else is controlled by request headers, which pass through any proxy:

==========================  ==================================================================================
``X-Mock-Status: S``        Respond with the error status S (400-599); 429 and 503 have a ``Retry-After``.
``X-Mock-Code: C``          The ``error.code`` of that error, or of the failures below (default
                            ``server_error``), whose status outside a stream follows from it; digits such as
                            ``429`` are that status. ``none`` for no code.
``X-Mock-Delay: T``         Seconds before the head of the response.
``X-Mock-Pace: T``          Seconds between two events of a stream.
``X-Mock-Words: N``         Length of the text in words, up to 1,000,000.
``X-Mock-Fail: KIND``       One of the failures below.
``X-Mock-After: N``         Events before the failure (default 1; ``[DONE]`` counts as one). A negative number
                            counts from the end: ``-1`` is before the last event.
``X-Mock-Require-Stream``   ``1``: refuse requests without ``stream: true``: 400, ``param`` is ``stream``.
``X-Mock-Refuse: P``        Refuse ``stream: true`` (``stream``), the presence of ``stream_options``, or both
                            (separated by a comma): 400, ``param`` names it.
==========================  ==================================================================================

===================  ====================================================  ===================================
``X-Mock-Fail``      a stream, after N events                              any other response
===================  ====================================================  ===================================
``error-chunk``      ``data: {"error": ...}``, then the body ends          the error, with its status
``error-event``      the same under ``event: error``; in Responses the     the same
                     API's flat form
``failed``           Responses only: ``response.failed``, then the end     the same; without a code, 200 with
                                                                           the failed Response
``break``            the connection closes before the end of the body      the same, after half of the body
``break-mid-event``  half an event more, then the same                     the same
``no-done``          all events but the last, then the end (no N)          no effect
``hang``             nothing more is sent, the connection stays open       no response at all
``not-json``         one event that is not JSON, then the others           HTML as ``application/json``
===================  ====================================================  ===================================

An invalid control header leads to a 400 that names it. Of each uploaded file the first MiB is kept, and of
all files the last 100.
"""

from stream_proxy.mock.resource import MockUpstream, mock_site
from stream_proxy.mock.wire import EPOCH

__all__ = ["EPOCH", "MockUpstream", "mock_site"]
