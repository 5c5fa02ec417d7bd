"""Decoders of what is read back from elsewhere: the log, the bucket, local files, the ring's store, other processes."""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import orjson

from mimir_ingest.bucket.store import Bucket
from mimir_ingest.client.errors import ApiError, ClientFailure
from mimir_ingest.client.results import QueryResult
from mimir_ingest.errors import (
    AnswerCorrupt,
    BlockCorrupt,
    IngestError,
    LogUnavailable,
    OffsetOutOfRange,
    QueryError,
    RecordCorrupt,
    RecordVersionUnsupported,
)
from mimir_ingest.ingester import snapshot
from mimir_ingest.ingester.census import CensusKind
from mimir_ingest.ingester.checkpoint import decode_checkpoint, decode_facts, decode_front, decode_held
from mimir_ingest.ingester.partition import PartitionState
from mimir_ingest.kernels.crc32c import crc32c
from mimir_ingest.log import sqlite_store
from mimir_ingest.log.contract import Record
from mimir_ingest.log.inspect import describe
from mimir_ingest.log.kafka_reader import decode_record
from mimir_ingest.model.matchers import Matcher, MatchType
from mimir_ingest.model.samples import SampleBudget
from mimir_ingest.querier.internal_protocol import decode_census, decode_error, decode_exemplars, decode_tenants
from mimir_ingest.tsdb.block_meta import decode_meta, read_meta
from mimir_ingest.tsdb.block_reader import open_files, verify_block
from mimir_ingest.tsdb.columns_file import ColumnsFileCorrupt, encode_columns
from mimir_ingest.tsdb.segment import MAX_MS, MIN_MS
from mimir_ingest.wire import record
from mimir_ingest.wire.control import decode_control, encode_flush, encode_settings
from mimir_ingest.wire.read_frames import FrameReader
from mimir_ingest.wire.read_response import encode_frames
from mimir_ingest.wire.record import VERSION_COLUMNAR, VERSION_V0, RecordSettings, encode_columnar, encode_mimir
from partitions import codec
from partitions.errors import EntryCorrupt
from tests.fuzz.decoder import Decoder
from tests.fuzz.edge import requests_v2
from tests.support.batches import exemplar_batch, write_batch
from tests.support.blocks import build, make_samples
from tests.support.histograms import Row, bits
from tests.support.partition_log import NO_LIMITS, SETTINGS, START_MS, TOPIC, Owner, flush_record, random_log

HISTOGRAM = Row(3, 0, False, 0.001, 0, 3, bits(3.0), (), ((0, 1), (1, 2)))
VERSIONS = (VERSION_COLUMNAR, VERSION_V0, record.VERSION_V1, record.VERSION_V2)


def records() -> list[bytes]:
    """Return record values of every version, without saying which."""
    batch = write_batch(
        [
            ({"__name__": "up", "job": "a"}, [(START_MS, 1.0), (START_MS + 1, 2.0, START_MS - 5)]),
            ({"__name__": "x"}, [(START_MS, HISTOGRAM), (START_MS + 1, HISTOGRAM)]),
        ]
    )
    exemplars = exemplar_batch(({"__name__": "up"}, [(START_MS, 1.0, {"trace": "a"})]))
    return [
        encode_columnar(batch, RecordSettings(10, 20, 30)),
        encode_columnar(exemplars, RecordSettings(10, 20, 30, 5, (b"p",))),
        encode_columnar(write_batch([({"__name__": "d"}, [(START_MS, 1.0, 5)], True)]), RecordSettings(1, 2, 3)),
        encode_columnar(write_batch([]), RecordSettings(1, 2, 3)),
        encode_mimir(batch, VERSION_V0),
        encode_mimir(batch, record.VERSION_V1),
        encode_mimir(exemplars, record.VERSION_V1),
        *requests_v2(),
    ]


