"""All targets. Each accepts any bytes, and raises an error only if its property does not hold."""

from __future__ import annotations

from collections.abc import Callable

from kits.fuzz import adapters, requests, streams, wire

Target = Callable[[bytes], None]

TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        streams.sse,
        streams.chat,
        streams.responses,
        streams.merge,
        streams.errors,
        streams.sniffing,
        requests.config,
        requests.url,
        requests.head,
        requests.body,
        requests.jsontext,
        wire.frames,
        wire.chunked,
        wire.coding,
        adapters.expression,
        adapters.template,
        adapters.dialect,
        adapters.asked,
        adapters.payloads,
        adapters.translation,
    )
}

#: Building blocks of inputs: words of the formats, which random bytes would rarely contain.
WORDS: tuple[bytes, ...] = (
    *(b"data: ", b"data:", b"event: ", b"\n\n", b"\r\n\r\n"),
    *(b"\r", b": ", b"[DONE]", b"\xef\xbb\xbf", b"id: 1\n"),
    *(b'{"choices":[{"index":0,"delta":{"content":"a"}}]}', b'{"error":{"message":"m","code":429}}', b"null"),
    *(b'"response.completed"', b'"response":{"output":[]}', b'{"', b'":', b"[{", b"}]", b"NaN", b"1e999"),
    *(b'"\\ud83d"', b"\\u0000", b'"finish_reason":"stop"', b'"tool_calls"', b'"index":', b'"id":""'),
    *(b"5\r\nhello\r\n", b"0\r\n\r\n", b";a=b", b"\x81\x05"),
    *(b"\x88\x02\x03\xe8", b"\x82\x7e", b"\x1f\x8b\x08"),
    *(b"messages[?role=='user'].content | [0]", b"{{", b"}}", b"@.", b"text(", b"from_json(", b"`1`", b"&a"),
    *(b"http://", b"https://", b"//", b"/../", b"?", b"#", b"%", b"/v1/chat/completions", b"/deployments/a/"),
    *(b'{"rules":[{"listenPort":1,"upstreamUrl":"http://a"}]}', b'"adapter":{'),
    *(b'"model":"m"', b'"stream":false'),
)
