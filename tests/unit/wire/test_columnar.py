import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.errors import RecordCorrupt, RecordVersionUnsupported
from mimir_ingest.model.batch import WriteBatch
from mimir_ingest.wire.columnar import RecordSettings, decode_columnar, encode_columnar
from mimir_ingest.wire.record import VERSION_COLUMNAR, decode
from tests.support.random_batches import BATCHES, batch_of, content, histogram_batches

POSITIVE = st.integers(0, 2**63 - 1)
NAMES = st.lists(st.sampled_from([b"up", "\u00fc".encode(), b"x" * 300]), unique=True).map(tuple)
SETTINGS = st.one_of(
    st.builds(RecordSettings, POSITIVE, POSITIVE, POSITIVE),
    st.builds(RecordSettings, POSITIVE, POSITIVE, POSITIVE, st.integers(1, 2**63 - 1), NAMES),
)
ONE = struct.pack("<d", 1.0)


def small():
    """Two series with one time, then one with two samples, and metadata: every section occurs."""
    return batch_of(
        [([(b"a", b"b")], [(5, ONE)]), ([(b"a", b"c")], [(5, ONE), (6, ONE)])], [(1, b"a", b"help", b"s")], source=1
    )


@given(BATCHES, SETTINGS)
def test_a_batch_survives_bit_for_bit(batch, record_settings):
    value = encode_columnar(batch, record_settings)
    assert type(value) is bytes
    got = decode(VERSION_COLUMNAR, value)
    assert content(got.batch) == content(batch)
    assert got.settings == record_settings
    assert encode_columnar(got.batch, record_settings) == value


def test_the_layout_is_what_the_format_page_says():
    batch = batch_of([([(b"a", b"bc")], [(7, ONE)])])
    value = encode_columnar(batch, RecordSettings(3, 4, 5))
    assert value == bytes.fromhex(
        "0100 0000 05000000 0300000000000000 0400000000000000 0500000000000000"
        "01000000 00000000 9800000000000000 0500000000000000"
        "02000000 00000000 a000000000000000 0800000000000000"
        "03000000 00000000 a800000000000000 0800000000000000"
        "05000000 01000000 b000000000000000 0800000000000000"
        "06000000 00000000 b800000000000000 0800000000000000"
        "0161026263 000000"
        "00000000 05000000" + struct.pack("<Q", int(batch.hashes[0])).hex() + "0700000000000000 000000000000f03f"
    )


@pytest.mark.parametrize("limits", [[0], [-1], [5, 6]])
def test_a_limit_that_is_none_is_corrupt(limits):
    value = bytearray(encode_columnar(small(), RecordSettings(max_series_per_metric=7)))
    place = value.index(struct.pack("<IIQQ", 48, 0, len(value) - 8, 8))
    value[place : place + 24] = struct.pack("<IIQQ", 48, 0, len(value) - 8, 8 * len(limits))
    value[-8:] = struct.pack(f"<{len(limits)}q", *limits)
    with pytest.raises(RecordCorrupt, match="series limit of a metric"):
        decode_columnar(bytes(value))


def test_labels_and_values_are_views_over_the_value():
    value = encode_columnar(small(), RecordSettings())
    whole = np.frombuffer(value, np.uint8)
    batch, _ = decode_columnar(value)
    for column in (batch.labels, batch.hashes, batch.timestamps, batch.values, batch.metadata.text):
        assert len(column)
        assert np.shares_memory(column, whole)
        assert not column.flags.writeable


def test_one_time_for_all_samples_is_stored_once():
    rows = [([(b"a", bytes([i]))], [(5, ONE)]) for i in range(1, 101)]
    same, other = batch_of(rows), batch_of([*rows[1:], ([(b"a", b"\x64")], [(6, ONE)])])
    sizes = [len(encode_columnar(batch, RecordSettings())) for batch in (same, other)]
    assert sizes[1] - sizes[0] == 99 * 8
    assert decode_columnar(encode_columnar(same, RecordSettings()))[0].timestamps.tolist() == [5] * 100


def refused(value: bytes) -> bool:
    """Whether a value is refused; what is not refused must be a batch whose columns agree."""
    try:
        batch, _ = decode_columnar(value)
    except (RecordCorrupt, RecordVersionUnsupported):
        return True
    content(batch)
    return False


def test_every_truncation_is_refused():
    value = encode_columnar(small(), RecordSettings())
    # The last section is padded; without some of its zero bytes everything is still there.
    kept = [end for end in range(len(value)) if not refused(value[:end])]
    assert all(value[end:] == bytes(len(value) - end) and len(value) - end < 8 for end in kept)


def test_every_flipped_bit_gives_an_error_of_ours_or_a_whole_batch():
    value = encode_columnar(small(), RecordSettings())
    count = 0
    for at in range(len(value)):
        for bit in range(8):
            count += refused(value[:at] + bytes([value[at] ^ 1 << bit]) + value[at + 1 :])
    assert count > 1000


@given(st.data())
@settings(max_examples=300)
def test_mutated_values_give_an_error_of_ours_or_a_whole_batch(data):
    value = bytearray(encode_columnar(small(), RecordSettings()))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(value)))
        piece = data.draw(st.binary(min_size=1, max_size=9) | st.sampled_from([b"\xff" * 8, bytes(8)]))
        if data.draw(st.booleans()):
            value[at : at + len(piece)] = piece
        else:
            del value[at : at + len(piece)]
    refused(bytes(value))


