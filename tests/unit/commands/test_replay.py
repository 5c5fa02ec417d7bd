"""`mimir-ingest replay`: what it prints, and the exit codes that a script goes by."""

import asyncio
import json
import shutil

import pytest
from prometheus_client import CollectorRegistry

from mimir_ingest.bucket.store import Bucket
from mimir_ingest.cli import main
from mimir_ingest.ingester.service import Ingester
from mimir_ingest.log.embedded import EmbeddedLog
from mimir_ingest.obs.metrics import IngesterMetrics
from mimir_ingest.wire.record import VERSION_COLUMNAR, encode_columnar
from tests.support.batches import write_batch
from tests.support.partition_log import NO_LIMITS, files_of

AT_MS = 1_700_000_000_000
CUTS = 3


class Place:
    """An embedded log and a bucket in directories, with some cuts shipped."""

    def __init__(self, folder) -> None:
        self.log_folder, self.bucket_folder = folder / "log", folder / "blocks"
        self.flags = [
            f"-ingest-storage.embedded.path={self.log_folder}",
            f"-blocks-storage.filesystem.dir={self.bucket_folder}",
        ]

    async def use(self, then, **clock):
        log = EmbeddedLog(self.log_folder, partitions=2, **clock)
        await log.start()
        try:
            return await then(log)
        finally:
            await log.close()

    async def fill(self, log) -> None:
        ingester = Ingester(
            log,
            Bucket(str(self.bucket_folder)),
            metrics=IngesterMetrics.create(CollectorRegistry()),
            default_record_settings=lambda tenant: NO_LIMITS,
            trim_delay_s=3600.0,
        )
        await ingester.start()
        await ingester.own([0, 1])
        for cut in range(CUTS + 1):
            for tenant in (b"a", b"b"):
                rows = [({"__name__": "m", "i": str(i)}, [(AT_MS + 1000 * cut, float(i))]) for i in range(5)]
                await log.append(
                    1, tenant, encode_columnar(write_batch(rows), NO_LIMITS), VERSION_COLUMNAR, timeout_s=60
                )
            if cut < CUTS:
                await ingester.flush(None, wait=True)
        await ingester.close()

    def blocks(self):
        return sorted(meta.parent for meta in self.bucket_folder.glob("[!_]*/*/meta.json"))


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    asyncio.run(place.use(place.fill, clock_ms=lambda: AT_MS))
    assert len(place.blocks()) == 2 * CUTS
    return place


@pytest.fixture
def replay(capsys, place):
    def run(*argv):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(["replay", *argv, *place.flags])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return end.value.code, out, err

    return run


def test_code_0_when_every_block_is_as_the_log_says(replay):
    code, out, _ = replay("--partition=1")
    assert code == 0
    assert out.splitlines() == [
        "partition 1: offsets 0 to 11, rebuilt from the log's first record: 11 records, 40 samples, 3 cuts",
        "6 blocks, 6 same",
        "10 samples are in no block yet: no cut point has come since",
    ]


def test_code_3_names_a_block_that_is_missing_and_code_0_once_it_is_shipped(replay, place):
    files, gone = files_of(place.bucket_folder), place.blocks()[1]
    shutil.rmtree(gone)
    code, out, _ = replay("--partition=1")
    assert code == 3
    (line,) = [line for line in out.splitlines() if line.startswith("missing")]
    assert f"{gone.parent.name}/{gone.name}" in line
    assert "5 samples of 2023-11-14T22:13:2" in line
    assert "6 blocks, 5 same, 1 missing" in out
    code, out, _ = replay("--partition=1", "--ship")
    assert (code, "6 blocks, 5 same, 1 shipped" in out) == (0, True)
    assert files_of(place.bucket_folder) == files


def test_code_3_says_where_a_block_differs(replay, place):
    path = place.blocks()[0] / "chunks" / "000001"
    content = bytearray(path.read_bytes())
    content[20] ^= 4
    path.write_bytes(content)
    code, out, _ = replay("--partition=1")
    assert (code, "chunks/000001 differs from byte 20 on" in out) == (3, True)


def test_code_4_when_the_log_was_trimmed_and_all_that_is_left_is_sound(replay, place):
    asyncio.run(place.use(lambda log: log.trim(1, 4)))
    code, out, _ = replay("--partition=1", "--from=0")
    assert code == 4
    assert "offsets 0 to 6 cannot be rebuilt" in out
    assert "4 blocks" not in out
    assert "2 blocks, 2 same" in out
    assert replay("--partition=1")[0] == 0


def test_json_has_every_block(replay, place):
    code, out, _ = replay("--partition=1", "--json", "--from=@1700000000", "--to", "2023-11-14T22:13:20Z")
    assert code == 1  # every record is of that second: there is nothing before it
    code, out, _ = replay("--partition=1", "--json", "--from=@1700000000")
    assert code == 0
    report = json.loads(out)
    assert sorted(block["ulid"] for block in report["blocks"]) == sorted(b.name for b in place.blocks())
    assert {block["verdict"] for block in report["blocks"]} == {"same"}
    assert report["plan"]["from_offset"] == 0
    assert report["not_cut_samples"] == 10


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (["--partition=7"], 1, "there is no partition 7; the log has 0, 1"),
        (["--partition=1", "--from=99"], 1, "nothing to replay in partition 1 from offset 99"),
        (["--partition=1", "--memory-limit=1000"], 1, "the limit is 0 MiB"),
        (["--partition=1", "--memory-limit=much"], 2, "it takes a number of bytes"),
        (["--partition=1", "--from=yesterday"], 2, "no place in a log"),
        (["--partition=1", "-target=nonsense"], 2, "target names"),
        ([], 2, "partition"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence(replay, argv, code, text):
    found, out, err = replay(*argv)
    assert (found, out) == (code, "")
    assert err.startswith("mimir-ingest: ")
    assert text in err


@pytest.mark.parametrize("size", ["0", "64MiB", "1g", "2 GB"])
def test_sizes_may_have_units(replay, size):
    assert replay("--partition=1", f"--memory-limit={size}")[0] == 0