def decode_any_record(value: bytes) -> None:
    """Decode a value in all versions; RecordCorrupt when none of them can."""
    errors = 0
    for version in VERSIONS:
        try:
            record.decode(version, value)
        except (RecordCorrupt, RecordVersionUnsupported):
            errors += 1
    if errors == len(VERSIONS):
        raise RecordCorrupt("in all versions")


def apply_any_record(value: bytes) -> None:
    """Give a value to a partition as a record of every version, then read all series; nothing may be raised."""
    state = PartitionState(TOPIC, 3, settings=SETTINGS, default_record_settings=lambda _: NO_LIMITS, start_offset=0)
    for offset, version in enumerate((*VERSIONS, record.VERSION_CONTROL)):
        try:
            state.apply([Record(3, offset, START_MS, b"a", value, version)])
        except RecordVersionUnsupported:
            return
    everything = [Matcher(MatchType.REGEXP, "__name__", ".*")]
    state.view("a", everything).select(everything, MIN_MS, MAX_MS)


@dataclass(frozen=True, slots=True)
class _KafkaRecord:
    headers: list[tuple[str, bytes | None]]
    key: bytes | None = b"a"
    value: bytes | None = b""
    partition: int = 0
    offset: int = 7
    timestamp: int = START_MS


def _decode_kafka(data: bytes) -> object:
    name, _, value = data.partition(b"=")
    headers = [(name.decode("utf-8", "replace"), value if value else None)]
    found = decode_record(_KafkaRecord(headers, key=data[:3], value=data))
    return describe(found)


def _decode_entry(data: bytes) -> object:
    key, _, value = data.partition(b"\n")
    return codec.decode(key.decode("utf-8", "surrogateescape"), value)


RING = {
    "partition/3": {"state": "ACTIVE", "state_timestamp_ms": 5, "state_version": [5, 0, "w"], "locked": True},
    "owner/ingester-0/3": {"state": "ACTIVE", "updated_timestamp_ms": 5, "version": [5, 0, "w"]},
    "instance/ingester/i": {"state": "ACTIVE", "address": "h:1", "registered_ms": 1, "heartbeat_ms": 2},
    "election/t/c": {"replica": "a", "received_ms": 5, "elected_ms": 5, "elected_changes": 1, "version": [1, 2, "w"]},
}


@cache
def _owner() -> tuple[bytes, bytes]:
    """Return a checkpoint and a snapshot of a partition with all kinds of series."""
    with tempfile.TemporaryDirectory() as folder:
        owner = Owner(Bucket(f"{folder}/bucket"), Path(folder) / "local")
        log, _ = random_log(3, 60)
        owner.start(0, log[-1].offset + 2)
        owner.consume([*log, flush_record(log[-1].offset + 1, ["c"], at_ms=log[-1].timestamp_ms)])
        owner.snapshot()
        files = [p for p in Path(folder, "bucket").rglob("*") if p.is_file() and p.read_bytes()[:8] == b"MIMIRCOL"]
        checkpoint = max(files, key=lambda path: path.stat().st_size)
        return checkpoint.read_bytes(), snapshot.snapshot_path(owner.folder, 3).read_bytes()


def _decode_checkpoint(data: bytes) -> None:
    decode_front(data)
    decode_facts(data)
    decode_held(data)
    _, heads = decode_checkpoint(data)
    for head in heads.values():
        head.view(()).select((), MIN_MS, MAX_MS)


def _decode_snapshot(data: bytes) -> None:
    snapshot.snapshot_path(_scratch(), 3).write_bytes(data)
    found = snapshot.read_snapshot(_scratch(), 3)
    assert found is not None
    state = found.restore(default_record_settings=lambda _: NO_LIMITS)
    for tenant in state.heads:
        state.view(tenant, ()).select((), MIN_MS, MAX_MS)


@cache
def _scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


