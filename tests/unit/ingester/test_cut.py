"""Which blocks of cuts a query is told of."""

from mimir_ingest.ingester.cut import BlockRef, CutSummary, ReleasedCuts


def test_a_tenants_blocks_of_released_cuts_are_found_oldest_cut_first():
    cuts = [
        CutSummary(3, 10, (BlockRef("a", "1", 0, 5), BlockRef("b", "2", 0, 5), BlockRef("a", "3", 5, 9))),
        CutSummary(4, 20, ()),
        CutSummary(7, 30, (BlockRef("a", "0", 9, 12),)),
    ]
    released = ReleasedCuts(cuts)
    assert released.cut_offset == 7
    for tenant in "abc":
        assert released.blocks_of(tenant) == tuple(b for cut in cuts for b in cut.blocks if b.tenant == tenant)
    assert [block.ulid for block in released.blocks_of("a")] == ["1", "3", "0"]
    assert (ReleasedCuts(()).cut_offset, ReleasedCuts(()).blocks_of("a")) == (-1, ())


def test_a_query_does_not_look_at_other_tenants_blocks():
    read = 0

    class Counted(tuple):
        __slots__ = ()

        def __iter__(self):
            nonlocal read
            for one in super().__iter__():
                read += 1
                yield one

    blocks = Counted(BlockRef(f"t{i}", str(i), 0, 1) for i in range(100))
    released = ReleasedCuts([CutSummary(1, 0, blocks)])
    read = 0
    assert len(released.blocks_of("t5")) == 1
    assert read == 0
