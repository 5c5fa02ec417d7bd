"""Token buckets for tenants, a moving average for the whole process, and when to come back (spec: ingest storage 8.4).

The steps are pure: time is an argument, state a value. `RateLimiters` keeps the states; it is the only thing here that
threads share, and takes a lock for the few instructions that a step needs.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass

from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.distributor.messages import with_tenant_flags
from mimir_ingest.errors import LimitExceeded
from mimir_ingest.model.numbers import format_general

REQUEST_RATE_ID = "err-mimir-tenant-max-request-rate"
INGESTION_RATE_ID = "err-mimir-tenant-max-ingestion-rate"
RATE_LIMITED = "rate_limited"
"""Discard reason."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Tokens left in a bucket, at a time."""

    tokens: float
    now_s: float
    """Monotonic seconds."""


def take(bucket: Bucket | None, n: int, *, rate: float, burst: int, now_s: float) -> tuple[Bucket, bool]:
    """Take `n` tokens, all or none, from a bucket that gains `rate` a second up to `burst`; a new bucket is full.

    As `AllowN` of golang.org/x/time/rate: a clock that runs backwards gains nothing.
    """
    if bucket is None:
        bucket = Bucket(float(burst), now_s)
    gained = max(now_s - bucket.now_s, 0.0) * rate
    tokens = min(bucket.tokens + gained, float(burst))
    now_s = max(now_s, bucket.now_s)
    if n > tokens:
        return Bucket(tokens, now_s), False
    return Bucket(tokens - n, now_s), True


def full_at_s(bucket: Bucket, *, rate: float, burst: int) -> float:
    """Return when a bucket is full (monotonic seconds), so that it may as well be forgotten."""
    if bucket.tokens >= burst:
        return bucket.now_s
    return bucket.now_s + (burst - bucket.tokens) / rate if rate > 0 else math.inf


def ingestion_burst(limits: DistributorLimits, *, distributors: int) -> int:
    """Return how many items this distributor takes at once."""
    if limits.ingestion_burst_factor >= 1:
        return math.ceil(limits.ingestion_burst_factor * limits.ingestion_rate / distributors)
    return limits.ingestion_burst_size


def request_rate_error(limits: DistributorLimits) -> LimitExceeded:
    """Return the error for a request over the tenant's request rate."""
    return LimitExceeded(
        with_tenant_flags(
            "the request has been rejected because the tenant exceeded the request rate limit, set to "
            f"{format_general(limits.request_rate)} requests/s across all distributors with a maximum allowed burst of "
            f"{limits.request_burst_size}",
            REQUEST_RATE_ID,
            "distributor.request-rate-limit",
            "distributor.request-burst-size",
        ),
        error_id=REQUEST_RATE_ID,
        http_status=429,
    )


def ingestion_rate_error(limits: DistributorLimits, items: int, *, distributors: int) -> LimitExceeded:
    """Return the error for a request over the tenant's ingestion rate, or one that no bucket could ever hold."""
    counted = (
        "This limit is applied on the total number of samples, exemplars and metadata received across all distributors"
    )
    burst = ingestion_burst(limits, distributors=distributors)
    if items > burst:
        text = (
            "the request has been rejected because the tenant exceeded the ingestion burst size limit, "
            f"set to {burst}, with {items} items. {counted}"
        )
        flags = ("distributor.ingestion-burst-size",)
    else:
        told = limits.ingestion_burst_size
        if limits.ingestion_burst_factor >= 1:
            told = int(limits.ingestion_rate * limits.ingestion_burst_factor)
        text = (
            "the request has been rejected because the tenant exceeded the ingestion rate limit, set to "
            f"{format_general(limits.ingestion_rate)} items/s with a maximum allowed burst of {told}. {counted}"
        )
        flags = ("distributor.ingestion-rate-limit", "distributor.ingestion-burst-size")
    return LimitExceeded(
        with_tenant_flags(text, INGESTION_RATE_ID, *flags), error_id=INGESTION_RATE_ID, http_status=429
    )


_Buckets = dict[str, tuple[Bucket, float]]
"""Tenant -> its bucket, and when it is full (monotonic seconds)."""


