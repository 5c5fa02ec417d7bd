"""Blocks, judged by Prometheus: it reads ours, and we read its own."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from mimir_ingest.model.matchers import Matcher, MatchType
from mimir_ingest.promql.histogram_text import format_histograms
from mimir_ingest.tsdb import block_tools
from mimir_ingest.tsdb.block_reader import open_files
from mimir_ingest.tsdb.index_writer import ChunkColumns, write_index
from tests.support.blocks import Series, build, make_samples, read_files, sample_series, to_python, write_files
from tests.support.native_series import make_series as make_native
from tests.support.native_series import native_samples
from tests.support.peers import pick_free_port

pytestmark = pytest.mark.peer

EVER = (-(2**63), 2**63 - 1)


def _run(*command: object) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _hard_values() -> list[Series]:
    """Numbers at the edges of Go's notations, strings that need quoting, series whose labels are prefixes."""
    values = [0.0, -0.0, 1e6, 999999.0, 1234567.0, 1e-4, 9.9e-5, 1e21, 1e300, 5e-324, 0.1, 1 / 3, -2.5e-7, math.inf]
    values += [-math.inf, math.nan, 123456.789, 1e5, 100000.5, 2.0**53, 12345678901234567890.0]
    quoted = 'back\\slash "quoted"\n\ttab ü \x7f \u200b 🎈'
    times = [1_700_000_000_000 + t for t in (0, 1, 14_999, 15_000, 8_207, 8_208, 3_600_000, 7_000_000)]
    return [
        (
            {"__name__": "hard"},
            list(zip(range(1_700_000_000_000, 1_700_000_000_000 + len(values)), values, strict=True)),
        ),
        ({"__name__": "hard", "a": quoted}, [(1_700_000_000_500, 1.0)]),
        ({"__name__": "hard", "a": "b", "c": "d"}, [(t, 2.0) for t in sorted(times)]),
        ({"a": "no name"}, [(1_700_000_000_000 + 2**21 * i, float(i)) for i in range(3)]),
    ]


@pytest.mark.parametrize("series", [sample_series(), _hard_values()], ids=["many", "hard"])
def test_promtool_dumps_exactly_the_samples_that_went_in(
    promtool_bin: Path, tmp_path: Path, series: list[Series]
) -> None:
    built = build(make_samples(series))
    write_files(tmp_path, built)
    (tmp_path / "wal").mkdir()
    dumped = _run(promtool_bin, "tsdb", "dump", tmp_path).splitlines()
    ours = list(block_tools.dump(open_files(built.files), histogram_texts=format_histograms))
    assert len(dumped) == sum(len(samples) for _, samples in series)
    assert sorted(ours) == sorted(dumped)


def test_promtool_dumps_what_a_matcher_and_a_time_range_select(promtool_bin: Path, tmp_path: Path) -> None:
    built = build(make_samples(sample_series()))
    write_files(tmp_path, built)
    (tmp_path / "wal").mkdir()
    start, end = 1_700_000_600_000, 1_700_001_900_000
    options = [f"--min-time={start}", f"--max-time={end}", '--match={job!="job-1",zone=~"eu|"}']
    dumped = _run(promtool_bin, "tsdb", "dump", *options, tmp_path).splitlines()
    matchers = [Matcher(MatchType.NOT_EQUAL, "job", "job-1"), Matcher(MatchType.REGEXP, "zone", "eu|")]
    ours = list(block_tools.dump(open_files(built.files), matchers, start, end, histogram_texts=format_histograms))
    assert ours
    assert sorted(ours) == sorted(dumped)


def test_promtool_dumps_native_histograms_as_we_do(promtool_bin: Path, tmp_path: Path) -> None:
    series = make_native(1_700_006_400_000, 300)
    built = build(native_samples(series))
    write_files(tmp_path, built)
    (tmp_path / "wal").mkdir()
    dumped = _run(promtool_bin, "tsdb", "dump", tmp_path).splitlines()
    ours = list(block_tools.dump(open_files(built.files), histogram_texts=format_histograms))
    assert len(dumped) == sum(len(samples) for _, samples in series)
    assert sorted(ours) == sorted(dumped)
    text = _run(promtool_bin, "tsdb", "analyze", "--extended", tmp_path, built.ulid)
    assert f"Total Series: {len(series)}\n" in text


def test_promtool_analyzes_our_blocks(promtool_bin: Path, tmp_path: Path) -> None:
    series = sample_series()
    built = build(make_samples(series))
    write_files(tmp_path, built)
    text = _run(promtool_bin, "tsdb", "analyze", tmp_path, built.ulid)
    pairs = {pair for labels, _ in series for pair in labels.items()}
    assert f"Block ID: {built.ulid}" in text
    assert "Total Series: 40\n" in text
    assert "Label names: 4\n" in text
    assert f"Postings (unique label pairs): {len(pairs)}\n" in text
    assert f"Postings entries (total label pairs): {sum(len(labels) for labels, _ in series)}\n" in text
    listed = _run(promtool_bin, "tsdb", "list", tmp_path).splitlines()[1].split()
    assert listed[0] == built.ulid
    assert int(listed[4]) == sum(len(samples) for _, samples in series)


def _open_metrics(series: list[Series]) -> str:
    lines = ["# TYPE metric gauge"]
    for labels, samples in series:
        pairs = ",".join(f'{name}="{value}"' for name, value in labels.items() if name != "__name__")
        lines += [f"{labels['__name__']}{{{pairs}}} {value!r} {time / 1000:.3f}" for time, value in samples]
    return "\n".join([*lines, "# EOF\n"])


