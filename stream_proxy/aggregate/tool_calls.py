"""Tool calls under construction: which fragments belong to one call."""

from __future__ import annotations

import hashlib

from stream_proxy.aggregate.arguments import Arguments, opens_object
from stream_proxy.aggregate.arrays import Entries, Identity, Object, differ, holds, identity


class ToolCalls(Entries):
    """An array of tool calls.

    Every parallel call of Gemini and Groq has index 0, other servers send a fresh id with every fragment, or
    neither index nor id: what an entry has so far decides with them whether a fragment continues it.
    """

    __slots__ = ("_chunk", "_several")

    def __init__(self) -> None:
        super().__init__()
        self._chunk: list[Object] = []  # the entries of this chunk
        self._several: list[Object] = []  # those of the last chunk with more than one

    def place(self, fragment: Object, position: int = 0, count: int = 1) -> Object:
        if position == 0:
            self._chunk = []
        entry = super().place(fragment, position, count)
        self._chunk.append(entry)
        if count > 1 and position == count - 1:
            self._several = self._chunk
        return entry

    def arguments_at(self, index: int) -> Arguments | None:
        """Return the arguments that a fragment with this index, and without id or name, is appended to."""
        entry = self._by_index.get(identity(index))
        arguments = None if entry is None else _callee(entry).get("arguments")
        return arguments if isinstance(arguments, Arguments) else None

    def _at_index(self, fragment: Object, index: Identity, id: Identity) -> Object | None:
        entry = self._by_id.get(id) if id is not None else None
        if entry is None or identity(entry.get("index")) not in (None, index):
            entry = self._by_index.get(index)
        return None if entry is None or _is_another(entry, fragment) else entry

    def _with_id(self, fragment: Object, id: Identity) -> Object | None:
        entry = self._by_id.get(id)
        return None if entry is None or _is_another(entry, fragment) else entry

    def _unidentified(self, fragment: Object, position: int, count: int) -> Object | None:
        entry = self._last
        if count > 1:
            named = _text(_callee(fragment), "name")
            before = self._several
            if position < len(before) and not named:
                entry = before[position]
            elif position or named:
                return None  # the entries of one chunk are different calls
        return None if entry is None or _is_another(entry, fragment) else entry


def finish_calls(message: Object, seed: str) -> None:
    """Give the tool calls of a message, now JSON values but for long texts, what the ordinary API requires.

    :param seed: what tells this message apart from others, for the ids of calls that came without.
    """
    calls = message.get("tool_calls")
    for position, call in enumerate(calls if isinstance(calls, list) else ()):
        if not isinstance(call, dict):
            continue
        call.pop("index", None)  # only streams have it
        function = call.get("function")
        if isinstance(function, dict):
            _finish_arguments(function)
            call["type"] = call.get("type") or "function"
        if call.get("id") is None and (isinstance(function, dict) or isinstance(call.get("custom"), dict)):
            # Clients answer by the id. It depends on the stream alone, so that no cut changes it.
            made = hashlib.sha256(f"{seed} {position} {function}".encode("utf-8", "surrogatepass"))
            call["id"] = f"call_{made.hexdigest()[:24]}"
    legacy = message.get("function_call")
    if isinstance(legacy, dict):
        _finish_arguments(legacy)


def _finish_arguments(function: Object) -> None:
    arguments = function.get("arguments")
    if arguments is None or (isinstance(arguments, str) and arguments.strip() in ("", "null")):
        function["arguments"] = "{}"  # a call without parameters


def _is_another(entry: Object, fragment: Object) -> bool:
    """Report whether `fragment`, which comes where `entry` is, begins another call."""
    if fragment.get("type") and differ(entry, fragment, "type"):
        return True
    callee, id = _callee(fragment), identity(fragment.get("id"))
    name = _text(callee, "name")
    if not name and id is None:
        return False
    known_callee, known_id = _callee(entry), identity(entry.get("id"))
    if not name and id == known_id:
        return False
    fresh = id is not None and known_id is not None and id != known_id
    renamed = bool(name) and not holds(known_callee.get("name"), name)
    known = known_callee.get("arguments")
    if isinstance(known, dict):  # not as text: it came whole
        return bool(name) and (fresh or isinstance(callee.get("arguments"), dict))
    if not isinstance(known, Arguments) or not known.complete:
        return fresh and bool(name) and (renamed or bool(known_callee.get("input")))
    if (fresh and name) or (renamed and known_callee.get("name")):
        return True
    text = _text(callee, "arguments")
    return opens_object(text) and not known.are_said_again(text)


def _callee(call: Object) -> Object:
    """Return the object with a call's name and arguments: ``function``, ``custom``, or the call itself."""
    for key in ("function", "custom"):
        member = call.get(key)
        if isinstance(member, dict):
            return member
    return call


def _text(fragment: Object, key: str) -> str:
    text = fragment.get(key)
    return text if isinstance(text, str) else ""
