import pytest

from mimir_ingest.errors import QueryError
from mimir_ingest.model.samples import SampleBudget


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
