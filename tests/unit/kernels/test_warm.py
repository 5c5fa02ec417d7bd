"""What is in the cache is loaded, not compiled: a start with a warm cache makes no process."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import mimir_ingest.kernels as package
from mimir_ingest.kernels import warm
from tests.support.observe import wait_until


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


def children(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def ended(pid: int) -> bool:
    """Whether a process is gone, or nobody has asked yet how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_processes_that_compile_end_with_the_one_that_began_them(tmp_path, end):
    command = [str(Path(sys.executable).parent / "mimir-ingest"), "warm", "--needed-at-start"]
    environment = os.environ | {"MIMIR_INGEST_KERNEL_CACHE": str(tmp_path / "cache")}

    def heed_interrupts():  # which a shell's background jobs ignore, and hand on
        signal.signal(signal.SIGINT, signal.default_int_handler)

    popen = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, preexec_fn=heed_interrupts)
    with popen as process:
        wait_until(lambda: len(children(process.pid)) > 1, "processes that compile")
        compiling = children(process.pid)
        process.send_signal(end)
        assert process.wait(60) != 0
    wait_until(lambda: all(map(ended, compiling)), "the end of all processes")


def test_a_process_ends_with_its_parent_when_asked_to():
    child = "import os, time; from mimir_ingest.kernels.warm import end_with;"
    child += "end_with(os.getppid()); print(os.getpid(), flush=True); time.sleep(300)"
    shell = f"{sys.executable} -c '{child}' & exec sleep 300"
    with subprocess.Popen(["sh", "-c", shell], stdout=subprocess.PIPE) as process:
        pid = int(process.stdout.readline())
        assert not ended(pid)
        process.kill()
    wait_until(lambda: ended(pid), "its end")
