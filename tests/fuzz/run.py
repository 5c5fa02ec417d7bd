"""Damage to every decoder for hours: `python -m tests.fuzz.run --seconds 3600 --report FILE [--only TEXT] [--guided]`.

The report has a line of JSON a minute and one for every error that a decoder does not name: counts, slowest inputs,
processor time, and memory: resident, of that what malloc has given out, and Python's blocks. What was being decoded
when the process died is in FILE.last.

Memory stays the same, but for `--guided`: atheris 3.0 never lets go of what an instrumented comparison of numpy arrays
gave, some 1.5 MB a minute. Its corpus (FILE's name with .corpus) decoded again without it shows that.
"""

from __future__ import annotations

import argparse
import importlib
import json
import mmap
import os
import pkgutil
import random
import resource
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

from mimir_ingest import kernels
from tests.fuzz.decoder import Decoder
from tests.soak.watched import native_memory
from tests.support.mutations import mutations

SLICE = 200
"""Texts to one decoder before the next has its turn."""
SLOW_S = 1.0
"""Processor time above which an input is reported."""


def all_decoders() -> dict[str, Decoder]:
    """Return the decoders by name."""
    from tests.fuzz import edge, language, stored

    return {**edge.DECODERS, **language.DECODERS, **stored.DECODERS}


def resident_kib() -> int:
    """Return what this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 10


class Run:
    """Counts, times and reports."""

    def __init__(self, report: Path) -> None:
        self._report = report.open("a", encoding="utf-8")
        self.inputs: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.slowest: dict[str, tuple[float, int]] = {}
        self._seen: set[tuple[str, str]] = set()
        self._begun = self._told = time.monotonic()
        last = os.open(f"{report}.last", os.O_RDWR | os.O_CREAT)
        os.ftruncate(last, 1 << 20)
        self._last = mmap.mmap(last, 1 << 20)

    def write(self, **fields: object) -> None:
        self._report.write(json.dumps(fields) + "\n")
        self._report.flush()

    def one(self, name: str, decoder: Decoder, data: bytes) -> None:
        """Give one text to one decoder."""
        shown = f"{name}\n{len(data)}\n".encode() + data
        self._last[: min(len(shown), 1 << 20)] = shown[: 1 << 20]
        begun = time.thread_time()
        self.inputs[name] += 1
        try:
            decoder.decode(data)
        except decoder.errors:
            self.refused[name] += 1
        except Exception as error:
            self._unexpected(name, data, error)
        took = time.thread_time() - begun
        if took > self.slowest.get(name, (0.0, 0))[0]:
            self.slowest[name] = took, len(data)
            if took > SLOW_S:
                self.write(slow=name, seconds=took, size=len(data), data=data[:20000].hex())
        if time.monotonic() - self._told > 60:
            self.tell()

    def _unexpected(self, name: str, data: bytes, error: Exception) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if "/mimir_ingest/" in f.filename or "/partitions/" in f.filename]
        place = ours[-1] if ours else frames[-1]
        where = f"{place.filename.rpartition('/mimir_ingest/')[2]}:{place.lineno}"
        if (name, where) in self._seen:
            return
        self._seen.add((name, where))
        self.write(
            unexpected=name,
            where=where,
            error=repr(error)[:300],
            data=data[:20000].hex(),
            trace=traceback.format_exc()[-2500:],
        )

    def tell(self) -> None:
        """Write a line of how far it is."""
        self._told = time.monotonic()
        self.write(
            at_s=round(self._told - self._begun),
            cpu_s=round(time.process_time()),
            rss_kib=resident_kib(),
            native_mib=native_memory().get("used", 0) >> 20,
            blocks=sys.getallocatedblocks(),
            inputs=dict(self.inputs),
            refused=dict(self.refused),
            slowest={name: [round(took, 3), size] for name, (took, size) in self.slowest.items()},
        )


def fuzz_blindly(run: Run, decoders: dict[str, Decoder], until_s: float, seed: int) -> None:
    """Give every decoder its share of damaged texts until it is time."""
    turn = seed
    while time.monotonic() < until_s:
        turn += 1
        for name, decoder in decoders.items():
            share = time.monotonic() + 2.0
            for data in mutations(decoder.corpus, SLICE, turn):
                run.one(name, decoder, decoder.seal(data))
                if time.monotonic() > share:
                    break


def fuzz_guided(run: Run, decoders: dict[str, Decoder], seconds: float, folder: Path) -> None:
    """Let libFuzzer find texts by what they reach in the Python half; the first byte says whose turn it is."""
    import atheris

    names = list(decoders)
    chance = random.Random()
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        for i, data in enumerate(decoders[name].corpus):
            (folder / f"seed-{number}-{i}").write_bytes(bytes([number]) + data)

    def give(data: bytes) -> None:
        if data:
            name = names[data[0] % len(names)]
            run.one(name, decoders[name], decoders[name].seal(data[1:]))

    def mutate(data: bytes, size: int, seed: int) -> bytes:
        if chance.random() < 0.5 and data:
            name = names[data[0] % len(names)]
            corpus = [data[1:], *decoders[name].corpus]
            return data[:1] + next(iter(mutations(corpus, 1, seed)))[: size - 1]
        return atheris.Mutate(data, size)

    arguments = [sys.argv[0], str(folder), f"-max_total_time={int(seconds)}", "-max_len=8192", "-rss_limit_mb=4096"]
    arguments += ["-timeout=60", "-print_final_stats=1", "-verbosity=0"]
    atheris.Setup(arguments, give, custom_mutator=mutate)
    atheris.Fuzz()


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--only", default="", help="names of decoders contain one of these, comma-separated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guided", action="store_true", help="by coverage; needs atheris")
    given = parser.parse_args()
    if given.guided:
        import atheris

        for module in pkgutil.iter_modules(kernels.__path__):  # numba does not compile what atheris has rewritten
            importlib.import_module(f"mimir_ingest.kernels.{module.name}")
        with atheris.instrument_imports(include=["mimir_ingest", "partitions"]):
            decoders = all_decoders()
    else:
        decoders = all_decoders()
    only = given.only.split(",")
    chosen = {name: decoder for name, decoder in decoders.items() if any(part in name for part in only)}
    run = Run(given.report)
    for name, decoder in chosen.items():
        for whole in decoder.corpus:
            run.one(name, decoder, whole)
    run.tell()
    if given.guided:
        fuzz_guided(run, chosen, given.seconds, given.report.with_suffix(".corpus"))
    else:
        fuzz_blindly(run, chosen, time.monotonic() + given.seconds, given.seed)
    run.tell()


if __name__ == "__main__":
    main()
