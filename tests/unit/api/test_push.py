"""The push endpoint from HTTP to the log: headers, sizes, limits, the log's failures."""

import asyncio
import gzip
import struct
import time

import cramjam
import pytest

from mimir_ingest.api.tenant import TenantResolver
from mimir_ingest.distributor.admission import InstanceLimits
from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.distributor.service import DistributorOptions
from mimir_ingest.errors import LogUnavailable, RecordTooLarge
from mimir_ingest.model.batch import STALE_NAN_BITS
from mimir_ingest.wire import record
from mimir_ingest.wire.offsets_header import decode_offsets
from mimir_ingest.wire.record import VERSION_COLUMNAR
from tests.support.memory_log import MemoryLog
from tests.support.push_target import NOW_MS, PushTarget, named, write_request

UP = named(b"up", (b"job", b"node"))
SIZE = (
    "the incoming push request has been rejected because its message size of {} bytes ({}) is larger than the allowed "
    "limit of {} bytes (err-mimir-distributor-max-write-message-size). To adjust the related limit, configure "
    "-distributor.max-recv-msg-size, or contact your service administrator.\n"
)


def snappy(body: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(body))


BODY = snappy(write_request([UP]))


def instance_error(text: str, name: str) -> str:
    return (
        f"the write request has been rejected because the distributor exceeded the {text} "
        f"(err-mimir-distributor-{name}). To adjust the related limit, configure -distributor.instance-limits.{name}, "
        "or contact your service administrator.\n"
    )


