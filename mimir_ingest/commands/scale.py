"""`mimir-ingest downscale` and `upscale`: change the number of partitions of a running cluster."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from mimir_ingest.commands.flags import open_log
from mimir_ingest.config.durations import Duration, parse_limit_duration
from mimir_ingest.config.errors import ConfigError
from mimir_ingest.errors import IngestError
from partitions.errors import PartitionError

if TYPE_CHECKING:
    from mimir_ingest.config.settings import Settings
    from mimir_ingest.ingester.drain import DrainProbe
    from mimir_ingest.log.contract import PartitionLog
    from mimir_ingest.scaling.run import Cluster, Tell

_OWNERSHIP = "ingester.partition_ring.ownership"
Partition = Annotated[int, typer.Option(min=0, help="Partition to take out.")]
WaitFixed = Annotated[
    str,
    typer.Option(
        "--wait-fixed",
        help="Have the partition INACTIVE for so long besides, such as 13h, for readers other than this program.",
    ),
]
Timeout = Annotated[str, typer.Option(help="Give up after so long; 0 is never. It can be run again.")]


def downscale(
    context: typer.Context, partition: Partition, wait_fixed: WaitFixed = "0", timeout: Timeout = "0"
) -> None:
    """Take a partition out of the ring, once all of it is in blocks; takes the server's flags.

    It can be interrupted, and run again to go on. What would lose data is refused.
    """
    from mimir_ingest.scaling.run import run_downscale

    wait = _duration("--wait-fixed", wait_fixed)

    def work(cluster: Cluster, drains: DrainProbe, tell: Tell) -> Awaitable[str]:
        return run_downscale(
            cluster,
            drains,
            partition,
            wait_fixed_ms=wait.ms,
            timeout_s=_duration("--timeout", timeout).seconds or None,
            tell=tell,
        )

    settings = _scale(context.args, work, again=f"downscale --partition {partition}")
    storage = settings.ingest_storage
    if storage.log == "embedded" and partition < storage.embedded.partitions:
        print(
            f"ingest_storage.embedded.partitions is {storage.embedded.partitions}: lower it, or the next process that "
            f"starts adds partition {partition} again",
            file=sys.stderr,
        )


def upscale(
    context: typer.Context,
    partitions: Annotated[int, typer.Option(min=1, help="How many partitions there should be.")],
    timeout: Timeout = "0",
) -> None:
    """Have so many partitions ACTIVE, adding them to the log where needed; takes the server's flags.

    New ones wait for owners. One that is on its way out is taken back. It can be interrupted, and run again to go on.
    """
    from mimir_ingest.scaling.run import run_upscale

    def work(cluster: Cluster, drains: DrainProbe, tell: Tell) -> Awaitable[str]:
        return run_upscale(cluster, partitions, timeout_s=_duration("--timeout", timeout).seconds or None, tell=tell)

    _scale(context.args, work, again=f"upscale --partitions {partitions}")


def _duration(option: str, text: str) -> Duration:
    try:
        found = parse_limit_duration(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from error
    if found < 0:
        raise ConfigError(f"{option} is {text}; it cannot be negative")
    return found


def _scale(flags: list[str], work: Callable[[Cluster, DrainProbe, Tell], Awaitable[str]], *, again: str) -> Settings:
    """Carry a procedure out on the cluster that the flags describe, and print what was done; return its settings."""
    settings, log = open_log(flags)

    async def run() -> str:
        async with _opened(settings, log) as (cluster, drains):
            with _progress() as tell:
                return await work(cluster, drains, tell)

    try:
        print(asyncio.run(run()))
    except PartitionError as error:
        raise IngestError(error.message) from error
    except KeyboardInterrupt:
        raise IngestError(f"interrupted; nothing is lost. To go on: mimir-ingest {again}") from None
    return settings


@contextlib.asynccontextmanager
async def _opened(settings: Settings, log: PartitionLog) -> AsyncIterator[tuple[Cluster, DrainProbe]]:
    """Open ring, log and bucket of a cluster."""
    from mimir_ingest import ring_wiring, wiring
    from mimir_ingest.ingester.drain import DrainProbe
    from mimir_ingest.scaling.run import Cluster
    from partitions.watch import RingWatcher

    storage = settings.ingest_storage
    bucket = wiring.make_bucket(settings.blocks_storage)
    timeout_ms = settings.ingester.ring.heartbeat_timeout.ms
    watcher = RingWatcher(
        ring_wiring.make_ring_store(storage),
        writer=f"command-line@{socket.gethostname()}",
        heartbeat_timeout_ms=timeout_ms,
    )
    try:
        await watcher.start()
        await log.start()
        await asyncio.to_thread(bucket.check)
        yield Cluster(watcher, log, timeout_ms, _numbered(settings)), DrainProbe(log, bucket)
    finally:
        await log.close()
        await watcher.close()


def _numbered(settings: Settings) -> bool | None:
    """Return how ingesters find their partitions if the configuration says so; it is theirs, not this command's."""
    if _OWNERSHIP not in settings.effective.sources:
        return None
    return settings.ingester.partition_ring.ownership == "instance-id"


@contextlib.contextmanager
def _progress() -> Iterator[Tell]:
    """Show steps as lines; what is waited for as one line that changes, or, without a terminal, as a line when new."""
    console = Console(stderr=True)
    last = ""
    with console.status("looking") if sys.stderr.isatty() else contextlib.nullcontext() as status:

        def tell(text: str) -> None:
            nonlocal last
            # Without numbers, some of which count down.
            kind = re.sub("[0-9]+", "", text.partition(":")[0].partition("(")[0])
            if status is not None and text.startswith("waiting"):
                status.update(text)
            elif kind != last:
                print(text, file=sys.stderr, flush=True)
            last = kind

        yield tell
