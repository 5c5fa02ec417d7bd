"""Duration expressions: arithmetic in ranges, steps and offsets, resolved once the query's times are known.

Source: Prometheus 3.14 `promql/durations.go`.
"""

from __future__ import annotations

import math

from mimir_ingest.errors import QueryError
from mimir_ingest.promql.nodes import DurationExpr, NumberLiteral


class DurationError(QueryError):
    """A duration expression without a valid value; the message begins with the expression's byte range."""

    def __init__(self, expr: DurationExpr, reason: str) -> None:
        super().__init__(f"{expr.pos.start}:{expr.pos.end}: {reason}", error_type="bad_data")


_LONGEST_S = (1 << 63) / 1e9


def resolve_duration_ms(
    expr: DurationExpr | None, literal_ms: int, *, step_ms: int, query_range_ms: int, negative: bool
) -> int:
    """Return a duration (ms): `literal_ms` without an expression, else the expression's value truncated towards zero.

    Raises DurationError if the value is NaN, infinite, out of range, or not positive where `negative` is False.
    """
    if expr is None:
        return literal_ms
    value = _evaluate(expr, step_ms / 1000, query_range_ms / 1000)
    if not math.isfinite(value):
        raise DurationError(expr, "duration is NaN or infinite")
    if value <= 0 and not negative:
        raise DurationError(expr, "duration must be greater than 0")
    if not -_LONGEST_S <= value <= _LONGEST_S:
        raise DurationError(expr, "duration is out of range")
    return int(value * 1000)


def _evaluate(expr: NumberLiteral | DurationExpr | None, step_s: float, range_s: float) -> float:
    """Return a duration expression's value (s); a missing left operand counts as 0."""
    if expr is None:
        return 0.0
    if isinstance(expr, NumberLiteral):
        return expr.value
    left, right = _evaluate(expr.lhs, step_s, range_s), _evaluate(expr.rhs, step_s, range_s)
    match expr.op:
        case "step":
            return step_s
        case "range":
            return range_s
        case "min_of" | "max_of":
            if math.isnan(left) or math.isnan(right):
                return math.nan
            return min(left, right) if expr.op == "min_of" else max(left, right)
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            if right == 0:
                raise DurationError(expr, "division by zero")
            return left / right
        case "%":
            if right == 0:
                raise DurationError(expr, "modulo by zero")
            return math.fmod(left, right) if math.isfinite(left) else math.nan
        case "^":
            return _power(left, right)
    raise QueryError(f'unexpected duration expression operator "{expr.op}"')


def _power(base: float, exponent: float) -> float:
    """Return `base ** exponent` as IEEE 754 has it, where Python raises."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        odd = exponent % 2 == 1
        return -math.inf if base < 0 and odd else math.inf
    except ValueError:
        return math.nan if base != 0 else math.inf