@cache
def _log_file() -> bytes:
    folder = _scratch() / "whole"
    shutil.rmtree(folder, ignore_errors=True)
    sqlite_store.create_database(folder, partitions=2)
    connection = sqlite_store.connect(folder, busy_timeout_s=1.0)
    packed = [
        sqlite_store.pack(i % 2, b"a", value * (1 + 9 * i), VERSION_COLUMNAR) for i, value in enumerate(records())
    ]
    connection.execute("BEGIN IMMEDIATE")
    sqlite_store.insert_records(connection, packed, now_ms=START_MS)
    sqlite_store.write_position(connection, "g", 0, 1)
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
    return (folder / sqlite_store.FILE_NAME).read_bytes()


def _read_log(data: bytes) -> None:
    folder = _scratch() / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / sqlite_store.FILE_NAME).write_bytes(data)
    sqlite_store.create_database(folder, partitions=2)
    connection = sqlite_store.connect(folder, busy_timeout_s=0.1)
    try:
        with sqlite_store.renamed_errors(folder):
            sqlite_store.read_topic_id(connection)
            for partition, found in sqlite_store.read_ranges(connection).items():
                sqlite_store.read_records(connection, partition, found.start_offset, max_bytes=1 << 20)
                sqlite_store.find_timestamp(connection, partition, START_MS)
                sqlite_store.read_position(connection, "g", partition)
    finally:
        connection.close()


@cache
def block() -> dict[str, bytes]:
    """Return the files of a block with float chunks."""
    times = range(START_MS, START_MS + 300 * 15_000, 15_000)
    series = [({"__name__": "up", "job": f"j{i}"}, [(t, float(t % 7)) for t in times]) for i in range(4)]
    return dict(build(make_samples(series)).files)


def read_block(path: str) -> Callable[[bytes], None]:
    """Return a reader of the block with one file replaced."""
    matchers = [Matcher(MatchType.REGEXP, "job", "j.*")]

    def read(data: bytes) -> None:
        damaged = block() | {path: data}
        refused: IngestError | None = None
        try:
            verify_block(damaged)
        except BlockCorrupt as error:
            refused = error
        reader = open_files(damaged)
        reader.select(matchers, START_MS, START_MS + 10**7, SampleBudget(10**6))
        reader.label_values("job")
        reader.label_names()
        if refused:
            raise refused

    return read


def _seal_index(data: bytes) -> bytes:
    """Put every checksum of an index right whose section still has a length that fits."""
    out = bytearray(data)
    if len(out) < 60:
        return data
    toc = len(out) - 52
    out[-4:] = crc32c(bytes(out[toc:-4])).to_bytes(4, "big")
    offsets = [int.from_bytes(out[toc + i : toc + i + 8], "big") for i in range(0, 48, 8)]
    for at in (offsets[0], offsets[5]):
        _seal(out, at, toc)
    for begin, end in ((offsets[4], offsets[5]),):
        at = begin
        while at < min(end, toc):
            at = _seal(out, at, toc)
            at += -at % 4
    return _seal_series(out, offsets[1], offsets[2], toc)


def _seal(out: bytearray, at: int, limit: int) -> int:
    size = int.from_bytes(out[at : at + 4], "big")
    end = at + 4 + size
    if at + 4 > limit or end + 4 > limit:
        return limit
    out[end : end + 4] = crc32c(bytes(out[at + 4 : end])).to_bytes(4, "big")
    return end + 4


def _seal_series(out: bytearray, begin: int, end: int, limit: int) -> bytes:
    at = begin + -begin % 16
    while at < min(end, limit):
        size = shift = used = 0
        while at + used < limit and used < 5:
            byte = out[at + used]
            size |= (byte & 0x7F) << shift
            shift, used = shift + 7, used + 1
            if byte < 0x80:
                break
        body = at + used
        if size == 0 or body + size + 4 > limit:
            break
        out[body + size : body + size + 4] = crc32c(bytes(out[body : body + size])).to_bytes(4, "big")
        at = body + size + 4
        at += -at % 16
    return bytes(out)


