"""Who is elected first, when that is written down again, who takes over, and when a cluster is given up."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.distributor.ha_election import (
    SILENT_MS,
    Candidate,
    HaLimits,
    Sighting,
    Sightings,
    elected,
    first_elections,
    given_up,
    has_room,
    renewals,
    renewed,
)
from partitions.model import ElectionDesc, RingDesc
from tests.support.ring import edited, election, ring_of

T0 = 1_700_000_000_000
LIMITS = HaLimits()
"""Mimir's defaults: written down after 15 s, 5 s more or less; fail-over after 30 s."""
R0 = election("c", "r0", received_ms=T0, elected_ms=T0 - 5)


def seen(replica, at_ms, sample_ms=None):
    return Sighting(replica, T0 + at_ms, T0 + (at_ms if sample_ms is None else sample_ms))


def after(ms, sightings, limits=LIMITS, jitter=0.0):
    """What is written down some time after the election's last time."""
    return renewed(R0, sightings, limits, T0 + ms, jitter=jitter)


@pytest.mark.parametrize(
    ("ms", "jitter", "due"),
    [
        *((14_999, 0.0, False), (15_000, 0.0, True)),
        *((15_000, 1.0, False), (20_000, 1.0, True)),
        *((9_999, -1.0, False), (10_000, -1.0, True)),
    ],
)
def test_the_elected_replica_is_written_down_again_when_its_time_is_old(ms, jitter, due):
    own = Sightings(elected=seen("r0", 9_000))
    assert after(ms, own, jitter=jitter) == (replace(R0, received_ms=T0 + 9_000) if due else None)


def test_what_others_wrote_down_is_not_written_again():
    assert after(60_000, Sightings(elected=seen("r0", 0))) is None
    assert after(60_000, Sightings(elected=seen("r0", -1))) is None


@pytest.mark.parametrize(("ms", "wins"), [(29_999, False), (30_000, True), (300_000, True)])
def test_another_replica_is_elected_when_the_elected_one_is_silent_for_the_timeout(ms, wins):
    found = after(ms, Sightings(elected=seen("r0", -100), other=seen("r1", 20_000)))
    expected = replace(R0, replica="r1", received_ms=T0 + 20_000, elected_ms=T0 + ms, elected_changes=2)
    assert found == (expected if wins else None)


def test_a_replica_that_was_not_seen_since_does_not_take_over():
    assert after(60_000, Sightings(other=seen("r1", 0))) is None
    assert after(60_000, Sightings()) is None


def test_an_elected_replica_that_was_seen_here_stays_however_old_the_stores_time_is():
    found = after(60_000, Sightings(elected=seen("r0", 1), other=seen("r1", 59_000)))
    assert found == replace(R0, received_ms=T0 + 1)


@pytest.mark.parametrize(("sample_ms", "wins"), [(39_999, False), (40_000, True)])
def test_where_samples_are_asked_the_others_must_be_ahead_of_the_silence(sample_ms, wins):
    limits = HaLimits(sample_failover_timeout_ms=40_000)
    found = after(50_000, Sightings(other=seen("r1", 50_000, sample_ms)), limits)
    assert (found is not None and found.replica == "r1") == wins


def test_sightings_keep_the_newest_of_the_elected_one_and_of_the_others():
    sightings = Sightings()
    for at, replica in enumerate(["r0", "r1", "r2", "r1", "r0"]):
        sightings = sightings.noted(seen(replica, at), "r0")
    assert sightings == Sightings(seen("r0", 4), seen("r1", 3))
    assert sightings.of("r1") == seen("r1", 3)
    assert sightings.of("r2") is None
    assert sightings.besides("r0") == seen("r1", 3)
    after_the_election_of_r1 = sightings.noted(seen("r1", 5), "r1").noted(seen("r0", 6), "r1")
    assert after_the_election_of_r1 == Sightings(seen("r1", 5), seen("r0", 6))