async def raw(target: PushTarget, messages: list[dict], headers: list[tuple[bytes, bytes]]) -> tuple[int, dict, bytes]:
    """Run the application on these messages; return status, headers, body."""
    sent = []
    pending = list(messages)

    async def receive():
        return pending.pop(0)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/api/v1/push", "headers": [(b"x-scope-orgid", b"t"), *headers]}
    await target.application(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


def parts(*chunks: bytes) -> list[dict]:
    return [{"type": "http.request", "body": chunk, "more_body": i < len(chunks) - 1} for i, chunk in enumerate(chunks)]


async def test_a_push_is_answered_once_the_log_has_it_with_its_settings_in_the_record():
    limits = DistributorLimits(max_global_series_per_user=90, out_of_order_time_window_ms=7)
    async with PushTarget(limits) as target:
        response = await target.push(UP, metadata=[(1, b"up", b"Up.", b"")])
        assert (response.status_code, response.content) == (200, b"")
        assert target.stored() == [(0, *UP)]
        assert target.stored_metadata() == [(0, (1, b"up", b"Up.", b""))]
        [stored] = target.log.records[0]
        assert (stored.key, stored.version) == (b"t", VERSION_COLUMNAR)
        assert record.decode(stored.version, stored.value).settings == record.RecordSettings(90, 7, 600_000)
        assert target.counters("cortex_distributor_received", "cortex_distributor_requests_in") == {
            "cortex_distributor_requests_in_total{version=1.0}": 1,
            "cortex_distributor_received_requests_total": 1,
            "cortex_distributor_received_samples_total": 1,
            "cortex_distributor_received_metadata_total": 1,
        }
        assert target.counters("cortex_distributor_latest_seen") == {
            "cortex_distributor_latest_seen_sample_timestamp_seconds": NOW_MS / 1000
        }
        assert target.counters("cortex_distributor_inflight") == {}
        assert target.counters("cortex_ingest_storage_writer_sent", "cortex_ingest_storage_writer_produce") == {
            "cortex_ingest_storage_writer_sent_bytes_total": len(stored.value),
            "cortex_ingest_storage_writer_produce_records_enqueued_total": 1,
        }


@pytest.mark.parametrize(
    ("content_type", "status", "text"),
    [
        (None, 200, ""),
        ("application/x-protobuf", 200, ""),
        (" application/x-protobuf ", 200, ""),
        ("application/x-protobuf;proto=prometheus.WriteRequest", 200, ""),
        ("application/x-protobuf; charset=utf-8", 200, ""),
        ("text/plain", 415, "got text/plain content type; expected application/x-protobuf\n"),
        (
            "application/x-protobuf; proto=io.prometheus.write.v2.Request",
            400,
            "proto: Remote Write 1.0 field Timeseries in non-Remote Write 1.0 message\n",
        ),
        (
            "application/x-protobuf;proto=other",
            415,
            "got application/x-protobuf;proto=other content type; expected prometheus.WriteRequest or "
            "io.prometheus.write.v2.Request\n",
        ),
        (
            "application/x-protobuf;what",
            400,
            "as per https://www.rfc-editor.org/rfc/rfc9110#parameter expected parameters to be key-values, got what in "
            "application/x-protobuf;what content-type\n",
        ),
    ],
)
async def test_the_content_type_chooses_the_protocol(content_type, status, text):
    async with PushTarget() as target:
        headers = [] if content_type is None else [(b"content-type", content_type.encode())]
        answered, _, body = await raw(target, parts(BODY), headers)
        assert (answered, body.decode()) == (status, text)
        assert len(target.stored()) == (status == 200)


@pytest.mark.parametrize(
    ("encoding", "body", "status", "text"),
    [
        ("gzip", BODY, 200, ""),
        ("", BODY, 200, ""),
        ("gzip", gzip.compress(b"series", mtime=0), 415, "got gzip content encoding; expected snappy\n"),
        ("Snappy", b"\x05", 400, "decompress snappy: snappy: corrupt input\n"),
        ("", b"\x05", 400, "decompress snappy: snappy: corrupt input\n"),
    ],
)
async def test_a_body_that_is_no_snappy_and_is_said_to_be_none_is_a_media_type_that_is_not_read(
    encoding, body, status, text
):
    async with PushTarget() as target:
        answered, _, found = await raw(target, parts(body), [(b"content-encoding", encoding.encode())])
        assert (answered, found.decode()) == (status, text)


@pytest.mark.parametrize(
    ("value", "status", "text"),
    [
        ("", 401, "no org id\n"),
        ("a/b", 401, "tenant ID 'a/b' contains unsupported character '/'\n"),
        ("a|b", 422, "too many tenant IDs present in the request. max: 1 actual: 2\n"),
    ],
)
async def test_a_push_without_a_proper_tenant_is_refused(value, status, text):
    async with PushTarget() as target:
        response = await target.post(BODY, X_Scope_OrgID=value)
        assert (response.status_code, response.text) == (status, text)
        assert target.stored() == []


async def test_two_tenants_cannot_be_written_at_once_even_with_federation():
    async with PushTarget(tenants=TenantResolver(federation_enabled=True)) as target:
        response = await target.post(BODY, X_Scope_OrgID="a|b")
        assert (response.status_code, response.text) == (500, "multiple org IDs present\n")
        assert (await target.post(BODY, X_Scope_OrgID="a|a:x")).status_code == 200
        assert target.log.records[0][0].key == b"a"


async def test_a_body_over_the_limit_is_refused_by_what_it_announces():
    async with PushTarget(options=DistributorOptions(max_recv_msg_size=1000)) as target:
        nobody_reads_this = [{"type": "unexpected"}]
        status, _, body = await raw(target, nobody_reads_this, [(b"content-length", b"1001")])
        assert (status, body.decode()) == (400, SIZE.format(1001, "compressed", 1000))
        response = await target.post(snappy(bytes(1001)))
        assert (response.status_code, response.text) == (400, SIZE.format(1001, "uncompressed", 1000))
        assert (await target.push(named(b"up", (b"a", b"v" * 900)))).status_code == 200


async def test_a_body_of_unknown_length_is_bounded_while_it_is_read():
    async with PushTarget(options=DistributorOptions(max_recv_msg_size=1000)) as target:
        endless = parts(*[b"x" * 400] * 50)
        status, _, body = await raw(target, endless, [])
        assert (status, body.decode()) == (400, SIZE.format(1200, "compressed", 1000))
        status, _, _ = await raw(target, parts(BODY[:3], b"", BODY[3:]), [])
        assert status == 200


async def test_a_client_that_goes_away_while_sending_is_499():
    async with PushTarget() as target:
        messages = [{"type": "http.request", "body": BODY[:5], "more_body": True}, {"type": "http.disconnect"}]
        status, headers, body = await raw(target, messages, [(b"content-length", b"99")])
        assert (status, body) == (499, b"context canceled\n")
        assert b"retry-after" not in headers
        assert target.stored() == []
        assert target.counters("cortex_distributor_inflight") == {}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "getting snappy decoded length: snappy: corrupt input\n"),
        (b"\xff" * 20, "getting snappy decoded length: snappy: corrupt input\n"),
        (b"\x05abc", "decompress snappy: snappy: corrupt input\n"),
        (snappy(b"\x0a\x05\x0a"), "unexpected EOF\n"),
        (snappy(b"\x0d\x00\x00\x00\x00"), "proto: wrong wireType = 5 for field Timeseries\n"),
        (snappy(b"\x22\x00"), "proto: Remote Write 2.0 field Symbols in non-Remote Write 2.0 message\n"),
    ],
)
async def test_a_body_that_cannot_be_read_is_400_with_mimirs_text(body, text):
    async with PushTarget() as target:
        response = await target.post(body)
        assert (response.status_code, response.text) == (400, text)


