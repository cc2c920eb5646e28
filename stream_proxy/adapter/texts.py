"""Text of one response as it comes: in deltas, as a whole that grows, or taken back and replaced."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, response_too_large, upstream_error
from stream_proxy.json_steps import Steps

# A text that is cut inside a character ends with one of these until the rest of the character has come.
_UNFINISHED = "\ufffd" + "".join(map(chr, range(0xD800, 0xDC00)))
# Messages whose text is remembered, so that one that comes again is not sent again.
_MOST_MESSAGES = 256
# Bytes of a text that are hashed in one step.
_HASHED = 2**22


class GrowingText:
    """A text that payloads repeat from its start, of which only the new part is sent.

    :param name: what it is, for an error.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._held = ""
        # The text is the first string and the pieces after it. They are joined only for a text that is longer
        # than the first string, which makes all joins together linear in what came.
        self._start = ""
        self._pieces: list[str] = []
        #: The length of what came, without half a character at its end.
        self.length = 0

    def new(self, text: str) -> str:
        """Return what `text`, the whole text so far, adds.

        :raises APIError: it has other text where some came before.
        """
        added = self.added(text)
        if added is None:
            raise rewritten(self._name)
        return added

    def added(self, text: str) -> str | None:
        """Return what `text`, the whole text so far, adds; ``None`` if it differs from what came before."""
        whole = text.rstrip(_UNFINISHED)
        if len(whole) > len(self._start):
            self._join()
        if not whole.startswith(self._start):
            # The last payload often has no text, or less of it.
            return "" if self._start.startswith(text) else None
        if len(whole) < self.length:
            return ""
        added = whole[self.length :]
        self._start, self.length = whole, len(whole)
        self._held = text[len(whole) :]
        return added

    def append(self, text: str) -> None:
        """Add a piece that came by itself."""
        self._pieces.append(text)
        self.length += len(text)

    def replace(self, text: str) -> None:
        """Begin again with another text."""
        self._start, self._pieces, self._held, self.length = text, [], "", len(text)

    def rest(self) -> str:
        """Return half a character whose other half did not come."""
        held, self._held = self._held, ""
        return held

    def parts(self) -> Iterator[str]:
        """Yield the text in parts."""
        yield self._start
        yield from self._pieces
        yield self._held

    def _join(self) -> None:
        if self._pieces:
            self._start = "".join((self._start, *self._pieces))
            self._pieces.clear()


