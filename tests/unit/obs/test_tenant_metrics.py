from mimir_ingest.obs.tenant_metrics import MetricGroups


def test_a_tenant_has_only_so_many_groups_and_the_rest_is_counted_together():
    groups = MetricGroups(2)
    assert [groups.of("a", group) for group in ("x", "", "y", "z", "x")] == ["x", "", "y", "other", "x"]
    assert groups.of("b", "z") == "z"
    groups.forget({"a"})
    assert groups.of("a", "z") == "z"
