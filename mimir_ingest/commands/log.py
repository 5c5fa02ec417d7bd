"""`mimir-ingest log`: look into the partition log, or change a partition's settings."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated

import typer

from mimir_ingest.commands.flags import SERVER_FLAGS, open_log
from mimir_ingest.config.errors import ConfigError
from mimir_ingest.errors import RecordCorrupt, RecordVersionUnsupported

log_commands = typer.Typer(help="Look into the partition log, or change a partition's settings.", no_args_is_help=True)
_ASSIGNMENT = re.compile(r"[a-z_]+=[0-9]+")


@log_commands.command(
    "inspect", context_settings=SERVER_FLAGS, short_help="Show the partitions of the log, or records of one."
)
def log_inspect(
    context: typer.Context,
    partition: Annotated[int | None, typer.Option(help="List this partition's records.")] = None,
    offset: Annotated[int | None, typer.Option(help="First record; negative counts from the end.")] = None,
    limit: Annotated[int, typer.Option(help="How many records.")] = 20,
    timeout: Annotated[float, typer.Option(help="Seconds that the log has to answer.")] = 15,
) -> None:
    """Show the partitions of the log, or records of one; takes the server's flags to find the log."""
    from mimir_ingest import wiring
    from mimir_ingest.log.inspect import inspect_log

    settings, log = open_log(context.args)
    lines = inspect_log(
        log,
        group=settings.ingest_storage.kafka.consumer_group or wiring.instance_id(settings),
        partition=partition,
        offset=offset,
        limit=limit,
        timeout_s=timeout,
    )
    print("\n".join(asyncio.run(lines)))


@log_commands.command(
    "set-partition-settings", context_settings=SERVER_FLAGS, short_help="Change what decides a partition's cuts."
)
def log_set_partition_settings(
    context: typer.Context,
    partition: Annotated[int, typer.Option(help="The partition to change.")],
    timeout: Annotated[float, typer.Option(help="Seconds that the log has to answer.")] = 15,
) -> None:
    """Change what decides a partition's cuts, from here on and for every owner: name=value …

    Names: range_ms, grace_ms, cut_max_samples, samples_per_chunk. Takes the server's flags to find the log.
    """
    from mimir_ingest.ingester.change_settings import change_partition_settings

    changes = [argument for argument in context.args if _ASSIGNMENT.fullmatch(argument)]
    values = {name: int(value) for name, _, value in (change.partition("=") for change in changes)}
    if not values:
        raise ConfigError("name what to change, for example cut_max_samples=20000000")
    _, log = open_log([argument for argument in context.args if argument not in changes])
    try:
        offset = asyncio.run(change_partition_settings(log, partition, values, timeout_s=timeout))
    except (RecordCorrupt, RecordVersionUnsupported) as err:
        raise ConfigError(err.message) from None
    print(f"partition {partition}: record {offset} changes {', '.join(f'{k} to {v}' for k, v in values.items())}")
