"""What is in the cache is loaded, not compiled: a start with a warm cache makes no process."""

import re
from pathlib import Path

import pytest

import mimir_ingest.kernels as package
from mimir_ingest.kernels import warm


@pytest.fixture
def _no_processes(monkeypatch):
    warm.warm(names=warm.modules())

    def refuse(*arguments: object) -> None:
        raise AssertionError("a process to compile in")

    monkeypatch.setattr(warm, "ProcessPoolExecutor", refuse)


@pytest.mark.usefixtures("_no_processes")
def test_a_warm_cache_is_known_to_be_warm_and_compiles_nothing():
    told = []
    assert not warm.is_cold()
    assert warm.warm(lambda *progress: told.append(progress), names=warm.modules()) == len(warm.modules())
    assert [name for name, _, _ in told] == warm.modules()
    assert [done for _, done, _ in told] == list(range(1, len(told) + 1))


def test_modules_are_all_those_with_a_kernel():
    sources = Path(package.__path__[0]).glob("[!_]*.py")
    assert warm.modules() == sorted(p.stem for p in sources if re.search(r"^@kernel\(", p.read_text(), re.MULTILINE))
    assert "crc32c" in warm.modules()
    assert "protobuf" not in warm.modules()
