"""Captures of all workers as one, through the ports on which the workers are observed."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, readBody
from twisted.web.iweb import IResponse
from zope.interface import implementer

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import invalid_request
from stream_proxy.observe.capture import har
from stream_proxy.service.admin.capture.local import MISSING, MOST_DOWNLOADS, Form, State, busy, start
from stream_proxy.service.admin.remote import WorkersSource
from stream_proxy.service.admin.router import Visit

_NAME = re.compile(r"([0-9]{1,5})(?:\.[0-9]{1,9})?-([0-9]{1,19})")
#: Members of the state that are sums.
_SUMS = ("wanted", "exchanges", "bytes", "maxBytes")
_ANSWER_SECONDS = 10.0


class WorkersCapture:
    """The captures of all workers. The ids of a worker's exchanges get its number in front.

    :param workers: the workers.
    :param count: how many there are.
    """

    def __init__(self, workers: WorkersSource, count: int) -> None:
        self._workers = workers
        self._numbers = range(1, count + 1)
        self._downloads = 0

    def state(self) -> Deferred[State]:
        """Return the sum of what the workers have."""
        return self._all(b"GET", "/capture")

    def want(self, requests: int) -> Deferred[State]:
        """Capture so many of the next requests, each worker its share."""
        share = -(-requests // len(self._numbers))
        return self._all(b"POST", f"/capture/want/{share}")

    def clear(self) -> Deferred[State]:
        """Drop what was captured."""
        return self._all(b"POST", "/capture/clear")

    def download(self, visit: Visit, form: Form) -> None:
        """Send the exchanges of one worker after those of the other."""
        parts = [(number, f"/capture.{form}?prefix={number}-") for number in self._numbers]
        self._send(visit, form, b"capture", parts, whole=True)

    def download_one(self, visit: Visit, name: str, form: Form) -> None:
        """Send one exchange of one worker."""
        match = _NAME.fullmatch(name)
        if match is None or int(match[1]) not in self._numbers:
            visit.fail(invalid_request(MISSING, ErrorCode.UNKNOWN_URL))
            return
        number, path = int(match[1]), f"/capture/{match[2]}.{form}"
        self._send(visit, form, b"exchange-" + name.encode(), [(number, path)], whole=False)

    def _send(
        self, visit: Visit, form: Form, name: bytes, parts: list[tuple[int, str]], *, whole: bool
    ) -> None:
        if self._downloads >= MOST_DOWNLOADS:
            visit.fail(busy())
        else:
            self._downloads += 1
            output = _Output(visit, form, name, whole=whole)
            _Relay(self._workers, output, parts, self._ended).next()

    def _ended(self) -> None:
        self._downloads -= 1

    def _all(self, method: bytes, path: str) -> Deferred[State]:
        return Deferred.fromCoroutine(self._sum(method, path))

    async def _sum(self, method: bytes, path: str) -> State:
        """Ask each worker, and return the sum of those that answer."""
        answers: list[State] = []
        for asked in [self._ask(number, method, path) for number in self._numbers]:
            body = await asked
            if body is not None:
                answers.append(msgspec.json.decode(body))
        if not answers:
            raise ConnectionError("no worker answers")
        sums = {name: sum(cast(int, each[name]) for each in answers) for name in _SUMS}
        return {**answers[0], "on": any(each["on"] for each in answers), **sums}

    def _ask(self, number: int, method: bytes, path: str) -> Deferred[bytes | None]:
        return Deferred.fromCoroutine(self._answer(number, method, path))

    async def _answer(self, number: int, method: bytes, path: str) -> bytes | None:
        clock = self._workers.clock
        try:
            response = await self._workers.ask(number, method, path).addTimeout(_ANSWER_SECONDS, clock)
            body: bytes = await readBody(response).addTimeout(_ANSWER_SECONDS, clock)
        except Exception:
            return None  # it is being replaced
        return body if response.code == 200 else None


class _Output:
    """The one download that the bodies of workers become.

    :param whole: they are parts of a capture; else there is one body, which goes out as it comes.
    """

    def __init__(self, visit: Visit, form: Form, name: bytes, *, whole: bool) -> None:
        self.visit = visit
        self.whole = whole
        self._form: Form = form
        self._name = name
        self._has_entries = whole and form == "har"
        self._begun = self._written = self._parted = False

    def begin(self, producer: IPushProducer) -> bool:
        """Send the head, once; report whether there is a body to send."""
        if not self._begun:
            self._begun = start(self.visit, self._form, self._name)
            if self._begun:
                self.visit.request.registerProducer(producer, True)
                if self._has_entries:
                    self.visit.request.write(har.BEGIN)
        return self._begun

    def part(self) -> None:
        """Begin another part, if anything comes of it."""
        self._parted = not (self._written and self._has_entries)

    def write(self, data: bytes) -> None:
        """Send a piece of a part, and before the first one what parts it from the part before."""
        if not self._parted:
            self.visit.request.write(har.SEPARATOR)
        self._parted = self._written = True
        self.visit.request.write(data)

    def finish(self) -> None:
        """Send the end."""
        request = self.visit.request
        if self._has_entries:
            request.write(har.END)
        request.unregisterProducer()
        request.finish()


@implementer(IPushProducer)
class _Relay:
    """Bodies of workers, one behind the other, to one client and as fast as it reads.

    :param parts: the numbers of workers, and the paths to ask for.
    :param ended: called once, at the end.
    """

    def __init__(
        self,
        workers: WorkersSource,
        output: _Output,
        parts: list[tuple[int, str]],
        ended: Callable[[], None],
    ) -> None:
        self._workers = workers
        self._output = output
        self._parts = deque(parts)
        self._ended: Callable[[], None] | None = ended
        self._paused = False
        self._asking: Deferred[IResponse] | None = None
        self._body: _Body | None = None
        output.visit.gone = self._stop

    def next(self) -> None:
        """Ask the next worker, or end."""
        self._body = None
        if not self._parts:
            if self._output.begin(self):
                self._output.finish()
            self._stop()
            return
        number, path = self._parts.popleft()
        asking = self._asking = self._workers.ask(number, b"GET", path)
        asking.addCallbacks(self._responded, self._failed)

    def _responded(self, response: IResponse) -> None:
        self._asking = None
        if response.code != 200:
            response.deliverBody(_Body(None))
            self._skip()
        elif not self._output.begin(self):
            response.deliverBody(_Body(None))
            self._stop()
        else:
            self._output.part()
            body = self._body = _Body(self)
            response.deliverBody(body)
            if self._paused and self._body is body:
                body.pause()

    def _failed(self, failure: Failure) -> None:
        self._asking = None
        if not failure.check(CancelledError):
            self._skip()

    def _skip(self) -> None:
        """Go on without a worker, which has nothing to show, or is being replaced."""
        if self._output.whole:
            self.next()
        else:
            self._output.visit.fail(invalid_request(MISSING, ErrorCode.UNKNOWN_URL))
            self._stop()

    def came(self, data: bytes) -> None:
        """Send a piece of a worker's body."""
        self._output.write(data)

    def lost(self, *, whole: bool) -> None:
        """Go on behind the body of a worker; break off in the middle of one."""
        if whole:
            self.next()
            return
        channel = self._output.visit.request.channel
        self._stop()
        if channel is not None:
            channel.loseConnection()

    def _stop(self) -> None:
        """Ask no more; the client has gone, or all is sent."""
        self._parts.clear()
        self._output.visit.gone = None
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
        body, self._body = self._body, None
        if body is not None:
            body.close()
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()

    def pauseProducing(self) -> None:
        self._paused = True
        if self._body is not None:
            self._body.pause()

    def resumeProducing(self) -> None:
        self._paused = False
        if self._body is not None:
            self._body.resume()

    def stopProducing(self) -> None:
        """Do nothing: the request says that its client has gone."""


class _Body(Protocol):
    """Body of one worker's answer; without an owner it is dropped."""

    transport: Any

    def __init__(self, owner: _Relay | None) -> None:
        self._owner = owner

    def connectionMade(self) -> None:
        if self._owner is None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        if self._owner is not None:
            self._owner.came(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.lost(whole=reason is not None and reason.check(ResponseDone) is not None)

    def pause(self) -> None:
        """Read nothing for now."""
        self.transport.pauseProducing()

    def resume(self) -> None:
        """Read again."""
        self.transport.resumeProducing()

    def close(self) -> None:
        """Read no more."""
        self._owner = None
        if self.transport is not None:
            self.transport.loseConnection()
