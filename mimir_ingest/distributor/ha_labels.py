"""The labels that tell the replicas of a cluster apart: reading them from a request, and taking the replica's off.

A request comes from one sender, so its first series speaks for all (spec: ingest storage 8.6).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from mimir_ingest.distributor.ha_election import HaLimits
from mimir_ingest.distributor.messages import read_labels
from mimir_ingest.errors import InvariantViolated
from mimir_ingest.kernels.ha_labels import drop_label
from mimir_ingest.kernels.hashing import xxh64_spans
from mimir_ingest.model.batch import WriteBatch
from mimir_ingest.wire.remote_write_v1 import DecodedWrite


class Sender(NamedTuple):
    """Who sent a request."""

    cluster: str
    replica: str


def find_sender(batch: WriteBatch, limits: HaLimits, *, max_value_bytes: int) -> Sender | None:
    """Return whose request it is; None when a label is missing, too long, or not UTF-8.

    What is wrong with a value is left to validation, which judges these labels as any others.
    """
    first = batch.labels[: batch.label_offsets[1]].tobytes() if batch.series_count else b""
    found = {}
    for name, value in read_labels(first):
        if name in (limits.cluster_label, limits.replica_label):
            found.setdefault(name, value)
    cluster, replica = found.get(limits.cluster_label, b""), found.get(limits.replica_label, b"")
    if not cluster or not replica or max(len(cluster), len(replica)) > max_value_bytes:
        return None
    try:
        return Sender(cluster.decode(), replica.decode())
    except UnicodeDecodeError:
        return None


def earliest_sample_ms(batch: WriteBatch) -> int | None:
    """Return the time (ms since the Unix epoch) of the earliest sample; None without samples."""
    times = [batch.timestamps] + ([batch.histograms.timestamps] if batch.histograms is not None else [])
    return min((int(column.min()) for column in times if len(column)), default=None)


def without_label(write: DecodedWrite, name: bytes) -> DecodedWrite:
    """Return the request with one label taken off all series; of several of the name, the first."""
    batch = write.batch
    labels, offsets = np.empty(len(batch.labels), np.uint8), np.empty(len(batch.label_offsets), np.int64)
    size = drop_label(batch.labels, batch.label_offsets, np.frombuffer(name, np.uint8), labels, offsets)
    if size < 0:
        raise InvariantViolated(f"decoded label bytes contradict themselves (status {size})")
    hashes = np.empty(batch.series_count, np.uint64)
    xxh64_spans(labels[:size], offsets, hashes)
    return replace(write, batch=replace(batch, labels=labels[:size], label_offsets=offsets, hashes=hashes))
