"""Where series stand in the ring: their partition tokens (spec ingest-storage.md 3.1)."""

from __future__ import annotations

import numpy as np

from mimir_ingest.errors import InvariantViolated
from mimir_ingest.kernels.hashing import FNV_OFFSET_BASIS, fnv1_extend, series_tokens


def tenant_state(tenant: str) -> np.uint32:
    """Return the FNV-1 state after a tenant's id, from which its tokens go on."""
    return fnv1_extend(np.uint32(FNV_OFFSET_BASIS), np.frombuffer(tenant.encode(), np.uint8))


def tokens_of(tenant: str, labels: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return uint32[n], the tokens of a tenant's series `labels[offsets[i]:offsets[i + 1]]` (checked label bytes)."""
    tokens = np.empty(len(offsets) - 1, np.uint32)
    if series_tokens(tenant_state(tenant), labels, offsets, np.empty(len(labels) + 16, np.uint8), tokens) < 0:
        raise InvariantViolated("label bytes of a validated series do not parse")
    return tokens
