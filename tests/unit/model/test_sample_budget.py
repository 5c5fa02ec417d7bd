import pytest

from mimir_ingest.errors import QueryError
from mimir_ingest.model.samples import FetchLimits, SampleBudget


def test_a_budget_ends_with_what_is_taken_from_it_and_from_its_attempts():
    budget = SampleBudget(10)
    budget.take(4)
    budget.attempt().take(6)
    with pytest.raises(QueryError, match="too many samples"):
        budget.take(1)


def test_what_an_abandoned_attempt_took_can_be_taken_again():
    budget = SampleBudget(10)
    first = budget.attempt()
    first.take(10)
    first.abandon()
    first.abandon()
    second = budget.attempt()
    second.take(10)
    with pytest.raises(QueryError, match="too many samples"):
        second.take(1)


def test_an_abandoned_attempt_takes_no_more():
    attempt = SampleBudget(0).attempt()
    attempt.abandon()
    with pytest.raises(QueryError, match="given up"):
        attempt.take(1)


def test_reads_of_a_budget_that_ended_stop_at_their_next_samples():
    budget = SampleBudget(0)
    attempt = budget.attempt()
    attempt.take(1)
    budget.end()
    for reader in (budget, attempt):
        with pytest.raises(QueryError, match="given up"):
            reader.check()
        with pytest.raises(QueryError, match="given up"):
            reader.take(1)
        with pytest.raises(QueryError, match="given up"):
            reader.take_chunks(1, 1)


_ADVICE = (
    "Consider reducing the time range and/or number of series selected by the query. One way to reduce the number of "
    "selected series is to add more label matchers to the query. Otherwise, to adjust the related per-tenant limit, "
    "configure -querier.max-fetched-"
)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            FetchLimits(max_chunks=5),
            f"the query exceeded the maximum number of chunks (limit: 5 chunks) (err-mimir-max-chunks-per-query). "
            f"{_ADVICE}chunks-per-query, or contact your service administrator.",
        ),
        (
            FetchLimits(max_chunk_bytes=500),
            f"the query exceeded the aggregated chunks size limit (limit: 500 bytes) "
            f"(err-mimir-max-chunks-bytes-per-query). {_ADVICE}chunk-bytes-per-query, or contact your service "
            "administrator.",
        ),
    ],
)
def test_chunks_and_their_bytes_are_bounded_over_all_attempts(limits, message):
    budget = SampleBudget(0, limits)
    failed = budget.attempt()
    failed.take_chunks(4, 400)
    failed.abandon()
    budget.take_chunks(3, 300)
    attempt = budget.attempt()
    attempt.take_chunks(2, 200)
    with pytest.raises(QueryError) as raised:
        attempt.take_chunks(1, 100)
    assert raised.value.message == message
    assert (raised.value.http_status, raised.value.error_type) == (422, "execution")


def test_series_are_bounded():
    SampleBudget(1).check_series(1_000_000)
    budget = SampleBudget(0, FetchLimits(max_series=3)).attempt()
    budget.check_series(3)
    with pytest.raises(QueryError) as raised:
        budget.check_series(4)
    assert raised.value.message == (
        "the query exceeded the maximum number of series (limit: 3 series) (err-mimir-max-series-per-query). "
        f"{_ADVICE}series-per-query, or contact your service administrator."
    )
