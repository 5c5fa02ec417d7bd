"""Damaged bytes to every decoder: the errors that it names or an answer, never another, and memory in proportion."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable

import numpy as np
import pytest

from mimir_ingest.tsdb import columns_file
from mimir_ingest.tsdb.columns_file import ColumnsFileCorrupt
from tests.fuzz.decoder import Decoder
from tests.fuzz.run import all_decoders
from tests.support.mutations import mutations

DAMAGED = 120
"""Damaged texts for each decoder. why: half a second each; `tests.fuzz.run` was given hours."""

ROOM = 4 << 20
"""Bytes that decoding may take at its peak."""

DECODERS = all_decoders()
SLOW = ("push of", "embedded log", "PromQL, evaluated")
"""Milliseconds a text."""
DEEP = [
    b"[" * 20_000,
    b'{"state":' * 10_000,
    b'{"data":' + b"[" * 10_000,
    b'{"version":' + b"9" * 5000 + b"}",
    b'"\\ud800"',
    b"\xff",
    b"",
    b"partition/3\n" + b'{"state":' * 10_000,
]


@pytest.mark.parametrize("name", DECODERS)
def test_damaged_bytes_give_the_errors_of_their_decoder_and_take_no_room(name):
    decoder = DECODERS[name]
    count = DAMAGED // 8 if name.startswith(SLOW) else DAMAGED
    for whole in decoder.corpus:
        try:
            decoder.decode(whole)
        except decoder.errors:
            assert name in (
                "PromQL",
                "OTLP, protobuf",
                "OTLP, plain settings",
                "OTLP, JSON",
                "tenants",
            )  # refused ones, too
    tracemalloc.start()
    try:
        refused = refusals(decoder, mutations(decoder.corpus, count))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    refused += refusals(decoder, DEEP)
    assert bool(decoder.errors) == (refused > 0)
    assert peak < ROOM


def refusals(decoder: Decoder, texts: Iterable[bytes]) -> int:
    refused = 0
    for data in texts:
        try:
            decoder.decode(decoder.seal(data))
        except decoder.errors:
            refused += 1
    return refused


def test_a_damaged_columns_file_is_refused_whole():
    columns = {"a": np.arange(50, dtype=np.int64), "b": np.zeros(7, np.uint8)}
    whole = columns_file.encode_columns("kind", 1, {"x": 1}, columns)
    refused = 0
    for data in mutations([whole], DAMAGED):
        try:
            found = columns_file.decode_columns(data, kind="kind", versions=(1,))
        except ColumnsFileCorrupt:
            refused += 1
        else:  # damage behind the last section, or between sections
            assert found.columns["a"].tolist() == list(range(50))
    assert refused > DAMAGED // 2
