"""Metadata that came with series: families, the first of each."""

import itertools

import numpy as np

from mimir_ingest.model.batch import METRIC_TYPES, MetadataColumns
from mimir_ingest.wire.metric_families import first_of_each_family


def columns(*items: tuple[str, str, str, str]) -> MetadataColumns:
    """Items of (type, name, help, unit)."""
    texts = [text.encode() for _, *strings in items for text in strings]
    types = np.array([METRIC_TYPES.index(kind) for kind, *_ in items], np.uint8)
    return MetadataColumns(types, np.frombuffer(b"".join(texts), np.uint8), np.cumsum([0, *map(len, texts)]))


def read(found: MetadataColumns) -> list[tuple[str, ...]]:
    ends, text = found.offsets.tolist(), found.text.tobytes()
    strings = [text[a:b].decode() for a, b in itertools.pairwise(ends)]
    return [(METRIC_TYPES[kind], *strings[3 * i : 3 * i + 3]) for i, kind in enumerate(found.types.tolist())]


def test_series_of_a_family_give_its_metadata_once_and_the_first_counts():
    items = [
        ("histogram", "wait_bucket", "Waiting.", "s"),
        ("histogram", "wait_sum", "Another text.", ""),
        ("histogram", "wait", "Native.", "s"),
        ("summary", "size_count", "Sizes.", ""),
        ("summary", "size_sum", "Sizes.", ""),
        ("gaugehistogram", "depth_gcount", "Depth.", ""),
        ("gaugehistogram", "depth_gsum", "Depth.", ""),
        ("gaugehistogram", "depth_bucket", "Depth.", ""),
    ]
    assert read(first_of_each_family(columns(*items))) == [
        ("histogram", "wait", "Waiting.", "s"),
        ("summary", "size", "Sizes.", ""),
        ("gaugehistogram", "depth", "Depth.", ""),
    ]


def test_other_types_keep_their_names_and_a_name_that_is_a_suffix_is_no_family():
    items = [
        ("counter", "jobs_total", "Jobs.", ""),
        ("gauge", "wait_sum", "A gauge.", ""),
        ("info", "build_info", "", ""),
        ("summary", "a_bucket", "", ""),
        ("gaugehistogram", "b_sum", "", ""),
    ]
    assert read(first_of_each_family(columns(*items, ("histogram", "_bucket", "", "")))) == items
    assert read(first_of_each_family(MetadataColumns.empty())) == []
