"""Write the index file of a block (format version 2), byte for byte as Prometheus 3 does.

    magic 0xBAAAD700, version 2 | symbols | series | postings | postings offset table | TOC

Prometheus no longer writes label indices (nothing reads them since version 2); their two places in the TOC then hold
the offsets of the postings and of the postings offset table.

Source: Prometheus tsdb/docs/format/index.md and tsdb/index/index.go, v3.14.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from mimir_ingest.errors import InvariantViolated
from mimir_ingest.kernels import index_entries
from mimir_ingest.kernels.crc32c import crc32c
from mimir_ingest.model.labels import LabelFrame

HEADER = bytes.fromhex("baaad70002")
TOC_BYTES = 52


@dataclass(frozen=True, slots=True)
class ChunkColumns:
    """Where the chunks of n series are and which times they hold."""

    offsets: np.ndarray
    """int64[n + 1]: series i has the chunks `offsets[i]:offsets[i + 1]`, ascending by time."""
    columns: np.ndarray
    """int64[3, k]: min time (ms), max time (ms, included), reference (number of the segment file from 0 << 32 |
    position in it)."""


@dataclass(frozen=True, slots=True)
class _Symbols:
    """Distinct strings in use, ascending, and what the codes of a frame mean in them."""

    text: np.ndarray
    offsets: np.ndarray
    name_refs: np.ndarray
    """int64[names]: symbol of each label name."""
    value_refs: np.ndarray
    """int64[...]: symbol of code c of column l, at `column_starts[l] + c`; -1 if no series has it."""
    column_starts: np.ndarray


def write_index(labels: LabelFrame, chunks: ChunkColumns) -> bytes:
    """Return the index file of series in label order.

    Raises `InvariantViolated` if a label set is not greater than the one before it.
    """
    codes = np.ascontiguousarray(labels.codes, np.int32)
    symbols = _collect_symbols(labels, codes)
    pieces = [HEADER, _section(_symbol_section(symbols))]
    series_at = sum(map(len, pieces))
    pieces.append(bytes(-series_at % index_entries.SERIES_ALIGNMENT))
    first_entry = sum(map(len, pieces))
    entries, refs = _write_series(codes, symbols, chunks)
    refs += first_entry // index_entries.SERIES_ALIGNMENT
    pieces.append(entries)
    postings_at = sum(map(len, pieces))
    pieces.append(bytes(-postings_at % 4))
    lists_at = sum(map(len, pieces))
    lists, table = _write_postings(codes, symbols, refs, lists_at)
    pieces.append(lists)
    table_at = sum(map(len, pieces))
    pieces.append(_section(table))
    toc = b"".join(
        at.to_bytes(8, "big") for at in (len(HEADER), series_at, postings_at, table_at, postings_at, table_at)
    )
    pieces += [toc, crc32c(toc).to_bytes(4, "big")]
    return b"".join(pieces)


def _section(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body + crc32c(body).to_bytes(4, "big")


def _collect_symbols(labels: LabelFrame, codes: np.ndarray) -> _Symbols:
    column_starts = np.array([0, *accumulate(map(len, labels.values))], np.int64)
    used: list[np.ndarray] = []
    strings = {""}
    for row, name, values in zip(codes, labels.names, labels.values, strict=True):
        counts = np.bincount(row[row >= 0], minlength=len(values))
        used.append(np.flatnonzero(counts))
        strings.update(values) if len(used[-1]) == len(values) else strings.update(values[c] for c in used[-1].tolist())
        if len(used[-1]):
            strings.add(name)
    ordered = sorted(strings)
    rank = dict(zip(ordered, range(len(ordered)), strict=True))
    value_refs = np.full(column_starts[-1], -1, np.int64)
    for start, values, codes_used in zip(column_starts, labels.values, used, strict=False):
        value_refs[start + codes_used] = [rank[values[c]] for c in codes_used.tolist()]
    encoded = [s.encode() for s in ordered]
    return _Symbols(
        text=np.frombuffer(b"".join(encoded), np.uint8),
        offsets=np.array([0, *accumulate(map(len, encoded))], np.int64),
        name_refs=np.array([rank.get(name, -1) for name in labels.names], np.int64),
        value_refs=value_refs,
        column_starts=column_starts,
    )


def _symbol_section(symbols: _Symbols) -> bytes:
    count = len(symbols.offsets) - 1
    out = np.empty(len(symbols.text) + 5 * count, np.uint8)
    written = index_entries.write_symbols(symbols.text, symbols.offsets, out)
    return count.to_bytes(4, "big") + out[:written].tobytes()


def _write_series(codes: np.ndarray, symbols: _Symbols, chunks: ChunkColumns) -> tuple[bytes, np.ndarray]:
    n = codes.shape[1]
    room = 20 * int(np.count_nonzero(codes >= 0)) + 30 * chunks.columns.shape[1] + 64 * n
    out = np.empty(room, np.uint8)
    refs = np.empty(n, np.int64)
    written = index_entries.write_series(
        codes, symbols.name_refs, symbols.value_refs, symbols.column_starts, chunks.offsets, chunks.columns, out, refs
    )
    if written < 0:
        raise InvariantViolated(f"label set {-written} of {n} is not greater than the one before it")
    return out[:written].tobytes(), refs


def _write_postings(codes: np.ndarray, symbols: _Symbols, refs: np.ndarray, lists_at: int) -> tuple[bytes, bytes]:
    """Return all postings lists, the first to stand at `lists_at`, and the body of their offset table."""
    used = np.flatnonzero(symbols.value_refs >= 0)
    column = np.searchsorted(symbols.column_starts, used, side="right") - 1
    order = np.lexsort((symbols.value_refs[used], column))
    used, column = used[order], column[order]
    posting_of = np.full(len(symbols.value_refs), -1, np.int64)
    posting_of[used] = np.arange(1, len(used) + 1)
    counts = np.zeros(len(used) + 1, np.int64)
    counts[0] = len(refs)
    index_entries.count_postings(codes, posting_of, symbols.column_starts, counts)
    starts = np.concatenate([[0], np.cumsum(12 + 4 * counts)])
    lists = np.empty(starts[-1], np.uint8)
    index_entries.write_postings(
        codes, posting_of, symbols.column_starts, refs, starts, np.empty(len(counts), np.int64), lists
    )
    # Symbol 0 is the empty string: the list of all series has the key ("", "").
    name_refs = np.concatenate([[0], symbols.name_refs[column]])
    value_refs = np.concatenate([[0], symbols.value_refs[used]])
    sizes = np.diff(symbols.offsets)
    table = np.empty(int(np.sum(sizes[name_refs]) + np.sum(sizes[value_refs])) + 21 * len(counts), np.uint8)
    written = index_entries.write_postings_offsets(
        symbols.text, symbols.offsets, name_refs, value_refs, lists_at + starts[:-1], table
    )
    return lists.tobytes(), len(counts).to_bytes(4, "big") + table[:written].tobytes()
