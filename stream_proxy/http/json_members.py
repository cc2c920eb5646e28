"""Members of a JSON object that is in memory in pieces, and has been scanned."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from stream_proxy.http.body_pieces import BodyPieces
from stream_proxy.http.json_scan import ObjectScan
from stream_proxy.lenient_json import decode_json

#: The longest name, and the longest value that is copied.
LONGEST_PLAIN = 65_536

#: A value as it was written: copied, or a part of the body.
Value: TypeAlias = msgspec.Raw | BodyPieces

_decode_name = msgspec.json.Decoder(str).decode


def members(scan: ObjectScan, body: BodyPieces) -> dict[str, Value] | None:
    """Return the members of a body whose scan has ended, as `msgspec` decodes them, or ``None``.

    The last one of a name counts. Values of no more than `LONGEST_PLAIN` bytes are copied, the others are
    parts of the body.
    """
    if not scan.valid:
        return None
    found: dict[str, Value] = {}
    marks = scan.marks
    for at in range(0, len(marks) - 2, 2):
        start, end = body.stripped(marks[at] + 1, marks[at + 1])
        if end - start > LONGEST_PLAIN:
            return None
        name = _name(body.read(start, end))
        if name is None:
            return None
        start, end = body.stripped(marks[at + 1] + 1, marks[at + 2])
        if end - start > LONGEST_PLAIN:
            found[name] = body.part(start, end)
        else:
            found[name] = msgspec.Raw(body.read(start, end))
    return found


def _name(data: bytes) -> str | None:
    try:
        return _decode_name(data)
    except msgspec.DecodeError:  # lone surrogates
        name = decode_json(data)
        return name if isinstance(name, str) else None
    except UnicodeDecodeError:
        return None