async def test_an_empty_request_is_fine_and_writes_nothing():
    async with PushTarget() as target:
        assert (await target.post(snappy(b""))).status_code == 200
        assert target.log.records == {0: []}


async def test_a_tenant_over_its_ingestion_rate_gets_429_and_nothing_is_stored():
    limits = DistributorLimits(ingestion_rate=1, ingestion_burst_size=3)
    async with PushTarget(limits) as target:
        assert (await target.push(UP, UP)).status_code == 200
        response = await target.push(UP, named(b"a-b"), metadata=[(1, b"up", b"", b"")])
        assert response.status_code == 429
        assert "ingestion rate limit, set to 1 items/s with a maximum allowed burst of 3." in response.text
        assert 6 <= int(response.headers["retry-after"]) <= 9
        assert len(target.stored()) == 2
        assert target.counters("cortex_discarded") == {
            "cortex_discarded_samples_total{reason=metric_name_invalid}": 1,
            "cortex_discarded_samples_total{reason=rate_limited}": 1,
            "cortex_discarded_metadata_total{reason=rate_limited}": 1,
        }
        target.seconds += 1
        assert (await target.push(UP, metadata=[(1, b"up", b"", b"")])).status_code == 200
        assert (await target.push(named(b"a-b"))).status_code == 400


async def test_a_tenant_over_its_request_rate_gets_429_before_the_body_is_read():
    async with PushTarget(DistributorLimits(request_rate=1, request_burst_size=1)) as target:
        assert (await target.push(UP)).status_code == 200
        status, headers, body = await raw(target, [{"type": "unexpected"}], [(b"retry-attempt", b"9")])
        assert status == 429
        assert b"(err-mimir-tenant-max-request-rate)" in body
        assert 48 <= int(headers[b"retry-after"]) <= 96
        assert target.counters("cortex_discarded") == {"cortex_discarded_requests_total{reason=rate_limited}": 1}
        assert target.counters("cortex_distributor_inflight") == {}


async def test_more_requests_at_once_than_the_process_may_hold_are_refused():
    log = MemoryLog()
    log.delays_s[0] = 0.2
    async with PushTarget(log=log, instance_limits=InstanceLimits(max_inflight_push_requests=2)) as target:
        answers = await asyncio.gather(*(target.push(UP) for _ in range(3)))
        assert sorted(a.status_code for a in answers) == [200, 200, 500]
        refused = next(a for a in answers if a.status_code == 500)
        assert refused.text == instance_error("allowed number of inflight push requests", "max-inflight-push-requests")
        assert "retry-after" in refused.headers
        reason = "{reason=distributor_max_inflight_push_requests}"
        assert target.counters("cortex_distributor_instance_rejected") == {
            f"cortex_distributor_instance_rejected_requests_total{reason}": 1
        }
        assert (await target.push(UP)).status_code == 200


@pytest.mark.parametrize("announced", [True, False])
async def test_bytes_in_flight_are_limited_as_sent_and_as_decompressed(announced):
    text = instance_error("allowed total size in bytes of inflight push requests", "max-inflight-push-requests-bytes")
    big = snappy(bytes(5000))
    for limit, body in ((100, BODY * 10), (1000, big)):
        limits = InstanceLimits(max_inflight_push_requests_bytes=limit)
        async with PushTarget(instance_limits=limits) as target:
            headers = [(b"content-length", b"%d" % len(body))] if announced else []
            status, _, answer = await raw(target, parts(body), headers)
            assert (status, answer.decode()) == (500, text)
            assert target.counters("cortex_distributor_inflight") == {}
            status, _, _ = await raw(target, parts(BODY), [])
            assert status == (200 if len(BODY) + 60 < limit else status)


async def test_a_tenants_pushes_take_as_long_as_it_is_told_and_success_says_how_much_was_waited():
    limits = DistributorLimits(ingestion_artificial_delay_s=0.2)
    began = time.monotonic()
    async with PushTarget(limits) as target:
        answer = await target.push(UP)
        assert time.monotonic() - began >= 0.17
        name, _, waited = answer.headers["Server-Timing"].partition(";dur=")
        assert name == "artificial_delay"
        assert 0 <= int(waited) <= 220
        refused = await target.push(named(b"9"))
        assert refused.status_code == 400
        assert "Server-Timing" not in refused.headers
        assert time.monotonic() - began >= 0.34
    log = MemoryLog()
    log.delays_s[0] = 0.3
    async with PushTarget(limits, log=log) as target:
        assert (await target.push(UP)).headers["Server-Timing"] == "artificial_delay;dur=0"
    async with PushTarget() as target:
        assert "Server-Timing" not in (await target.push(UP)).headers


