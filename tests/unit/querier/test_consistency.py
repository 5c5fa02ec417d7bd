import pytest

from mimir_ingest.errors import InvalidRequest
from mimir_ingest.querier.consistency import Level, decide_consistency
from mimir_ingest.querier.reading import Reading

STRONG, EVENTUAL = {"x-read-consistency": "strong"}, {"x-read-consistency": "eventual"}
OFFSETS = {"x-read-consistency-offsets": "v1=0:7,2:-1"}


@pytest.mark.parametrize(
    ("headers", "default", "level", "offsets", "report"),
    [
        ({}, "eventual", Level.EVENTUAL, {}, False),
        ({}, "strong", Level.STRONG, {}, False),
        (STRONG, "eventual", Level.STRONG, {}, True),
        (EVENTUAL, "strong", Level.EVENTUAL, {}, True),
        ({"x-read-consistency": "STRONG"}, "eventual", Level.EVENTUAL, {}, True),
        ({"x-read-consistency": "linear"}, "strong", Level.STRONG, {}, True),
        (OFFSETS, "eventual", Level.EVENTUAL, {0: 7, 2: -1}, True),
        (OFFSETS, "strong", Level.STRONG, {0: 7, 2: -1}, True),
        ({**STRONG, **OFFSETS}, "eventual", Level.STRONG, {0: 7, 2: -1}, True),
        ({**EVENTUAL, **OFFSETS}, "strong", Level.EVENTUAL, {}, True),
        ({"x-read-consistency-offsets": "v2=x"}, "eventual", Level.STRONG, {}, True),
        ({"x-read-consistency-max-delay": "5s"}, "eventual", Level.EVENTUAL, {}, True),
        ({"accept": "strong"}, "eventual", Level.EVENTUAL, {}, False),
    ],
)
def test_the_level_is_the_named_one_else_the_tenants_and_offsets_come_on_top(headers, default, level, offsets, report):
    found = decide_consistency(headers, tenant_default=default, max_delay_s=3.0)
    assert (found.level, dict(found.offsets), found.report) == (level, offsets, report)
    assert found.max_delay_s == 3.0


def test_offsets_that_cannot_be_read_are_refused_and_not_passed_over():
    with pytest.raises(InvalidRequest):
        decide_consistency({"x-read-consistency-offsets": "v1=zero"}, tenant_default="eventual")


def test_an_answer_saw_of_each_partition_what_all_of_its_reads_saw():
    reading = Reading()
    reading.saw({0: 10, 1: 0})
    reading.saw({0: 8, 2: 5})
    reading.unread[2] = "no owner"
    assert reading.seen == {0: 7, 1: -1}
    assert reading.warnings == ["partial response: partition 2 is missing: no owner"]
