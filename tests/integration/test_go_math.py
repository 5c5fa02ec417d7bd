"""Mathematical functions, powers and angles: bit for bit as a real Prometheus computes them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from mimir_ingest.promql.operators.binary import compute
from mimir_ingest.promql.operators.elementwise import MATH
from tests.support import histogram_corpus
from tests.support.query_judge import judge_of

pytestmark = pytest.mark.peer

_AT_MS = 1_700_000_000_000
_ODD = (
    *(0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, math.inf, -math.inf, 1e-320, 5e-324, 1e300, 1e308, -1e300, 2.0**29),
    *(2.0**29 - 1, 0.7, 0.66, 2.414213562373095, 1.7e9, 21.0, 709.78, -745.2, -708.5, 710.0, 1e16, 0.625, 44.1),
    *(2.0**28, 2.0**-28, 2.0**-30, 2.0**-55, 0.41421356, -0.29289, -718.4, -744.1, 1e22, 2.0**53),
)
_EXPONENTS = (2.0, 3.0, -2.0, 0.5, -0.5, 0.3, -1.7, 7.0, 100.0, math.pi, 31.0, math.inf, -math.inf, 0.0, 1.0, 1e300)
_FUNCTIONS = sorted(MATH)


def _numbers() -> tuple[list[float], list[float]]:
    """Return numbers of every size, and as many exponents."""
    rng = random.Random(3)
    numbers = list(_ODD)
    for _ in range(150):
        numbers += [rng.uniform(-1, 1), rng.uniform(-50, 50), rng.uniform(-800, 800), rng.uniform(0, 2e9)]
        numbers += [rng.choice((1, -1)) * math.exp(rng.uniform(-300, 300)), rng.randint(-300, 300) / 8]
    exponents = [rng.choice((*_EXPONENTS, rng.uniform(-10, 10), float(rng.randint(-40, 40)))) for _ in numbers]
    return numbers, exponents


@pytest.fixture(scope="module")
def client(prometheus_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    numbers, exponents = _numbers()
    series: list[histogram_corpus.Series] = [
        ({"__name__": name, "i": str(i)}, [(_AT_MS, value)])
        for name, values in (("x", numbers), ("y", exponents))
        for i, value in enumerate(values)
    ]
    with judge_of(prometheus_bin, tmp_path_factory.mktemp("prometheus"), series, batch=len(series)) as judge:
        yield judge.client


def _answer(client: httpx.Client, expr: str, count: int) -> np.ndarray:
    found = client.get("/api/v1/query", params={"query": expr, "time": _AT_MS / 1000}).json()["data"]["result"]
    out = np.full(count, np.inf)
    for sample in found:
        out[int(sample["metric"]["i"])] = float(sample["value"][1])
    assert len(found) == count
    return out


def _assert_same_bits(got: np.ndarray, expected: np.ndarray, numbers: list[float]) -> None:
    same = (got.view(np.uint64) == expected.view(np.uint64)) | (np.isnan(got) & np.isnan(expected))
    wrong = [(numbers[i], got[i], expected[i]) for i in np.flatnonzero(~same)[:5]]
    assert not wrong, f"{np.count_nonzero(~same)} of {len(numbers)}: {wrong}"


@pytest.mark.parametrize("name", _FUNCTIONS)
def test_a_function_has_the_bits_of_prometheus(client: httpx.Client, name: str) -> None:
    numbers = _numbers()[0]
    with np.errstate(all="ignore"):
        got = MATH[name](np.array(numbers))
    _assert_same_bits(got, _answer(client, f"{name}(x)", len(numbers)), numbers)


@pytest.mark.parametrize("op", ["^", "atan2", "%"])
def test_an_operator_has_the_bits_of_prometheus(client: httpx.Client, op: str) -> None:
    numbers, exponents = _numbers()
    got = compute(op, np.array(numbers), np.array(exponents))[0]
    _assert_same_bits(got, _answer(client, f"x {op} ignoring(__name__) y", len(numbers)), numbers)
