"""OTLP's columns hold what the plain decoder makes of the same bytes, bit for bit."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mimir_ingest.errors import InvalidRequest
from mimir_ingest.wire import otlp
from mimir_ingest.wire.otlp_labels import OtlpSettings
from tests.reference import otlp as reference
from tests.support import otlp_corpus as corpus
from tests.support.mutations import mutations
from tests.support.otlp_random import RandomOtlp

PROMOTED = frozenset({"host.name", "cloud.region", "a.b", "a_b", "job", "le", "__x", "__name__", "x y", "service.name"})
SETTINGS = (
    OtlpSettings(),
    OtlpSettings(
        strategy="NoUTF8EscapingWithSuffixes",
        promote_resource_attributes=PROMOTED,
        promote_scope_metadata=True,
        accumulate_deltas=True,
        created_timestamp_zero_ingestion=True,
    ),
    OtlpSettings(
        strategy="UnderscoreEscapingWithSuffixes",
        promote_resource_attributes=PROMOTED,
        keep_identifying_resource_attributes=True,
        convert_histograms_to_nhcb=True,
        native_delta_ingestion=True,
        created_timestamp_zero_ingestion=True,
        label_name_underscore_sanitization=False,
        label_name_preserve_multiple_underscores=False,
    ),
    OtlpSettings(strategy="NoTranslation", promote_scope_metadata=True, convert_histograms_to_nhcb=True),
)
WRITTEN = [*corpus.types(), *itertools.islice(corpus.labels(), 20), *corpus.unusable()]
COLLIDING = ("a", "a.b", "a_b", "le", "quantile", "job", "__name__", "_", "Z", "z" * 200)


def rows_of(write) -> list[reference.Row]:
    """Return the rows of a batch."""
    batch = write.batch
    ends = batch.label_offsets.tolist()
    rows = []
    for i, (a, b) in enumerate(itertools.pairwise(ends)):
        row = reference.Row(batch.labels[a:b].tobytes(), int(write.data_points.of_series[i]))
        row.delta = batch.deltas is not None and bool(batch.deltas[i])
        at = slice(*batch.sample_offsets[i : i + 2])
        starts = [0] * (at.stop - at.start) if batch.starts is None else batch.starts[at].tolist()
        bits = batch.values[at].view("u8").tolist()
        row.floats = list(zip(batch.timestamps[at].tolist(), bits, starts, strict=True))
        if batch.histograms is not None:
            row.histograms = [histogram(batch.histograms, k) for k in range(*batch.histograms.offsets[i : i + 2])]
        if batch.exemplars is not None:
            held, texts = batch.exemplars, batch.exemplars.label_bytes()
            row.exemplars = [
                (int(held.timestamps[k]), int(held.values[k : k + 1].view("u8")[0]), bytes(texts[k]))
                for k in range(*held.offsets[i : i + 2])
            ]
        rows.append(row)
    return rows


def histogram(samples, k: int) -> tuple:
    """Return (ms, start, histogram)."""
    held = samples.values
    sides = [
        list(zip(held.bucket_index[a:b].tolist(), held.bucket_count[a:b].tolist(), strict=True))
        for a, b in itertools.pairwise(held.bucket_offsets[2 * k : 2 * k + 3].tolist())
    ]
    one = (
        *(int(held.schema[k]), int(held.reset_hint[k]), float(held.zero_threshold[k]), float(held.zero_count[k])),
        *(float(held.count[k]), int(held.sum[k : k + 1].view("u8")[0]), *sides),
        tuple(held.custom_values[held.custom_offsets[k] : held.custom_offsets[k + 1]].tolist()),
    )
    return int(samples.timestamps[k]), 0 if samples.starts is None else int(samples.starts[k]), one


def metadata_of(batch) -> list[tuple]:
    """Return (type, family, help, unit) of each item."""
    held = batch.metadata
    texts = [held.text[a:b].tobytes().decode() for a, b in itertools.pairwise(held.offsets.tolist())]
    return [(int(kind), *texts[3 * i : 3 * i + 3]) for i, kind in enumerate(held.types)]


def check(body: bytes, settings: OtlpSettings) -> str:
    """Compare what becomes of a body; say whether both took or refused it."""
    try:
        wanted = reference.decode(body, settings)
    except reference.Refused:
        wanted = None
    try:
        write = otlp.decode(body, settings, json=False)
    except InvalidRequest:
        return "refused" if wanted is None else "refused here"
    if wanted is None:
        return "taken here"
    points = write.data_points
    assert repr(rows_of(write)) == repr(wanted.rows), body
    assert metadata_of(write.batch) == list(wanted.metadata)
    told = (points.received, points.unconverted, points.unconverted_metrics, points.error, points.array_lengths)
    assert told == (
        *(wanted.received, wanted.unconverted, wanted.unconverted_metrics),
        *(wanted.error_text(), wanted.lengths),
    )
    return "taken"


@pytest.mark.parametrize("settings", SETTINGS)
def test_written_and_random_requests_become_the_same_rows(settings):
    for one in (*WRITTEN, *RandomOtlp(SETTINGS.index(settings)).requests(60)):
        assert check(one.SerializeToString(), settings) == "taken"


TEXTS = st.sampled_from(["", "v", "a;b", "ü", "x" * 127, "y" * 20_000]) | st.text(max_size=3)


@hypothesis_settings(max_examples=100)
@given(
    st.lists(st.lists(st.tuples(st.sampled_from(COLLIDING), TEXTS), max_size=6), min_size=1, max_size=4),
    st.sampled_from(SETTINGS),
)
def test_attributes_that_repeat_or_become_one_label_are_joined_alike(points, settings):
    made = corpus.request(
        corpus.gauge("g", *(corpus.point(asDouble=1) for _ in points)),
        corpus.histogram("h", *(corpus.point(count=1, bucketCounts=[1, 0], explicitBounds=[1]) for _ in points)),
        {"name": "s", "summary": {"dataPoints": [corpus.point(quantileValues=[{"quantile": 0.5}]) for _ in points]}},
        resource={"service.name": "s", "a.b": "promoted"},
    )
    for metric in made.resource_metrics[0].scope_metrics[0].metrics:
        for point, pairs in zip(getattr(metric, metric.WhichOneof("data")).data_points, points, strict=True):
            del point.attributes[:]
            for key, value in pairs:
                point.attributes.add(key=key).value.string_value = value
    assert check(made.SerializeToString(), settings) == "taken"


def test_damaged_requests_become_the_same_rows_or_are_refused():
    whole = [one.SerializeToString() for one in (*WRITTEN, *RandomOtlp(9).requests(20))]
    found = Counter(check(body, SETTINGS[i % 4]) for i, body in enumerate(mutations(whole, 1500)))
    assert min(found["taken"], found["refused"]) > 100
