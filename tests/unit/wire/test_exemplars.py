"""Exemplars on the wire: the protobuf library judges what is decoded from it and what is written for it."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.model.batch import WriteBatch
from mimir_ingest.wire import remote_write_v1, symbolized
from mimir_ingest.wire.record import (
    VERSION_COLUMNAR,
    VERSION_V0,
    RecordSettings,
    decode,
    encode_columnar,
    encode_mimir,
    split_for_size,
)
from tests.reference import exemplar_wire as reference
from tests.support.histograms import histogram_rows, put_histogram
from tests.support.protobuf_schema import WriteRequest
from tests.support.push_target import record_labels

TEXTS = st.sampled_from([b"trace_id", b"span_id", b"a", b""]) | st.binary(max_size=40)
EXEMPLARS = st.lists(
    st.tuples(
        st.lists(st.tuples(TEXTS, TEXTS), max_size=3), st.floats(allow_nan=False), st.integers(-(2**63), 2**63 - 1)
    ),
    max_size=3,
)
SERIES = st.lists(st.tuples(EXEMPLARS, st.booleans()), min_size=1, max_size=4)


def exemplars_of(batch: WriteBatch) -> list[list]:
    """Return [(timestamp, value, labels)] of each series; nothing without any."""
    exemplars = batch.exemplars
    if exemplars is None:
        return []
    rows = [
        (t, v, record_labels(labels))
        for t, v, labels in zip(
            exemplars.timestamps.tolist(), exemplars.values.tolist(), exemplars.label_bytes(), strict=True
        )
    ]
    return [rows[a:b] for a, b in pairwise(exemplars.offsets.tolist())]


def both_shapes(series, histogram):
    """The same request with labels and with symbols."""
    plain, symbolic, symbols = WriteRequest(), WriteRequest(), [b""]

    def ref(text):
        if text not in symbols:
            symbols.append(text)
        return symbols.index(text)

    for number, (exemplars, beside) in enumerate(series):
        row, other = plain.timeseries.add(), symbolic.timeseries_rw2.add()
        row.labels.add(name=b"n", value=b"%d" % number)
        other.labels_refs.extend([ref(b"n"), ref(b"%d" % number)])
        if beside:
            row.samples.add(value=1.5, timestamp=7)
            other.samples.add(value=1.5, timestamp=7)
            put_histogram(row.histograms.add(), 8, histogram)
            put_histogram(other.histograms.add(), 8, histogram)
        for labels, value, timestamp in exemplars:
            one = row.exemplars.add(value=value, timestamp=timestamp)
            refs = []
            for name, text in labels:
                one.labels.add(name=name, value=text)
                refs += [ref(name), ref(text)]
            other.exemplars.add(labels_refs=refs, value=value, timestamp=timestamp)
    symbolic.symbols.extend(symbols)
    return plain, symbolic, symbols


@settings(deadline=None)
@given(SERIES, histogram_rows())
def test_exemplars_of_both_shapes_decode_as_the_protobuf_library_reads_them(series, histogram):
    plain, symbolic, symbols = both_shapes(series, histogram)
    expected = [[reference.decode(e) for e in row.exemplars] for row in plain.timeseries]
    assert expected == [[reference.decode(e, symbols) for e in row.exemplars] for row in symbolic.timeseries_rw2]
    for write in (
        remote_write_v1.decode(plain.SerializeToString()),
        symbolized.decode(symbolic.SerializeToString()),
    ):
        assert write.exemplar_count == sum(map(len, expected))
        found = exemplars_of(write.batch)
        assert found == (expected if any(expected) else [])


@settings(deadline=None)
@given(SERIES, histogram_rows(), st.integers(100, 3000))
def test_exemplars_survive_records_and_splits(series, histogram, max_bytes):
    batch = remote_write_v1.decode(both_shapes(series, histogram)[0].SerializeToString()).batch
    wanted = exemplars_of(batch)
    for version in (VERSION_COLUMNAR, VERSION_V0):

        def encode(part, version=version):
            return (
                encode_columnar(part, RecordSettings()) if version == VERSION_COLUMNAR else encode_mimir(part, version)
            )

        assert exemplars_of(decode(version, encode(batch)).batch) == wanted
        parts = split_for_size(batch, version, max_bytes)
        assert [rows for part in parts for rows in exemplars_of(part)] == wanted
        assert all(len(encode(part)) <= max_bytes or part.series_count == 1 for part in parts)
    request = WriteRequest()
    request.ParseFromString(encode_mimir(batch, VERSION_V0))
    assert request.SerializeToString() == encode_mimir(batch, VERSION_V0)


@given(SERIES, st.data())
def test_series_keep_their_exemplars_when_they_are_taken(series, data):
    row = data.draw(histogram_rows())
    batch = remote_write_v1.decode(both_shapes(series, row)[0].SerializeToString()).batch
    index = data.draw(st.lists(st.integers(0, len(series) - 1), max_size=5))
    wanted = exemplars_of(batch)
    assert exemplars_of(batch.take(np.array(index, np.int64))) == ([wanted[i] for i in index] if wanted else [])
