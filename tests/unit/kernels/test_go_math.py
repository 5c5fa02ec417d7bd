"""Elementary functions: near the mathematics library everywhere, and Go's results where these are a choice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.kernels import go_math

_ORACLES = {
    go_math.ACOS: np.arccos,
    go_math.ACOSH: np.arccosh,
    go_math.ASIN: np.arcsin,
    go_math.ASINH: np.arcsinh,
    go_math.ATAN: np.arctan,
    go_math.ATANH: np.arctanh,
    go_math.COS: np.cos,
    go_math.COSH: np.cosh,
    go_math.EXP: np.exp,
    go_math.LOG: np.log,
    go_math.LOG10: np.log10,
    go_math.LOG2: np.log2,
    go_math.SIN: np.sin,
    go_math.SINH: np.sinh,
    go_math.TAN: np.tan,
    go_math.TANH: np.tanh,
}
_NORMAL = st.floats(allow_subnormal=False)


def _apply(operation: int, *numbers: float) -> np.ndarray:
    out = np.empty(len(numbers))
    assert go_math.apply_function(operation, np.array(numbers), out) == len(numbers)
    return out


@pytest.mark.parametrize("operation", _ORACLES)
@given(numbers=st.lists(st.one_of(_NORMAL, st.floats(-4, 4, allow_subnormal=False)), min_size=1, max_size=40))
def test_functions_are_near_the_mathematics_library(operation: int, numbers: list[float]) -> None:
    with np.errstate(all="ignore"):
        expected = _ORACLES[operation](np.array(numbers))
    np.testing.assert_allclose(_apply(operation, *numbers), expected, rtol=1e-13, atol=1e-15)


@given(pairs=st.lists(st.tuples(_NORMAL, _NORMAL | st.integers(-40, 40).map(float)), min_size=1, max_size=40))
def test_powers_and_angles_are_near_the_mathematics_library(pairs: list[tuple[float, float]]) -> None:
    left, right = np.array(pairs).T.copy()
    out = np.empty(len(left))
    with np.errstate(all="ignore"):
        power, angle = np.power(left, right), np.arctan2(left, right)
        tiny = (left / right == 0) & (left != 0)  # Go loses the sign of these
    go_math.apply_pairs(go_math.POW, left, right, out)
    # The exponent's rounding error counts as often as the logarithm says.
    with np.errstate(all="ignore"):
        far = ~(np.abs(out / power - 1) < 1e-12) & ~(np.abs(power) < 1e-300)
    np.testing.assert_array_equal(out[far], power[far])
    go_math.apply_pairs(go_math.ATAN2, left, right, out)
    np.testing.assert_allclose(out[~tiny], angle[~tiny], rtol=4e-15, atol=1e-307)


def test_signs_of_zero_stay() -> None:
    for operation in (go_math.ASIN, go_math.ASINH, go_math.ATAN, go_math.ATANH, go_math.SIN, go_math.SINH, go_math.TAN):
        assert np.signbit(_apply(operation, -0.0, 0.0)).tolist() == [True, False]


def test_the_logarithm_of_a_subnormal_number_takes_its_exponent_as_it_stands() -> None:
    """Seen of Prometheus 3.14 on amd64: `log10(vector(1e-320))`; `log2` scales its argument first."""
    assert _apply(go_math.LOG10, 1e-320).tolist() == [-307.95368556425257]
    assert _apply(go_math.LOG2, 1e-320)[0] == pytest.approx(-1063.0170064, rel=1e-9)