def _seal_chunks(data: bytes) -> bytes:
    """Put the checksum of every chunk right as far as lengths go on to fit."""
    out = bytearray(data)
    at = 8
    while at + 6 < len(out):
        size = shift = used = 0
        while used < 5 and at + used < len(out):
            byte = out[at + used]
            size |= (byte & 0x7F) << shift
            shift, used = shift + 7, used + 1
            if byte < 0x80:
                break
        end = at + used + 1 + size
        if end + 4 > len(out):
            break
        out[end : end + 4] = crc32c(bytes(out[at + used : end])).to_bytes(4, "big")
        at = end + 4
    return bytes(out)


def _seal_tail(data: bytes) -> bytes:
    """Put the checksum of a tombstones file right."""
    return data[:-4] + crc32c(data[5:-4]).to_bytes(4, "big") if len(data) > 9 else data


def _seal_columns(data: bytes) -> bytes:
    """Put the checksum of every section right, and the header's."""
    try:
        size = int.from_bytes(data[12:16], "little")
        header = json.loads(data[16 : 16 + size])
        at = 20 + size
        for section in header["sections"]:
            at += -at % 8
            width = {"u1": 1, "i4": 4, "i8": 8, "u8": 8, "f8": 8}[section["dtype"]]
            end = at + section["count"] * width
            section["crc"] = crc32c(data[at:end])
            at = end
        text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    except (ValueError, KeyError, TypeError, MemoryError, RecursionError):
        return data
    front = data[:12] + len(text).to_bytes(4, "little") + text
    body = data[20 + size + -(20 + size) % 8 :]
    return front + crc32c(front).to_bytes(4, "little") + bytes(-(len(front) + 4) % 8) + body


def _frames() -> list[bytes]:
    times = range(START_MS, START_MS + 40 * 15_000, 15_000)
    samples = make_samples([({"__name__": "up", "job": f"j{i}"}, [(t, float(t % 7)) for t in times]) for i in range(3)])
    return [b"".join(encode_frames(samples, 0)), b"".join(encode_frames(samples, 0, max_frame_bytes=50))]


def _seal_frames(data: bytes) -> bytes:
    """Put the checksum of every frame right: uvarint length, big-endian CRC-32C, message."""
    out = bytearray(data)
    at = 0
    while at < len(out):
        size = shift = used = 0
        while used < 5 and at + used < len(out):
            byte = out[at + used]
            size |= (byte & 0x7F) << shift
            shift, used = shift + 7, used + 1
            if byte < 0x80:
                break
        begin = at + used + 4
        if begin + size > len(out):
            break
        out[begin - 4 : begin] = crc32c(bytes(out[begin : begin + size])).to_bytes(4, "big")
        at = begin + size
    return bytes(out)


def _read_frames(data: bytes) -> None:
    reader = FrameReader(budget=SampleBudget(10**6), start_ms=0, end_ms=1 << 62)
    cut = len(data) // 3
    reader.feed(data[:cut])
    reader.feed(data[cut:])
    reader.finish()


CENSUS = next(iter(CensusKind))


def _census() -> list[bytes]:
    columns = {
        "labels": np.frombuffer(b"\x01a\x01b", np.uint8),
        "offsets": np.array([0, 4], np.int64),
        "counts": np.arange(CENSUS.columns[0], dtype=np.int64),
    }
    return [encode_columns("census", 1, {"series": 1, "api_rate": 1.0, "rule_rate": 0.5}, columns)]


