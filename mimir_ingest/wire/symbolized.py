"""Write requests with a symbol table to columns: the shape of remote write 2.0 and of Mimir's record version 2.

Where the fields stand in the request does not matter. Metadata comes out per metric again: equal items once, in the
order of their first series; an item without type and texts, or of a series without a metric name, is none.
Source: spec ingest-storage 1.2 to 1.4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mimir_ingest.errors import InvalidRequest
from mimir_ingest.kernels import symbolized as kernels
from mimir_ingest.kernels import symbols as label_kernels
from mimir_ingest.kernels.gather import gather_bytes
from mimir_ingest.kernels.hashing import xxh64_spans
from mimir_ingest.kernels.label_order import sort_labels
from mimir_ingest.model.batch import SOURCE_API, MetadataColumns, WriteBatch
from mimir_ingest.wire.exemplars import decode_exemplars
from mimir_ingest.wire.histograms import TIME_SERIES_RW2, find_histograms
from mimir_ingest.wire.protobuf import describe
from mimir_ingest.wire.remote_write_v1 import DecodedWrite, with_created

MAX_TEXT_BYTES = 512 << 20
"""Labels and metadata of one request. why: a reference of one byte may stand for a megabyte, so the request's size does
not bound them; 16 MB of series of 2,000 label bytes and 40 references come to 260 MB."""


def decode(body: bytes | memoryview, known: Sequence[bytes] = (), known_slots: int = 0) -> DecodedWrite:
    """Decode a symbolised write request. The caller has bounded its size.

    Parameters
    ----------
    body : bytes
    known : sequence of bytes
        Symbols that both sides know: references 0 to len(known) - 1.
    known_slots : int
        The reference of the request's own first symbol, at least len(known).

    Raises
    ------
    InvalidRequest
        With the text that Mimir's decoder gives (spec http-api 15), or because labels and metadata are larger than
        MAX_TEXT_BYTES once their references are resolved.
    """
    begin = sum(map(len, known))
    data = np.frombuffer(b"".join((*known, body)), np.uint8)
    counts, error = np.empty(5, np.int64), np.zeros(4, np.int64)
    refusals: list[tuple[int, str]] = []
    status = kernels.scan(data, begin, counts, error)
    if status < 0:
        refusals.append((int(error[3]), describe(status, error)))
        data = data[: error[3]]
    symbols = _symbols(data, begin, int(counts[kernels.SYMBOLS]), known, known_slots)
    series = int(counts[kernels.SERIES])
    refs, ref_offsets, metadata = _refs(data, begin, symbols, series, refusals)
    samples, created, found = _samples(data, begin, symbols, series, refusals)
    if refusals:
        # The first one in the body, as a decoder that works front to back gives it.
        raise InvalidRequest(min(refusals)[1])
    histograms, facts = find_histograms(data, begin, TIME_SERIES_RW2, series, int(found[kernels.HISTOGRAMS]))
    exemplars = None
    if found[kernels.EXEMPLARS]:
        count = int(found[kernels.EXEMPLARS])
        exemplars = decode_exemplars(data, begin, series=series, count=count, symbols=symbols)
    labels, label_offsets = _labels(data, symbols, refs, ref_offsets)
    hashes = np.empty(series, np.uint64)
    xxh64_spans(labels, label_offsets, hashes)
    source = int(counts[kernels.SOURCE])
    batch = WriteBatch(
        labels,
        label_offsets,
        hashes,
        *samples[:3],
        _metadata(data, symbols, metadata),
        source if source in (0, 1, 2) else SOURCE_API,
        histograms,
        exemplars,
        samples[3],
    )
    return DecodedWrite(
        with_created(batch, created) if found[kernels.CREATED] else batch,
        int(found[kernels.EXEMPLARS]),
        int(found[kernels.HISTOGRAMS]),
        bool(counts[kernels.SKIP_LABEL_NAMES]),
        bool(counts[kernels.SKIP_LABEL_COUNT]),
        facts,
    )


def _symbols(data: np.ndarray, begin: int, own: int, known: Sequence[bytes], known_slots: int) -> np.ndarray:
    """Return int64[2 * n], the bounds of all symbols in `data`; slots without a symbol end before they start."""
    symbols = np.tile(np.array([0, -1], np.int64), known_slots + own)
    ends = np.cumsum([len(s) for s in known], dtype=np.int64)
    symbols[1 : 2 * len(known) : 2] = ends
    symbols[2 : 2 * len(known) : 2] = ends[:-1]
    kernels.fill_symbols(data, begin, symbols[2 * known_slots :], np.empty(4, np.int64))
    return symbols


def _refs(
    data: np.ndarray, begin: int, symbols: np.ndarray, series: int, refusals: list[tuple[int, str]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the label references, their offsets, and int64[k, 4] metadata rows. May add a (position, text)."""
    refs, error = np.empty(len(data) - begin, np.int32), np.zeros(4, np.int64)
    offsets, metadata = np.empty(series + 1, np.int64), np.empty(4 * series, np.int64)
    items = kernels.fill_refs(data, begin, symbols, refs, offsets, metadata, error)
    if items < 0:
        refusals.append((int(error[3]), describe(items, error)))
        return refs[:0], offsets, metadata[:0]
    return refs[: offsets[-1]], offsets, metadata[: 4 * items].reshape(items, 4)


