"""Bodies of a capture, and what blanks them on their way in. Sans-I/O."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Protocol

from stream_proxy.errors import APIError
from stream_proxy.http.body_kind import media_type
from stream_proxy.http.content_coding import ContentDecoder, content_codings, decoder_for
from stream_proxy.http.headers import RawHeader
from stream_proxy.observe.capture.members import MemberBlanker
from stream_proxy.observe.capture.secrets import Secrets, blank_form

#: The largest piece of a body, so that each step of a download is small.
PIECE_BYTES = 65_536
#: What a piece costs beside its bytes: a tuple, a number and an object.
PIECE_COST = 128
# What compressed data may decode to, at once and in all: texts are not compressed more than this.
_MOST_DECODED, _MOST_RATIO, _MOST_BYTES = 262_144, 32, 2**28
#: The largest form that is looked at.
_FORM_BYTES = 65_536
_FORM = b"application/x-www-form-urlencoded"


class Room(Protocol):
    """Whoever gives the pieces of an exchange their place."""

    def take(self, size: int) -> bool:
        """Report whether there is room for so many bytes more, in one piece."""


class Body:
    """A body in pieces, each with the time when it came.

    :param fields: those of its head.
    """

    __slots__ = ("cut", "fields", "is_text", "pieces", "size")

    def __init__(self, fields: list[RawHeader]) -> None:
        self.fields = fields
        self.pieces: list[tuple[float, bytes]] = []
        #: Bytes in the pieces.
        self.size = 0
        #: It is UTF-8.
        self.is_text = True
        #: The reason why it is not whole.
        self.cut: str | None = None

    @property
    def media(self) -> str:
        """Its media type, in lower case."""
        return media_type(values(self.fields, b"content-type")).decode("ascii", "replace")


def values(fields: Iterable[RawHeader], name: bytes) -> list[bytes]:
    """Return the values of the fields called `name` (lower case)."""
    return [value for field, value in fields if field.lower() == name]


class _Stage(Protocol):
    """Something that a body passes through."""

    def feed(self, data: bytes) -> bytes:
        """Return what is certain."""

    def end(self) -> bytes:
        """Return the rest."""


class ValueBlanker:
    """Text on its way in, without known secrets, wherever it is cut."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Return what is certain."""
        out, self._held = self._secrets.cut(self._held + data)
        return out

    def end(self) -> bytes:
        """Return the rest."""
        held, self._held = self._held, b""
        return self._secrets.blanked(held)


class FormBlanker:
    """Form on its way in, which is short, or is not kept."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Hold all of it."""
        self._held = (self._held + data)[: _FORM_BYTES + 1]
        return b""

    def end(self) -> bytes:
        """Return the form."""
        return blank_form(self._held) if len(self._held) <= _FORM_BYTES else b""


class Intake:
    """One body on its way into a capture: decoded, blanked, in pieces.

    :param body: where it goes.
    :param known: the values that are blanked.
    :param room: gives each piece its place.
    """

    def __init__(self, body: Body, known: Iterable[Secrets], room: Room) -> None:
        self._body = body
        self._room = room
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        codings = content_codings(values(body.fields, b"content-encoding"))
        self._content: ContentDecoder | None = decoder_for(codings, _MOST_BYTES)
        if self._content is None:
            body.cut = "it is encoded in a way that cannot be looked into"
        # Forms first: an equals sign between name and value is not JSON's.
        forms = [FormBlanker()] if body.media.encode() == _FORM else []
        self._stages: list[_Stage] = [*map(ValueBlanker, known), *forms, MemberBlanker()]

    def feed(self, now: float, data: bytes) -> None:
        """Take a part of the body, as it came."""
        body = self._body
        if self._content is None or body.cut is not None:
            return
        most = _MOST_DECODED + _MOST_RATIO * len(data)
        try:
            for piece in self._content.pieces(data):
                most -= len(piece)
                if most < 0:
                    body.cut = "it decodes to far more than a text does"
                    return
                for stage in self._stages:
                    piece = stage.feed(piece)
                self._put(now, piece)
        except APIError:
            body.cut = "it cannot be decoded"

    def end(self, now: float) -> None:
        """Take the end of the body."""
        rest = b""
        for stage in self._stages:
            rest = stage.feed(rest) + stage.end()
        body = self._body
        if body.cut is None and rest and body.pieces and self._room.take(len(rest)):
            # It was held back only in case that more would come.
            at, last = body.pieces.pop()
            body.pieces.append((at, last + rest))
            body.size += len(rest)
            self._note_text(rest)
        elif body.cut is None:
            self._put(now, rest)
        self._note_text(b"", final=self._body.cut is None)

    def _put(self, now: float, data: bytes) -> None:
        body = self._body
        for at in range(0, len(data), PIECE_BYTES):
            piece = data[at : at + PIECE_BYTES]
            if body.cut is None and not self._room.take(len(piece) + PIECE_COST):
                body.cut = "the capture has no more room"
            if body.cut is not None:
                return
            self._note_text(piece)
            body.size += len(piece)
            body.pieces.append((now, piece))

    def _note_text(self, data: bytes, *, final: bool = False) -> None:
        if self._body.is_text:
            try:
                self._utf8.decode(data, final)
            except UnicodeDecodeError:
                self._body.is_text = False
