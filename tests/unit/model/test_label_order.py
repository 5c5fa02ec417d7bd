"""The order of label sets, whatever is in the dictionaries besides."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.model.labels import LabelFrame

SETS = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.sampled_from(["", "x", "y", "ü", "\udcff", "xx"]), max_size=3),
    max_size=8,
)


def pairs(labels: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(n.encode(), v.encode("utf-8", "surrogateescape")) for n, v in sorted(labels.items()) if v]


@settings(deadline=None)
@given(SETS, st.data())
def test_label_sets_are_ordered_by_their_pairs_with_values_in_use_and_others(sets, data):
    every = LabelFrame.from_dicts(sets)
    rows = data.draw(st.lists(st.sampled_from(range(len(sets))), max_size=6)) if sets else []
    for frame, chosen in ((every, list(range(len(sets)))), (every.take(np.array(rows, np.int64)), rows)):
        wanted = sorted(range(len(chosen)), key=lambda i: pairs(sets[chosen[i]]))
        assert frame.sort_order().tolist() == wanted