class RateLimiters:
    """The buckets of all tenants of this process. May be used from any thread.

    `distributors` gives the number of healthy distributors, by which rates (not bursts) are divided.
    """

    def __init__(self, *, distributors: Callable[[], int] = lambda: 1) -> None:
        self._distributors = distributors
        self._lock = threading.Lock()
        self._requests: _Buckets = {}
        self._items: _Buckets = {}

    def take_request(self, tenant: str, limits: DistributorLimits, *, now_s: float) -> None:
        """Count a request. Raises LimitExceeded (429)."""
        if limits.request_rate <= 0 or limits.request_burst_size <= 0:
            return
        rate = limits.request_rate / self._count()
        if not self._take(self._requests, tenant, 1, rate, limits.request_burst_size, now_s):
            raise request_rate_error(limits)

    def take_items(self, tenant: str, items: int, limits: DistributorLimits, *, now_s: float) -> None:
        """Count a request's valid items, all or none. Raises LimitExceeded (429)."""
        count = self._count()
        burst = ingestion_burst(limits, distributors=count)
        if not self._take(self._items, tenant, items, limits.ingestion_rate / count, burst, now_s):
            raise ingestion_rate_error(limits, items, distributors=count)

    def _count(self) -> int:
        return max(self._distributors(), 1)

    def _take(self, buckets: _Buckets, tenant: str, n: int, rate: float, burst: int, now_s: float) -> bool:
        with self._lock:
            known = buckets.get(tenant)
            bucket, taken = take(known and known[0], n, rate=rate, burst=burst, now_s=now_s)
            buckets[tenant] = bucket, full_at_s(bucket, rate=rate, burst=burst)
        return taken

    def forget_full(self, *, now_s: float) -> None:
        """Drop the buckets that have filled up since they were used: a new one is full, too."""
        with self._lock:
            for buckets in (self._requests, self._items):
                for tenant in [tenant for tenant, (_, full_s) in buckets.items() if full_s <= now_s]:
                    del buckets[tenant]

    def __len__(self) -> int:
        """Return the number of buckets."""
        return len(self._requests) + len(self._items)


_TICK_S = 1.0
_WEIGHT = 0.2  # why: the weight and the tick of Mimir's instance rate


@dataclass(frozen=True, slots=True)
class MovingRate:
    """Exponentially weighted moving average of events a second, settled once a second."""

    rate: float
    pending: int
    """Events since the last tick."""
    ticked_s: float
    """Monotonic seconds of the last tick."""
    started: bool = False
    """Whether a tick has passed: the first one sets the rate instead of moving it."""


def move_rate(state: MovingRate, events: int, *, now_s: float) -> MovingRate:
    """Settle the ticks that have passed by `now_s`, then count `events`."""
    ticks = int((now_s - state.ticked_s) / _TICK_S)
    if ticks <= 0:
        return MovingRate(state.rate, state.pending + events, state.ticked_s, state.started)
    seen = state.pending / _TICK_S
    rate = state.rate + _WEIGHT * (seen - state.rate) if state.started else seen
    rate *= (1 - _WEIGHT) ** (ticks - 1)
    return MovingRate(rate, events, state.ticked_s + ticks * _TICK_S, True)


def retry_after_s(attempt: str | None, *, min_backoff_s: float, max_backoff_s: float, chance: float) -> int:
    """Return the whole seconds after which a client should come back.

    Parameters
    ----------
    attempt : str or None
        Request header `Retry-Attempt`; anything but a number from 1 on counts as 1.
    min_backoff_s, max_backoff_s : float
        Bounds, seconds.
    chance : float
        Uniform in 0..1: the jitter, from half to one and a half times the delay.
    """
    number = 1
    if attempt is not None and re.fullmatch(r"\+?[0-9]+", attempt):
        number = max(int(attempt[:10]), 1)
    delay = min(min_backoff_s * 2.0 ** min(number - 1, 60), max_backoff_s)
    return int(min(max(delay * (0.5 + chance), min_backoff_s), max_backoff_s))
