"""Commands. With flags only, `mimir-ingest` serves, as Mimir does.

Exit codes: 0 done, 1 it failed (a block that does not verify, a log that cannot be read), 2 the command line or the
configuration cannot be used. What a user got wrong is told in a sentence on stderr, never as a traceback.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import structlog
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from typer.exceptions import TyperException

from mimir_ingest import __version__
from mimir_ingest.config.errors import ConfigError
from mimir_ingest.config.keys import registry
from mimir_ingest.config.parse import CommandLine, parse_flags
from mimir_ingest.config.reference import render_help, render_reference
from mimir_ingest.config.settings import Settings, build, explicit_values, load
from mimir_ingest.config.validate import COMPONENTS
from mimir_ingest.errors import BlockNotFound, IngestError, RecordCorrupt, RecordVersionUnsupported
from mimir_ingest.kernels.warm import warm as warm_kernels
from mimir_ingest.obs import logging as logs

if TYPE_CHECKING:
    from mimir_ingest.log.contract import PartitionLog
    from mimir_ingest.tsdb.block_reader import BlockReader
    from mimir_ingest.tsdb.block_tools import BlockSummary

FAILED, UNUSABLE = 1, 2

commands = typer.Typer(
    name="mimir-ingest",
    help="Prometheus-compatible, multi-tenant metrics store with Grafana Mimir's HTTP API and Kafka ingest storage.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
block_commands = typer.Typer(help="Look into a block: inspect, verify or dump.", no_args_is_help=True)
commands.add_typer(block_commands, name="block")
log_commands = typer.Typer(help="Look into the partition log, or change a partition's settings.", no_args_is_help=True)
commands.add_typer(log_commands, name="log")
BlockPath = Annotated[str, typer.Argument(help="The block's directory, or its URL such as s3://bucket/tenant/ULID.")]
_FLAGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
_ASSIGNMENT = re.compile(r"[a-z_]+=[0-9]+")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if not arguments or arguments[0].startswith("-"):
            code = serve(arguments)
        elif arguments[0] == "serve":
            code = serve(arguments[1:])
        else:
            code = commands(args=arguments, prog_name="mimir-ingest", standalone_mode=False) or 0
    except (typer.Exit, typer.Abort) as end:
        code = getattr(end, "exit_code", FAILED)
    except ConfigError as err:
        code = _complain(str(err), UNUSABLE)
    except IngestError as err:
        code = _complain(err.message, UNUSABLE if err.blame == "client" else FAILED)
    except TyperException as err:
        code = _complain(f"{err.format_message()} (mimir-ingest -help lists commands and flags)", UNUSABLE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _complain(message: str, code: int) -> int:
    print(f"mimir-ingest: {message}", file=sys.stderr)
    return code


def serve(argv: Sequence[str]) -> int:
    """Serve until SIGTERM; or print help, version or modules. Raises ConfigError, IngestError."""
    line = parse_flags(argv, registry())
    if line.has("help") or line.has("h") or line.has("help-all"):
        print(render_help(command_list(), everything=line.has("help-all")), end="")
        return 0
    if line.has("version"):
        print(f"mimir-ingest, version {__version__} (python {platform.python_version()})")
        return 0
    if line.has("modules"):
        print("\n".join(("all", *COMPONENTS)))
        return 0
    settings, line = load(argv, os.environ)
    logs.configure(form=settings.server.log_format, level=settings.server.log_level)
    _report(settings, line)
    _warm(show=sys.stderr.isatty())
    from mimir_ingest.app import run  # importing it loads every kernel, so it comes after the progress bar

    run(settings, leave=_leave)
    return 0


def _leave(error: IngestError | None) -> None:
    """End the process, which has closed everything, without waiting for threads that wait for others."""
    code = 0 if error is None else _complain(error.message, UNUSABLE if error.blame == "client" else FAILED)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def _report(settings: Settings, line: CommandLine) -> None:
    """Log one line for every setting that has no effect, and the configuration if asked to."""
    log = structlog.get_logger()
    for notice in settings.notices:
        log.warning("configuration key has no effect here", key=notice.key, instead=notice.instead)
    for flag, reason in line.ignored.items():
        log.warning("flag has no effect here", flag=f"-{flag}", instead=reason)
    if line.has("print.config"):
        log.info("effective configuration", config=settings.effective.yaml("full"))


def _warm(*, show: bool) -> int:
    """Compile the kernels, or load them from the cache; with a progress bar on stderr."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not show, transient=not show) as progress:
        task = progress.add_task("compiling kernels", total=None)

        def on_module(name: str, done: int, total: int) -> None:
            label = f"compiling kernels: {name} is done" if done < total else "kernels ready"
            progress.update(task, completed=done, total=total, description=f"{label:<44}")

        return warm_kernels(on_module)


def command_list() -> list[tuple[str, str]]:
    """Return name and first sentence of every command, for help."""
    listed = [(command.name or command.callback.__name__, command.callback) for command in commands.registered_commands]
    listed += [(group.name, group.typer_instance.info.help) for group in commands.registered_groups]
    return [(str(name), _first_sentence(about)) for name, about in listed]


