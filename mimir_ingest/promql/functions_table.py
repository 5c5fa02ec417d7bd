"""Signatures of every function and the names of every aggregation of Prometheus 3.14 (`promql/parser/functions.go`).

One line a signature: the functions of equal signature stand together.
"""

from __future__ import annotations

from mimir_ingest.promql.nodes import Function, ValueType

_V, _M, _S, _T = ValueType.VECTOR, ValueType.MATRIX, ValueType.SCALAR, ValueType.STRING

_MATH = (
    "abs absent acos acosh asin asinh atan atanh ceil cos cosh deg exp floor histogram_avg histogram_count "
    "histogram_stddev histogram_stdvar histogram_sum ln log10 log2 rad sgn sin sinh sort sort_desc sqrt tan tanh "
    "timestamp"
)
_OVER_TIME = (
    "absent_over_time avg_over_time changes count_over_time delta deriv first_over_time idelta increase irate "
    "last_over_time max_over_time min_over_time present_over_time rate resets stddev_over_time stdvar_over_time "
    "sum_over_time"
)
_DATE = "day_of_month day_of_week day_of_year days_in_month hour minute month year"
_EXPERIMENTAL_OVER_TIME = (
    "mad_over_time ts_of_first_over_time ts_of_last_over_time ts_of_max_over_time ts_of_min_over_time"
)

_SIGNATURES: tuple[tuple[str, tuple[ValueType, ...], ValueType, int, bool], ...] = (
    # names, argument types, return type, variadic, experimental
    (_MATH, (_V,), _V, 0, False),
    (_OVER_TIME, (_M,), _V, 0, False),
    (_DATE, (_V,), _V, 1, False),
    ("clamp", (_V, _S, _S), _V, 0, False),
    ("clamp_max clamp_min", (_V, _S), _V, 0, False),
    ("histogram_fraction", (_S, _S, _V), _V, 0, False),
    ("histogram_quantile", (_S, _V), _V, 0, False),
    ("label_join", (_V, _T, _T, _T), _V, -1, False),
    ("label_replace", (_V, _T, _T, _T, _T), _V, 0, False),
    ("pi time", (), _S, 0, False),
    ("predict_linear", (_M, _S), _V, 0, False),
    ("quantile_over_time", (_S, _M), _V, 0, False),
    ("round", (_V, _S), _V, 1, False),
    ("scalar", (_V,), _S, 0, False),
    ("vector", (_S,), _V, 0, False),
    (_EXPERIMENTAL_OVER_TIME, (_M,), _V, 0, True),
    ("double_exponential_smoothing", (_M, _S, _S), _V, 0, True),
    ("end range start step", (), _S, 0, True),
    ("histogram_quantiles", (_V, _T, _S, _S), _V, 9, True),
    ("info", (_V, _V), _V, 1, True),
    ("max_of min_of", (_S, _S), _S, 0, True),
    ("sort_by_label sort_by_label_desc", (_V, _T), _V, -1, True),
    ("start_timestamp", (_V,), _V, 0, True),
)

FUNCTIONS: dict[str, Function] = {
    name: Function(name, arg_types, return_type, variadic, experimental)
    for names, arg_types, return_type, variadic, experimental in _SIGNATURES
    for name in names.split()
}
"""Function by name; names are case-sensitive."""

PARAMETER_AGGREGATIONS = frozenset(("bottomk", "count_values", "limit_ratio", "limitk", "quantile", "topk"))
"""Aggregations whose first of two arguments is a parameter: a string for `count_values`, else a scalar."""

AGGREGATIONS = PARAMETER_AGGREGATIONS | {"avg", "count", "group", "max", "min", "stddev", "stdvar", "sum"}
"""Names of all aggregations, in lower case (queries may use any case)."""

EXPERIMENTAL_AGGREGATIONS = frozenset(("limit_ratio", "limitk"))
