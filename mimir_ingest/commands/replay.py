"""`mimir-ingest replay`: a partition's blocks from the log against those in the bucket."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mimir_ingest.commands.flags import open_log
from mimir_ingest.commands.kernels import prepare_kernels
from mimir_ingest.config.errors import ConfigError

if TYPE_CHECKING:
    from mimir_ingest.config.settings import Settings
    from mimir_ingest.ingester.replay.judge import PartitionReplay
    from mimir_ingest.ingester.replay.report import ReplayReport
    from mimir_ingest.ingester.replay.run import ReplayRequest
    from mimir_ingest.log.contract import PartitionLog

UNSOUND, UNREACHABLE = 3, 4
"""Exit codes: blocks are missing, differ or should not be there; part of the range cannot be rebuilt from this log."""

_SIZE = re.compile(r"([0-9]+)\s*(|[KMGT]i?B?)", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def replay_command(
    context: typer.Context,
    partition: Annotated[int, typer.Option(help="The partition to replay.")],
    first: Annotated[
        str, typer.Option("--from", help="First offset, time (2026-01-31T10:00:00Z) or Unix seconds (@1700000000).")
    ] = "",
    end: Annotated[str, typer.Option("--to", help="Where to stop, likewise; without it, the end of the log.")] = "",
    ship: Annotated[bool, typer.Option("--ship", help="Publish the blocks that the bucket lacks.")] = False,
    memory_limit: Annotated[str, typer.Option(help="What samples may take in memory (2GiB); 0 is no limit.")] = "2GiB",
    timeout: Annotated[float, typer.Option(help="Seconds that the log or the bucket may fail to answer.")] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report, every block in it, as JSON.")] = False,
) -> None:
    """Build blocks again from the log and compare them, byte for byte, with those in the bucket.

    Takes the server's flags to find the log and the bucket. Exit codes: 0 every block is as the log says, 1 it failed,
    2 the command line cannot be used, 3 blocks are missing, differ or should not be there, 4 all that could be compared
    is sound, but part of the range cannot be rebuilt from what is left of the log.
    """
    settings, log = open_log(context.args)
    limit_bytes = _parse_size(memory_limit)
    prepare_kernels(show=sys.stderr.isatty())
    from mimir_ingest.ingester.replay.plan import LogPlace
    from mimir_ingest.ingester.replay.run import ReplayRequest

    request = ReplayRequest(
        partition=partition,
        first=LogPlace.parse(first) if first else None,
        end=LogPlace.parse(end) if end else None,
        ship=ship,
        memory_limit_bytes=limit_bytes,
        timeout_s=timeout,
    )
    report = asyncio.run(_replay(settings, log, request))
    print(json.dumps(asdict(report), indent=2) if as_json else _text(partition, report))
    if not report.is_sound:
        raise typer.Exit(UNSOUND)
    if report.plan.unreachable is not None or not report.plan.exact:
        raise typer.Exit(UNREACHABLE)


async def _replay(settings: Settings, log: PartitionLog, request: ReplayRequest) -> ReplayReport:
    from prometheus_client import CollectorRegistry

    from mimir_ingest import wiring
    from mimir_ingest.config.runtime import RuntimeConfigWatcher
    from mimir_ingest.distributor.plan import record_settings
    from mimir_ingest.ingester.replay.run import replay_partition
    from mimir_ingest.obs.metrics import RuntimeConfigMetrics

    runtime = RuntimeConfigWatcher(
        files=settings.runtime_config.file,
        period_s=settings.runtime_config.period.seconds,
        defaults=settings.limits,
        metrics=RuntimeConfigMetrics.create(CollectorRegistry()),
    )
    if runtime.configured:
        runtime.load()
    limits_for = wiring.distributor_limits(settings, runtime.for_tenant)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    show = sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), disable=not show) as bar:
        task = bar.add_task("starting", total=None)

        def on_progress(replay: PartitionReplay) -> None:
            plan, report = replay.report.plan, replay.report
            bar.update(
                task,
                total=plan.to_offset - plan.next_offset,
                completed=min(replay.state.next_offset, plan.to_offset) - plan.next_offset,
                description=f"{len(report.blocks)} blocks, {report.samples} samples",
            )

        return await replay_partition(
            log,
            wiring.make_bucket(settings.blocks_storage),
            request,
            default_record_settings=lambda tenant, partitions: record_settings(
                limits_for(tenant), partitions=partitions
            ),
            on_progress=on_progress,
        )


def _parse_size(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f'--memory-limit is "{text}"; it takes a number of bytes, or one such as 512MiB or 2GiB')
    return int(found[1]) * _UNITS[found[2][:1].lower()]


def _text(partition: int, report: ReplayReport) -> str:
    """Return the report for people; blocks that are as they should be are counted only."""
    plan = report.plan
    begun = "the log's first record" if plan.checkpoint is None else f"the checkpoint at {plan.checkpoint}"
    lines = [
        f"partition {partition}: offsets {plan.from_offset} to {plan.to_offset}, rebuilt from {begun}: "
        f"{report.records} records, {report.samples} samples, {len(report.cut_offsets)} cuts"
    ]
    for block in report.blocks:
        if block.verdict.value in ("same", "merged"):
            continue
        lines.append(
            f"{block.verdict.value:<10}  {block.tenant}/{block.ulid}  cut at {block.cut_offset}, "
            f"{block.sample_count} samples of {_utc(block.min_time_ms)} to {_utc(block.max_time_ms)}: "
            f"{'; '.join(block.problems)}"
        )
    lines += report.checkpoint_problems
    counts = {verdict: report.count(verdict) for verdict in dict.fromkeys(b.verdict for b in report.blocks)}
    lines.append(f"{len(report.blocks)} blocks" + "".join(f", {count} {verdict}" for verdict, count in counts.items()))
    if report.checkpoints_shipped:
        lines.append(f"{report.checkpoints_shipped} checkpoints were written")
    if report.corrupt_records:
        lines.append(f"{report.corrupt_records} records do not decode and were passed over, as their owners did")
    if report.not_cut_samples:
        lines.append(f"{report.not_cut_samples} samples are in no block yet: no cut point has come since")
    if plan.unreachable is not None:
        lines.append(
            f"offsets {plan.unreachable[0]} to {plan.unreachable[1]} cannot be rebuilt: the log has lost what "
            "follows the checkpoint before them"
        )
    if not plan.exact:
        lines.append(
            f"there is no checkpoint, and the log has lost what came before offset {plan.next_offset}: that blocks "
            "differ may come from that"
        )
    return "\n".join(lines)


def _utc(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