async def test_a_process_over_its_ingestion_rate_refuses_until_the_average_falls():
    async with PushTarget(instance_limits=InstanceLimits(max_ingestion_rate=1.5)) as target:
        assert (await target.push(UP, UP)).status_code == 200
        target.seconds += 1
        response = await target.push(UP)
        assert response.status_code == 500
        assert response.text == instance_error("ingestion rate limit", "max-ingestion-rate")
        target.seconds += 2
        assert (await target.push(UP)).status_code == 200


async def test_a_distributor_that_is_not_running_says_so():
    target = PushTarget()
    response = await target.push(UP)
    assert (response.status_code, response.text) == (500, "distributor is unavailable (current state: New)\n")
    async with target:
        assert (await target.push(UP)).status_code == 200
    response = await target.push(UP)
    assert response.text == "distributor is unavailable (current state: Terminated)\n"


async def test_a_log_that_is_down_is_500_and_hides_a_validation_error():
    log = MemoryLog()
    log.failures[0] = LogUnavailable("record failed after being retried too many times")
    async with PushTarget(log=log) as target:
        response = await target.push(UP, named(b"a-b"))
        assert (response.status_code, response.text) == (
            500,
            "send data to partitions: failed pushing to partition 0: record failed after being retried too many "
            "times\n",
        )
        assert "retry-after" in response.headers
        assert target.counters("cortex_ingest_storage_writer_produce_records_failed") == {
            "cortex_ingest_storage_writer_produce_records_failed_total{reason=timeout}": 1
        }


async def test_a_slow_log_is_500_at_the_deadline_and_the_record_may_still_arrive():
    log = MemoryLog()
    log.delays_s[0] = 5.0
    async with PushTarget(log=log, options=DistributorOptions(remote_timeout_s=0.02)) as target:
        response = await target.push(UP)
        assert (response.status_code, response.text) == (
            500,
            "send data to partitions: exceeded configured distributor remote timeout: failed pushing to partition 0: "
            "context deadline exceeded\n",
        )
        assert target.stored() == []
    assert target.stored() == [(0, *UP)]


async def test_a_request_whose_sender_gave_up_still_reaches_the_log():
    log = MemoryLog()
    log.delays_s[0] = 1.0
    async with PushTarget(log=log) as target:
        sending = asyncio.create_task(target.push(UP))
        await asyncio.sleep(0.05)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert target.counters("cortex_distributor_inflight") == {}
    assert target.stored() == [(0, *UP)]


async def test_an_item_larger_than_a_record_is_400():
    async with PushTarget(log=MemoryLog(max_record_bytes=10)) as target:
        response = await target.push(UP)
        assert (response.status_code, response.text) == (
            400,
            "send data to partitions: failed pushing to partition 0: the write request contains a timeseries or "
            "metadata item which is larger that the maximum allowed size of 10 bytes "
            "(err-mimir-distributor-max-write-request-data-item-size)\n",
        )


async def test_a_record_refused_because_the_log_takes_less_than_before_is_500_so_that_the_next_try_is_split():
    log = ShrinkingLog()
    async with PushTarget(log=log) as target:
        response = await target.push(UP)
        assert (response.status_code, response.text) == (
            500,
            "send data to partitions: failed pushing to partition 0: record is too large; "
            "the next try is split into smaller records\n",
        )
        assert (await target.push(UP)).status_code == 200


class ShrinkingLog(MemoryLog):
    """Refuses one record, and takes less from then on."""

    async def append(self, *arguments, **named):
        if self._max_record_bytes > 1 << 20:
            self._max_record_bytes = 1 << 20
            raise RecordTooLarge("record is too large")
        return await super().append(*arguments, **named)


async def test_without_an_active_partition_a_push_is_500_unless_there_is_nothing_to_write():
    async with PushTarget(active=()) as target:
        response = await target.push(UP)
        assert (response.status_code, response.text) == (
            500,
            "send data to partitions: DoBatch: InstancesCount <= 0\n",
        )
        assert (await target.push(named(b"a-b"))).status_code == 400
        assert target.counters("cortex_distributor_inflight") == {}


async def test_an_unexpected_failure_is_500_without_its_details():
    log = MemoryLog()
    log.failures[0] = ZeroDivisionError("secret")
    async with PushTarget(log=log) as target:
        response = await target.push(UP)
        assert (response.status_code, response.text) == (500, "internal error\n")


