import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.kernels.crc32c import crc32c
from tests.reference import crc32c as reference

# RFC 3720, appendix B.4, and the check value of the Rocksoft model.
VECTORS = [
    (b"", 0x00000000),
    (b"123456789", 0xE3069283),
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
]


@pytest.mark.parametrize(("data", "expected"), VECTORS)
def test_published_vectors_hold(data, expected):
    assert crc32c(data) == expected
    assert reference.crc32c(data) == expected


@given(st.binary(max_size=300), st.integers(0, 20))
def test_kernel_equals_the_bitwise_definition_at_any_alignment(data, skip):
    assert crc32c(memoryview(data)[skip:]) == reference.crc32c(data[skip:])
    assert crc32c(np.frombuffer(data, np.uint8)[skip:]) == reference.crc32c(data[skip:])


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_checksums_extend(first, second):
    assert crc32c(second, crc32c(first)) == crc32c(first + second)
