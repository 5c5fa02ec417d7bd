"""What limits a request of several tenants."""

from mimir_ingest.api.federated_limits import limits_of_all, strictest
from mimir_ingest.config.durations import Duration
from mimir_ingest.config.settings import load

DEFAULTS = load([], {})[0].limits
HOUR = Duration(3_600_000_000_000)
DAY = Duration(24 * HOUR.ms * 1_000_000)


def of(**limits):
    return DEFAULTS.overridden(limits)


def test_the_smallest_limit_that_is_set_counts():
    found = strictest([of(max_query_lookback=DAY), of(max_query_lookback=HOUR, max_series_query_limit=5), of()])
    assert (found.max_query_lookback.ms, found.max_series_query_limit) == (HOUR.ms, 5)
    assert strictest([of(), of()]).max_total_query_length.ms == 0


def test_what_one_of_them_may_not_ask_is_refused_and_one_strong_reader_makes_all_strong():
    rules = [{"pattern": "a"}], [{"pattern": "b", "regex": True}]
    found = strictest(
        [of(blocked_queries=rules[0]), of(blocked_queries=rules[1], ingest_storage_read_consistency="strong")]
    )
    assert found.blocked_queries == [*rules[0], *rules[1]]
    assert found.ingest_storage_read_consistency == "strong"


def test_an_experimental_function_needs_every_tenants_leave():
    name = "enabled_promql_experimental_functions"
    cases = {("all", "all"): "all", ("all", "a, b"): "a,b", ("a,b", "b,c"): "b", ("a", ""): "", ("", "all"): ""}
    assert {case: getattr(strictest([of(**{name: text}) for text in case]), name) for case in cases} == cases


def test_limits_of_several_are_made_once_until_one_of_them_changes():
    known = {"a": of(max_query_lookback=HOUR), "b": of()}
    limits_for = limits_of_all(known.__getitem__)
    assert limits_for("a") is known["a"]
    first = limits_for("a|b")
    assert first.max_query_lookback.ms == HOUR.ms
    assert limits_for("a|b") is first
    known["a"] = of(max_query_lookback=DAY)
    assert limits_for("a|b").max_query_lookback.ms == DAY.ms


def test_names_are_dropped_at_the_end_if_all_tenants_want_that():
    name = "enable_delayed_name_removal"
    found = [getattr(strictest([of(**{name: one}), of(**{name: True})]), name) for one in (False, True)]
    assert found == [False, True]
