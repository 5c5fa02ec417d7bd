"""CPU that one record costs on its way through a log: append until durable, and read by a tailing reader.

    python -m benchmarks.log_append [--records 400] [--series 2000] [--writers 8] [--disk-reads]
    python -m benchmarks.log_append --kafka 127.0.0.1:9092 [--compression snappy]

Records look like columnar ones: 2,000 series of 10 labels and some 250 bytes, their hashes, timestamps and values.
Prints CPU microseconds a record and a sample (all threads of the process, and the kernel's part), and wall time.
`--disk-reads` turns the tail cache off, which is what an ingester that catches up sees.

`--page-bytes` compares SQLite's page sizes; the choice and its numbers stand in `log/sqlite_store.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
import time
import uuid

import numpy as np

from mimir_ingest.log import sqlite_store
from mimir_ingest.log.contract import PartitionLog
from mimir_ingest.log.embedded import EmbeddedLog
from mimir_ingest.log.kafka import KafkaLog
from mimir_ingest.wire.record import VERSION_COLUMNAR


def build_records(count: int, series: int) -> list[bytes]:
    """Return `count` values shaped like columnar records; each has its own series and samples."""
    random = np.random.default_rng(7)
    records = []
    for number in range(count):
        labels = [
            f"\x08__name__\x0fmetric_{i % 400:08d}\x07cluster\x0eeu-west-1-prod\x09container\x0bmimir-write"
            f"\x08endpoint\x0chttp-metrics\x08instance\x10{i % 250:03d}.12.{number % 250:03d}.9:8080"
            f"\x03job\x11monitoring/ingest\x09namespace\x0amonitoring\x03pod\x1aingester-{i // 400:04d}-{number:08d}"
            f"\x05route\x14api_v1_push_{i % 40:07d}\x0bstatus_code\x03200".encode()
            for i in range(series)
        ]
        ends = np.cumsum([len(label) for label in labels], dtype=np.uint32)
        hashes = random.integers(0, 1 << 63, series, dtype=np.uint64)
        stamps = np.full(series, 1_800_000_000_000 + number * 15_000, np.int64)
        values = np.round(random.gamma(2.0, 50.0, series), 2)
        records.append(b"".join([*labels, ends.tobytes(), hashes.tobytes(), stamps.tobytes(), values.tobytes()]))
    return records


def make_log(arguments: argparse.Namespace, directory: str) -> PartitionLog:
    """Return the log to measure: a new embedded one, or a new topic."""
    if arguments.kafka:
        topic = f"log-append-{uuid.uuid4().hex}"
        return KafkaLog(
            arguments.kafka, topic, auto_create_topic_default_partitions=1, compression=arguments.compression
        )
    return EmbeddedLog(directory, partitions=1, tail_cache_bytes=0 if arguments.disk_reads else 32 << 20)


async def measure(arguments: argparse.Namespace) -> None:
    """Run writers and one reader side by side, and print what it took."""
    values = build_records(32, arguments.series)
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        log = make_log(arguments, directory)
        await log.start()
        todo = iter(range(arguments.records))

        async def write() -> None:
            for number in todo:
                await log.append(0, b"tenant", values[number % len(values)], VERSION_COLUMNAR, timeout_s=60)

        async def read() -> None:
            next_offset = 0
            while next_offset < arguments.records:
                records = await log.read(0, next_offset, max_bytes=16 << 20, max_wait_s=60)
                next_offset = records[-1].offset + 1

        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        await asyncio.gather(*(write() for _ in range(arguments.writers)), read())
        took_s, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
        await log.close()
    user_s, system_s = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    per_record_us = (user_s + system_s) / arguments.records * 1e6
    print(f"record     {len(values[0]):>9,} bytes, {arguments.series} samples")
    print(f"CPU        {per_record_us:9.0f} µs a record ({user_s / (user_s + system_s):.0%} in user mode)")
    print(f"           {per_record_us / arguments.series:9.3f} µs a sample")
    print(f"wall       {took_s / arguments.records * 1e6:9.0f} µs a record, {arguments.writers} writers")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=400)
    parser.add_argument("--series", type=int, default=2000)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--disk-reads", action="store_true")
    parser.add_argument("--page-bytes", type=int, default=sqlite_store.PAGE_BYTES)
    parser.add_argument("--kafka", default="", help="address of a broker; the client's CPU is counted, not its own")
    parser.add_argument("--compression", default="snappy")
    parser.add_argument("--directory", default=".", help="a folder on the disk to measure")
    arguments = parser.parse_args()
    sqlite_store.PAGE_BYTES = arguments.page_bytes
    asyncio.run(measure(arguments))


if __name__ == "__main__":
    main()
