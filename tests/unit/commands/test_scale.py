"""`downscale` and `upscale` on an embedded log: what is refused is a sentence, what is done is told."""

import asyncio

import pytest

from mimir_ingest.cli import main
from mimir_ingest.log.embedded import EmbeddedLog
from partitions import edits
from partitions.kv.sqlite import SqliteRingStore
from partitions.model import PartitionState
from partitions.watch import RingWatcher


@pytest.fixture
def place(tmp_path):
    """An embedded log with two partitions, both ACTIVE in its ring."""
    asyncio.run(make(tmp_path))
    return tmp_path


async def make(folder):
    log = EmbeddedLog(folder / "log", partitions=2)
    watcher = RingWatcher(SqliteRingStore(folder / "log" / "log.sqlite"), writer="test")
    await log.start()
    await watcher.start()
    for number in (0, 1):
        await watcher.change(lambda desc, n=number: edits.create_partition(desc, n, 1))
        await watcher.change(lambda desc, n=number: edits.change_state(desc, n, PartitionState.ACTIVE, 2))
    await watcher.change(lambda desc: edits.lock(desc, 0, True, 3))
    await watcher.close()
    await log.close()


def run(capsys, place, *argv):
    """Return exit code, stdout and stderr."""
    flags = [f"-ingest-storage.embedded.path={place / 'log'}", f"-blocks-storage.filesystem.dir={place / 'blocks'}"]
    with pytest.raises(SystemExit) as end:
        main([*argv, *flags])
    out, err = capsys.readouterr()
    return end.value.code, out, err


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["downscale", "--partition", "9"], "there is no partition 9 in the ring; there are: 0, 1"),
        (["downscale", "--partition", "0"], "the state of partition 0 is locked"),
        (["upscale", "--partitions", "1"], "take it out with downscale --partition 1"),
        (["downscale", "--partition", "1", "--timeout", "100ms"], "not done within 0.1 s"),
    ],
)
def test_what_is_refused_or_not_done_ends_with_code_1_and_a_sentence(capsys, place, argv, reason):
    code, out, err = run(capsys, place, *argv)
    assert (code, out) == (1, "")
    assert reason in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["downscale", "--partition", "1", "--wait-fixed", "long"], "--wait-fixed"),
        (["downscale", "--partition", "1", "--timeout", "-1s"], "--timeout is -1s; it cannot be negative"),
        (["downscale"], "Missing option '--partition'"),
        (["upscale", "--partitions", "0"], "--partitions"),
    ],
)
def test_what_cannot_be_read_ends_with_code_2(capsys, place, argv, reason):
    code, out, err = run(capsys, place, *argv)
    assert (code, out) == (2, "")
    assert reason in err


def test_what_is_so_already_is_done(capsys, place):
    assert run(capsys, place, "upscale", "--partitions", "2")[:2] == (0, "partitions 0 to 1 are ACTIVE\n")


def test_partitions_are_added_to_log_and_ring_and_wait_for_an_owner(capsys, place):
    code, _, err = run(capsys, place, "upscale", "--partitions", "3", "--timeout", "3s")
    assert code == 1
    assert "the log has 3 partitions" in err
    assert "partitions 2 are in the ring, PENDING" in err
    assert "waiting for partitions 2 to become ACTIVE" in err