@pytest.fixture(scope="module")
def prometheus_blocks(promtool_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Series], list[Path]]:
    """Series over five hours, and the blocks that promtool makes of them."""
    series = [
        (
            {"__name__": "metric", "host": f"h{i:02d}", "job": f"j{i % 3}"} | ({"rare": "x"} if i % 5 == 0 else {}),
            [(1_700_000_000_000 + 15_000 * j, math.sin(i * j) if i % 2 else float(i * j)) for j in range(1200)],
        )
        for i in range(25)
    ]
    folder = tmp_path_factory.mktemp("prometheus-blocks")
    (folder / "input.om").write_text(_open_metrics(series))
    _run(promtool_bin, "tsdb", "create-blocks-from", "openmetrics", folder / "input.om", folder / "out")
    blocks = sorted(path for path in (folder / "out").iterdir() if path.is_dir())
    assert len(blocks) > 1
    return series, blocks


def test_blocks_of_prometheus_are_read_bit_for_bit(prometheus_blocks: tuple[list[Series], list[Path]]) -> None:
    series, blocks = prometheus_blocks
    found: dict[str, list[tuple[int, int]]] = {}
    for block in blocks:
        reader = open_files(read_files(block))
        assert reader.verify() == []
        for labels, samples in to_python(reader.select([], *EVER)):
            found.setdefault(json.dumps(labels), []).extend(samples)
    expected = to_python(make_samples(series))
    assert {key: sorted(samples) for key, samples in found.items()} == {json.dumps(k): v for k, v in expected}


def test_our_index_of_prometheus_s_series_is_prometheus_s_index(
    prometheus_blocks: tuple[list[Series], list[Path]],
) -> None:
    for block in prometheus_blocks[1]:
        index = (block / "index").read_bytes()
        reader = open_files(read_files(block)).index
        entries = reader.series(reader.all_postings())
        assert write_index(entries.labels, ChunkColumns(entries.chunk_offsets, entries.chunks)) == index


def test_our_chunks_of_prometheus_s_samples_are_prometheus_s_chunks(
    prometheus_blocks: tuple[list[Series], list[Path]],
) -> None:
    """Prometheus may end a chunk early, to fill its range evenly; where both cut alike, the bytes are equal."""
    alike = 0
    for block in prometheus_blocks[1]:
        theirs = read_files(block)
        samples = open_files(theirs).select([], *EVER)
        ours = build(samples).files
        data = [open_files(files) for files in (theirs, ours)]
        chunks = []
        for reader in data:
            entries = reader.index.series(reader.index.all_postings())
            read = reader.read_all_chunks(entries)
            chunks.append(
                {
                    (series, tuple(entries.chunks[:2, chunk].tolist())): read.buffer[a:b].tobytes()
                    for series, (first, last) in enumerate(
                        zip(entries.chunk_offsets, entries.chunk_offsets[1:], strict=False)
                    )
                    for chunk, (a, b) in enumerate(zip(read.starts, read.ends, strict=True))
                    if first <= chunk < last
                }
            )
        both = chunks[0].keys() & chunks[1].keys()
        assert {key: chunks[0][key] for key in both} == {key: chunks[1][key] for key in both}
        alike += len(both)
    assert alike >= 25


@contextlib.contextmanager
def _running_prometheus(prometheus_bin: Path, folder: Path) -> Iterator[str]:
    port = pick_free_port()
    (folder / "prometheus.yml").write_text("global: {}\n")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                str(prometheus_bin),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--storage.tsdb.retention.time=100y",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 120
            while True:
                with contextlib.suppress(urllib.error.URLError, ConnectionError):
                    urllib.request.urlopen(f"{url}/-/ready", timeout=5).read()
                    break
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.1)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _get(url: str, path: str, **parameters: object) -> list:
    query = urllib.parse.urlencode(parameters, doseq=True)
    with urllib.request.urlopen(f"{url}/api/v1/{path}?{query}", timeout=30) as response:
        body = json.load(response)
    assert body["status"] == "success"
    return body["data"]


def test_a_prometheus_started_on_our_blocks_answers_from_them(prometheus_bin: Path, tmp_path: Path) -> None:
    """Two ranges of two partitions: four blocks, of which pairs overlap in time."""
    base = 1_700_006_400_000  # a multiple of two hours
    series = [
        ({"__name__": "requests_total", "pod": f"p{i}"}, [(base + 15_000 * j, float(i * j)) for j in range(900)])
        for i in range(20)
    ]
    boundary = base + 7_200_000
    for partition in range(2):
        for inside in (lambda t: t < boundary, lambda t: t >= boundary):
            own = [(labels, [s for s in samples if inside(s[0])]) for labels, samples in series[partition::2]]
            write_files(tmp_path / "data", build(make_samples(own), cut_offset=partition))
    with _running_prometheus(prometheus_bin, tmp_path) as url:
        times = {"start": base / 1000, "end": base / 1000 + 900 * 15}
        assert _get(url, "label/pod/values", **times) == sorted(f"p{i}" for i in range(20))
        assert len(_get(url, "series", **{"match[]": "requests_total"}, **times)) == 20
        matrix = _get(url, "query", query="requests_total[4h]", time=base / 1000 + 900 * 15)["result"]
        found = {row["metric"]["pod"]: [(round(t * 1000), float(v)) for t, v in row["values"]] for row in matrix}
        assert found == {labels["pod"]: samples for labels, samples in series}
        rate = _get(url, "query", query="sum(rate(requests_total[10m]))", time=boundary / 1000 + 300)["result"]
        assert float(rate[0]["value"][1]) == pytest.approx(sum(range(20)) / 15)
