"""Goals: the most that a request may cost the product, as a ratio to a reference in the same run."""

from __future__ import annotations

from dataclasses import dataclass

TUNED, PLAIN = "aiohttp-tuned", "aiohttp"
#: How many times the product's CPU time LiteLLM takes at least, in each workload that both can do.
LITELLM_LEAST = 15.0


@dataclass(frozen=True)
class Goal:
    """The highest ratio to a reference with which a workload's goal is reached."""

    reference: str
    most: float


GOALS = {
    "small": Goal(TUNED, 0.6),
    "stream": Goal(TUNED, 0.38),
    "stream-paced": Goal(TUNED, 0.7),
    "convert": Goal(TUNED, 0.6),
    "convert-paced": Goal(TUNED, 1.0),
    "convert-big": Goal(TUNED, 0.28),
    "responses": Goal(TUNED, 0.7),
    "ws-text": Goal(TUNED, 0.65),
    "ws-pipe": Goal(TUNED, 0.15),
    "ws-bin": Goal(TUNED, 0.6),
    "tls-stream": Goal(PLAIN, 0.45),
    "tls-paced": Goal(PLAIN, 0.65),
    "upload": Goal(PLAIN, 0.8),
    "idle-stream": Goal(PLAIN, 0.55),
    "idle-ws": Goal(PLAIN, 0.9),
}
