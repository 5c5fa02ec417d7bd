"""Results as JSON, where the way of writing them depends on their size."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from mimir_ingest.api.render import result_json
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.promql.values import Vector

LABELS = {
    "plain": {"__name__": "up", "job": "a"},
    "none": {},
    "quotes": {"job": 'a"b\\c\n', "zone": "ü\u2028"},
    "bytes that are no UTF-8": {"job": b"a\xffb".decode("utf-8", "surrogateescape"), "zone": "x"},
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_one_series_is_written_as_it_is_among_others(labels):
    def metrics(*sets: dict[str, str]) -> list[dict[str, str]]:
        vector = Vector(LabelFrame.from_dicts(sets), 1000, np.ones(len(sets)))
        return [series["metric"] for series in orjson.loads(f"{{{result_json(vector)}}}")["result"]]

    cleaned = {k: v.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for k, v in labels.items()}
    assert metrics(labels) == [cleaned]
    assert metrics(labels, {"other": "x"}) == [cleaned, {"other": "x"}]
