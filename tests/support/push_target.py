"""The push endpoint in front of a log in memory, asked as a client asks and read back through the record codec."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import cramjam
import httpx
from prometheus_client import CollectorRegistry

from mimir_ingest.api.push import Edge, PushApplication
from mimir_ingest.api.remote_write import RemoteWriteEdge
from mimir_ingest.api.tenant import TenantResolver
from mimir_ingest.distributor.admission import InstanceLimits
from mimir_ingest.distributor.ha_tracker import HaTracker
from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.distributor.series_limits import OverLimits
from mimir_ingest.distributor.service import Distributor, DistributorOptions
from mimir_ingest.obs.metrics import DistributorMetrics, WriterMetrics
from mimir_ingest.wire import record
from partitions.model import PartitionState
from partitions.ring import PartitionRing
from tests.support.memory_log import MemoryLog
from tests.support.protobuf_schema import WriteRequest

NOW_MS = 1_700_000_000_000

Series = tuple[Sequence[tuple[bytes, bytes]], Sequence[tuple[int, float]]]
Metadata = tuple[int, bytes, bytes, bytes]


def write_request(series: Iterable[Series] = (), metadata: Iterable[Metadata] = (), **fields: bool) -> bytes:
    """Return an uncompressed remote write 1.0 request: ((labels, ((timestamp, value), …)), …)."""
    request = WriteRequest(**fields)
    for labels, samples in series:
        one = request.timeseries.add()
        for name, value in labels:
            one.labels.add(name=name, value=value)
        for timestamp, value in samples:
            one.samples.add(value=value, timestamp=timestamp)
    for kind, family, text, unit in metadata:
        request.metadata.add(type=kind, metric_family_name=family, help=text, unit=unit)
    return request.SerializeToString()


def named(name: bytes, *labels: tuple[bytes, bytes], at: Sequence[int] = (NOW_MS,)) -> Series:
    """Return a series with one sample of value 1 at each time."""
    return [(b"__name__", name), *labels], [(timestamp, 1.0) for timestamp in at]


class PushTarget:
    """A running distributor with its application, log and counters."""

    def __init__(
        self,
        limits: DistributorLimits | None = None,
        *,
        log: MemoryLog | None = None,
        active: Iterable[int] | None = None,
        options: DistributorOptions | None = None,
        instance_limits: InstanceLimits | None = None,
        over_limits: OverLimits | None = None,
        tenants: TenantResolver | None = None,
        edge: Edge | None = None,
        ha_tracker: HaTracker | None = None,
    ) -> None:
        self.log = log or MemoryLog()
        self.registry = CollectorRegistry()
        self.seconds = 1000.0
        ring = PartitionRing.build(dict.fromkeys(self.log.records if active is None else active, PartitionState.ACTIVE))
        self.distributor = Distributor(
            self.log,
            ring=lambda: ring,
            limits_for=lambda _: limits or DistributorLimits(),
            metrics=DistributorMetrics.create(self.registry),
            writer_metrics=WriterMetrics.create(self.registry),
            options=options,
            instance_limits=lambda: instance_limits or InstanceLimits(),
            over_limits=over_limits,
            ha_tracker=ha_tracker,
            now_ms=lambda: NOW_MS,
            monotonic_s=lambda: self.seconds,
        )
        self.application = PushApplication(
            self.distributor,
            edge or RemoteWriteEdge(max_bytes=self.distributor.options.max_recv_msg_size),
            tenants=tenants or TenantResolver(),
        )

    async def __aenter__(self) -> PushTarget:
        await self.distributor.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.distributor.close()

    async def post(self, body: bytes, query: str = "", **headers: str) -> httpx.Response:
        """Send a body as it is, for tenant `t` unless a header says otherwise."""
        sent = {"X-Scope-OrgID": "t", "Content-Type": "application/x-protobuf"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        transport = httpx.ASGITransport(self.application)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.post(f"/api/v1/push{query}", content=body, headers=sent)

    async def push(self, *series: Series, metadata: Iterable[Metadata] = (), **headers: str) -> httpx.Response:
        """Send series and metadata."""
        return await self.post(bytes(cramjam.snappy.compress_raw(write_request(series, metadata))), **headers)

    def stored(self) -> list[tuple[int, list[tuple[bytes, bytes]], list[tuple[int, float]]]]:
        """Return (partition, labels, samples) of every series in the log, in order."""
        rows = []
        for partition, batch in self.batches():
            for i in range(batch.series_count):
                pairs = batch.labels[batch.label_offsets[i] : batch.label_offsets[i + 1]].tobytes()
                span = slice(*batch.sample_offsets[i : i + 2].tolist())
                samples = zip(batch.timestamps[span].tolist(), batch.values[span].tolist(), strict=True)
                rows.append((partition, record_labels(pairs), list(samples)))
        return rows

    def stored_metadata(self) -> list[tuple[int, Metadata]]:
        """Return (partition, item) of all metadata in the log, in order."""
        rows = []
        for partition, batch in self.batches():
            text, ends = batch.metadata.text.tobytes(), batch.metadata.offsets.tolist()
            strings = [text[a:b] for a, b in itertools.pairwise(ends)]
            rows += [(partition, (int(t), *strings[3 * i : 3 * i + 3])) for i, t in enumerate(batch.metadata.types)]
        return rows

    def batches(self):
        """Return (partition, batch) of every record."""
        found = sorted((r.partition, r.offset, r) for rs in self.log.records.values() for r in rs)
        return [(p, record.decode(r.version, r.value).batch) for p, _, r in found]

    def counters(self, *families: str) -> dict[str, float]:
        """Return the samples above zero of metric families, as `name{labels}`; tenant labels left out."""
        found = {}
        for family in self.registry.collect():
            for sample in family.samples:
                if sample.name.startswith(families) and sample.value and not sample.name.endswith("_created"):
                    labels = ",".join(f"{k}={v}" for k, v in sample.labels.items() if v and k not in ("user", "group"))
                    found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found


def record_labels(label_bytes: bytes) -> list[tuple[bytes, bytes]]:
    """Return the pairs of label bytes, read byte by byte."""
    strings, at = [], 0
    while at < len(label_bytes):
        size = shift = 0
        while True:
            byte = label_bytes[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        strings.append(label_bytes[at : at + size])
        at += size
    return list(zip(strings[::2], strings[1::2], strict=True))
