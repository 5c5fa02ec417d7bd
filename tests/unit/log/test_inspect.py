"""`log inspect` shows partitions and records, on any log of the contract."""

import pytest

from mimir_ingest.errors import LogError, LogUnavailable
from mimir_ingest.log.embedded import EmbeddedLog
from mimir_ingest.log.inspect import inspect_log
from mimir_ingest.wire.record import VERSION_COLUMNAR, VERSION_V0, RecordSettings, encode_columnar
from tests.support.batches import write_batch

ROWS = [({"__name__": "up", "job": "a"}, [(1, 1.0), (2, 2.0)]), ({"__name__": "up", "job": "b"}, [(1, 3.0)])]


@pytest.fixture
async def folder(tmp_path):
    log = EmbeddedLog(tmp_path, partitions=2, clock_ms=lambda: 1_700_000_000_250)
    await log.start()
    value = bytes(
        encode_columnar(write_batch(ROWS), RecordSettings(max_series=0, out_of_order_window_ms=0, creation_grace_ms=1))
    )
    for tenant in (b"team-a", b"team-b"):
        await log.append(1, tenant, value, VERSION_COLUMNAR, timeout_s=60)
    await log.append(1, b"team-c", b"\xff\xff", VERSION_V0, timeout_s=60)
    await log.append(1, b"team-d", b"x", 77, timeout_s=60)
    await log.commit("group", 1, 3)
    await log.close()
    return tmp_path


async def inspect(folder, **options):
    options = {"group": "group", "partition": None, "offset": None, "limit": 20, "timeout_s": 10, **options}
    return await inspect_log(EmbeddedLog(folder, partitions=2), **options)


async def test_partitions_are_shown_with_offsets_and_lag(folder):
    lines = await inspect(folder)
    assert lines[0].endswith("committed positions of group group")
    assert [line.split() for line in lines[2:]] == [
        ["PARTITION", "START", "END", "RECORDS", "COMMITTED", "LAG"],
        ["0", "0", "0", "0", "-", "-"],
        ["1", "0", "4", "4", "3", "1"],
    ]


async def test_records_are_shown_with_what_they_hold(folder):
    header, *lines = await inspect(folder, partition=1)
    assert header.split() == ["OFFSET", "TIME", "TENANT", "VERSION", "BYTES", "CONTENT"]
    assert lines[0].split()[:4] == ["0", "2023-11-14T22:13:20.250Z", "team-a", "columnar"]
    assert lines[0].endswith("2 series, 3 samples, 0 metadata")
    assert lines[2].split()[2:5] == ["team-c", "0", "2"]
    assert "cannot be read: " in lines[2]
    assert "cannot be read: " in lines[3]


@pytest.mark.parametrize(
    ("options", "offsets"),
    [
        ({"offset": 1, "limit": 2}, ["1", "2"]),
        ({"offset": -1}, ["3"]),
        ({"offset": -99, "limit": 1}, ["0"]),
        ({"offset": 4}, []),
    ],
)
async def test_first_record_and_number_can_be_chosen(folder, options, offsets):
    lines = await inspect(folder, partition=1, **options)
    assert [line.split()[0] for line in lines[1:]] == offsets


async def test_what_is_not_there_is_told(folder):
    with pytest.raises(LogError, match="there is no partition 7; the log has 0, 1"):
        await inspect(folder, partition=7)


async def test_a_log_that_does_not_answer_is_given_up(folder):
    with pytest.raises(LogUnavailable, match=r"within 1e-09 s"):
        await inspect(folder, timeout_s=1e-9)
