"""Refusals of an upstream, remembered so that later calls need no second attempt. Sans-I/O."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from enum import Enum
from functools import cached_property

from stream_proxy.http.headers import RawHeader

#: Providers change: a refusal is tried anew after an hour.
REMEMBER_SECONDS = 3600.0
#: A call with more members than this, or with longer names, is odd, and teaches nothing.
_MOST_MEMBERS = 64
_LONGEST_NAME = 64
#: The sets of members that are kept for a model and client.
_MOST_SHAPES = 8
#: Members that the proxy writes itself.
_OURS = frozenset({"stream", "stream_options"})

#: Fields that decide on whose behalf a call is made.
_IDENTITY = frozenset(
    {b"authorization", b"api-key", b"x-api-key", b"x-goog-api-key", b"openai-organization", b"openai-project"}
)


class Unsupported(Enum):
    """Features that an upstream may not support for a model; the value says what follows."""

    INCLUDE_USAGE = "refuses stream_options: its streams are asked for without usage"
    STREAM = "refuses streams: its calls pass as they come"


class Asker:
    """The side of a call that refusals depend on: its model, on whose behalf it is made, and its members.

    A refusal may be about any of these: an organisation that is not verified, tools that cannot be streamed.

    :param model: the model, as JSON.
    :param headers: the client's fields.
    :param members: the names of the members of the body.
    """

    def __init__(self, model: bytes, headers: Iterable[RawHeader], members: Iterable[str]) -> None:
        self.model = model
        self._headers = headers
        self._members = members

    # Most calls are made while nothing is remembered, and need neither of these.

    @cached_property
    def members(self) -> frozenset[str]:
        """The members that the client wrote."""
        return frozenset(self._members) - _OURS

    @cached_property
    def identity(self) -> bytes:
        """Digest of the fields that say on whose behalf the call is made."""
        fields = [(lower, value) for name, value in self._headers if (lower := name.lower()) in _IDENTITY]
        parts = [b"%b:%d:%b" % (name, len(value), value) for name, value in fields]
        return hashlib.blake2b(b"".join(parts), digest_size=16).digest()

    @property
    def is_odd(self) -> bool:
        """Whether the members are more than should be held for an hour."""
        return len(self.members) > _MOST_MEMBERS or max(map(len, self.members), default=0) > _LONGEST_NAME


class RefusalMemory:
    """Refusals by model, client and members, the least recently used forgotten first.

    :param seconds: the clock.
    :param size: the number of models and clients that are kept.
    :param learned: called with a line for the log when something is learned about a model.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        size: int = 1024,
        learned: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._seconds = seconds
        self._size = size
        self._learned = learned
        # What was refused to calls with certain members, one of which may be the reason, and until when that
        # holds for all calls that have these members.
        self._refusals: OrderedDict[tuple[Unsupported, bytes, bytes], dict[frozenset[str], float]]
        self._refusals = OrderedDict()

    def learn(self, unsupported: Unsupported, asker: Asker) -> None:
        """Record that a call was refused for a feature, and succeeded without it."""
        if asker.is_odd:
            return
        now, members = self._seconds(), asker.members
        news = not any(
            until > now
            for (feature, model, _), refused in self._refusals.items()
            if (feature, model) == (unsupported, asker.model)
            for until in refused.values()
        )
        key = (unsupported, asker.model, asker.identity)
        old = self._refusals.pop(key, {})
        refused = {each: until for each, until in old.items() if until > now and not members <= each}
        refused[members] = now + REMEMBER_SECONDS
        if len(refused) > _MOST_SHAPES:
            del refused[next(iter(refused))]
        self._refusals[key] = refused
        if len(self._refusals) > self._size:
            self._refusals.popitem(last=False)
        if news:
            name = ascii(asker.model.decode("utf-8", "replace"))[1:-1]
            self._learned(f"{name} {unsupported.value}; this is tried anew after an hour")

    def knows(self, unsupported: Unsupported, asker: Asker) -> bool:
        """Report whether such a call was refused within the last hour."""
        if not self._refusals:
            return False
        key = (unsupported, asker.model, asker.identity)
        refused = self._refusals.get(key)
        if refused is None:
            return False
        self._refusals.move_to_end(key)
        now = self._seconds()
        return any(until > now and members <= asker.members for members, until in refused.items())

    def forget(self) -> None:
        """Forget everything: whoever reloads may have changed something at the upstream."""
        self._refusals.clear()