class ResponseText:
    """The text, or the reasoning, of one response: what comes in, and what of it is to be sent.

    :param name: what it is, for errors.
    :param most_held: hold everything until the end, at most so much, so that it can still be replaced;
        ``None`` to send text as it comes.
    """

    def __init__(self, name: str, most_held: int | None = None) -> None:
        self._name = name
        self._most_held = most_held
        self._held: list[str | GrowingText] = []
        self._size = 0
        # What came by itself: the number of pieces, their length and hash.
        self._pieces = 0
        self._length = 0
        self._hash = blake2b()
        self._messages: OrderedDict[str, GrowingText] = OrderedDict()
        self._grows = False

    def delta(self, text: str, may_repeat: Callable[[], bool], may_grow: Callable[[], bool]) -> Steps[str]:
        """Take a piece of text, and return, in steps, what is to be sent.

        :param may_repeat: its payload is of a kind that may repeat the whole text at the end.
        :param may_grow: it is the whole text so far if it begins with all that came before.
        """
        if self._grows and may_grow():
            return (yield from self.whole(text))
        data = text.encode("utf-8", "surrogatepass")
        length = self._length
        if len(data) == length and self._pieces > 1 and (yield from self._is_all(data)) and may_repeat():
            return ""
        if len(data) > length > 0 and (yield from self._is_all(data[:length])) and may_grow():
            begun = data[: self._length].decode("utf-8", "surrogatepass")
            if any(map(str.isalnum, begun)):  # line ends and dashes do begin what is not cumulative
                self._grows = True
                self._held.clear()
                self._size = 0
                self._message("").replace(begun)
                return (yield from self.whole(text))
        return (yield from self._take(text, data))

    def whole(self, text: str, message: str = "") -> Steps[str]:
        """Take the whole text so far of a message, and return, in steps, what is to be sent.

        :raises APIError: it differs from what has been sent already.
        """
        known = self._message(message)
        before = known.length
        added = known.added(text)
        if added is None:
            if self._most_held is None:
                raise rewritten(self._name)
            known.replace(text)
        if self._most_held is None:
            return (yield from self._sent(added or ""))
        self._hold(known.length - before)
        return ""

    def piece(self, text: str, message: str) -> Steps[str]:
        """Take a piece of a message that may also come whole, and return, in steps, what is to be sent."""
        self._message(message).append(text)
        if self._most_held is None:
            return (yield from self._sent(text))
        self._hold(len(text))
        return ""

    def replace(self, text: str) -> Steps[str]:
        """Take a text that replaces all that came before, and return, in steps, what is to be sent.

        :raises APIError: other text has been sent already.
        """
        data = text.encode("utf-8", "surrogatepass")
        if self._most_held is not None:
            self._held.clear()
            self._messages.clear()
            self._size = self._pieces = self._length = 0
            self._hash = blake2b()
            return (yield from self._take(text, data))
        if not (yield from self._is_all(data[: self._length])):
            raise upstream_error(
                f"The service replaced {self._name} that had been sent already, so what came before this "
                "error is not its answer; a call without a stream gets the replacement.",
                ErrorCode.UPSTREAM_MALFORMED,
            )
        return (yield from self._sent(data[self._length :].decode("utf-8", "surrogatepass")))

    def rest(self) -> Iterator[str]:
        """Yield what is to be sent at the end, in parts."""
        if self._most_held is None:
            yield from (known.rest() for known in self._messages.values())
        for held in self._held:
            if isinstance(held, str):
                yield held
            else:
                yield from held.parts()

    @property
    def any(self) -> bool:
        """Whether any text came."""
        return bool(self._length or self._size)

    def _message(self, message: str) -> GrowingText:
        known = self._messages.get(message)
        if known is None:
            known = self._messages[message] = GrowingText(self._name)
            if self._most_held is not None:
                self._held.append(known)
            if len(self._messages) > _MOST_MESSAGES:
                self._messages.popitem(last=False)
        return known

    def _take(self, text: str, data: bytes) -> Steps[str]:
        self._pieces += 1
        self._length += len(data)
        yield from _hash(self._hash, data)
        if self._most_held is None:
            return text
        self._held.append(text)
        self._hold(len(text))
        return ""

    def _sent(self, text: str) -> Steps[str]:
        if not text:
            return ""
        return (yield from self._take(text, text.encode("utf-8", "surrogatepass")))

    def _hold(self, more: int) -> None:
        self._size += more
        if self._most_held is not None and self._size > self._most_held:
            raise response_too_large(self._most_held)

    def _is_all(self, data: bytes) -> Steps[bool]:
        hashed = blake2b()
        yield from _hash(hashed, data)
        return hashed.digest() == self._hash.digest()


def _hash(hashed: blake2b, data: bytes) -> Steps[None]:
    """Add `data` to a hash, in steps."""
    if len(data) <= _HASHED:
        hashed.update(data)
        return
    for at in range(0, len(data), _HASHED):
        yield
        hashed.update(data[at : at + _HASHED])


def in_lengths(texts: Iterable[str], length: int) -> Iterator[str]:
    """Yield texts, joined, in parts of about that length; none of them is empty."""
    held: list[str] = []
    held_length = 0
    for text in texts:
        for at in range(0, len(text), length):
            part = text[at : at + length]
            held.append(part)
            held_length += len(part)
            if held_length >= length:
                yield "".join(held)
                held, held_length = [], 0
    if held:
        yield "".join(held)


def rewritten(name: str) -> APIError:
    """Return the error for a text that changed after it had been sent."""
    return upstream_error(
        f"The service changed {name} that it had sent already; in cumulative mode each payload "
        "must begin with the one before. Set the adapter's mode to delta if it sends only new text.",
        ErrorCode.UPSTREAM_MALFORMED,
    )
