"""Registry of all contestants, by name."""

from __future__ import annotations

from kits.benchmarks.contestants.base import DIRECT, AiohttpProxy, Contestant, Product
from kits.benchmarks.contestants.others import LiteLLM, Mitmproxy, Nginx, Portkey


def _products() -> dict[str, Product]:
    variants = (
        Product("product"),
        Product("product-uvloop", reactor="uvloop"),
        Product("product-w2", workers=2),
        Product("product-uvloop-w2", reactor="uvloop", workers=2),
        Product("product-log", log="info"),
        Product("product-admin", admin=True),
    )
    return {variant.name: variant for variant in variants}


def all_contestants() -> dict[str, Contestant]:
    """Return all contestants by name, in the order of the table."""
    return {
        DIRECT: Contestant(DIRECT),
        "nginx": Nginx("nginx"),
        "aiohttp": AiohttpProxy("aiohttp"),
        "aiohttp-tuned": AiohttpProxy("aiohttp-tuned", tuned=True),
        **_products(),
        "litellm": LiteLLM("litellm"),
        "portkey": Portkey("portkey"),
        "mitmproxy": Mitmproxy("mitmproxy"),
    }


def chosen_contestants(names: str | None) -> list[Contestant]:
    """Return the contestants that a comma-separated list names; all without a list.

    ``product@DIRECTORY`` is the product from another checkout.

    :raises SystemExit: if one does not exist.
    """
    known = all_contestants()
    if not names:
        return list(known.values())
    chosen = []
    for name in names.split(","):
        base, _, checkout = name.partition("@")
        one = known.get(base)
        if isinstance(one, Product) and checkout:
            one = one.of(name, checkout)
        elif one is None or checkout:
            raise SystemExit(
                f"no such contestant: {name}; there are {', '.join(known)}, and product@DIRECTORY"
            )
        chosen.append(one)
    return chosen
