"""The command line: what each command prints, exit codes, no traceback for what a user got wrong."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from mimir_ingest import __version__
from mimir_ingest.cli import main
from mimir_ingest.config.reference import render_reference
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.samples import SeriesSamples
from mimir_ingest.tsdb.block_writer import build_block

HOUR_MS = 3_600_000


@pytest.fixture
def run(capsys):
    def run(*argv):
        with pytest.raises(SystemExit) as end:
            main(argv)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return end.value.code, out, err

    return run


@pytest.fixture
def block(tmp_path):
    labels = LabelFrame.from_dicts([{"__name__": "up", "job": "a"}, {"__name__": "up", "job": 'b "c"'}])
    times = np.array([HOUR_MS, HOUR_MS + 15_000, HOUR_MS + 500], dtype=np.int64)
    samples = SeriesSamples(labels, np.array([0, 2, 3]), times, np.array([1.0, 0.25, np.inf]))
    built = build_block(samples, tenant="t", partition=3, topic_id="topic", start_offset=5, cut_offset=9)
    folder = tmp_path / "t" / built.ulid
    for name, content in built.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("flag", ["-version", "--version", "-version=true"])
def test_version(run, flag):
    code, out, _ = run(flag)
    assert (code, out.startswith(f"mimir-ingest, version {__version__} ")) == (0, True)


@pytest.mark.parametrize("argv", [["-help"], ["--help"], ["-h"], ["serve", "--help"], ["serve", "-help"]])
def test_help_is_complete(run, argv):
    code, out, _ = run(*argv)
    assert code == 0
    for text in ("serve", "config", "block", "warm", "-server.http-listen-port int", "(default 8080)", "-config.file"):
        assert text in out
    assert "-memberlist.join" not in out


def test_help_all_lists_what_has_no_effect(run):
    _, out, _ = run("-help-all")
    assert "-memberlist.join list of strings" in out


@pytest.mark.parametrize(
    "argv",
    [
        ["config"],
        ["warm"],
        ["downscale"],
        ["upscale"],
        ["block"],
        ["block", "inspect"],
        ["log", "inspect"],
        ["log", "set-partition-settings"],
    ],
)
def test_every_command_has_help(run, argv):
    code, out, err = run(*argv, "--help")
    assert code == 0
    assert "Usage: mimir-ingest" in out + err


def test_modules_are_the_targets(run):
    listed = run("-modules")[1].partition("\n\n")[0].splitlines()
    assert listed == ["all", "backend", "bucket-upkeep *", "distributor *", "ingester *", "querier *", "read", "write"]


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["-nonsense-flag=1"], "unknown flag -nonsense-flag"),
        (["-server.http-listen-prt=1"], "did you mean -server.http-listen-port?"),
        (["-target=x"], "target names"),
        (["serve", "-target=x"], "target names"),
        (["serve", "now"], 'unexpected argument "now"'),
        (["-config.file=/does/not/exist"], "No such file"),
        (["bogus"], "No such command 'bogus'"),
        (["block", "bogus"], "No such command 'bogus'"),
        (["block", "inspect"], "Missing argument"),
        (["block", "dump", ".", "--min-time", "x"], "min-time"),
        (["config", "--mode", "sideways"], "it takes full, diff or defaults"),
        (["config", "-target=x"], "target names"),
        (["log", "inspect", "-ingest-storage.embedded.path=/none"], "there is no embedded log in /none"),
        (["log", "inspect", "--limit", "x"], "limit"),
        (["log", "set-partition-settings", "--partition", "0"], "name what to change"),
        (["log", "set-partition-settings", "--partition", "0", "range_ms=x"], "name what to change"),
        (["config", "stray"], 'unexpected argument "stray"'),
    ],
)
def test_what_cannot_be_used_ends_with_code_2_and_a_sentence(run, argv, text):
    code, out, err = run(*argv)
    assert (code, out) == (2, "")
    assert err.startswith("mimir-ingest: ")
    assert text in err


def test_config_prints_the_effective_configuration(run, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("server: {log_level: warn}\nmemberlist: {join_members: [a]}\n")
    argv = [
        "-config.file",
        str(file),
        "-blocks-storage.s3.access-key-id=x",
        "-blocks-storage.s3.secret-access-key=hush",
    ]
    code, out, err = run("config", "--mode", "diff", *argv)
    assert code == 0
    assert yaml.safe_load(out) == {
        "server": {"log_level": "warn"},
        "blocks_storage": {"s3": {"access_key_id": "x", "secret_access_key": "********"}},
        "memberlist": {"join_members": ["a"]},
    }
    assert "memberlist.join_members has no effect here" in err
    assert yaml.safe_load(run("config", *argv)[1])["server"]["log_level"] == "warn"
    assert yaml.safe_load(run("config", "--mode=defaults", *argv)[1])["server"]["log_level"] == "info"


def test_config_prints_the_reference_page(run):
    assert run("config", "--reference")[1] == render_reference()


def test_block_inspect_says_what_a_block_holds(run, block):
    code, out, _ = run("block", "inspect", str(block))
    assert code == 0
    where = "partition 3 of topic topic, offsets 5 to 9"
    facts = (block.name, "series      2", "samples     3", "1970-01-01 01:00:00Z", where)
    for text in (*facts, "values of label job", "series of metric up"):
        assert text in out
    summary = json.loads(run("block", "inspect", "--json", str(block))[1])
    assert (summary["series_count"], summary["partition_range"]["cut_offset"]) == (2, 9)


def test_block_verify_tells_sound_from_broken(run, block):
    code, out, _ = run("block", "verify", str(block))
    assert (code, out) == (0, f"block {block.name} is sound: 2 series, 3 samples\n")
    segment = block / "chunks" / "000001"
    content = bytearray(segment.read_bytes())
    content[-1] ^= 1
    segment.write_bytes(content)
    code, out, _ = run("block", "verify", str(block))
    assert code == 1
    assert out.strip()


@pytest.mark.parametrize("command", ["inspect", "verify", "dump"])
def test_a_folder_that_is_no_block_is_told_in_a_sentence(run, tmp_path, command):
    code, out, err = run("block", command, str(tmp_path))
    assert (code, out) == (1, "")
    assert "is not a block" in err


@pytest.mark.parametrize("command", ["inspect", "verify", "dump"])
def test_a_broken_index_is_told_in_a_sentence(run, block, command):
    (block / "index").write_bytes(b"\x00" * 100)
    code, _, err = run("block", command, str(block))
    assert code == 1
    assert err.startswith("mimir-ingest: ")


def test_block_dump_takes_a_selector_and_times(run, block):
    lines = run("block", "dump", str(block))[1].splitlines()
    assert len(lines) == 3
    assert run("block", "dump", str(block), "--match", '{job="a"}')[1].splitlines() == lines[:2]
    assert run("block", "dump", str(block), "--max-time", str(HOUR_MS))[1].splitlines() == lines[:1]
    code, _, err = run("block", "dump", str(block), "--match", "{job=")
    assert (code, err.startswith("mimir-ingest: ")) == (2, True)


@pytest.mark.peer
def test_block_dump_prints_what_promtool_prints(run, block, promtool_bin):
    (block.parent / "wal").mkdir()  # promtool opens a whole database
    dumped = subprocess.run(
        [promtool_bin, "tsdb", "dump", str(block.parent)], capture_output=True, text=True, check=True
    ).stdout
    assert sorted(run("block", "dump", str(block))[1].splitlines()) == sorted(dumped.splitlines())


def test_log_inspect_finds_the_log_by_the_servers_flags(run, tmp_path):
    from mimir_ingest.log.embedded import EmbeddedLog

    async def make():
        log = EmbeddedLog(tmp_path, partitions=2)
        await log.start()
        await log.close()

    asyncio.run(make())
    flags = [f"-ingest-storage.embedded.path={tmp_path}", "-ingester.ring.instance-id=me"]
    code, out, _ = run("log", "inspect", *flags)
    assert code == 0
    assert out.splitlines()[0].endswith("committed positions of group me")
    assert [line.split()[0] for line in out.splitlines()[2:]] == ["PARTITION", "0", "1"]
    code, _, err = run("log", "inspect", "--partition", "5", *flags)
    assert (code, "there is no partition 5" in err) == (1, True)


def test_partition_settings_are_changed_by_a_record_of_the_log(run, tmp_path):
    from mimir_ingest.log.embedded import EmbeddedLog
    from mimir_ingest.wire.record import VERSION_CONTROL, decode_control

    async def use(then):
        log = EmbeddedLog(tmp_path, partitions=2)
        await log.start()
        try:
            return await then(log)
        finally:
            await log.close()

    asyncio.run(use(EmbeddedLog.partitions))
    command = ["log", "set-partition-settings", f"-ingest-storage.embedded.path={tmp_path}"]
    code, out, _ = run(*command, "--partition=1", "cut_max_samples=1000", "grace_ms=60000")
    assert (code, out) == (0, "partition 1: record 0 changes cut_max_samples to 1000, grace_ms to 60000\n")
    (record,) = asyncio.run(use(lambda log: log.read(1, 0, max_bytes=1000, max_wait_s=1)))
    assert record.version == VERSION_CONTROL
    assert decode_control(record.value).settings == {"cut_max_samples": 1000, "grace_ms": 60000}
    for change, text in [
        ("cut_samples=1", "no partition setting cut_samples; there are range_ms, grace_ms, cut_max_samples"),
        ("range_ms=5", "out of range"),
        ("encoder_version=9", "encoder version 9"),
    ]:
        code, _, err = run(*command, "--partition=1", change)
        assert (code, text in err) == (2, True)
    assert run(*command, "--partition=7", "grace_ms=1")[0] == 1
    assert asyncio.run(use(lambda log: log.end_offset(1))) == 1


def test_output_may_end_early():
    program = [str(Path(sys.executable).parent / "mimir-ingest"), "-help-all"]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0


@pytest.mark.parametrize("group", ["block", "log"])
def test_the_help_of_a_group_names_its_commands_in_whole_sentences(run, group):
    code, out, _ = run(group, "--help")
    listed = out.partition("Commands:\n")[2].strip().splitlines()
    assert code == 0
    assert len(listed) >= 2
    assert [line for line in listed if not line.endswith(".") or line.endswith("...")] == []


def test_warm_compiles_every_kernel_module(run):
    from mimir_ingest.kernels.warm import modules

    code, _, err = run("warm")
    assert code == 0
    assert f"{len(modules())} kernel modules are compiled" in err
