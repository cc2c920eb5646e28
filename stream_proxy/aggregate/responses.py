"""Accumulator of the Responses API: the events of a stream in, one Response out.

Shapes are those of the OpenAI API reference, "Streaming events" of the Responses API.
"""

from __future__ import annotations

import re

from msgspec import Raw

from stream_proxy.aggregate.accumulator import EventAccumulator, stray_json
from stream_proxy.aggregate.merge import Object
from stream_proxy.aggregate.sse import ServerSentEvent
from stream_proxy.aggregate.stream_errors import chat_stream_error, response_error
from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, response_too_large, upstream_error
from stream_proxy.lenient_json import decode_json, decode_members, encode_json, is_integer
from stream_proxy.limits import MAX_HELD_BYTES

_FAILED = "response.failed"
_TERMINAL = frozenset({"response.completed", _FAILED, "response.incomplete"})
_ITEM_DONE = "response.output_item.done"
_TEXT_DONE = "response.output_text.done"
_NEEDED = frozenset({*_TERMINAL, _ITEM_DONE, _TEXT_DONE, "error"})
_NULL = Raw(b"null")
_NO_OUTPUT = re.compile(rb"null|\[\s*\]")

_Members = dict[str, Raw]


class ResponseAccumulator(EventAccumulator):
    """Accumulator of a Responses stream, whose terminal event holds the whole Response.

    The result is that Response byte for byte, unless its ``output`` is empty, as the ChatGPT back end leaves
    it with ``store: false``. Then it is filled with the items, or else the texts, that the stream finished.

    :param max_bytes: the maximum size of the result, and of what is held before the terminal event, in bytes.
    """

    def __init__(self, *, max_bytes: int = MAX_HELD_BYTES) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self._items: dict[int, bytes] = {}  # by output_index
        self._texts: dict[tuple[int, int], bytes] = {}  # content parts by output_index and content_index
        self._message_id: object = None
        self._held = 0

    def _process(self, event: ServerSentEvent) -> None:
        kind, data = event.event, event.data
        named = kind == "error" or kind.startswith("response.")
        if (named and kind not in _NEEDED) or not data or data.isspace():
            return
        if kind == "error":
            raise _reported(data)
        if kind == "message" and data.strip() == b"[DONE]":
            raise upstream_error(
                "The upstream's stream ended without its terminal event: [DONE] came instead of it. "
                "Check that the upstream serves the Responses API under this path.",
                ErrorCode.UPSTREAM_INCOMPLETE,
            )
        try:
            members = decode_members(data)
        except ValueError:
            if kind == "message":
                raise
            return
        if not named:
            own_kind = _value(members, "type")
            if own_kind == "error":
                raise _reported(data)
            if not isinstance(own_kind, str):
                error = _value(members, "error")  # a gateway's error, which is not an event of this API
                if error is not None:
                    raise chat_stream_error(error)
                return
            kind = own_kind
        if kind in _TERMINAL:
            self._finish(kind, members)
        elif kind == _ITEM_DONE:
            self._add_item(members)
        elif kind == _TEXT_DONE:
            self._add_text(members)

    def _add_item(self, members: _Members) -> None:
        item = bytes(members.get("item", _NULL))
        if not item.startswith(b"{"):
            return
        if self._texts:
            self._held -= sum(map(len, self._texts.values()))
            self._texts = {}
        index = _index(members, "output_index", default=len(self._items))
        self._hold(len(item) - len(self._items.get(index, b"")))
        self._items[index] = item

    def _add_text(self, members: _Members) -> None:
        text = members.get("text", _NULL)
        if self._items or not bytes(text).startswith(b'"'):
            return
        fields: Object = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
        if bytes(members.get("logprobs", _NULL)).startswith(b"["):
            fields["logprobs"] = members["logprobs"]
        part = encode_json(fields)
        place = (_index(members, "output_index", default=0), _index(members, "content_index", default=0))
        if self._message_id is None:
            self._message_id = _value(members, "item_id")
        self._hold(len(part) - len(self._texts.get(place, b"")))
        self._texts[place] = part

    def _hold(self, more: int) -> None:
        self._held += more
        if self._held > self._max_bytes:
            raise response_too_large(self._max_bytes)

    def _finish(self, kind: str, members: _Members) -> None:
        result = bytes(members.get("response", _NULL))
        try:
            response = decode_members(result)
        except ValueError:
            raise upstream_error(
                f"The upstream's {kind} event holds no Response object.", ErrorCode.UPSTREAM_MALFORMED
            ) from None
        if kind == _FAILED:
            error = response_error(_value(response, "error"), event="failed")
            if error is not None:
                raise error
        if _NO_OUTPUT.fullmatch(response.get("output", _NULL)):
            items = [self._items[index] for index in sorted(self._items)]
            if not items and self._texts:
                items = [self._message(response, complete=kind == "response.completed")]
            if items:
                response["output"] = Raw(b"[" + b",".join(items) + b"]")
                result = encode_json(response)
        if len(result) > self._max_bytes:
            raise response_too_large(self._max_bytes)
        self._result = result
        self._release()

    def _message(self, response: _Members, *, complete: bool) -> bytes:
        """Return the one assistant message that the finished texts make."""
        id = self._message_id
        if not isinstance(id, str) or not id:
            id = "msg_" + str(_value(response, "id") or "").removeprefix("resp_")
        status = "completed" if complete else "incomplete"
        parts = [Raw(self._texts[place]) for place in sorted(self._texts)]
        item = {"id": id, "type": "message", "status": status, "role": "assistant", "content": parts}
        return encode_json(item)

    def _process_end(self, stray: bytes, clean: bool) -> None:
        error = stray_json(stray)
        if error is not None:
            nested = error.get("error")
            raise chat_stream_error(error if nested is None else nested)
        how = "before" if clean else "because its connection broke off before"
        raise upstream_error(
            f"The upstream's stream ended without its terminal event: it ended {how} response.completed, "
            "response.incomplete or response.failed came. Try the request again.",
            ErrorCode.UPSTREAM_INCOMPLETE if clean else ErrorCode.UPSTREAM_CUT,
        )

    def _release(self) -> None:
        self._items = {}
        self._texts = {}


def _reported(data: bytes) -> APIError:
    """Return the error of an ``error`` event; data that is not JSON is its message."""
    try:
        error = decode_json(data)
    except ValueError:
        error = data.decode("utf-8", "replace").strip()
    return response_error(error, event="error") or upstream_error("The upstream reported an error.")


def _value(members: _Members, name: str) -> object:
    value: object = decode_json(bytes(members.get(name, _NULL)))
    return value


def _index(members: _Members, name: str, *, default: int) -> int:
    value = _value(members, name)
    return value if is_integer(value) else default
