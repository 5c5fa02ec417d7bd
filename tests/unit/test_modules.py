"""A target's modules start after what they need, and nothing starts that it does not need."""

import itertools

import pytest

from mimir_ingest.config.targets import COMPONENTS, components
from mimir_ingest.modules import NEEDS, start_order

SUBSETS = [c for size in range(1, len(COMPONENTS) + 1) for c in itertools.combinations(COMPONENTS, size)]


@pytest.mark.parametrize("chosen", SUBSETS, ids=",".join)
def test_every_module_starts_after_all_that_it_needs(chosen):
    order = start_order(chosen)
    assert set(chosen) <= set(order)
    assert len(set(order)) == len(order)
    for place, name in enumerate(order):
        assert set(NEEDS[name]) <= set(order[:place])


def test_a_single_process_starts_the_ring_before_the_log_and_the_ingester_before_the_rest():
    assert start_order(components("all")) == [
        *("server", "internal-server", "runtime-config", "ring", "log", "bucket"),
        *("ingester", "distributor", "querier", "bucket-upkeep"),
    ]


@pytest.mark.parametrize(
    ("target", "absent"),
    [
        ("distributor", {"ingester", "querier", "bucket", "internal-server"}),
        ("querier", {"ingester", "distributor", "internal-server", "bucket-upkeep"}),
        ("read", {"ingester", "distributor", "internal-server"}),
        ("backend", {"ingester", "distributor", "querier", "log", "internal-server"}),
        ("write", {"querier", "bucket-upkeep"}),
    ],
)
def test_a_role_runs_only_what_it_needs(target, absent):
    assert not absent & set(start_order(components(target)))


def test_every_component_has_its_needs_written_down():
    assert set(COMPONENTS) <= set(NEEDS)
