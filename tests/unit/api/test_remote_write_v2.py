"""Remote write 2.0: bodies built by the protobuf library, what is stored, and what every answer says was written."""

from __future__ import annotations

import cramjam
import pytest

from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.errors import LogUnavailable
from mimir_ingest.model.relabel import Relabelling
from tests.support.memory_log import MemoryLog
from tests.support.protobuf_schema import WriteRequest
from tests.support.push_target import NOW_MS, PushTarget, named

V2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"


def body(*names: bytes, symbols: tuple[bytes, ...] = (b"",)) -> bytes:
    """Return a request with a series a name, one sample each."""
    request = WriteRequest(symbols=[*symbols, b"__name__", *names])
    first = len(symbols)
    for i in range(len(names)):
        series = request.timeseries_rw2.add(labels_refs=[first, first + 1 + i])
        series.samples.add(value=1.0, timestamp=NOW_MS)
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))


def written(answer) -> tuple[str, ...]:
    return tuple(
        answer.headers[f"X-Prometheus-Remote-Write-{kind}-Written"] for kind in ("Samples", "Histograms", "Exemplars")
    )


async def test_a_request_is_stored_and_its_answer_counts_what_was_written():
    async with PushTarget() as target:
        answer = await target.post(body(b"up", b"down"), Content_Type=V2)
        assert (answer.status_code, answer.content, written(answer)) == (200, b"", ("2", "0", "0"))
        assert target.stored() == [(0, *named(b"up")), (0, *named(b"down"))]
        assert target.counters("cortex_distributor_requests_in") == {
            "cortex_distributor_requests_in_total{version=2.0}": 1
        }


async def test_what_is_refused_does_not_count_and_what_is_dropped_on_purpose_does():
    async with PushTarget() as target:
        answer = await target.post(body(b"up", b"not-a-name"), Content_Type=V2)
        assert (answer.status_code, written(answer)) == (400, ("1", "0", "0"))
        assert target.stored() == [(0, *named(b"up"))]
    async with PushTarget(DistributorLimits(relabelling=Relabelling(drop_labels=("__name__",)))) as target:
        answer = await target.post(body(b"up"), Content_Type=V2)
        assert (answer.status_code, written(answer)) == (200, ("1", "0", "0"))
        assert target.stored() == []


@pytest.mark.parametrize("symbols", [(b"x",), (b"", b"unused")])
async def test_the_first_symbol_is_empty(symbols):
    async with PushTarget() as target:
        answer = await target.post(body(b"up", symbols=symbols), Content_Type=V2)
        assert answer.status_code == (200 if symbols[0] == b"" else 400)
        if symbols[0]:
            assert answer.text == "proto: Remote Write 2.0 symbols must start with empty string\n"
            assert written(answer) == ("0", "0", "0")


async def test_a_log_that_fails_has_written_nothing():
    log = MemoryLog()
    log.failures[0] = LogUnavailable("no broker")
    async with PushTarget(log=log) as target:
        answer = await target.post(body(b"up"), Content_Type=V2)
        assert (answer.status_code, written(answer)) == (500, ("0", "0", "0"))


def mixed(*names: bytes, exemplar_ms: int = NOW_MS, sample_ms: int = NOW_MS, bad_histogram: bool = False) -> bytes:
    """Return a request with, for each name, two samples, a native histogram and an exemplar."""
    request = WriteRequest(symbols=[b"", b"__name__", b"trace_id", b"abc", *names])
    for i in range(len(names)):
        series = request.timeseries_rw2.add(labels_refs=[1, 4 + i])
        for timestamp in (sample_ms, sample_ms + 1):
            series.samples.add(value=1.0, timestamp=timestamp)
        found = series.histograms.add(
            count_int=3, sum=3.0, zero_threshold=0.1, zero_count_int=0, timestamp=NOW_MS + 2, positive_deltas=[1, 1]
        )
        found.positive_spans.add(offset=0, length=3 if bad_histogram else 2)
        series.exemplars.add(labels_refs=[2, 3], value=1.0, timestamp=exemplar_ms)
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))


KEEPS = {"max_global_exemplars_per_user": 100, "native_histograms_ingestion_enabled": True}
DROPS = Relabelling(drop_labels=("__name__",))


@pytest.mark.parametrize(
    ("limits", "request_body", "status", "counts"),
    [
        (KEEPS, mixed(b"up"), 200, (2, 1, 1)),
        (KEEPS, mixed(), 200, (0, 0, 0)),
        (KEEPS, mixed(b"up", b"not-a-name", b"down"), 400, (4, 2, 2)),
        (KEEPS, mixed(b"not-a-name"), 400, (0, 0, 0)),
        (KEEPS, mixed(b"up", exemplar_ms=NOW_MS - 10**9), 200, (2, 1, 1)),
        (KEEPS, mixed(b"up", sample_ms=NOW_MS + 10**9), 400, (0, 0, 0)),
        (KEEPS, mixed(b"up", bad_histogram=True), 400, (0, 0, 0)),
        (KEEPS | {"max_global_exemplars_per_user": 0}, mixed(b"up"), 200, (2, 1, 1)),
        (KEEPS | {"native_histograms_ingestion_enabled": False}, mixed(b"up"), 200, (2, 1, 1)),
        (KEEPS | {"relabelling": DROPS}, mixed(b"up"), 200, (2, 1, 1)),
        (KEEPS | {"ingestion_rate": 1.0, "ingestion_burst_size": 1}, mixed(b"up"), 429, (0, 0, 0)),
        (KEEPS, b"\x05damaged", 400, (0, 0, 0)),
        (KEEPS, bytes(cramjam.snappy.compress_raw(b"\x0a\x02\x0a\x00")), 400, (0, 0, 0)),
    ],
    ids=[
        "all stored", "nothing sent", "one of three broken", "all broken", "an old exemplar", "a sample of the future",
        "a broken histogram", "exemplars not kept", "histograms not kept", "relabelled away", "over the rate",
        "not snappy", "a body of 1.0",
    ],
)  # fmt: skip
async def test_every_answer_counts_what_was_stored_or_dropped_on_purpose(limits, request_body, status, counts):
    async with PushTarget(DistributorLimits(**limits)) as target:
        answer = await target.post(request_body, Content_Type=V2)
        assert (answer.status_code, written(answer)) == (status, tuple(map(str, counts))), answer.text
        first = await target.post(mixed(b"up"), Content_Type="application/x-protobuf")
        assert not [name for name in first.headers if "written" in name]
