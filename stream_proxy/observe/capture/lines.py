"""Captured exchanges as JSON lines, in steps of which none is large. Sans-I/O.

A line is one exchange. Bodies are lists of pieces as they came: ``[milliseconds since its start, text]``, in
Base64 where ``"encoding"`` says so.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator

import msgspec

from stream_proxy.observe.capture.bodies import Body
from stream_proxy.observe.capture.exchange import Answer, CapturedExchange
from stream_proxy.observe.capture.messages import TEXT
from stream_proxy.observe.capture.writing import as_pieces, members, milliseconds, moment, pairs, text


def line(exchange: CapturedExchange, name: str, epoch: float) -> Iterator[bytes]:
    """Yield the line of an exchange.

    :param name: of the exchange.
    :param epoch: seconds since 1970 at the zero of the clock.
    """
    head, notes = exchange.head, exchange.notes
    began = notes.began
    steps = {
        "asked": notes.asked,
        "connected": notes.connected,
        "upstreamHead": notes.upstream_head,
        "ended": notes.ended,
    }
    known = {key: milliseconds(began, at) for key, at in steps.items() if at is not None}
    own = {
        "id": name,
        "started": moment(epoch + began),
        "rule": notes.rule,
        "client": notes.client,
        "mode": notes.mode,
        "why": notes.why,
        "model": notes.model,
        "status": notes.status,
        "code": notes.code,
        "problem": notes.problem,
        "upstream": head.origin,
        "steps": known,
    }
    yield b"{" + members({key: value for key, value in own.items() if value is not None})
    yield b',"request":{' + members(
        {"method": text(head.method), "target": text(head.target), "version": text(head.version)}
    )
    yield from _body(exchange.request, began)
    yield b"}"
    if exchange.answer is not None:
        yield b',"response":'
        yield from _answer(exchange.answer, began)
    if exchange.answers:
        yield b',"upstreamResponses":['
        for place, answer in enumerate(exchange.answers):
            yield b"," if place else b""
            yield from _answer(answer, began)
        yield b"]"
    if exchange.messages:
        yield b',"messages":['
        yield from _messages(exchange, began)
        yield b"]"
    if exchange.cut is not None:
        yield b"," + members({"cut": exchange.cut})
    yield b"}\n"


def _answer(answer: Answer, began: float) -> Iterator[bytes]:
    yield b"{" + members(
        {
            "at": milliseconds(began, answer.at),
            "status": answer.status,
            "reason": text(answer.reason),
            "whole": answer.whole,
        }
    )
    yield from _body(answer.body, began)
    yield b"}"


def _body(body: Body, began: float) -> Iterator[bytes]:
    notes = {"headers": pairs(body.fields)}
    yield b"," + members(notes | ({} if body.cut is None else {"cut": body.cut}))
    if body.pieces:
        yield b',"body":[' if body.is_text else b',"encoding":"base64","body":['
        yield from as_pieces(body, began)
        yield b"]"


def _messages(exchange: CapturedExchange, began: float) -> Iterator[bytes]:
    separator = b""
    for message in exchange.messages:
        payload = message.payload
        as_text = message.kind == TEXT
        data = payload.decode("utf-8", "replace") if as_text else b64encode(payload).decode("ascii")
        direction = "send" if message.sent else "receive"
        at = milliseconds(began, message.at)
        yield separator + msgspec.json.encode([at, direction, message.kind, data])
        separator = b","
