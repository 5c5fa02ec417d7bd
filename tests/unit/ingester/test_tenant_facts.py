"""What an ingester has of its tenants."""

from types import SimpleNamespace

from mimir_ingest.ingester.cut import BlockRef, CutSummary
from mimir_ingest.ingester.tenant_facts import describe_tenant, describe_tenants


class Counted(tuple):
    """A tuple that counts what is read of it."""

    read = 0

    def __iter__(self):
        for one in super().__iter__():
            Counted.read += 1
            yield one


def test_each_tenant_has_its_blocks_of_all_partitions_and_cuts_oldest_first():
    def cut(offset, *blocks):
        return CutSummary(offset, 0, tuple(BlockRef(*block) for block in blocks))

    states = {
        0: SimpleNamespace(heads={}, cuts=[cut(5, ("a", "2", 20, 30), ("b", "3", 0, 9)), cut(9, ("a", "4", 30, 40))]),
        1: SimpleNamespace(heads={}, cuts=[cut(7, ("a", "1", 0, 20))]),
    }
    found = describe_tenants(states)
    assert [(facts.tenant, [block.ulid for block in facts.blocks]) for facts in found] == [
        ("a", ["1", "2", "4"]),
        ("b", ["3"]),
    ]
    assert [describe_tenant(states, tenant) for tenant in "abc"] == [*found, None]


def test_ten_times_the_tenants_are_ten_times_the_work():
    def read_for(tenants):
        Counted.read = 0
        blocks = Counted(BlockRef(f"t{i}", str(i), 0, 1) for i in range(tenants))
        state = SimpleNamespace(heads={}, cuts=[CutSummary(0, 0, blocks)] * 24)
        assert len(describe_tenants({0: state})) == tenants
        return Counted.read

    assert read_for(300) <= 10 * read_for(30)
