import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.kernels.hashing import FNV_OFFSET_BASIS, fnv1_extend, fnv1_spans, series_tokens, xxh64_spans
from mimir_ingest.model.labels import encode_label_bytes
from tests.reference import hashing as reference

# Spec ingest-storage 3.1.
UP = {"__name__": "up", "instance": "localhost:9090", "job": "prometheus"}
VECTORS = [
    ("", {}, 2166136261),
    ("a", {}, 84696446),
    ("anonymous", {}, 365334232),
    ("user-1", {"__name__": "foo"}, 4048595581),
    ("user-1", {"__name__": "foo", "job": "a"}, 1645298207),
    ("anonymous", UP, 3620204693),
    ("1", UP, 3899997479),
]


def columns(parts):
    data = np.frombuffer(b"".join(parts), np.uint8)
    return data, np.cumsum([0, *map(len, parts)], dtype=np.int64)


def state_of(tenant: bytes):
    return np.uint32(fnv1_extend(np.uint32(FNV_OFFSET_BASIS), np.frombuffer(tenant, np.uint8)))


def tokens(tenant, label_bytes):
    data, offsets = columns(label_bytes)
    out = np.empty(len(label_bytes), np.uint32)
    assert series_tokens(state_of(tenant), data, offsets, np.empty(len(data) + 16, np.uint8), out) == len(out)
    return out.tolist()


@pytest.mark.parametrize(("tenant", "labels", "token"), VECTORS)
def test_published_series_tokens_hold(tenant, labels, token):
    assert tokens(tenant.encode(), [encode_label_bytes(labels)]) == [token]


def test_published_metadata_token_holds():
    out = np.empty(1, np.uint32)
    fnv1_spans(state_of(b"user-1"), np.frombuffer(b"foo", np.uint8), np.array([0, 3]), out)
    assert out.tolist() == [1481338450]


@given(st.lists(st.binary(max_size=150), max_size=12))
def test_xxhash64_equals_its_library_and_its_definition(parts):
    data, offsets = columns(parts)
    out = np.empty(len(parts), np.uint64)
    assert xxh64_spans(data, offsets, out) == len(parts)
    assert out.tolist() == [xxhash.xxh64_intdigest(p) for p in parts] == [reference.xxh64(p) for p in parts]


@given(st.binary(max_size=10), st.lists(st.binary(max_size=80), max_size=20))
def test_fnv1_of_spans_equals_its_definition_whatever_their_lengths(tenant, parts):
    data, offsets = columns(parts)
    spans = np.stack([offsets[:-1], offsets[1:]], axis=1).reshape(-1)
    out = np.empty(len(parts), np.uint32)
    assert fnv1_spans(state_of(tenant), data, spans, out) == len(parts)
    assert out.tolist() == [reference.fnv1(tenant + p) for p in parts]


@given(
    st.binary(max_size=10),
    st.lists(st.dictionaries(st.text(max_size=150), st.text(min_size=1, max_size=150), max_size=4), max_size=9),
)
def test_series_tokens_leave_the_lengths_out(tenant, sets):
    expected = [
        reference.fnv1(tenant + b"".join(n + v for n, v in sorted((n.encode(), v.encode()) for n, v in s.items())))
        for s in sets
    ]
    assert tokens(tenant, [encode_label_bytes(s) for s in sets]) == expected


@given(st.binary(max_size=60))
def test_malformed_label_bytes_are_refused_or_hashed_but_never_overrun(data):
    array = np.frombuffer(data, np.uint8)
    out = np.empty(1, np.uint32)
    result = series_tokens(np.uint32(1), array, np.array([0, len(data)]), np.empty(len(data) + 16, np.uint8), out)
    assert result in (1, -1)


def test_offsets_outside_the_bytes_are_refused():
    data = np.zeros(8, np.uint8)
    for offsets in ([0, 9], [-1, 4], [4, 2]):
        assert xxh64_spans(data, np.array(offsets), np.empty(1, np.uint64)) == -1
        assert fnv1_spans(np.uint32(0), data, np.array(offsets), np.empty(1, np.uint32)) == -1