@given(st.binary(max_size=200))
def test_any_bytes_give_an_error_of_ours_or_a_whole_batch(value):
    refused(value)
    refused(struct.pack("<HHIqqq", 1, 0, 1, 0, 0, 0) + value)


@st.composite
def started(draw):
    """Batches whose samples say when they began, and whose series are deltas now and then."""
    batch = draw(st.one_of(BATCHES, histogram_batches()))
    starts = st.integers(-(2**63), 2**63 - 1)
    histograms = batch.histograms
    if histograms is not None and histograms.sample_count:
        own = draw(st.lists(starts, min_size=histograms.sample_count, max_size=histograms.sample_count))
        histograms = replace(histograms, starts=np.array(own, np.int64))
    floats = draw(st.lists(starts, min_size=batch.sample_count, max_size=batch.sample_count))
    deltas = draw(st.lists(st.booleans(), min_size=batch.series_count, max_size=batch.series_count))
    return replace(batch, starts=np.array(floats, np.int64), deltas=np.array(deltas, bool), histograms=histograms)


def listed(column):
    """Return a column as a list; empty for one that is not there or says nothing."""
    return column.tolist() if column is not None and column.any() else []


@given(started())
def test_starts_and_deltas_survive_and_go_with_their_series(batch):
    value = encode_columnar(batch, RecordSettings())
    got, _ = decode_columnar(value)
    assert encode_columnar(got, RecordSettings()) == value
    backwards = np.arange(got.series_count)[::-1]
    for one in (got, got.take(backwards).take(backwards)):
        assert listed(one.starts) == listed(batch.starts)
        assert listed(one.deltas) == listed(batch.deltas)
        assert one.histogram_count == batch.histogram_count
        if batch.histogram_count:
            assert listed(one.histograms.starts) == listed(batch.histograms.starts)


def test_a_delta_mark_that_is_none_and_starts_of_other_samples_are_refused():
    batch = replace(small(), starts=np.array([1, 2, 3]), deltas=np.array([True, False]))
    value = bytearray(encode_columnar(batch, RecordSettings()))
    at = value.rindex(b"\x01\x00" + bytes(6))
    assert not refused(bytes(value))
    value[at] = 2
    with pytest.raises(RecordCorrupt, match="section deltas"):
        decode_columnar(bytes(value))
    fewer = replace(batch, starts=batch.starts[:2])
    with pytest.raises(RecordCorrupt, match="2 starts for 3 values"):
        decode_columnar(encode_columnar(fewer, RecordSettings()))


def section(i: int) -> int:
    return 32 + 24 * i


@pytest.mark.parametrize(
    ("at", "form", "number", "error", "text"),
    [
        (0, "<H", 3, RecordVersionUnsupported, "columnar record of layout 3; this program knows up to 2"),
        (2, "<H", 3, RecordCorrupt, "header with the unknown source 3"),
        (352, "<B", 8, RecordCorrupt, "metadata types has the unknown type 8"),
        (4, "<I", 65, RecordCorrupt, "table of 65 sections"),
        (4, "<I", 2**32 - 1, RecordCorrupt, "table of 4294967295 sections"),
        (8, "<q", -1, RecordCorrupt, "negative setting"),
        (section(0), "<I", 10, RecordVersionUnsupported, "record section 10 of form 0 is not known"),
        (section(0), "<I", 0, RecordVersionUnsupported, "record section 0 of form 0"),
        (section(0) + 4, "<I", 1, RecordVersionUnsupported, "record section 1 of form 1"),
        (section(0) + 4, "<I", 2, RecordVersionUnsupported, "record section 1 of form 2"),
        (section(0) + 8, "<Q", 2**63, RecordCorrupt, f"labels at byte {2**63} wants 8 bytes, 0 are left"),
        (section(0) + 16, "<Q", 2**64 - 1, RecordCorrupt, f"labels at byte 248 wants {2**64 - 1} bytes"),
        (section(0) + 8, "<Q", 249, RecordCorrupt, "labels at byte 249 of 8 bytes is misplaced"),
        (section(1) + 16, "<Q", 11, RecordCorrupt, "label offsets at byte 256 of 11 bytes is misplaced"),
        (section(1), "<I", 1, RecordCorrupt, "repeated"),
        (section(1) + 16, "<Q", 8, RecordCorrupt, "label offsets does not lead 2 rows through 8 entries"),
        (256 + 4, "<I", 9, RecordCorrupt, "label offsets does not lead 2 rows"),
        (section(4) + 16, "<Q", 16, RecordCorrupt, "2 timestamps for 3 values"),
        (section(4) + 4, "<I", 1, RecordCorrupt, "3 timestamps for 3 values"),
    ],
)
def test_a_contradiction_says_where_it_is(at, form, number, error, text):
    value = bytearray(encode_columnar(small(), RecordSettings()))
    struct.pack_into(form, value, at, number)
    with pytest.raises(error) as caught:
        decode_columnar(bytes(value))
    assert text in caught.value.message


def test_an_empty_batch_is_a_header():
    value = encode_columnar(WriteBatch.empty(), RecordSettings())
    assert len(value) == 32
    assert content(decode_columnar(value)[0]) == ([], [], 0)
