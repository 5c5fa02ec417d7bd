"""Damaged bytes to every decoder: the errors that it names or an answer, never another, and memory in proportion."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc
from collections.abc import Callable, Sequence

import cramjam
import numpy as np
import pytest

from mimir_ingest.distributor.formats import InfluxLines, RemoteWriteV1, RemoteWriteV2
from mimir_ingest.errors import BlockCorrupt, ClientError, QueryError, RecordCorrupt
from mimir_ingest.errors import RecordVersionUnsupported as OtherVersion
from mimir_ingest.model.matchers import Matcher, MatchType
from mimir_ingest.model.samples import SampleBudget
from mimir_ingest.tsdb import columns_file
from mimir_ingest.tsdb.block_reader import open_files, verify_block
from mimir_ingest.tsdb.columns_file import ColumnsFileCorrupt
from mimir_ingest.wire import content_encoding, record, snappy
from mimir_ingest.wire.control import decode_control, encode_flush, encode_settings
from mimir_ingest.wire.gzipped import TooLong
from mimir_ingest.wire.offsets_header import decode_offsets
from mimir_ingest.wire.read_request import decode_request
from mimir_ingest.wire.record import VERSION_COLUMNAR, VERSION_V0, RecordSettings, encode_columnar, encode_mimir
from partitions import codec
from partitions.errors import EntryCorrupt
from tests.support.batches import write_batch
from tests.support.blocks import build, make_samples
from tests.support.histograms import Row, bits
from tests.support.mutations import mutations
from tests.support.protobuf_schema import WriteRequest
from tests.support.push_target import NOW_MS, named, write_request
from tests.support.remote_read import RE, read_request

DAMAGED = 250
"""Damaged texts for each decoder. why: under a second each; a hundred thousand of each were run once."""

ROOM = 1 << 20
"""Bytes that a request may decompress to here."""

HISTOGRAM = Row(3, 0, False, 0.001, 0, 3, bits(3.0), (), ((0, 1), (1, 2)))


def snapped(*bodies: bytes) -> list[bytes]:
    return [bytes(cramjam.snappy.compress_raw(body)) for body in bodies]


def requests_v1() -> list[bytes]:
    """Return remote write 1.0 requests with everything in them."""
    plain = write_request([named(b"up", (b"job", b"a")), named(b"x")], [(1, b"up", b"help", b"unit")])
    full = WriteRequest.FromString(plain)
    series = full.timeseries[0]
    series.exemplars.add(value=1.0, timestamp=NOW_MS).labels.add(name=b"t", value=b"v")
    native = series.histograms.add(count_int=3, sum=3.0, schema=3, timestamp=NOW_MS, positive_deltas=[1, 1])
    native.positive_spans.add(offset=1, length=2)
    return [plain, full.SerializeToString()]


def requests_v2() -> list[bytes]:
    """Return remote write 2.0 requests with everything in them."""
    request = WriteRequest(symbols=[b"", b"__name__", b"up", b"job", b"a", b"help"])
    series = request.timeseries_rw2.add(labels_refs=[1, 2, 3, 4], created_timestamp=NOW_MS - 5)
    series.samples.add(value=1.0, timestamp=NOW_MS, start_timestamp=NOW_MS - 5)
    series.exemplars.add(labels_refs=[3, 4], value=1.0, timestamp=NOW_MS)
    series.metadata.type, series.metadata.help_ref = 1, 5
    native = series.histograms.add(count_float=3, sum=3.0, schema=-53, timestamp=NOW_MS, positive_counts=[1, 2])
    native.positive_spans.add(offset=0, length=2)
    native.custom_values.extend([1.0, 2.0])
    return [request.SerializeToString()]


def records() -> list[bytes]:
    batch = write_batch(
        [
            ({"__name__": "up", "job": "a"}, [(NOW_MS, 1.0), (NOW_MS + 1, 2.0, NOW_MS - 5)]),
            ({"__name__": "x"}, [(NOW_MS, HISTOGRAM), (NOW_MS + 1, HISTOGRAM)]),
        ]
    )
    return [
        encode_columnar(batch, RecordSettings(10, 20, 30)),
        encode_columnar(write_batch([]), RecordSettings(1, 2, 3)),
        encode_mimir(batch, VERSION_V0),
        encode_mimir(batch, record.VERSION_V1),
    ]


def decode_write(version: int, compressed: bool) -> Callable[[bytes], object]:
    written = (RemoteWriteV1 if version == 1 else RemoteWriteV2)(ROOM)

    def decode(body: bytes) -> object:
        body = body if compressed else snapped(body)[0]
        written.check_size(written.decoded_size(body), compressed=False)
        return written.decode(body)

    return decode


def decode_influx(body: bytes) -> object:
    return InfluxLines(max_bytes=ROOM, precision="ms", gzip=body[:2] == b"\x1f\x8b", now_ms=NOW_MS).decode(body)


def decode_read(body: bytes) -> object:
    return decode_request(snappy.decompress(body, max_bytes=ROOM))


def encoded(encoding: str) -> tuple[Callable[[bytes], object], list[bytes]]:
    pack = {"gzip": gzip.compress, "zstd": cramjam.zstd.compress, "lz4": cramjam.lz4.compress}[encoding]
    whole = [bytes(pack(b"ab" * 500)), bytes(pack(b"")), bytes(pack(random.Random(1).randbytes(900)))]
    return lambda body: content_encoding.decompress(body, encoding, max_bytes=ROOM), whole


def decode_any_record(value: bytes) -> None:
    errors = 0
    for version in (VERSION_COLUMNAR, VERSION_V0, record.VERSION_V1, record.VERSION_V2):
        try:
            record.decode(version, value)
        except (RecordCorrupt, OtherVersion):
            errors += 1
    if errors == 4:
        raise RecordCorrupt("in all versions")


INFLUX = [
    b'weather,location=us\\ m,a=b temp=82,humid=71i,wet=T,note="a,\\"b" 1465839830100\nm v=1u\n# c\n',
    b"m v=-1e3 -5",
]
READS = snapped(read_request((0, NOW_MS, [(RE, "__name__", ".+")]), (-5, 2**62, []), accepted=[0, 1]))
FLUSH = [encode_flush(None), encode_flush(["a", "b"]), encode_settings({"cut_max_samples": 5})]
HEADERS = [b"v1=0:1240,1:-1", b"v2=x", b"v1="]
DECODERS: dict[str, tuple[Callable[[bytes], object], Sequence[bytes], tuple[type[Exception], ...]]] = {
    "remote write 1, protobuf": (decode_write(1, compressed=False), requests_v1(), (ClientError,)),
    "remote write 1, snappy": (decode_write(1, compressed=True), snapped(*requests_v1()), (ClientError,)),
    "remote write 2, protobuf": (decode_write(2, compressed=False), requests_v2(), (ClientError,)),
    "remote write 2, snappy": (decode_write(2, compressed=True), snapped(*requests_v2()), (ClientError,)),
    "influx": (decode_influx, [*INFLUX, gzip.compress(INFLUX[0])], (ClientError,)),
    "remote read": (decode_read, READS, (ClientError,)),
    "gzip": (*encoded("gzip"), (ClientError, TooLong)),
    "zstd": (*encoded("zstd"), (ClientError, TooLong)),
    "lz4": (*encoded("lz4"), (ClientError, TooLong)),
    "records": (decode_any_record, records(), (RecordCorrupt,)),
    "control records": (decode_control, FLUSH, (RecordCorrupt, OtherVersion)),
    "offsets": (lambda data: decode_offsets(data.decode("latin-1")), HEADERS, (ClientError,)),
}


@pytest.mark.parametrize("name", DECODERS)
def test_damaged_bytes_give_the_errors_of_their_decoder_and_take_no_room(name):
    decode, corpus, errors = DECODERS[name]
    for whole in corpus:
        decode(whole)
    refused = 0
    tracemalloc.start()
    try:
        for data in mutations(corpus, DAMAGED):
            try:
                decode(data)
            except errors:
                refused += 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0 < refused < DAMAGED
    assert peak < 4 * ROOM


RING = {
    "partition/3": {"state": "ACTIVE", "state_timestamp_ms": 5, "state_version": [5, 0, "w"], "locked": True},
    "owner/ingester-0/3": {"state": "ACTIVE", "updated_timestamp_ms": 5, "version": [5, 0, "w"]},
    "instance/ingester/i": {"state": "ACTIVE", "address": "h:1", "registered_ms": 1, "heartbeat_ms": 2},
}


def test_damaged_entries_of_the_ring_are_entries_or_corrupt():
    keys = [key.encode() for key in RING]
    values = [json.dumps(value).encode() for value in RING.values()]
    found = set()
    pairs = zip(mutations(keys, DAMAGED), mutations(values, DAMAGED, 1), strict=True)
    more = [(key, value) for key in keys for value in mutations(values, DAMAGED, 2)]
    for key, value in (*pairs, *more):
        try:
            found.add(type(codec.decode(key.decode("utf-8", "surrogateescape"), value)).__name__)
        except EntryCorrupt:
            found.add("corrupt")
    assert {"corrupt", "NoneType"} <= found
    for deep in (b"[" * 100_000, b'{"state":' * 50_000, b'{"state":' + b"9" * 5000 + b"}", b"\xff", b""):
        with pytest.raises(EntryCorrupt):
            codec.decode("partition/3", deep)


def test_a_damaged_checkpoint_or_snapshot_is_refused_whole():
    columns = {"a": np.arange(50, dtype=np.int64), "b": np.zeros(7, np.uint8)}
    whole = columns_file.encode_columns("kind", 1, {"x": 1}, columns)
    refused = 0
    for data in mutations([whole], DAMAGED):
        try:
            found = columns_file.decode_columns(data, kind="kind", versions=(1,))
        except ColumnsFileCorrupt:
            refused += 1
        else:  # damage behind the last section, or between sections
            assert found.columns["a"].tolist() == list(range(50))
    assert refused > DAMAGED // 2


def block() -> dict[str, bytes]:
    """Return the files of a block with float and native histogram chunks."""
    times = range(NOW_MS, NOW_MS + 300 * 15_000, 15_000)
    series = [({"__name__": "up", "job": f"j{i}"}, [(t, float(t % 7)) for t in times]) for i in range(4)]
    return dict(build(make_samples(series)).files)


@pytest.mark.parametrize("path", ["index", "chunks/000001", "meta.json", "tombstones"])
def test_a_damaged_block_is_corrupt_or_reads_and_never_more_than_that(path):
    files = block()
    verify_block(files)
    refused = 0
    matchers = [Matcher(MatchType.REGEXP, "job", "j.*")]
    for data in mutations([files[path]], DAMAGED // 2):
        damaged = files | {path: data}
        try:
            verify_block(damaged)
        except BlockCorrupt:
            refused += 1
        try:
            reader = open_files(damaged)
            reader.select(matchers, NOW_MS, NOW_MS + 10**7, SampleBudget(10**6))
            reader.label_values("job")
        except (BlockCorrupt, QueryError):
            pass
    assert refused
