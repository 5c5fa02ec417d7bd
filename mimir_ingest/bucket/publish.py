"""Publish blocks: chunks, index, tombstones, then `meta.json`, with which the block begins to exist.

Blocks are named by their content, so publishing one twice, by a retry or by another owner of the partition, writes the
same bytes. A crash leaves at most a folder without `meta.json`: readers pass over it, the next publication completes
it, and after 48 hours anybody may remove it.
"""

from __future__ import annotations

from mimir_ingest.bucket.layout import block_file, block_folder, meta_file, tenant_folder
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import BlockNotFound, StoreUnavailable
from mimir_ingest.tsdb.block_meta import META_FILE, TOMBSTONES_FILE
from mimir_ingest.tsdb.block_reader import verify_block
from mimir_ingest.tsdb.block_writer import BuiltBlock
from mimir_ingest.tsdb.ulid import is_ulid

PARTIAL_MIN_AGE_MS = 48 * 3_600_000
"""An incomplete block younger than this may still be on its way."""

_ATTEMPTS = 3


def publish_block(bucket: Bucket, tenant: str, built: BuiltBlock) -> bool:
    """Publish a block unless it is there, whole; return whether anything was written.

    The block is decoded again from its bytes before its first file is written. Raises `BlockCorrupt` (nothing was
    written) and `StoreUnavailable` (call again).
    """
    # Only what holds samples counts here: others may have replaced `meta.json` or the tombstones since.
    missing = set(find_missing_files(bucket, tenant, built)) - {TOMBSTONES_FILE}
    if bucket.exists(meta_file(tenant, built.ulid)) and missing <= {META_FILE}:
        return False
    verify_block(built.files)
    for _ in range(_ATTEMPTS):
        for path, data in built.files.items():
            bucket.write_atomic(block_file(tenant, built.ulid, path), data)
        # A clean-up of old parts may have met the first files of this publication: look at what is there now.
        if not find_missing_files(bucket, tenant, built):
            return True
        bucket.delete(meta_file(tenant, built.ulid))
    raise StoreUnavailable(f"{bucket.url}: files of block {tenant}/{built.ulid} vanish while it is published")


def find_missing_files(bucket: Bucket, tenant: str, built: BuiltBlock) -> list[str]:
    """Return the files of a block that the bucket lacks or has in another length."""
    sizes = {path: bucket.size(block_file(tenant, built.ulid, path)) for path in built.files}
    return [path for path, data in built.files.items() if sizes[path] != len(data)]


def find_partial_blocks(bucket: Bucket, tenant: str, *, now_ms: int, min_age_ms: int = PARTIAL_MIN_AGE_MS) -> list[str]:
    """Return the ULIDs of blocks without `meta.json`, none of whose files was written within `min_age_ms`."""
    folders = [name[:-1] for name in bucket.list(tenant_folder(tenant)) if name.endswith("/")]
    return [ulid for ulid in folders if is_ulid(ulid) and _is_stale_part(bucket, tenant, ulid, now_ms - min_age_ms)]


def delete_partial_blocks(
    bucket: Bucket, tenant: str, *, now_ms: int, min_age_ms: int = PARTIAL_MIN_AGE_MS
) -> list[str]:
    """Remove what `find_partial_blocks` finds, if it still is so; return the ULIDs."""
    deleted = []
    for ulid in find_partial_blocks(bucket, tenant, now_ms=now_ms, min_age_ms=min_age_ms):
        for path in _list_files(bucket, block_folder(tenant, ulid)):
            if not _is_stale_part(bucket, tenant, ulid, now_ms - min_age_ms):
                break
            bucket.delete(path)
        else:
            deleted.append(ulid)
    return deleted


def _is_stale_part(bucket: Bucket, tenant: str, ulid: str, written_before_ms: int) -> bool:
    if bucket.exists(block_file(tenant, ulid, META_FILE)):
        return False
    try:
        times = [bucket.modified_ms(path) for path in _list_files(bucket, block_folder(tenant, ulid))]
    except BlockNotFound:
        return False  # somebody else is at work here
    return all(time < written_before_ms for time in times)


def _list_files(bucket: Bucket, folder: str) -> list[str]:
    files = []
    for name in bucket.list(folder):
        path = f"{folder}/{name}"
        files += _list_files(bucket, path.rstrip("/")) if name.endswith("/") else [path]
    return files