async def test_series_and_metadata_are_spread_over_partitions_by_their_tokens():
    log = MemoryLog(4)
    series = [named(b"up", (b"instance", b"host-%03d.example.org" % i)) for i in range(200)]
    metadata = [(1, b"family_%d" % i, b"h", b"u") for i in range(20)]
    async with PushTarget(log=log) as target:
        assert (await target.push(*series, metadata=metadata)).status_code == 200
        stored = target.stored()
        assert sorted((labels, samples) for _, labels, samples in stored) == sorted(
            (list(labels), samples) for labels, samples in series
        )
        by_partition = {p: sum(row[0] == p for row in stored) for p in range(4)}
        assert min(by_partition.values()) > 20
        again = await target.push(*series)
        assert again.status_code == 200
        for labels, samples in series:
            assert len({p for p, stored_labels, _ in target.stored() if stored_labels == list(labels)}) == 1, samples
        assert sorted(item for _, item in target.stored_metadata()) == sorted(metadata)
        assert len({p for p, _ in target.stored_metadata()}) > 1
        series_limits = {record.decode(r.version, r.value).settings.max_series for r in log.records[0]}
        assert series_limits == {150_000 // 4}


async def test_one_failing_partition_fails_the_request_and_a_server_error_wins():
    log = MemoryLog(4)
    log.failures[2] = LogUnavailable("no leader")
    series = [named(b"up", (b"instance", b"host-%03d.example.org" % i)) for i in range(100)]
    async with PushTarget(log=log) as target:
        response = await target.push(*series)
        assert response.text == "send data to partitions: failed pushing to partition 2: no leader\n"
        assert response.status_code == 500
        await asyncio.sleep(0)
        assert all(log.records[p] for p in (0, 1, 3))


async def test_a_request_larger_than_a_record_becomes_several():
    series = [named(b"up", (b"instance", b"%04d" % i + b"x" * 500)) for i in range(100)]
    metadata = [(1, b"f%d" % i, b"h" * 500, b"u") for i in range(30)]
    options = DistributorOptions(max_record_bytes=10_000)
    async with PushTarget(options=options, log=MemoryLog(max_record_bytes=10_000)) as target:
        assert (await target.push(*series, metadata=metadata)).status_code == 200
        assert target.stored() == [(0, list(labels), samples) for labels, samples in series]
        assert target.stored_metadata() == [(0, item) for item in metadata]
        sizes = [len(r.value) for r in target.log.records[0]]
        assert max(sizes) <= 10_000
        assert len(sizes) < 20


async def test_bodies_large_enough_for_a_thread_are_stored_alike():
    series = [named(b"up", (b"instance", b"%05d" % (i * 7919 % 99991) * 10)) for i in range(3000)]
    async with PushTarget() as target:
        assert len(snappy(write_request(series))) > 8192
        assert (await target.push(*series)).status_code == 200
        assert target.stored() == [(0, list(labels), samples) for labels, samples in series]


@pytest.mark.parametrize("partitions", [1, 4])
async def test_values_are_stored_bit_by_bit_when_series_around_them_are_dropped(partitions):
    patterns = [STALE_NAN_BITS, 0x7FF8000000000001, 0x8000000000000000, 0x7FF0000000000000, 1]
    series = []
    for i, bits in enumerate(patterns):
        value = struct.unpack("<d", struct.pack("<Q", bits))[0]
        series += [([(b"__name__", b"up"), (b"host", b"%d.example.org" % i)], [(NOW_MS, value)]), named(b"a-b")]
    async with PushTarget(log=MemoryLog(partitions)) as target:
        assert (await target.push(*series)).status_code == 400
        stored = sorted((labels, struct.pack("<d", samples[0][1])) for _, labels, samples in target.stored())
        assert [value for _, value in stored] == [struct.pack("<Q", bits) for bits in patterns]


async def test_an_answer_names_the_last_offset_in_each_partition_that_got_something():
    async with PushTarget() as target:
        await target.push(named(b"first"))
        answer = await target.push(*(named(b"up", (b"i", b"%d" % i)) for i in range(50)))
        told = decode_offsets(answer.headers["x-read-consistency-offsets"])
        assert told == {partition: records[-1].offset for partition, records in target.log.records.items() if records}
        refused_in_part = await target.push(named(b"good"), named(b"not good"))
        assert refused_in_part.status_code == 400
        told = decode_offsets(refused_in_part.headers["x-read-consistency-offsets"])
        assert told.items() <= {p: r[-1].offset for p, r in target.log.records.items() if r}.items()
        assert "x-read-consistency-offsets" not in (await target.push(named(b"not good"))).headers
        assert "x-read-consistency-offsets" not in (await target.push()).headers
