"""Moving averages of accepted samples (spec http-api.md 4.5)."""

import pytest

from mimir_ingest.ingester.ingestion_rates import IngestionRates, Rates


def test_a_rate_follows_what_comes_by_a_fifth_each_period():
    rates = IngestionRates(period_s=15.0, now_s=100.0)
    rates.add(0, "a", 1500, 300)
    rates.tick(114.9)
    assert rates.of("a", [0]) == Rates(0.0, 0.0)
    rates.tick(115.0)
    assert rates.of("a", [0]) == Rates(80.0, 20.0)
    rates.add(0, "a", 3000, 0)
    rates.tick(130.0)
    assert rates.of("a", [0]) == pytest.approx(Rates(80 + 0.2 * (200 - 80), 20 - 0.2 * 20))
    # Two periods without samples, noticed late.
    rates.tick(161.0)
    assert rates.of("a", [0]) == pytest.approx(Rates(104 * 0.64, 16 * 0.64))


def test_rates_add_up_over_the_partitions_asked_for_and_go_with_them():
    rates = IngestionRates(period_s=10.0, now_s=0.0)
    for partition in range(3):
        rates.add(partition, "a", 10 << partition, 0)
    rates.add(0, "b", 70, 70)
    rates.tick(10.0)
    assert rates.of("a", [0, 2]) == Rates(5.0, 0.0)
    assert rates.of("b", [0, 1, 2]) == Rates(0.0, 7.0)
    rates.forget(0)
    assert rates.of("a", [0, 1, 2]) == Rates(6.0, 0.0)
    assert rates.of("b", [0, 1, 2]) == Rates(0.0, 0.0)


def test_a_tenant_that_stopped_sending_is_forgotten():
    rates = IngestionRates(period_s=1.0, now_s=0.0)
    rates.add(0, "a", 1, 0)
    rates.tick(200.0)
    assert rates.of("a", [0]) == Rates(0.0, 0.0)
    assert not rates._averages
