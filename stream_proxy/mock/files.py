"""Uploaded files: the form that carries one, its metadata, and the beginning of its content."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from stream_proxy.mock.wire import EPOCH, JSONObject, MockError, digest, missing

_BLOCK = 1 << 16
_MAX_HEAD = 1 << 14
_BOUNDARY = re.compile(r'(?i)multipart/form-data\s*;.*?\bboundary=(?:"([^"]{1,200})"|([^\s;"]{1,200}))')
_PARAMETER = r'(?i)content-disposition:[^\r\n]*;\s*{}="((?:[^"\\]|\\.)*)"'


@dataclass
class Part:
    """One field of a form: all of it is counted and hashed, the first `keep` bytes are kept."""

    name: str
    filename: str | None
    keep: int
    size: int = 0
    kept: bytearray = field(default_factory=bytearray)
    checksum: hashlib._Hash = field(default_factory=hashlib.sha256)

    def feed(self, data: bytes) -> None:
        """Add the next bytes of the content."""
        self.size += len(data)
        self.checksum.update(data)
        self.kept += data[: self.keep - len(self.kept)]


def read_form(content: BinaryIO, content_type: str, keep: int) -> dict[str, Part]:
    """Read a multipart form in blocks, and return its fields with at most `keep` bytes of each.

    :raises MockError: 400 if `content` is not a multipart form.
    """
    match = _BOUNDARY.match(content_type)
    if match is None:
        raise MockError(400, "Expected a multipart/form-data body with a boundary.")
    separator = b"\r\n--" + (match[1] or match[2]).encode("latin-1")
    try:
        return {part.name: part for part in _parts(content, separator, keep)}
    except ValueError:
        raise MockError(400, "Could not parse the multipart form.") from None


def _parts(content: BinaryIO, separator: bytes, keep: int) -> Iterator[Part]:
    # Only the first boundary may lack the line end before it.
    held = b"\r\n" + content.read(_BLOCK)

    def until(end: bytes, part: Part | None, limit: int | None = None) -> bytes:
        """Consume everything through `end`; feed what precedes it to `part`, or else return it."""
        nonlocal held
        while (found := held.find(end)) < 0:
            if limit is not None and len(held) > limit:
                raise ValueError("too long")
            if part is not None:
                # The last bytes may be the beginning of `end`.
                safe = max(0, len(held) - len(end) + 1)
                part.feed(held[:safe])
                held = held[safe:]
            block = content.read(_BLOCK)
            if not block:
                raise ValueError("ends too early")
            held += block
        before, held = held[:found], held[found + len(end) :]
        if part is not None:
            part.feed(before)
        return before

    until(separator, None, _BLOCK * 2)
    while True:
        if len(held) < 2:
            held += content.read(_BLOCK)
        if held.startswith(b"--"):
            return
        head = until(b"\r\n\r\n", None, _MAX_HEAD + _BLOCK).decode("utf-8")
        name = re.search(_PARAMETER.format("name"), head)
        if name is None:
            raise ValueError("a part without a name")
        filename = re.search(_PARAMETER.format("filename"), head)
        part = Part(name[1], filename[1] if filename else None, keep)
        until(separator, part)
        yield part


class FileStore:
    """Files of one mock: the last `most` of them, and the first `keep` bytes of each."""

    def __init__(self, most: int = 100, keep: int = 1 << 20) -> None:
        self._most = most
        self._keep = keep
        self._files: OrderedDict[str, tuple[JSONObject, bytes]] = OrderedDict()
        self._uploads = 0

    def upload(self, content: BinaryIO, content_type: str) -> JSONObject:
        """Store the file of a form with the fields ``purpose`` and ``file``, and return its object.

        :raises MockError: 400 for any other body.
        """
        form = read_form(content, content_type, self._keep)
        for name in ("file", "purpose"):
            if name not in form:
                raise missing(name)
        file, purpose = form["file"], form["purpose"].kept.decode("utf-8", "replace")
        if file.filename is None:
            raise missing("file")
        self._uploads += 1
        identity = digest(self._uploads, file.filename, purpose, file.checksum.hexdigest())
        made: JSONObject = {
            "id": f"file-{identity[:22]}",
            "object": "file",
            "bytes": file.size,
            "created_at": EPOCH,
            "filename": file.filename,
            "purpose": purpose,
            "status": "processed",
            "expires_at": None,
            "status_details": None,
        }
        self._files[made["id"]] = (made, bytes(file.kept))
        if len(self._files) > self._most:
            self._files.popitem(last=False)
        return made

    def all(self, purpose: str | None) -> JSONObject:
        """Return the list of all files, or of those with one purpose."""
        data = [made for made, _ in self._files.values() if purpose in (None, made["purpose"])]
        return {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": False,
        }

    def get(self, name: str) -> tuple[JSONObject, bytes]:
        """Return a file's object, and the beginning of its content.

        :raises MockError: 404 if there is no such file.
        """
        try:
            return self._files[name]
        except KeyError:
            raise MockError(404, f"No such File object: {name}", param="id") from None

    def delete(self, name: str) -> JSONObject:
        """Delete a file.

        :raises MockError: 404 if there is no such file.
        """
        self.get(name)
        del self._files[name]
        return {"id": name, "object": "file", "deleted": True}
