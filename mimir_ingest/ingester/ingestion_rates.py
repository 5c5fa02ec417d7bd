"""Moving averages of accepted samples, by partition and tenant, as statistics pages show them. Pure: time is given.

Every period the samples of the period become a rate, which counts a fifth against what was known before. Source: spec
http-api.md 4.5 and 6.14; Mimir's averages (weight 0.2, `ingester.rate_update_period`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

WEIGHT = 0.2
"""Of the newest period."""

FORGOTTEN_BELOW = 1e-6
"""Samples a second. why: a tenant that stopped sending would stay in the table for ever."""


class Rates(NamedTuple):
    """Accepted samples a second."""

    api: float = 0.0
    """From senders."""
    rule: float = 0.0
    """From recording rules."""

    def plus(self, other: Rates) -> Rates:
        """Return both together."""
        return Rates(self.api + other.api, self.rule + other.rule)


NO_RATES = Rates()


@dataclass(slots=True)
class _Average:
    counted: int = 0
    rate: float | None = None
    """None before the end of the first period."""

    def tick(self, period_s: float) -> None:
        now = self.counted / period_s
        self.rate = now if self.rate is None else self.rate + WEIGHT * (now - self.rate)
        self.counted = 0


class IngestionRates:
    """Written by the consumers, read by pages; on the event loop."""

    def __init__(self, *, period_s: float, now_s: float) -> None:
        """The first period begins at `now_s`, a monotonic time."""
        self.period_s = period_s
        self._ends_s = now_s + period_s
        self._averages: dict[tuple[int, str], tuple[_Average, _Average]] = {}

    def add(self, partition: int, tenant: str, samples: int, rule_samples: int) -> None:
        """A partition accepted `samples` of a tenant, of which `rule_samples` came from rules."""
        found = self._averages.get((partition, tenant))
        if found is None:
            found = self._averages[partition, tenant] = (_Average(), _Average())
        found[0].counted += samples - rule_samples
        found[1].counted += rule_samples

    def tick(self, now_s: float) -> None:
        """End the periods that are over at `now_s`."""
        while now_s >= self._ends_s:
            self._ends_s += self.period_s
            for key, averages in list(self._averages.items()):
                for average in averages:
                    average.tick(self.period_s)
                if all((average.rate or 0.0) < FORGOTTEN_BELOW for average in averages):
                    del self._averages[key]

    def forget(self, partition: int) -> None:
        """A partition is not consumed any more."""
        for key in [key for key in self._averages if key[0] == partition]:
            del self._averages[key]

    def of(self, tenant: str, partitions: Collection[int]) -> Rates:
        """Return a tenant's rates in these partitions."""
        total = NO_RATES
        for partition in partitions:
            found = self._averages.get((partition, tenant))
            if found is not None:
                total = total.plus(Rates(found[0].rate or 0.0, found[1].rate or 0.0))
        return total
