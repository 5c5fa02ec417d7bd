"""Series over a limit, told to the sender by what the heads of the same process say."""

from __future__ import annotations

from hashlib import sha256

import cramjam

from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.errors import LimitExceeded
from mimir_ingest.tsdb.head import Head
from mimir_ingest.tsdb.series_limits import SeriesLimits
from mimir_ingest.wire import record
from tests.support.memory_log import MemoryLog
from tests.support.protobuf_schema import WriteRequest
from tests.support.push_target import NOW_MS, PushTarget, named

V2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"


class Heads:
    """Heads of all partitions, fed from the log."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._heads = {partition: Head("t") for partition in log.records}
        self._next = dict.fromkeys(log.records, 0)

    def consume(self) -> None:
        for partition, records in self._log.records.items():
            for one in records[self._next[partition] :]:
                decoded = record.decode(one.version, one.value)
                self._heads[partition].append(
                    decoded.batch,
                    offset=one.offset,
                    newest_ms=1 << 50,
                    range_ms=7_200_000,
                    limits=limits_of(decoded.settings),
                    window_ms=0,
                )
            self._next[partition] = len(records)

    def over_limits(self, partition, tenant, batch, settings):
        return self._heads[partition].over_limits(batch, limits_of(settings))

    @property
    def series(self) -> int:
        return sum(head.live_count for head in self._heads.values())


def limits_of(settings: record.RecordSettings) -> SeriesLimits:
    return SeriesLimits(settings.max_series, settings.max_series_per_metric, settings.unlimited_metrics)


def up(i: int, name: bytes = b"up"):
    return named(name, (b"i", b"%02d" % i))


async def test_every_partition_refuses_what_is_over_its_share_and_takes_the_rest():
    log = MemoryLog(3)
    heads = Heads(log)
    limits = DistributorLimits(max_global_series_per_user=12)
    async with PushTarget(limits, log=log, over_limits=heads.over_limits) as target:
        spread = [named(b"up", (b"i", sha256(bytes([i])).hexdigest().encode())) for i in range(40)]
        assert (await target.push(*spread)).status_code == 400
        stored = target.stored()
        heads.consume()
        assert len(stored) == heads.series == 12
        assert target.counters("cortex_discarded") == {
            "cortex_discarded_samples_total{reason=per_user_series_limit}": 28
        }
        known = [(labels, [(NOW_MS + 1, 1.0)]) for _, labels, _ in stored]
        assert (await target.push(*known)).status_code == 200
        answer = await target.push(*known, up(99))
        assert answer.status_code == 400
        assert answer.text == (
            "per-user series limit of 12 exceeded (err-mimir-max-series-per-user). To adjust the related per-tenant "
            "limit, configure -ingester.max-global-series-per-user, or contact your service administrator.\n"
        )
        heads.consume()
        assert heads.series == 12


async def test_a_metric_over_its_limit_leaves_other_metrics_and_those_without_limit():
    log = MemoryLog()
    heads = Heads(log)
    limits = DistributorLimits(max_global_series_per_metric=2, unlimited_metrics=("free",))
    async with PushTarget(limits, log=log, over_limits=heads.over_limits) as target:
        pushed = [up(i, name) for i in range(4) for name in (b"up", b"down", b"free")]
        answer = await target.push(*pushed, up(0))
        assert answer.status_code == 400
        assert answer.text == (
            "per-metric series limit of 2 exceeded (err-mimir-max-series-per-metric). To adjust the related per-tenant "
            "limit, configure -ingester.max-global-series-per-metric, or contact your service administrator. This is "
            'for series up{i="02"}\n'
        )
        names = [dict(labels)[b"__name__"] for _, labels, _ in target.stored()]
        assert {name: names.count(name) for name in names} == {b"up": 3, b"down": 2, b"free": 4}
        heads.consume()
        assert heads.series == 8
        assert target.counters("cortex_discarded") == {
            "cortex_discarded_samples_total{reason=per_metric_series_limit}": 4
        }


async def test_what_remote_write_says_was_written_leaves_out_the_items_of_refused_series():
    """Exemplars of a tenant that keeps none, and a repeated time, are dropped on purpose and count."""
    request = WriteRequest(symbols=[b"", b"__name__", b"up", b"down", b"not-a-name", b"t"])
    for name in (2, 3, 4):
        series = request.timeseries_rw2.add(labels_refs=[1, name])
        for at in (0, 0, 1):
            series.samples.add(value=1.0, timestamp=NOW_MS + at)
        histogram = series.histograms.add(count_int=1, timestamp=NOW_MS + 2)
        histogram.positive_spans.add(offset=0, length=1)
        histogram.positive_deltas.append(1)
        series.exemplars.add(labels_refs=[5, 2], value=1.0, timestamp=NOW_MS)
    log = MemoryLog()
    limits = DistributorLimits(max_global_series_per_user=1)
    async with PushTarget(limits, log=log, over_limits=Heads(log).over_limits) as target:
        sent = bytes(cramjam.snappy.compress_raw(request.SerializeToString()))
        answer = await target.post(sent, Content_Type=V2)
        assert answer.status_code == 400
        assert "err-mimir-metric-name-invalid" in answer.text
        kinds = ("Samples", "Histograms", "Exemplars")
        assert [answer.headers[f"X-Prometheus-Remote-Write-{kind}-Written"] for kind in kinds] == ["3", "1", "1"]
        assert target.counters("cortex_distributor_received_samples", "cortex_discarded") == {
            "cortex_distributor_received_samples_total": 3,
            "cortex_discarded_samples_total{reason=metric_name_invalid}": 4,
            "cortex_discarded_samples_total{reason=per_user_series_limit}": 3,
            "cortex_discarded_samples_total{reason=sample_duplicate_timestamp}": 2,
        }


async def test_a_process_that_holds_as_much_as_it_may_refuses_the_request_and_writes_nothing():
    def full(*_):
        raise LimitExceeded("full", http_status=503)

    async with PushTarget(over_limits=full) as target:
        answer = await target.push(up(1))
        assert (answer.status_code, answer.text) == (503, "full\n")
        assert "Retry-After" in answer.headers
        assert target.stored() == []
