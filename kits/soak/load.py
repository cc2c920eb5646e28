"""Load: clients that perform one action after another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from kits.soak import calls, sessions
from kits.soak.actor import Actor
from kits.soak.expected import Wrong

#: The time that one action may take: several times that of its slowest fault.
DEADLINE_SECONDS = 60.0
#: Actions, and how often each is chosen.
_ACTIONS: dict[Callable[[Actor], Awaitable[None]], int] = {
    calls.chat: 20,
    calls.responses: 12,
    calls.stream: 12,
    calls.adapter: 8,
    calls.adapter_stream: 8,
    calls.data: 10,
    calls.head: 4,
    calls.pipelined: 5,
    calls.upload: 4,
    sessions.session: 6,
    calls.slow_reader: 2,
    sessions.leaving: 9,
    sessions.lost: 6,
    calls.too_large: 1,
}


async def act(actor: Actor, over: Callable[[], bool], pause: float) -> None:
    """Perform random actions until `over`.

    :param pause: the average time between two actions.
    """
    try:
        while not over():
            action = actor.chance.choices(list(_ACTIONS), list(_ACTIONS.values()))[0]
            name = action.__name__
            try:
                await asyncio.wait_for(action(actor), DEADLINE_SECONDS)
            except Wrong as wrong:
                actor.tally.problem(f"{name}: {wrong}")
            except TimeoutError:
                actor.tally.problem(f"{name}: hangs for {DEADLINE_SECONDS:g} s")
            except (OSError, asyncio.IncompleteReadError) as error:
                actor.tally.problem(f"{name}: {type(error).__name__}: {error}")
            actor.tally.done[name] += 1
            await asyncio.sleep(actor.chance.expovariate(1 / pause) if pause else 0)
    finally:
        await actor.connections.close()
