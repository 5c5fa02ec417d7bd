"""Prometheus's own OTLP receiver is the judge of names, labels, values, native histograms and exemplars.

Where the two differ on purpose, the requests leave it out:

| case | here | why |
| --- | --- | --- |
| a metric without data points | a conversion error | spec 8.9: "empty data points ... metric dropped" |
| a request with a conversion error | the rest is stored | spec 8.9: "the convertible rest is ingested" |
| exemplars of a point without a value | kept | spec 8.9 excepts only gauges and summaries |
| scale over 8 with gaps between buckets | buckets hold what lies within them | Prometheus misplaces some of them |
| `ütotal` of a counter, unescaped | the whole character in front of `total` goes | Prometheus leaves half of it |
| -0 | -0 | Prometheus's remote read leaves out zeros |
| start times | zeros within five minutes | spec 8.9; tests/integration/test_otlp_sdk.py |
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path

import pytest

from mimir_ingest.model.batch import METRIC_TYPES
from mimir_ingest.model.labels import decode_label_bytes
from mimir_ingest.wire import otlp
from mimir_ingest.wire.otlp_labels import OtlpSettings
from mimir_ingest.wire.otlp_names import STRATEGIES
from tests.support import otlp_corpus as corpus
from tests.support.histograms import as_rows
from tests.support.otlp_random import NUMBER, RandomOtlp, numbers
from tests.support.prometheus import run_prometheus
from tests.support.remote_read import bits_of
from tests.support.stored_samples import as_stored, comparable, stored_samples

pytestmark = pytest.mark.peer

_PROMOTED = ("host.name", "cloud.region", "_odd", "9")
_COLLIDING = (*_PROMOTED, "a.b", "a_b", "job", "le", "__x", "__name__", "x y", "service.name")
RANDOM_REQUESTS = 80
SETTINGS = {
    **{strategy: OtlpSettings(strategy=strategy) for strategy in STRATEGIES},
    "everything promoted": OtlpSettings(
        promote_resource_attributes=frozenset(_PROMOTED),
        promote_scope_metadata=True,
        keep_identifying_resource_attributes=True,
        convert_histograms_to_nhcb=True,
        label_name_underscore_sanitization=False,
        label_name_preserve_multiple_underscores=False,
    ),
    "deltas": OtlpSettings(
        native_delta_ingestion=True,
        strategy="UnderscoreEscapingWithSuffixes",
        promote_resource_attributes=frozenset(_COLLIDING),
        promote_scope_metadata=True,
        convert_histograms_to_nhcb=True,
        label_name_preserve_multiple_underscores=False,
    ),
    "deltas untranslated": OtlpSettings(
        native_delta_ingestion=True,
        strategy="NoTranslation",
        promote_resource_attributes=frozenset(_COLLIDING),
        keep_identifying_resource_attributes=True,
    ),
}


_EMPTY_POINTS = re.compile(r"empty data points\. .*? is dropped")


def _configuration(settings: OtlpSettings) -> str:
    promoted = sorted(settings.promote_resource_attributes)
    return f"""
scrape_configs: []
otlp:
  translation_strategy: {settings.strategy}
  promote_resource_attributes: [{", ".join(f'"{name}"' for name in promoted)}]
  keep_identifying_resource_attributes: {settings.keep_identifying_resource_attributes}
  convert_histograms_to_nhcb: {settings.convert_histograms_to_nhcb}
  promote_scope_metadata: {settings.promote_scope_metadata}
  label_name_underscore_sanitization: {settings.label_name_underscore_sanitization}
  label_name_preserve_multiple_underscores: {settings.label_name_preserve_multiple_underscores}
