import numpy as np
import pytest

from partitions.tokens import TOKENS_PER_PARTITION, partition_tokens

# Spec: ingest storage, section 3.4.
VECTORS = {
    0: ([0, 8388608, 16777216, 25165824, 33554432], [4278190080, 4286578688], 2147483648),
    1: ([4194304, 12582912, 20971520, 29360128, 37748736], [4282384384, 4290772992], 0),
    2: ([2146085552, 2150279856, 2154474160, 2158668464, 2162862768], [4285180584, 4289374888], 2505397584),
    3: ([710934528, 715128832, 719323136, 723517440, 727711744], [2850029568, 2854223872], 2147483648),
    4: ([1677720, 5872024, 10066328, 14260632, 18454936], [4288256408, 4292450712], 1299395240),
}


@pytest.mark.parametrize("partition", VECTORS)
def test_tokens_are_those_of_the_specification(partition):
    first, last, total = VECTORS[partition]
    tokens = partition_tokens(partition)
    assert tokens.dtype == np.uint32
    assert tokens[:5].tolist() == first
    assert tokens[-2:].tolist() == last
    assert sum(tokens.tolist()) % 2**32 == total


def test_every_partition_has_512_tokens_of_its_own():
    together = np.concatenate([partition_tokens(p) for p in range(64)])
    assert len(np.unique(together)) == 64 * TOKENS_PER_PARTITION
    assert all(np.all(np.diff(partition_tokens(p).astype(np.int64)) > 0) for p in range(64))


@pytest.mark.parametrize("count", [2, 3, 7, 32, 100])
def test_each_of_n_partitions_owns_nearly_an_nth_of_the_ring(count):
    tokens = np.concatenate([partition_tokens(p) for p in range(count)]).astype(np.int64)
    owners = np.repeat(np.arange(count), TOKENS_PER_PARTITION)
    order = np.argsort(tokens)
    owned = np.diff(tokens[order], prepend=tokens[order][-1] - 2**32)
    share = np.bincount(owners[order], weights=owned) / 2**32 * count
    assert share.min() > 0.99
    assert share.max() < 1.01


def test_an_answer_does_not_depend_on_what_was_asked_before():
    assert partition_tokens(2).tolist() == partition_tokens(2).tolist()
    changed = partition_tokens(3)
    changed[:] = 0
    assert partition_tokens(3)[0] == 710934528


def test_a_negative_partition_is_refused():
    with pytest.raises(ValueError, match="negative"):
        partition_tokens(-1)
