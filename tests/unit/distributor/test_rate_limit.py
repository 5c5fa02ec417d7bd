import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.distributor.rate_limit import (
    MovingRate,
    RateLimiters,
    move_rate,
    retry_after_s,
    take,
)
from mimir_ingest.errors import LimitExceeded

INGESTION = (
    "the request has been rejected because the tenant exceeded the ingestion rate limit, set to 10000 items/s with a "
    "maximum allowed burst of 200000. This limit is applied on the total number of samples, exemplars and metadata "
    "received across all distributors (err-mimir-tenant-max-ingestion-rate). To adjust the related per-tenant limits, "
    "configure -distributor.ingestion-rate-limit and -distributor.ingestion-burst-size, or contact your service "
    "administrator."
)
BURST = (
    "the request has been rejected because the tenant exceeded the ingestion burst size limit, set to 200000, with "
    "200001 items. This limit is applied on the total number of samples, exemplars and metadata received across all "
    "distributors (err-mimir-tenant-max-ingestion-rate). To adjust the related per-tenant limit, configure "
    "-distributor.ingestion-burst-size, or contact your service administrator."
)
REQUESTS = (
    "the request has been rejected because the tenant exceeded the request rate limit, set to 2 requests/s across all "
    "distributors with a maximum allowed burst of 3 (err-mimir-tenant-max-request-rate). To adjust the related "
    "per-tenant limits, configure -distributor.request-rate-limit and -distributor.request-burst-size, or contact your "
    "service administrator."
)


def test_a_new_bucket_is_full_and_fills_again_with_time():
    bucket, taken = take(None, 10, rate=2, burst=10, now_s=100)
    assert taken
    bucket, taken = take(bucket, 1, rate=2, burst=10, now_s=100.4)
    assert not taken
    bucket, taken = take(bucket, 1, rate=2, burst=10, now_s=100.5)
    assert taken
    bucket, taken = take(bucket, 11, rate=2, burst=10, now_s=1000)
    assert not taken
    assert bucket.tokens == 10


@given(st.lists(st.tuples(st.floats(-1, 5), st.integers(0, 12)), max_size=30), st.floats(0, 10), st.integers(0, 10))
def test_no_schedule_takes_more_than_burst_and_rate_allow(steps, rate, burst):
    bucket, now, latest, total = None, 0.0, 0.0, 0
    for wait, n in steps:
        now += wait
        latest = max(latest, now)
        before = bucket
        bucket, taken = take(bucket, n, rate=rate, burst=burst, now_s=now)
        total += n * taken
        if not taken and before is not None:
            assert bucket.tokens >= before.tokens or bucket.tokens == burst
        assert 0 <= bucket.tokens <= burst
    assert total <= burst + rate * latest + 1e-6


def test_the_ingestion_rate_is_refused_with_mimirs_texts():
    limiters, limits = RateLimiters(), DistributorLimits()
    with pytest.raises(LimitExceeded) as burst:
        limiters.take_items("t", 200_001, limits, now_s=0)
    assert burst.value.message == BURST
    limiters.take_items("t", 200_000, limits, now_s=0)
    limiters.take_items("another", 200_000, limits, now_s=0)
    with pytest.raises(LimitExceeded) as rate:
        limiters.take_items("t", 101, limits, now_s=0.01)
    assert rate.value.message == INGESTION
    assert rate.value.http_status == burst.value.http_status == 429
    assert rate.value.error_id == burst.value.error_id == "err-mimir-tenant-max-ingestion-rate"
    limiters.take_items("t", 100, limits, now_s=0.01)


def test_rates_are_divided_among_distributors_and_bursts_are_not():
    limiters = RateLimiters(distributors=lambda: 4)
    limits = DistributorLimits(ingestion_rate=100, ingestion_burst_size=10)
    limiters.take_items("t", 10, limits, now_s=0)
    with pytest.raises(LimitExceeded, match="set to 100 items/s with a maximum allowed burst of 10"):
        limiters.take_items("t", 10, limits, now_s=0.3)
    limiters.take_items("t", 10, limits, now_s=0.4)


def test_a_burst_factor_replaces_the_burst_by_seconds_of_the_local_rate():
    limiters = RateLimiters(distributors=lambda: 3)
    limits = DistributorLimits(ingestion_rate=100, ingestion_burst_size=5, ingestion_burst_factor=1.5)
    with pytest.raises(LimitExceeded, match="burst size limit, set to 50, with 51 items"):
        limiters.take_items("t", 51, limits, now_s=0)
    limiters.take_items("t", 50, limits, now_s=0)
    with pytest.raises(LimitExceeded, match="set to 100 items/s with a maximum allowed burst of 150"):
        limiters.take_items("t", 1, limits, now_s=0)
    off = DistributorLimits(ingestion_rate=100, ingestion_burst_size=5, ingestion_burst_factor=0.5)
    with pytest.raises(LimitExceeded, match="burst size limit, set to 5, with 6 items"):
        RateLimiters().take_items("t", 6, off, now_s=0)


def test_requests_are_limited_only_with_a_rate_and_a_burst():
    limiters = RateLimiters()
    for limits in (DistributorLimits(), DistributorLimits(request_rate=1)):
        for _ in range(100):
            limiters.take_request("t", limits, now_s=0)
    limits = DistributorLimits(request_rate=2, request_burst_size=3)
    for _ in range(3):
        limiters.take_request("t", limits, now_s=0)
    with pytest.raises(LimitExceeded) as error:
        limiters.take_request("t", limits, now_s=0.4)
    assert error.value.message == REQUESTS
    assert error.value.http_status == 429
    limiters.take_request("t", limits, now_s=0.5)


def test_the_moving_rate_starts_with_the_first_second_and_decays_through_idle_ones():
    state = move_rate(MovingRate(0.0, 0, 10.0), 100, now_s=10.9)
    assert state.rate == 0
    state = move_rate(state, 50, now_s=11.0)
    assert state.rate == 100
    state = move_rate(state, 0, now_s=12.5)
    assert state.rate == pytest.approx(100 + 0.2 * (50 - 100))
    assert move_rate(state, 0, now_s=15.0).rate == pytest.approx(90 * 0.8**3)


@pytest.mark.parametrize(
    ("attempt", "chance", "seconds"),
    [
        (None, 0.5, 6),
        ("1", 0.5, 6),
        ("2", 0.5, 12),
        ("3", 0.0, 12),
        ("3", 1.0, 36),
        ("5", 0.5, 96),
        ("5", 1.0, 96),
        ("5", 0.0, 48),
        ("1", 0.0, 6),
        ("0", 0.5, 6),
        ("-3", 0.5, 6),
        ("x", 0.5, 6),
        ("", 0.5, 6),
        ("²", 0.5, 6),
        ("9" * 400, 0.5, 96),
        ("+2", 0.5, 12),
        ("++2", 0.5, 6),
        ("+" * 11 + "2", 0.5, 6),
    ],
)
def test_the_time_to_come_back_doubles_with_each_attempt_within_its_bounds(attempt, chance, seconds):
    assert retry_after_s(attempt, min_backoff_s=6, max_backoff_s=96, chance=chance) == seconds