def _samples(
    data: np.ndarray, begin: int, symbols: np.ndarray, series: int, refusals: list[tuple[int, str]]
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None], np.ndarray, np.ndarray]:
    """Return (sample offsets, timestamps, values, starts), when series were created, and `fill_samples`'s counts.

    May add a (position, text).
    """
    room = (len(data) - begin) // 2
    offsets, timestamps, values = np.empty(series + 1, np.int64), np.empty(room, np.int64), np.empty(room, np.float64)
    starts, created = np.empty(room, np.int64), np.zeros(series, np.int64)
    found, error = np.empty(5, np.int64), np.zeros(4, np.int64)
    status = kernels.fill_samples(data, begin, symbols, offsets, timestamps, values, starts, created, found, error)
    if status < 0:
        refusals.append((int(error[3]), describe(status, error)))
        return (offsets, timestamps[:0], values[:0], None), created, found
    samples = int(found[kernels.SAMPLES])
    own_starts = starts[:samples].copy() if found[kernels.STARTS] else None
    return (offsets, timestamps[:samples].copy(), values[:samples].copy(), own_starts), created, found


def _labels(
    data: np.ndarray, symbols: np.ndarray, refs: np.ndarray, ref_offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the label bytes of all series, sorted by name, and their offsets."""
    offsets, counts = np.empty(len(ref_offsets), np.int64), np.empty(3, np.int64)
    size = label_kernels.measure_labels(data, symbols, refs, ref_offsets, offsets, counts)
    _bound(size)
    labels = np.empty(size, np.uint8)
    label_kernels.write_labels(data, symbols, refs, labels)
    if counts[label_kernels.UNSORTED]:
        scratch = [np.empty(counts[label_kernels.MOST_LABELS] + 1, np.int64) for _ in range(3)]
        sort_labels(offsets, labels, np.empty(counts[label_kernels.MOST_LABEL_BYTES], np.uint8), *scratch)
    return labels, offsets


def _metadata(data: np.ndarray, symbols: np.ndarray, rows: np.ndarray) -> MetadataColumns:
    """Return the distinct rows (type, family, help, unit) as metadata."""
    if not len(rows):
        return MetadataColumns.empty()
    rows = _distinct(rows)
    used, inverse = np.unique(rows[:, 1:], return_inverse=True)
    bounds = zip(used.tolist(), symbols[2 * used].tolist(), symbols[2 * used + 1].tolist(), strict=True)
    canonical: dict[bytes, int] = {}
    same = [canonical.setdefault(data[start:end].tobytes(), ref) for ref, start, end in bounds]
    rows[:, 1:] = np.array(same)[inverse].reshape(-1, 3)
    rows = _distinct(rows)
    refs = rows[:, 1:].reshape(-1)
    sizes = symbols[2 * refs + 1] - symbols[2 * refs]
    offsets = np.zeros(len(refs) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    _bound(int(offsets[-1]))
    text = np.empty(offsets[-1], np.uint8)
    gather_bytes(data, symbols, 2 * refs, offsets, text)
    return MetadataColumns(rows[:, 0].astype(np.uint8), text, offsets)


def _distinct(rows: np.ndarray) -> np.ndarray:
    """Return the distinct rows of int64[k, 4], in the order of their first appearance."""
    return np.array(list(dict.fromkeys(map(tuple, rows.tolist()))), np.int64)


def _bound(size: int) -> None:
    if size > MAX_TEXT_BYTES:
        raise InvalidRequest(f"labels or metadata of {size} bytes, once references are resolved, over {MAX_TEXT_BYTES}")
