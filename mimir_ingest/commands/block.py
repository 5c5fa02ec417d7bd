"""`mimir-ingest block`: look into a block, in a directory or in a bucket."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from mimir_ingest.commands.flags import FAILED
from mimir_ingest.errors import BlockNotFound

if TYPE_CHECKING:
    from mimir_ingest.tsdb.block_reader import BlockReader
    from mimir_ingest.tsdb.block_tools import BlockSummary

block_commands = typer.Typer(help="Look into a block: inspect, verify or dump.", no_args_is_help=True)
BlockPath = Annotated[str, typer.Argument(help="The block's directory, or its URL such as s3://bucket/tenant/ULID.")]


@block_commands.command("inspect", short_help="Say what a block holds and where it came from.")
def block_inspect(
    block: BlockPath, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Say what a block holds: times, counts, where it came from, the largest labels and metrics."""
    from mimir_ingest.tsdb.block_tools import inspect

    summary = inspect(_open_block(block))
    if as_json:
        print(json.dumps(asdict(summary), indent=2))
        return
    print(_summary_text(summary))


@block_commands.command("verify", short_help="Read all of a block; exit code 1 if anything is wrong.")
def block_verify(block: BlockPath) -> None:
    """Read all of a block, its checksums, order and counts; exit code 1 if anything is wrong."""
    from mimir_ingest.tsdb.block_tools import verify

    reader = _open_block(block)
    found = verify(reader)
    for problem in found:
        print(problem)
    if found:
        raise typer.Exit(FAILED)
    print(f"block {reader.meta.ulid} is sound: {reader.meta.series_count} series, {reader.meta.sample_count} samples")


@block_commands.command("dump", short_help="Print the samples of a block, as promtool tsdb dump does.")
def block_dump(
    block: BlockPath,
    match: Annotated[str, typer.Option(help="Series selector.")] = "",
    min_time: Annotated[int, typer.Option(help="First time (ms since 1970).")] = -(1 << 63),
    max_time: Annotated[int, typer.Option(help="Last time (ms since 1970).")] = (1 << 63) - 1,
) -> None:
    """Print the samples of a block, one a line: {labels} value time, as promtool tsdb dump does."""
    from mimir_ingest.promql.histogram_text import format_histograms
    from mimir_ingest.promql.parser import parse_metric_selector
    from mimir_ingest.tsdb.block_tools import dump

    matchers = parse_metric_selector(match) if match else ()
    for line in dump(_open_block(block), matchers, min_time, max_time, histogram_texts=format_histograms):
        print(line)


def _open_block(location: str) -> BlockReader:
    """Open the block in a directory, or at an fsspec URL. Raises StorageError."""
    from mimir_ingest.bucket.store import Bucket
    from mimir_ingest.tsdb.block_meta import INDEX_FILE, META_FILE, TOMBSTONES_FILE, decode_meta
    from mimir_ingest.tsdb.block_reader import BlockReader
    from mimir_ingest.tsdb.chunk_files import segment_path

    folder = Bucket(location)
    try:
        meta = decode_meta(folder.read(META_FILE))
        index = folder.read(INDEX_FILE)
    except BlockNotFound as err:
        raise BlockNotFound(f"{location} is not a block: it has no {META_FILE} or no {INDEX_FILE}") from err
    tombstones = folder.read(TOMBSTONES_FILE) if folder.exists(TOMBSTONES_FILE) else None
    return BlockReader(
        index, meta, lambda segment, start, end: folder.read_range(segment_path(segment), start, end), tombstones
    )


def _summary_text(summary: BlockSummary) -> str:
    facts = [
        ("block", summary.ulid),
        ("time", f"{_utc(summary.min_time_ms)} to {_utc(summary.max_time_ms)} (end not included)"),
        ("series", summary.series_count),
        ("samples", summary.sample_count),
        ("chunks", summary.chunk_count),
        ("compaction", f"level {summary.level} of {len(summary.sources)} block(s)"),
        ("labels", f"{summary.label_pair_count} pairs, {summary.postings_entry_count} entries"),
        ("index", f"{summary.index_bytes} bytes"),
    ]
    if (span := summary.partition_range) is not None:
        where = f"partition {span.partition} of topic {span.topic_id}, offsets {span.start_offset} to {span.cut_offset}"
        facts.append(("log", where))
    lines = [f"{name:<12}{value}" for name, value in facts]
    for title, counts in (("values of label", summary.label_name_counts), ("series of metric", summary.metric_counts)):
        lines += ["", *(f"{count:>12}  {title} {name}" for name, count in counts)]
    return "\n".join(lines)


def _utc(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}Z ({time_ms})"
