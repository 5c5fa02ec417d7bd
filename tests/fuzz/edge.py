"""Decoders of what clients and senders send: pushes of all protocols, remote read, parameters, texts."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import random
from collections.abc import Callable

import cramjam
from google.protobuf import json_format

from mimir_ingest.api.credentials import parse_credentials, split_authorization, split_basic
from mimir_ingest.api.ingester import _unregister_of
from mimir_ingest.api.otlp import OtlpEdge
from mimir_ingest.api.params import Params, range_params, series_range
from mimir_ingest.api.tenant import HEADER, TenantResolver
from mimir_ingest.config.errors import ConfigError
from mimir_ingest.config.keys import registry
from mimir_ingest.config.parse import parse_file
from mimir_ingest.config.runtime import parse_runtime_config
from mimir_ingest.config.settings import load
from mimir_ingest.distributor.formats import InfluxLines, OtlpMetrics, RemoteWriteV1, RemoteWriteV2
from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.errors import ClientError, QueryError
from mimir_ingest.wire import content_encoding, snappy
from mimir_ingest.wire.gzipped import TooLong
from mimir_ingest.wire.offsets_header import decode_offsets
from mimir_ingest.wire.otlp_labels import OtlpSettings
from mimir_ingest.wire.read_request import decode_request
from tests.fuzz.decoder import Decoder
from tests.support import otlp_corpus
from tests.support.protobuf_schema import WriteRequest
from tests.support.push_target import NOW_MS, PushTarget, named, write_request
from tests.support.remote_read import RE, read_request

ROOM = 1 << 20
"""Bytes that a request may decompress to here."""
EVERYTHING = OtlpSettings(
    strategy="NoUTF8EscapingWithSuffixes",
    promote_resource_attributes=frozenset({"host.name"}),
    promote_scope_metadata=True,
    convert_histograms_to_nhcb=True,
    accumulate_deltas=True,
    created_timestamp_zero_ingestion=True,
)


def snapped(*bodies: bytes) -> list[bytes]:
    """Return bodies as snappy blocks."""
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


def decode_write(version: int, compressed: bool) -> Callable[[bytes], object]:
    """Return the decoder of a remote write request, a snappy block or what is in one."""
    written = (RemoteWriteV1 if version == 1 else RemoteWriteV2)(ROOM)

    def decode(body: bytes) -> object:
        body = body if compressed else snapped(body)[0]
        written.check_size(written.decoded_size(body), compressed=False)
        return written.decode(body)

    return decode


def _decode_influx(body: bytes) -> object:
    return InfluxLines(max_bytes=ROOM, precision="ms", gzip=body[:2] == b"\x1f\x8b", now_ms=NOW_MS).decode(body)


def _decode_read(body: bytes) -> object:
    request = decode_request(snappy.decompress(body, max_bytes=ROOM))
    return [query.time_range() for query in request.queries]


def _encoded(encoding: str) -> tuple[Callable[[bytes], object], list[bytes]]:
    pack = {"gzip": gzip.compress, "zstd": cramjam.zstd.compress, "lz4": cramjam.lz4.compress}[encoding]
    whole = [bytes(pack(b"ab" * 500)), bytes(pack(b"")), bytes(pack(random.Random(1).randbytes(900)))]
    return lambda body: content_encoding.decompress(body, encoding, max_bytes=ROOM), whole


def _otlp(*, json: bool, settings: OtlpSettings) -> Callable[[bytes], object]:
    written = OtlpMetrics(ROOM, settings, "", json)

    def decode(body: bytes) -> object:
        written.check_size(written.decoded_size(body), compressed=False)
        return written.decode(body)

    return decode


def _pushed(edge: OtlpEdge | None = None, **headers: str) -> Callable[[bytes], object]:
    """Return a push through validation, limits and routing into the log, read back; a status over 499 is an error."""
    limits = DistributorLimits(ingestion_rate=1e12, ingestion_burst_size=1 << 40, max_global_exemplars_per_user=100)

    async def push(body: bytes) -> object:
        async with PushTarget(limits, edge=edge) as target:
            answer = await target.post(body, **headers)
            if answer.status_code not in (200, 400, 413, 415, 422):
                raise AssertionError(f"{answer.status_code}: {answer.text}")
            return [batch.sample_count for _, batch in target.batches()]

    return lambda body: asyncio.run(push(body))


def _parameters(text: bytes) -> object:
    params = Params.parse(text, text[1:])
    found: list[object] = []
    for read in (range_params, series_range, Params.limit, lambda p: p.duration_ns("timeout", 0)):
        try:
            found.append(read(params))
        except QueryError as error:
            found.append(error.message.encode("utf-8", "surrogateescape"))
    return found


def _tenants(text: bytes) -> object:
    several = TenantResolver(federation_enabled=True, max_tenants=3)
    return several.resolve([(HEADER, text)])


def _authorization(text: bytes) -> object:
    scheme, rest = split_authorization(text.decode("latin-1"))
    return scheme, split_basic(rest)


def _text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    """Return a reader of texts as one of bytes; what is no UTF-8 never gets so far."""
    return lambda data: read(data.decode("utf-8", "replace"))


def _runtime(text: str) -> object:
    found = parse_runtime_config([("runtime.yaml", text)], DEFAULTS)
    return found.plain(DEFAULTS, diff=True), found.plain(DEFAULTS, diff=False)


DEFAULTS = load([], {})[0].limits
OTLP = [*otlp_corpus.types(), *itertools.islice(otlp_corpus.labels(), 6), *otlp_corpus.unusable()]
OTLP_BODIES = [request.SerializeToString() for request in OTLP]
OTLP_JSON = [json_format.MessageToJson(request).encode() for request in OTLP]
INFLUX = [
    b'weather,location=us\\ m,a=b temp=82,humid=71i,wet=T,note="a,\\"b" 1465839830100\nm v=1u\n# c\n',
    b"m v=-1e3 -5",
]
READS = snapped(read_request((0, NOW_MS, [(RE, "__name__", ".+")]), (-5, 2**62, []), accepted=[0, 1]))
HEADERS = [b"v1=0:1240,1:-1", b"v2=x", b"v1="]
FORMS = [
    b"query=up&start=1700000000&end=1700003600.5&step=15s&limit=5&timeout=1m",
    b"start=2023-11-14T22:13:20.123Z&end=2023-11-14T23:13:20%2B01:00&step=1h30m&match[]=%7Ba%3D%22b%22%7D",
    b"start=-292273086-05-16T16:47:06Z&end=292277025-08-18T07:12:54.999999999Z&step=1e3",
]
RUNTIME = [
    b"overrides:\n  a:\n    ingestion_rate: 5\n    max_global_series_per_user: 7\n"
    b"  b: {out_of_order_time_window: 5m}\n",
    b"ingester_limits:\n  max_series: 5\ndistributor_limits: {max_inflight_push_requests: 3}\nmulti_kv_config:\n"
    b"  primary: memberlist\n  mirror_enabled: true\n",
    b"overrides:\n  a: &x\n    metric_relabel_configs:\n    - {source_labels: [a], regex: 'x(.*)', target_label: b}\n",
]
CREDENTIALS = [
    b"basic_auth_users:\n  al: $2b$04$" + b"a" * 53 + b"\nbearer_tokens:\n  bo: " + b"ab" * 32 + b"\n"
    b"tenants:\n  al: [a, b]\n  bo: '*'\n",
]
CONFIG = [
    b"target: all\nserver:\n  http_listen_port: 8080\nlimits:\n  ingestion_rate: 5\ningest_storage:\n  enabled: true\n",
]

DECODERS = {
    "remote write 1, protobuf": Decoder(decode_write(1, compressed=False), requests_v1(), (ClientError,)),
    "remote write 1, snappy": Decoder(decode_write(1, compressed=True), snapped(*requests_v1()), (ClientError,)),
    "remote write 2, protobuf": Decoder(decode_write(2, compressed=False), requests_v2(), (ClientError,)),
    "remote write 2, snappy": Decoder(decode_write(2, compressed=True), snapped(*requests_v2()), (ClientError,)),
    "push of remote write 1": Decoder(lambda body: _PUSH(snapped(body)[0]), requests_v1()),
    "push of remote write 2": Decoder(lambda body: _PUSH_V2(snapped(body)[0]), requests_v2()),
    "push of OTLP": Decoder(lambda body: _PUSH_OTLP(body), OTLP_BODIES),
    "OTLP, protobuf": Decoder(_otlp(json=False, settings=EVERYTHING), OTLP_BODIES, (ClientError,)),
    "OTLP, JSON": Decoder(_otlp(json=True, settings=EVERYTHING), OTLP_JSON, (ClientError,)),
    "OTLP, plain settings": Decoder(_otlp(json=False, settings=OtlpSettings()), OTLP_BODIES, (ClientError,)),
    "influx": Decoder(_decode_influx, [*INFLUX, gzip.compress(INFLUX[0])], (ClientError,)),
    "remote read": Decoder(_decode_read, READS, (ClientError,)),
    "gzip": Decoder(*_encoded("gzip"), (ClientError, TooLong)),
    "zstd": Decoder(*_encoded("zstd"), (ClientError, TooLong)),
    "lz4": Decoder(*_encoded("lz4"), (ClientError, TooLong)),
    "offsets header": Decoder(lambda data: decode_offsets(data.decode("latin-1")), HEADERS, (ClientError,)),
    "query parameters": Decoder(_parameters, FORMS),
    "tenants": Decoder(_tenants, [b"a", b"a|b", b"team-a:sub", b"a" * 150, b"__mimir_cluster"], (ClientError,)),
    "authorization": Decoder(_authorization, [b"Basic YTpi", b"Bearer abc", b"basic  YTpiOmM="]),
    "unregister": Decoder(_unregister_of, [b'{"unregister": true}']),
    "runtime configuration": Decoder(_text(_runtime), RUNTIME, (ConfigError,)),
    "configuration": Decoder(
        _text(lambda text: parse_file(text, name="c", registry=registry())), CONFIG, (ConfigError,)
    ),
    "credentials": Decoder(_text(lambda text: parse_credentials(text, name="c")), CREDENTIALS, (ConfigError,)),
}
_PUSH = _pushed()
_PUSH_V2 = _pushed(Content_Type="application/x-protobuf;proto=io.prometheus.write.v2.Request")
_PUSH_OTLP = _pushed(OtlpEdge(max_bytes=ROOM, settings_for=lambda _: EVERYTHING))