def _first_sentence(about: str | Callable[..., Any] | None) -> str:
    text = about if isinstance(about, str) else (about.__doc__ or "")
    return text.strip().splitlines()[0] if text.strip() else ""


@commands.command("serve", context_settings=_FLAGS)
def serve_command(context: typer.Context) -> None:
    """Run the server; takes the flags that -help lists."""
    raise typer.Exit(serve(context.args))


@commands.command("config", context_settings={**_FLAGS, "help_option_names": ["--help"]})
def config_command(
    context: typer.Context,
    mode: Annotated[
        str, typer.Option("--mode", help="full, diff (what differs from the defaults) or defaults")
    ] = "full",
    reference: Annotated[bool, typer.Option("--reference", help="Print the reference page as Markdown.")] = False,
) -> None:
    """Check the configuration given by flags and file, and print it as YAML, secrets masked."""
    if reference:
        print(render_reference(), end="")
        return
    if mode not in ("full", "diff", "defaults"):
        raise ConfigError(f'--mode is "{mode}"; it takes full, diff or defaults')
    line = parse_flags(context.args, registry())
    settings = build(explicit_values(line, os.environ))
    print(settings.effective.yaml(mode), end="")
    for notice in settings.notices:
        print(f"# {notice.key} has no effect here: {notice.instead}", file=sys.stderr)


@log_commands.command("inspect", context_settings={**_FLAGS, "help_option_names": ["--help"]})
def log_inspect(
    context: typer.Context,
    partition: Annotated[int | None, typer.Option(help="List this partition's records.")] = None,
    offset: Annotated[int | None, typer.Option(help="First record; negative counts from the end.")] = None,
    limit: Annotated[int, typer.Option(help="How many records.")] = 20,
    timeout: Annotated[float, typer.Option(help="Seconds that the log has to answer.")] = 15,
) -> None:
    """Show the partitions of the log, or records of one; takes the server's flags to find the log."""
    import asyncio

    from mimir_ingest import wiring
    from mimir_ingest.log.inspect import inspect_log

    settings, log = _open_log(context.args)
    lines = inspect_log(
        log,
        group=settings.ingest_storage.kafka.consumer_group or wiring.instance_id(settings),
        partition=partition,
        offset=offset,
        limit=limit,
        timeout_s=timeout,
    )
    print("\n".join(asyncio.run(lines)))


@log_commands.command("set-partition-settings", context_settings={**_FLAGS, "help_option_names": ["--help"]})
def log_set_partition_settings(
    context: typer.Context,
    partition: Annotated[int, typer.Option(help="The partition to change.")],
    timeout: Annotated[float, typer.Option(help="Seconds that the log has to answer.")] = 15,
) -> None:
    """Change what decides a partition's cuts, from here on and for every owner: name=value …

    Names: range_ms, grace_ms, cut_max_samples, samples_per_chunk. Takes the server's flags to find the log.
    """
    import asyncio

    from mimir_ingest.ingester.change_settings import change_partition_settings

    changes = [argument for argument in context.args if _ASSIGNMENT.fullmatch(argument)]
    values = {name: int(value) for name, _, value in (change.partition("=") for change in changes)}
    if not values:
        raise ConfigError("name what to change, for example cut_max_samples=20000000")
    _, log = _open_log([argument for argument in context.args if argument not in changes])
    try:
        offset = asyncio.run(change_partition_settings(log, partition, values, timeout_s=timeout))
    except (RecordCorrupt, RecordVersionUnsupported) as err:
        raise ConfigError(err.message) from None
    print(f"partition {partition}: record {offset} changes {', '.join(f'{k} to {v}' for k, v in values.items())}")


def _open_log(flags: Sequence[str]) -> tuple[Settings, PartitionLog]:
    """Return the settings that flags give and their log, not started; an embedded log must exist."""
    from mimir_ingest import wiring

    settings = build(explicit_values(parse_flags(flags, registry()), os.environ))
    storage = settings.ingest_storage
    if storage.log == "embedded" and not os.path.isdir(storage.embedded.path):
        raise ConfigError(f"there is no embedded log in {storage.embedded.path}; see -ingest-storage.embedded.path")
    return settings, wiring.make_log(storage)


@commands.command("warm")
def warm_command() -> None:
    """Compile all kernels ahead of the first start, with a progress bar."""
    count = _warm(show=True)
    print(f"{count} kernel modules are compiled", file=sys.stderr)


@block_commands.command("inspect")
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


@block_commands.command("verify")
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


@block_commands.command("dump")
def block_dump(
    block: BlockPath,
    match: Annotated[str, typer.Option(help="Series selector.")] = "",
    min_time: Annotated[int, typer.Option(help="First time (ms since 1970).")] = -(1 << 63),
    max_time: Annotated[int, typer.Option(help="Last time (ms since 1970).")] = (1 << 63) - 1,
) -> None:
    """Print the float samples of a block, one a line: {labels} value time, as promtool tsdb dump does."""
    from mimir_ingest.promql.parser import parse_metric_selector
    from mimir_ingest.tsdb.block_tools import dump

    matchers = parse_metric_selector(match) if match else ()
    for line in dump(_open_block(block), matchers, min_time, max_time):
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


if __name__ == "__main__":
    main()