def test_what_a_replica_did_before_it_was_elected_counts_for_it():
    sightings = Sightings(elected=seen("r0", 4), other=seen("r1", 3))
    assert (sightings.of("r1"), sightings.besides("r1")) == (seen("r1", 3), seen("r0", 4))


def candidates(*names, tenant="t"):
    return [Candidate(tenant, cluster, replica, T0) for cluster, replica in (name.split("/") for name in names)]


def test_the_first_candidate_of_each_new_cluster_is_elected():
    made = first_elections(ring_of(R0), candidates("c/r1", "d/r1", "d/r0", "e/r0"), lambda _: LIMITS, T0 + 7)
    assert made == [ElectionDesc("t", "d", "r1", T0, T0 + 7, 1), ElectionDesc("t", "e", "r0", T0, T0 + 7, 1)]


def test_candidates_beyond_the_tenants_clusters_are_left_out_also_within_one_round():
    limits = {"t": HaLimits(max_clusters=2), "u": HaLimits(max_clusters=0)}
    many = candidates("a/r", "b/r", "c/r") + candidates("a/r", "b/r", "c/r", tenant="u")
    made = first_elections(ring_of(election("z", "r0")), many, limits.__getitem__, T0)
    assert [(e.tenant, e.cluster) for e in made] == [("t", "a"), ("u", "a"), ("u", "b"), ("u", "c")]


@pytest.mark.parametrize(("clusters", "limit", "room"), [(0, 1, True), (1, 1, False), (5, 1, False), (99, 0, True)])
def test_a_tenant_has_room_for_as_many_clusters_as_its_limit_says(clusters, limit, room):
    assert has_room(clusters, HaLimits(max_clusters=limit)) == room


def test_a_silent_cluster_is_given_up_and_may_come_back():
    desc = ring_of(R0, election("d", "r0", received_ms=T0 + 1))
    gone = given_up(desc, T0 + SILENT_MS)
    assert gone == [replace(R0, deleted_ms=T0 + SILENT_MS)]
    desc = edited(desc, gone)
    assert elected(desc, R0.key) is None
    assert list(desc.elections["t"]) == ["d"], "it does not count any more"
    assert given_up(desc, T0 + SILENT_MS) == []
    [again] = first_elections(desc, candidates("c/r1"), lambda _: LIMITS, T0 + SILENT_MS + 9)
    assert (again.replica, again.elected_changes, again.deleted) == ("r1", 2, False)


times = st.integers(-100_000, 100_000)
sighting = st.none() | st.builds(lambda r, at, s: seen(r, at, s), st.sampled_from(["r0", "r1", "r2"]), times, times)


@given(
    st.builds(Sightings, sighting, sighting), st.integers(-10_000, 200_000), st.floats(-1, 1), st.integers(0, 40_000)
)
def test_whatever_was_seen_time_never_goes_back_and_nobody_unseen_is_elected(sightings, ms, jitter, ahead_ms):
    limits = HaLimits(sample_failover_timeout_ms=ahead_ms)
    found = after(ms, sightings, limits, jitter)
    if found is None:
        return
    assert found.received_ms > R0.received_ms
    assert Sighting(found.replica, found.received_ms, 0)[:2] in [s[:2] for s in sightings if s is not None]
    if found.replica != R0.replica:
        assert ms >= limits.failover_timeout_ms
        own = sightings.of("r0")
        assert own is None or own.seen_ms <= R0.received_ms


def test_only_clusters_that_are_due_are_written_down():
    fresh = election("fresh", "r0", received_ms=T0 + 14_000)
    gone = replace(election("gone", "r0"), deleted_ms=1)
    desc = ring_of(R0, fresh, gone)
    all_seen = {e.key: Sightings(elected=seen("r0", 14_500)) for e in (R0, fresh, gone)}
    assert renewals(desc, all_seen, lambda _: LIMITS, T0 + 15_000, jitter=0.0) == [replace(R0, received_ms=T0 + 14_500)]
    assert renewals(RingDesc(), all_seen, lambda _: LIMITS, T0 + 15_000, jitter=0.0) == []
