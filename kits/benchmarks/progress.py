"""Progress of a run: a bar with the time that is left on a terminal, else a line for each round."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol


class Estimate:
    """An estimate of the time that is left.

    A step that was done before is expected to take as long as the last time. The guesses for the others are
    scaled by how the steps that are done compare with theirs.

    :param steps: the steps to come, in order: what they are, and a guess of their seconds.
    """

    def __init__(self, steps: Sequence[tuple[str, float]]) -> None:
        self._steps = list(steps)
        self._guesses = dict(steps)
        self._taken: dict[str, float] = {}
        self.done = 0

    def took(self, seconds: float) -> None:
        """Note that the next step is done."""
        what, _ = self._steps[self.done]
        self._taken[what] = seconds
        self.done += 1

    def expected(self, what: str) -> float:
        """Return the seconds that a step is expected to take."""
        if what in self._taken:
            return self._taken[what]
        guessed = sum(self._guesses[one] for one in self._taken)
        factor = sum(self._taken.values()) / guessed if guessed else 1.0
        return self._guesses[what] * factor

    @property
    def left(self) -> float:
        """The seconds that the steps to come are expected to take."""
        return sum(self.expected(what) for what, _ in self._steps[self.done :])


class Bar(Protocol):
    """Where progress is shown."""

    def show(self, what: str, done: float, left: float) -> None:
        """Show the step that begins, the seconds of those done and of those left."""

    def close(self) -> None:
        """Remove it."""


class Progress:
    """Progress through the steps of a run.

    :param steps: see :class:`Estimate`.
    :param clock: the time in seconds.
    """

    def __init__(
        self, steps: Sequence[tuple[str, float]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._estimate = Estimate(steps)
        self._clock = clock
        self._begun = clock()
        self._bar: Bar | None = _RichBar() if sys.stderr.isatty() else None

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Do the next step in the body of a ``with``."""
        begun = self._clock()
        if self._bar is not None:
            self._bar.show(what, begun - self._begun, self._estimate.left)
        yield
        self._estimate.took(self._clock() - begun)

    def round(self, number: int, of: int) -> None:
        """Report that a round begins."""
        if self._bar is None:
            say(f"round {number + 1} of {of}{self._remaining(number)}")

    def _remaining(self, number: int) -> str:
        return f", {self._estimate.left / 60:.1f} minutes left" if number else ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def say(text: str) -> None:
    """Print a line beside the results."""
    print(text, file=sys.stderr, flush=True)


class _RichBar:
    """The bar of a terminal, made by rich."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Display

        self._display = Display(
            TextColumn("{task.description:42}"),
            BarColumn(),
            TextColumn("{task.fields[until]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._display.add_task("", total=1.0, until="")
        self._display.start()

    def show(self, what: str, done: float, left: float) -> None:
        end = time.strftime("%H:%M", time.localtime(time.time() + left))
        until = f"{left / 60:.0f} min left, until {end}" if left >= 90 else f"{left:.0f} s left"
        self._display.update(self._task, description=what, completed=done, total=done + left, until=until)

    def close(self) -> None:
        self._display.stop()
