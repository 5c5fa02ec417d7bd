"""Functions of instant vectors that work value by value: mathematics, rounding, clamping, dates.

Source: Prometheus 3.14 `promql/functions.go`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from mimir_ingest.kernels import go_math
from mimir_ingest.promql.operators.base import Evaluation
from mimir_ingest.promql.plan_nodes import Call
from mimir_ingest.promql.values import Steps, VectorBlock

_DAY_S = 86_400
_EDGE = float(1 << 63)

GO_FUNCTIONS = {
    "acos": go_math.ACOS,
    "acosh": go_math.ACOSH,
    "asin": go_math.ASIN,
    "asinh": go_math.ASINH,
    "atan": go_math.ATAN,
    "atanh": go_math.ATANH,
    "cos": go_math.COS,
    "cosh": go_math.COSH,
    "exp": go_math.EXP,
    "ln": go_math.LOG,
    "log10": go_math.LOG10,
    "log2": go_math.LOG2,
    "sin": go_math.SIN,
    "sinh": go_math.SINH,
    "tan": go_math.TAN,
    "tanh": go_math.TANH,
}
"""Functions that `kernels.go_math` computes, by name."""


def _go_function(operation: int) -> Callable[[np.ndarray], np.ndarray]:
    def apply(values: np.ndarray) -> np.ndarray:
        out = np.empty(values.shape)
        go_math.apply_function(operation, np.ascontiguousarray(values).reshape(-1), out.reshape(-1))
        return out

    return apply


MATH: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **{name: _go_function(operation) for name, operation in GO_FUNCTIONS.items()},
    "abs": np.abs,
    "ceil": np.ceil,
    "deg": lambda v: v * 180 / np.pi,
    "floor": np.floor,
    "rad": lambda v: v * np.pi / 180,
    "sgn": lambda v: np.where(v < 0, -1.0, np.where(v > 0, 1.0, v)),
    "sqrt": np.sqrt,
}
"""Functions of one number, elementwise, with the bits that Go gives them."""


def _months(seconds: np.ndarray) -> np.ndarray:
    return seconds.astype("datetime64[s]").astype("datetime64[M]")


def _days_in_month(seconds: np.ndarray) -> np.ndarray:
    month = _months(seconds)
    return ((month + 1).astype("datetime64[D]") - month.astype("datetime64[D]")).astype(np.int64)


def _day_of_year(seconds: np.ndarray) -> np.ndarray:
    days = seconds.astype("datetime64[s]").astype("datetime64[D]")
    return (days - days.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64) + 1


def _day_of_month(seconds: np.ndarray) -> np.ndarray:
    days = seconds.astype("datetime64[s]").astype("datetime64[D]")
    return (days - _months(seconds).astype("datetime64[D]")).astype(np.int64) + 1


_DATES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "day_of_month": _day_of_month,
    "day_of_week": lambda s: (s // _DAY_S + 4) % 7,
    "day_of_year": _day_of_year,
    "days_in_month": _days_in_month,
    "hour": lambda s: s % _DAY_S // 3600,
    "minute": lambda s: s % 3600 // 60,
    "month": lambda s: _months(s).astype(np.int64) % 12 + 1,
    "year": lambda s: s.astype("datetime64[s]").astype("datetime64[Y]").astype(np.int64) + 1970,
}

_DATE_OUT_OF_RANGE = {
    "day_of_month": 4.0,
    "day_of_week": 0.0,
    "day_of_year": 339.0,
    "days_in_month": 31.0,
    "hour": 15.0,
    "minute": 30.0,
    "month": 12.0,
    "year": 292277026596.0,
}
"""Parts of the date that Prometheus gives for NaN and what is no int64: Go on amd64 makes the smallest int64 of these,
whose time wraps around to Sunday, 292277026596-12-04 15:30:08."""

_CLAMPS = frozenset(("clamp", "clamp_max", "clamp_min"))

ELEMENTWISE = frozenset((*MATH, *_DATES, *_CLAMPS, "round"))
"""Names of the functions that `map_values` evaluates."""


def map_values(evaluation: Evaluation, node: Call, steps: Steps) -> VectorBlock:
    """Evaluate a function of an instant vector's values."""
    if node.name in _DATES and not node.args:
        return VectorBlock.of_scalar(_date(node.name, (steps.times_ms / 1000).astype(np.float64), steps.times_ms))
    block = evaluation.vector(node.args[0], steps)
    scalars = [evaluation.scalar(arg, steps) for arg in node.args[1:]]
    present = block.float_present
    with np.errstate(all="ignore"):
        if node.name in MATH:
            values = evaluation.map_cells(MATH[node.name], block.values)
        elif node.name in _DATES:
            values = evaluation.map_cells(functools.partial(_date, node.name), block.values)
        elif node.name == "round":
            inverse = 1.0 / (scalars[0] if scalars else np.ones(steps.count))
            values = evaluation.map_cells(lambda v, i: np.floor(v * i + 0.5) / i, block.values, inverse)
        else:
            lower, upper = _bounds(node.name, scalars, steps.count)
            values = evaluation.map_cells(_clamped, block.values, lower, upper)
            present = present & ~(upper < lower)
    return evaluation.drop_name(block.of_numbers(values, present))


def _bounds(name: str, scalars: list[np.ndarray], steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of a clamp function at each step."""
    if name == "clamp":
        return scalars[0], scalars[1]
    if name == "clamp_min":
        return scalars[0], np.full(steps, np.inf)
    return np.full(steps, -np.inf), scalars[0]


def _clamped(values: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    return go_maximum(lower, go_minimum(upper, values))


def go_maximum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return Go's `math.Max` elementwise: +Inf wins over NaN, NaN over the rest, and 0 over -0."""
    with np.errstate(invalid="ignore"):
        larger = np.where((a == 0) & (b == 0), a + b, np.maximum(a, b))
    return np.where((a == np.inf) | (b == np.inf), np.inf, larger)


def go_minimum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return Go's `math.Min` elementwise: -Inf wins over NaN, NaN over the rest, and -0 over 0."""
    return -go_maximum(-a, -b)


def _date(name: str, values: np.ndarray, times_ms: np.ndarray | None = None) -> np.ndarray:
    """Return a part of the UTC date of Unix times (s); `times_ms` gives the exact times where these are known."""
    if times_ms is not None:
        # Go's division truncates towards zero.
        seconds = np.where(times_ms >= 0, times_ms // 1000, -(-times_ms // 1000))
        return _DATES[name](seconds).astype(np.float64)
    fits = (values >= -_EDGE) & (values < _EDGE)
    seconds = np.where(fits, values, 0.0).astype(np.int64)
    return np.where(fits, _DATES[name](seconds).astype(np.float64), _DATE_OUT_OF_RANGE[name])
