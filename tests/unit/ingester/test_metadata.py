"""Metadata per family, for as long as it is received."""

from __future__ import annotations

import numpy as np

from mimir_ingest.ingester.metadata import FamilyMetadata, MetadataLimits, MetadataStore, TakenMetadata
from mimir_ingest.model.batch import MetadataColumns


def columns(*items: tuple[int, str, str, str]) -> MetadataColumns:
    strings = [s.encode() for item in items for s in item[1:]]
    return MetadataColumns(
        np.array([item[0] for item in items], np.uint8),
        np.frombuffer(b"".join(strings), np.uint8),
        np.cumsum([0, *map(len, strings)], dtype=np.int64),
    )


def test_distinct_items_of_a_family_are_kept_until_they_are_received_no_more():
    store = MetadataStore(retain_s=600)
    assert store.add("a", columns((1, "x_total", "Xs.", ""), (2, "y", "Ÿs.", "bytes")), now_s=0).taken == 2
    store.add("a", columns((1, "x_total", "Other.", ""), (1, "x_total", "Xs.", "")), now_s=500)
    assert store.of("a") == {
        "x_total": [FamilyMetadata("counter", "Other.", ""), FamilyMetadata("counter", "Xs.", "")],
        "y": [FamilyMetadata("gauge", "Ÿs.", "bytes")],
    }
    store.purge(now_s=601)
    assert list(store.of("a")) == ["x_total"]
    assert store.of("b") == {}
    store.purge(now_s=1101)
    assert store.count() == 0


def test_limits_bound_families_and_items_of_one_and_known_items_come_again():
    limits = {"a": MetadataLimits(2, 0), "b": MetadataLimits(0, 2)}
    store = MetadataStore(retain_s=600, limits_of=lambda tenant: limits.get(tenant, MetadataLimits()))
    many = columns(*[(1, family, text, "") for family in "xyz" for text in ("1", "2", "3")])
    assert store.add("a", many, now_s=0) == TakenMetadata(taken=6, over_user=3)
    assert store.add("b", many, now_s=0) == TakenMetadata(taken=6, over_metric=3)
    assert store.add("c", many, now_s=0) == TakenMetadata(taken=9)
    assert list(store.of("a")) == ["x", "y"]
    assert [item.help for item in store.of("b")["z"]] == ["1", "2"]
    assert store.add("b", many, now_s=500) == TakenMetadata(taken=6, over_metric=3)
    store.purge(now_s=601)
    assert store.count() == 6
    assert store.add("a", columns((1, "z", "1", "")), now_s=602) == TakenMetadata(taken=1)
