"""What is kept by tenant goes when the tenant sends no more, so that made-up tenants cost no memory for good."""

from __future__ import annotations

from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.distributor.rate_limit import RateLimiters
from mimir_ingest.model.relabel import Relabelling
from tests.support.push_target import PushTarget, named


def users(target: PushTarget) -> set[str]:
    """Tenants that any metric names."""
    return {sample.labels["user"] for f in target.registry.collect() for sample in f.samples if "user" in sample.labels}


async def test_tenants_that_send_nothing_for_a_while_leave_nothing_behind():
    limits = DistributorLimits(
        request_rate=100, request_burst_size=100, relabelling=Relabelling(drop_labels=("x",)),
        separate_metrics_group_label="team",
    )  # fmt: skip
    async with PushTarget(limits) as target:
        for i in range(50):
            answer = await target.push(named(b"up", (b"team", b"a")), named(b"9", (b"x", b"y")), X_Scope_OrgID=f"t{i}")
            assert answer.status_code == 400
        assert len(users(target)) == 50
        assert len(target.distributor.limiters) == 100
        target.seconds += 899
        await target.push(named(b"up"), X_Scope_OrgID="t7")
        target.distributor.forget_idle()
        assert len(users(target)) == 50
        assert len(target.distributor.limiters) == 2
        target.seconds += 1
        target.distributor.forget_idle()
        assert users(target) == {"t7"}
        await target.push(named(b"up"), X_Scope_OrgID="t8")
        assert target.counters("cortex_distributor_received_requests")
        assert users(target) == {"t7", "t8"}


def test_a_bucket_that_is_not_full_again_is_kept():
    limiters = RateLimiters()
    slow = DistributorLimits(ingestion_rate=1, ingestion_burst_size=1000)
    limiters.take_items("t", 1000, slow, now_s=0)
    limiters.forget_full(now_s=999)
    assert len(limiters) == 1
    limiters.forget_full(now_s=1000)
    assert len(limiters) == 0
    never = DistributorLimits(ingestion_rate=0, ingestion_burst_size=10)
    limiters.take_items("t", 1, never, now_s=0)
    limiters.forget_full(now_s=1e12)
    assert len(limiters) == 1
