"""Where things are in the bucket; the paths of blocks and their markers are Mimir's.

<tenant>/<ULID>/{chunks/000001, index, tombstones, meta.json, deletion-mark.json}
<tenant>/markers/<ULID>-deletion-mark.json
__mimir_cluster/ingest-storage/<topic id>/<partition>/<cut offset, 20 digits>.checkpoint
"""

from __future__ import annotations

from mimir_ingest.errors import InvariantViolated
from mimir_ingest.tsdb.block_meta import META_FILE

CLUSTER_FOLDER = "__mimir_cluster"
"""What belongs to no tenant; never a tenant id."""

_CHECKPOINT_SUFFIX = ".checkpoint"


def tenant_folder(tenant: str) -> str:
    """Return a tenant's folder; its name is the tenant id."""
    if not tenant or "/" in tenant or tenant in (".", "..", CLUSTER_FOLDER):
        raise InvariantViolated(f"{tenant!r} cannot be a tenant's folder")
    return tenant


def block_folder(tenant: str, ulid: str) -> str:
    """Return a block's folder."""
    return f"{tenant_folder(tenant)}/{ulid}"


def block_file(tenant: str, ulid: str, relative_path: str) -> str:
    """Return one of a block's files, for example `index` or `chunks/000001`."""
    return f"{block_folder(tenant, ulid)}/{relative_path}"


def meta_file(tenant: str, ulid: str) -> str:
    """Return a block's `meta.json`, with which it begins to exist."""
    return block_file(tenant, ulid, META_FILE)


def checkpoint_folder(topic_id: str, partition: int) -> str:
    """Return the folder of a partition's checkpoints."""
    if not topic_id or "/" in topic_id or topic_id in (".", ".."):
        raise InvariantViolated(f"{topic_id!r} cannot be a topic's folder")
    return f"{CLUSTER_FOLDER}/ingest-storage/{topic_id}/{partition}"


def checkpoint_file(topic_id: str, partition: int, cut_offset: int) -> str:
    """Return the checkpoint of a cut; names sort as offsets do."""
    return f"{checkpoint_folder(topic_id, partition)}/{cut_offset:020d}{_CHECKPOINT_SUFFIX}"


def parse_checkpoint_name(name: str) -> int | None:
    """Return the cut offset in a checkpoint's file name, None for another file."""
    digits = name.removesuffix(_CHECKPOINT_SUFFIX)
    if digits == name or len(digits) != 20 or not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits)
