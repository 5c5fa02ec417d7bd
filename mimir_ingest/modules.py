"""What a process is made of for its target: which modules, and in which order they start.

    server ─► runtime-config ─► ring ─► log ─► bucket ─► ingester ─► distributor ─► querier

The listeners come first, so that `/ready` can say what is being waited for; what a component needs comes before it.
Modules stop in reverse. Pure. Source: the dependency table of Mimir's modules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "server": (),
        "internal-server": ("server",),
        "runtime-config": ("server",),
        "ring": ("server",),
        "log": ("ring",),
        "bucket": ("server",),
        "ingester": ("internal-server", "runtime-config", "ring", "log", "bucket"),
        "distributor": ("runtime-config", "ring", "log"),
        "querier": ("runtime-config", "ring", "log", "bucket"),
        "bucket-upkeep": ("ring", "bucket"),
    }
)
"""What each module needs to have started before it."""
OPTIONAL_AFTER: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"distributor": ("ingester",), "querier": ("ingester",), "bucket": ("internal-server", "runtime-config", "log")}
)
"""What a module starts after where both are there, so that one process becomes useful in one go."""


def start_order(components: Iterable[str]) -> list[str]:
    """Return the modules that these components need, themselves included, in the order of starting.

    Raises KeyError for a component that is not known.
    """
    wanted: set[str] = set()
    waiting = list(components)
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting += NEEDS[name]
    order: list[str] = []
    while len(order) < len(wanted):
        order += [
            name
            for name in NEEDS
            if name in wanted
            and name not in order
            and {*NEEDS[name], *OPTIONAL_AFTER.get(name, ())} & wanted <= {*order}
        ][:1]
    return order