def _json_of(read: Callable[[object], object]) -> Callable[[bytes], object]:
    """Read an answer's `data` as the client of other ingesters does."""

    def parse(body: bytes) -> object:
        try:
            return read(orjson.loads(body)["data"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AnswerCorrupt(str(error)) from error

    return parse


def _arrow() -> list[bytes]:
    import pyarrow as pa

    table = pa.table({"a": ["x", "y"], "value": [1.0, 2.0]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.with_metadata({"resultType": "vector", "warnings": '["w"]'})) as writer:
        writer.write_table(table)
    return [sink.getvalue().to_pybytes()]


CORRUPT = (BlockCorrupt, QueryError)
COLUMNS = (ColumnsFileCorrupt,)
LOG = (LogUnavailable, OffsetOutOfRange)
EXEMPLARS = b'{"data": [{"series": {"a": "b"}, "exemplars": [[5, "1.5", {"t": "x"}]]}]}'
ERROR = b'{"status": "error", "errorType": "bad_data", "error": "x", "id": "y", "blame": "client", "retriable": true}'

DECODERS = {
    "records": Decoder(decode_any_record, records(), (RecordCorrupt,)),
    "records applied": Decoder(apply_any_record, records()),
    "control records": Decoder(
        decode_control,
        [encode_flush(None), encode_flush(["a", "b"]), encode_settings({"cut_max_samples": 5})],
        (RecordCorrupt, RecordVersionUnsupported),
    ),
    "control records applied": Decoder(
        apply_any_record, [encode_flush(None), encode_flush(["a", "b"]), encode_settings({"cut_max_samples": 5})]
    ),
    "Kafka records": Decoder(
        _decode_kafka, [b"Version=\x00\x00\x00\x02", b"version=" + struct.pack(">I", 1)], (RecordCorrupt,)
    ),
    "ring entries": Decoder(
        _decode_entry, [k.encode() + b"\n" + json.dumps(v).encode() for k, v in RING.items()], (EntryCorrupt,)
    ),
    "checkpoint": Decoder(_decode_checkpoint, [_owner()[0]], COLUMNS),
    "snapshot": Decoder(_decode_snapshot, [_owner()[1]], COLUMNS),
    "embedded log": Decoder(_read_log, [_log_file()], LOG),
    "block index": Decoder(read_block("index"), [block()["index"]], CORRUPT),
    "block index, sealed": Decoder(read_block("index"), [block()["index"]], CORRUPT, _seal_index),
    "block chunks": Decoder(read_block("chunks/000001"), [block()["chunks/000001"]], CORRUPT),
    "block chunks, sealed": Decoder(read_block("chunks/000001"), [block()["chunks/000001"]], CORRUPT, _seal_chunks),
    "block meta.json": Decoder(lambda data: read_meta(decode_meta(data)), [block()["meta.json"]], CORRUPT),
    "block meta.json, read": Decoder(read_block("meta.json"), [block()["meta.json"]], CORRUPT),
    "block tombstones": Decoder(read_block("tombstones"), [block()["tombstones"]], CORRUPT),
    "block tombstones, sealed": Decoder(read_block("tombstones"), [block()["tombstones"]], CORRUPT, _seal_tail),
    "read frames": Decoder(_read_frames, _frames(), (AnswerCorrupt, QueryError)),
    "read frames, sealed": Decoder(_read_frames, _frames(), (AnswerCorrupt, QueryError), _seal_frames),
    "census": Decoder(lambda data: decode_census(data, CENSUS), _census(), (AnswerCorrupt,)),
    "exemplars of an owner": Decoder(_json_of(decode_exemplars), [EXEMPLARS], (AnswerCorrupt,)),
    "tenants of an owner": Decoder(_json_of(decode_tenants), [b'{"data": {"a": [5, 1.5, 0.5]}}'], (AnswerCorrupt,)),
    "error of an owner": Decoder(lambda data: decode_error(500, data, "o"), [ERROR]),
    "error to a client": Decoder(lambda data: ApiError.of(500, data, data[:3].decode("latin-1")), [ERROR, b"\xb2"]),
    "Arrow stream": Decoder(lambda data: QueryResult.of(data, {}), _arrow(), (ClientFailure,)),
}