""".replace(": True", ": true").replace(": False", ": false")


@pytest.mark.parametrize("name", SETTINGS)
def test_every_request_becomes_the_series_that_prometheus_makes_of_it(
    name: str, prometheus_bin: Path, tmp_path: Path
) -> None:
    settings = SETTINGS[name]
    written = list(itertools.chain(corpus.names(), corpus.labels(), corpus.types(), corpus.unusable()))
    made = list(RandomOtlp(list(SETTINGS).index(name)).requests(RANDOM_REQUESTS))
    features = "exemplar-storage" + (",otlp-native-delta-ingestion" if settings.native_delta_ingestion else "")
    flags = (
        "--web.enable-otlp-receiver",
        f"--enable-feature={features}",
        "--storage.tsdb.retention.time=100y",
    )
    config = (
        _configuration(settings)
        + "storage: {tsdb: {out_of_order_time_window: 1d}, exemplars: {max_exemplars: 10000}}\n"
    )
    ours: Counter[object] = Counter()
    exemplars = set()
    left_out: set[str] = set()
    with run_prometheus(prometheus_bin, tmp_path, *flags, config=config) as client:
        for request in (*written, *made):
            body = request.SerializeToString()
            answer = client.post(
                "/api/v1/otlp/v1/metrics", content=body, headers={"Content-Type": "application/x-protobuf"}
            )
            write = otlp.decode(body, settings, json=False)
            error = _EMPTY_POINTS.sub("", (write.data_points.error or "").removeprefix("otlp parse error: "))
            assert bool(error.strip()) == (answer.status_code != 200), (request, answer.text)
            if error.strip() and request not in written:
                left_out |= numbers(request)
                continue
            ours.update(_samples(write.batch))
            exemplars |= _exemplars(write.batch)
        theirs = stored_samples(client)
        told = client.get(
            "/api/v1/query_exemplars",
            params={
                "query": '{__name__=~".+"}',
                "start": corpus.NOW_MS / 1000 - 3600,
                "end": corpus.NOW_MS / 1000 + 3600,
            },
        ).json()["data"]
    theirs = {one for one in theirs if dict(one[0]).get(NUMBER) not in left_out}
    assert sorted(map(str, set(ours) - theirs)) == []
    assert sorted(map(str, theirs - set(ours))) == []
    found = {
        (frozenset(one["seriesLabels"].items()), float(e["value"]), frozenset(e["labels"].items()))
        for one in told
        for e in one["exemplars"]
        if one["seriesLabels"].get(NUMBER) not in left_out
    }
    assert exemplars
    assert exemplars == found


def test_metadata_has_the_types_and_units_that_prometheus_labels_series_with(
    prometheus_bin: Path, tmp_path: Path
) -> None:
    settings, requests = OtlpSettings(), list(corpus.names())
    for unit in ("By", "{x}", "a-b/s", "s/ü", "m/_x_", "_/_", "a//b", "% /%", "d/d", "1/1", "é", "a b/c d"):
        measured = {"count": 1, "sum": 1}
        requests.append(
            corpus.request(
                corpus.histogram("c", corpus.point(**measured, bucketCounts=[1], explicitBounds=[]), unit=unit),
                corpus.histogram("e", corpus.point(**measured, zeroCount=1), unit=unit, kind="exponentialHistogram"),
                corpus.summary("s", corpus.point(**measured)) | {"unit": unit},
                corpus.gauge("g", unit=unit),
            )
        )
    flags = (
        "--web.enable-otlp-receiver",
        "--enable-feature=type-and-unit-labels",
        "--storage.tsdb.retention.time=100y",
    )
    with run_prometheus(prometheus_bin, tmp_path, *flags, config=_configuration(settings)) as client:
        # Messages one behind another are one.
        body = b"".join(request.SerializeToString() for request in requests)
        headers = {"Content-Type": "application/x-protobuf"}
        assert client.post("/api/v1/otlp/v1/metrics", content=body, headers=headers).status_code == 200
        span = {"start": corpus.NOW_MS / 1000 - 60, "end": corpus.NOW_MS / 1000 + 60}
        series = client.get("/api/v1/series", params={"match[]": '{__type__!=""}', **span}).json()["data"]
    told = otlp.decode(body, settings, json=False).batch.metadata
    texts = [told.text[a:b].tobytes().decode() for a, b in itertools.pairwise(told.offsets.tolist())]
    kinds = [METRIC_TYPES[kind] for kind in told.types.tolist()]
    families = {
        (re.sub("_(count|sum|bucket)$", "", one["__name__"]), one["__type__"], one.get("__unit__", ""))
        for one in series
    }
    assert families == set(zip(texts[::3], kinds, texts[2::3], strict=True))


def _samples(batch) -> list[object]:
    """Return (labels, ms, bits or histogram) of every sample."""
    found: list[object] = []
    rows = as_rows(batch.histograms.values) if batch.histograms is not None else []
    for i, labels in enumerate(_labels(batch)):
        for k in range(*batch.sample_offsets[i : i + 2]):
            found.append(
                (labels, int(batch.timestamps[k]), comparable(bits_of([float(v) for v in batch.values[k : k + 1]])[0]))
            )
        if rows:
            for k in range(*batch.histograms.offsets[i : i + 2]):
                found.append((labels, int(batch.histograms.timestamps[k]), as_stored(rows[k])))
    return found


def _labels(batch) -> list[frozenset]:
    ends = batch.label_offsets.tolist()
    return [frozenset(decode_label_bytes(batch.labels[a:b].tobytes())) for a, b in itertools.pairwise(ends)]


def _exemplars(batch) -> set:
    if batch.exemplars is None:
        return set()
    labels, held = _labels(batch), batch.exemplars
    series = [i for i in range(len(labels)) for _ in range(*held.offsets[i : i + 2])]
    texts = [frozenset(decode_label_bytes(text)) for text in held.label_bytes()]
    return {(labels[i], float(v), text) for i, v, text in zip(series, held.values, texts, strict=True)}
