"""The tail cache only ever gives what lies without a gap from the offset asked for."""

from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.log.contract import Record
from mimir_ingest.log.tail_cache import TailCache


def record(offset: int, size: int = 10) -> Record:
    return Record(0, offset, 0, b"t", bytes(size), 0)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=60),
    st.integers(0, 200),
    st.integers(0, 70),
    st.integers(1, 120),
)
def test_what_is_taken_is_contiguous_exact_and_within_its_bytes(steps, max_held, next_offset, max_bytes):
    cache, offset, sizes = TailCache(max_bytes=max_held), 0, {}
    for gap, size in steps:
        offset += 2 if gap else 1
        sizes[offset] = size
        cache.extend(record(offset, size))
        assert cache.held_bytes <= max_held
    taken = cache.take(next_offset, max_bytes=max_bytes)
    assert [r.offset for r in taken] == list(range(next_offset, next_offset + len(taken)))
    assert [len(r.value) for r in taken] == [sizes[r.offset] for r in taken]
    assert len(taken) <= 1 or sum(len(r.value) for r in taken) <= max_bytes


def test_a_record_that_does_not_follow_starts_a_new_run():
    cache = TailCache(max_bytes=1000)
    for offset in (4, 5, 9):
        cache.extend(record(offset))
    assert cache.take(4, max_bytes=100) == []
    assert [r.offset for r in cache.take(9, max_bytes=100)] == [9]
    assert cache.held_bytes == 10


def test_one_record_over_the_bytes_is_given_alone():
    cache = TailCache(max_bytes=1000)
    for offset in range(3):
        cache.extend(record(offset, 300))
    assert [r.offset for r in cache.take(1, max_bytes=1)] == [1]


def test_records_below_the_start_are_forgotten():
    cache = TailCache(max_bytes=1000)
    for offset in range(6):
        cache.extend(record(offset))
    cache.drop_below(4)
    assert cache.take(3, max_bytes=100) == []
    assert [r.offset for r in cache.take(4, max_bytes=100)] == [4, 5]
    assert cache.held_bytes == 20
