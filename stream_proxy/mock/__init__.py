"""An OpenAI-compatible upstream without a key or a network: for ``--demo``, the examples and the tests.

``twistd -n openai-stream-mock`` serves it by itself.

It serves ``/v1/chat/completions``, ``/v1/responses``, ``/v1/models``, ``/v1/embeddings`` and ``/v1/files``,
also below other prefixes and Azure's ``/openai/deployments/NAME/``. One full answer is made per request and
a stream is derived from it, so that both modes say the same. The same request always gets the same answer:
ids are hashes of the request without ``stream`` and ``stream_options``, and time stands still at `EPOCH`.

What is answered follows from the request, as with the real API. ``tools`` (unless ``tool_choice`` is
``none``, or the conversation ends with the result of a tool) give one call per function, a single one with
``parallel_tool_calls: false``. ``n``, ``logprobs``, ``max_tokens``, ``response_format`` and ``text.format``
do what they say. ``reasoning_effort`` adds ``reasoning_content``; ``reasoning`` a reasoning item, its
``summary`` the text in it. The model ``stream-only`` answers nothing but ``stream: true``.

WebSockets: any path that ends in ``/realtime`` and names a ``model`` in its query holds a Realtime session in
text: ``session.update``, ``conversation.item.create``, ``.retrieve`` and ``.delete``,
``input_audio_buffer.append``, ``.commit`` and ``.clear`` (audio is counted, and answered in writing),
``response.create`` and ``.cancel``, with tools and ``max_output_tokens``. Anything else is answered by an
``error`` event. Any path that ends in ``/echo`` repeats text and binary messages. Of the subprotocols offered
``realtime`` is chosen, else the first that is no ``openai-insecure-api-key.*``. There is no compression. A
message counts as an event of a stream below; the failures are ``break``, ``break-mid-event`` and ``hang``.

An SSE service that is not OpenAI's, for the adapter: any path that ends in ``/stream``. It wants a POST of a
JSON object with ``messages`` (the user's last is answered) or with a text as ``prompt``, ``query`` or
``input``; ``model`` is optional. ``Content-Type: application/json`` and ``Accept: text/event-stream`` must be
there, else it answers 415 or 406. Its events have no name, and no ``[DONE]`` follows the last one::

    data: {"seq": 1, "data": {"content": "You"}, "final": false}
    data: {"seq": 40, "data": {"content": ""}, "final": true, "finish": "stop",
           "usage": {"input_tokens": 5, "output_tokens": 39}}

(the last is one line). Its errors are ``{"error": {"message": ..., "code": ...}}``, in a stream too. It knows
no ``failed``, and has nothing to refuse or to require about ``stream``.

Everything else is chosen by request headers, which pass through any proxy:

==========================  ==================================================================================
``X-Mock-Status: S``        Answer with the error status S (400-599); 429 and 503 carry ``Retry-After``.
``X-Mock-Code: C``          The ``error.code`` of that error, or of the failures below (default
                            ``server_error``; it decides the status that they have outside a stream, and so do
                            digits such as ``429``); ``none`` for no code.
``X-Mock-Delay: T``         Seconds before the head of the answer.
``X-Mock-Pace: T``          Seconds between two events of a stream.
``X-Mock-Words: N``         Length of the text in words, up to 1,000,000.
``X-Mock-Fail: KIND``       One of the failures below.
``X-Mock-After: N``         Events before the failure (default 1; ``[DONE]`` counts as one). Negative: counted
                            from the end, ``-1`` is before the last event.
``X-Mock-Require-Stream``   ``1``: refuse what is not ``stream: true``: 400, ``param`` is ``stream``.
``X-Mock-Refuse: P``        Refuse ``stream: true`` (``stream``), the presence of ``stream_options``, or both
                            (comma between): 400, ``param`` names it.
==========================  ==================================================================================

===================  ====================================================  ===================================
``X-Mock-Fail``      a stream, after N events                              any other answer
===================  ====================================================  ===================================
``error-chunk``      ``data: {"error": ...}``, then the body ends          the error, with its status
``error-event``      the same under ``event: error``; in Responses the     the same
                     API's flat form
``failed``           Responses only: ``response.failed``, then the end     the same; without a code, 200 with
                                                                           the failed Response
``break``            the connection closes without the end of the body     so it does after half of the body
``break-mid-event``  half an event more, then the same                     the same
``no-done``          all events but the last, then the end (no N)          no effect
``hang``             nothing more comes, the connection stays open         no answer at all
``not-json``         one event that is not JSON, then the others           HTML under ``application/json``
===================  ====================================================  ===================================

A control header that makes no sense is a 400 that names it. Of uploaded files only the first MiB is kept,
and only the last 100 files.
"""

from stream_proxy.mock.resource import MockUpstream, mock_site
from stream_proxy.mock.wire import EPOCH

__all__ = ["EPOCH", "MockUpstream", "mock_site"]
