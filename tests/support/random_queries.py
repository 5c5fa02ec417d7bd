"""Random PromQL over known data: well-typed queries from a grammar, for a comparison with a real Prometheus.

Texts are typed by construction, so that most of them reach evaluation; what fails there has to fail alike. Selectors
name the series of `query_corpus` and `histogram_corpus`.
"""

from __future__ import annotations

import random

from mimir_ingest.promql.functions_table import AGGREGATIONS, FUNCTIONS
from mimir_ingest.promql.nodes import TRIM_OPERATORS, ValueType

FLOATS = ("requests_total", "temperature", "limit", "latency_bucket", "target_info", "odd_bucket", "odd_gauge")
HISTOGRAMS = ("requests", "latency", "queue", "sizes", "mixture", "odd")
LABELS = ("job", "instance", "code", "sensor", "cpu", "kind", "le", "version", "absent", '"room.no"')
EXACT_TIMES_S = (1_700_000_600, 1_700_001_530.5, 1_700_003_000)

_MATCHERS = (
    "job='api'",
    'job!="api"',
    "job=~'a.*|db'",
    "instance!~`host[01].*`",
    'code="200"',
    "job!='web', job='api'",
    "cpu=~'[0-5]'",
    "sensor!=''",
    "absent=''",
    "le=~'.*'",
    "'instance'=~\"host\\\\d:80\"",
    "kind!~'sch.*'",
    '"room.no"="\\u00e9"',
    "job=~'(?i)API|(?:web)+'",
)
_OFFSETS = (
    *(" offset 37s", " offset -90s", " offset 5m", " offset (1m + 3s)", " offset -(step() + 1)", " @ start()"),
    *(" @ end()", " @ 1700001530.5", " @ end() offset 2m", " offset -1m @ start()", " offset (range() / 50)"),
)
_RANGES = (
    *("1m", "90s", "2m", "5m", "7m", "61s", "14m", "300", "0x78", "1h", "5e2", "(2m + 11s)", "max_of(step(), 2m)"),
    *("(1m - 90s)", "min_of(5m, 1h)", "1_20", "(2 * 1m)", "(3m - 7s)", "(7m % 4m)", "2m30s", "range()"),
)
_STEPS = ("", "", "15s", "30s", "17s", "1m", "45s", "2m", "step()", "(7s + 3s)")
_NUMBERS = (
    *("0", "1", "2", "-1", "0.5", "3.5", "10", "1e3", "1e300", "-0.0", "NaN", "Inf", "-Inf", "+Inf", "0x1F", "1_000"),
    *("017", ".25", "5m", "1e-9", "0.99", "0.9", "0.1", "1.5", "0b101", "9007199254740993", "1e-320", "1d3h"),
)
_COUNTS = ("1", "2", "3", "5", "0", "-1", "2.9", "100", "NaN", "Inf", "scalar(limit{instance='host0:80'})")
_RATIOS = ("0.5", "-0.5", "0.1", "-0.9", "2", "-1.5", "0", "1", "0.33", "time() / 4e9")
_QUANTILES = ("0", "0.1", "0.5", "0.77", "0.9", "0.99", "1", "-1", "2", "NaN", "Inf", "0.25 + 0.1")
_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
_ARITHMETIC = ("+", "-", "*", "/", "%", "^", "atan2")
_SETS = ("and", "or", "unless")
_REGEXES = (
    *("'(.*):.*'", "'(.)(.*)'", '"(?P<x>[a-z]+).*"', "'.*'", "''", "'host(\\\\d):80'", "'a|(b)'", "`(?s)(.*)`"),
    *("'[^0-9]*([0-9]+).*'", "'(?i:HOST)(.).*'", "'host.*?(:)(80)'", "'é'"),
)
_TEMPLATES = ("'$1-x'", "'${1}0'", "'$10'", "'$$1'", "'x'", "''", "'$x'", "'${x}y'", "'$2$1'", "'$'", "'é$1'", "'${2'")
_TARGETS = ("'host'", "'job'", "'instance'", "'__name__'", "'room.no'", "'le'", "'new'", "''")
_RANGE_FUNCTIONS = tuple(sorted(n for n, f in FUNCTIONS.items() if f.arg_types and ValueType.MATRIX in f.arg_types))
_EXTENDED = {
    "anchored": ("changes", "delta", "increase", "rate", "resets"),
    "smoothed": ("delta", "increase", "rate"),
}


class Grammar:
    """Makes queries from a generator of random numbers."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def query(self, *, instant: bool) -> str:
        """Return a query; `instant` also allows strings and range vectors."""
        roll = self._rng.random()
        if instant and roll < 0.06:
            return self.matrix(2)
        if instant and roll < 0.07:
            return self._pick(("'a string'", "`raw \\n`", '"\\u00e9\\x41"'))
        depth = self._pick((1, 2, 2, 3, 3, 4))
        return self.scalar(depth) if roll < 0.13 else self.vector(depth)

    def vector(self, depth: int) -> str:
        """Return an instant vector."""
        if depth <= 0:
            return self._selector()
        make = self._rng.choices(
            (
                self._over_range,
                self._aggregation,
                self._binary,
                self._of_vector,
                self._histogram,
                self._labels,
                self._plain,
                self._odd_ones,
            ),
            (24, 22, 26, 8, 12, 6, 6, 6),
        )[0]
        return make(depth)

    def matrix(self, depth: int) -> str:
        """Return a range vector."""
        if depth > 0 and self._rng.random() < 0.3:
            return f"{self._operand(depth - 1)}[{self._pick(_RANGES)}:{self._pick(_STEPS)}]{self._time()}"
        return f"{self._name()}[{self._pick(_RANGES)}]{self._time()}"

    def scalar(self, depth: int) -> str:
        """Return a scalar."""
        roll = self._rng.random()
        if depth <= 0 or roll < 0.5:
            return self._pick(_NUMBERS)
        if roll < 0.65:
            return f"scalar({self.vector(depth - 1)})"
        if roll < 0.75:
            return self._pick(("time()", "pi()", "start()", "end()", "step()", "range()"))
        if roll < 0.85:
            return f"{self._pick(('max_of', 'min_of'))}({self.scalar(depth - 1)}, {self.scalar(depth - 1)})"
        op = self._pick((*_ARITHMETIC, *(f"{c} bool" for c in _COMPARISONS)))
        return f"({self.scalar(depth - 1)} {op} {self._pick(('', '-', '+'))}{self.scalar(depth - 1)})"

    # --- parts ------------------------------------------------------------------------------------------------------

    def _pick(self, options):
        return self._rng.choice(options)

    def _name(self) -> str:
        roll = self._rng.random()
        if roll < 0.05:
            return "{__name__=~'temp.*|limit|requests'}"
        if roll < 0.08:
            return "{__name__=~'requests|weight|latency'}"
        if roll < 0.13:
            return self._pick(('{"heat.µ"}', "{'heat.µ', job=~'.+'}", "nothing", "{__name__='weight', job='db'}"))
        name = self._pick(FLOATS if roll < 0.65 else HISTOGRAMS)
        if self._rng.random() < 0.35:
            matchers = self._rng.sample(_MATCHERS, self._pick((1, 1, 2)))
            name += "{" + ", ".join(matchers) + self._pick(("", "", ",")) + "}"
        return name

    def _time(self) -> str:
        return self._pick(_OFFSETS) if self._rng.random() < 0.2 else ""

    def _selector(self) -> str:
        return self._name() + self._pick(("", "", "", "", "", "", " smoothed")) + self._time()

    def _operand(self, depth: int) -> str:
        text = self.vector(depth)
        return text if depth <= 0 else f"({text})"

    def _grouping(self) -> str:
        roll = self._rng.random()
        if roll < 0.25:
            return ""
        names = ", ".join(self._rng.sample(LABELS, self._pick((0, 1, 1, 2))))
        return f" {'by' if roll < 0.75 else 'without'} ({names}) "

    def _over_range(self, depth: int) -> str:
        name = self._pick(_RANGE_FUNCTIONS) if self._rng.random() < 0.7 else self._pick(("rate", "increase", "resets"))
        ranged = self.matrix(depth)
        if self._rng.random() < 0.15:
            modifier = self._pick(("anchored", "smoothed"))
            if self._rng.random() < 0.9:
                name = self._pick(_EXTENDED[modifier])
            ranged = f"{self._name()}[{self._pick(_RANGES)}] {modifier}{self._time()}"
        if name == "quantile_over_time":
            return f"{name}({self._pick(_QUANTILES)}, {ranged})"
        if name == "predict_linear":
            return f"{name}({ranged}, {self.scalar(1)})"
        if name == "double_exponential_smoothing":
            return f"{name}({ranged}, {self._pick(('0.3', '0.9', '0.5', '1.2'))}, {self._pick(('0.1', '0.6', '0'))})"
        return f"{name}({ranged})"

    def _aggregation(self, depth: int) -> str:
        op = self._pick(sorted(AGGREGATIONS))
        inner = self.vector(depth - 1)
        if op in ("topk", "bottomk", "limitk"):
            inner = f"{self._pick(_COUNTS)}, {inner}"
        elif op == "limit_ratio":
            inner = f"{self._pick(_RATIOS)}, {inner}"
        elif op == "quantile":
            inner = f"{self._pick(_QUANTILES)}, {inner}"
        elif op == "count_values":
            inner = f"{self._pick(_TARGETS)}, {inner}"
        grouping = self._grouping()
        return f"{op}{grouping}({inner})" if self._rng.random() < 0.7 else f"{op}({inner}){grouping}"

    def _matching(self, *, sets: bool) -> str:
        roll = self._rng.random()
        if roll < 0.25:
            return ""
        names = ", ".join(self._rng.sample(LABELS, self._pick((0, 1, 1, 2))))
        text = f" {'on' if roll < 0.7 else 'ignoring'}({names})"
        if sets or self._rng.random() < 0.4:
            return text
        extra = self._pick(("", "()", "(version)", "(code, job)", "(absent)"))
        return f"{text} {self._pick(('group_left', 'group_right'))}{extra}"

    def _fill(self) -> str:
        number = self._pick(("0", "1", "-2.5", "NaN", "Inf", "5m"))
        return self._pick(
            (f" fill({number})", f" fill_left({number})", f" fill_right({number})", " fill_left(1) fill_right(0)")
        )

    def _binary(self, depth: int) -> str:
        roll = self._rng.random()
        if roll < 0.35:
            op = self._pick((*_ARITHMETIC, *_COMPARISONS, *sorted(TRIM_OPERATORS)))
            if op in _COMPARISONS and self._rng.random() < 0.4:
                op += " bool"
            sides = [self._operand(depth - 1), self.scalar(depth - 1)]
            if op not in TRIM_OPERATORS and self._rng.random() < 0.4:
                sides.reverse()
            return f"{sides[0]} {op} {sides[1]}"
        left, right = self._operand(depth - 1), self._operand(depth - 1)
        if self._rng.random() < 0.3:
            # The same names on both sides, so that many series find each other.
            right = self._pick((left, f"{left.removesuffix(')')}{')' if left.endswith(')') else ''}"))
        if roll < 0.5:
            return f"{left} {self._pick(_SETS)}{self._matching(sets=True)} {right}"
        op = self._pick((*_ARITHMETIC, *_ARITHMETIC, *_COMPARISONS, *sorted(TRIM_OPERATORS)))
        if op in _COMPARISONS and self._rng.random() < 0.4:
            op += " bool"
        fill = self._fill() if self._rng.random() < 0.2 else ""
        matching = self._matching(sets=False)
        return f"{left} {op}{matching}{fill} {right}"

    def _of_vector(self, depth: int) -> str:
        names = [
            n for n, f in FUNCTIONS.items() if f.arg_types == (ValueType.VECTOR,) and not n.startswith("histogram")
        ]
        name = self._pick(sorted(names))
        return f"{name}({self.vector(depth - 1)})"

    def _plain(self, depth: int) -> str:
        inner = self.vector(depth - 1)
        return self._pick(
            (
                f"-({inner})",
                f"+({inner})",
                f"clamp({inner}, {self.scalar(1)}, {self.scalar(1)})",
                f"clamp_max({inner}, {self.scalar(1)})",
                f"clamp_min({inner}, {self.scalar(1)})",
                f"round({inner}, {self.scalar(1)})",
                f"round({inner})",
                f"({inner}) # a comment\n",
            )
        )

    def _histogram(self, depth: int) -> str:
        inner = self._pick(
            (
                self._name(),
                self.vector(depth - 1),
                f"rate({self._pick(HISTOGRAMS)}[{self._pick(_RANGES)}])",
                f"sum{self._grouping()}(rate({self._pick(HISTOGRAMS)}[5m]))",
                "sum by (le) (rate(latency_bucket[3m]))",
                "latency_bucket",
                "odd_bucket",
            )
        )
        kind = self._rng.random()
        if kind < 0.3:
            return f"histogram_quantile({self._pick(_QUANTILES)}, {inner})"
        if kind < 0.45:
            return f"histogram_fraction({self._pick(_NUMBERS)}, {self._pick(_NUMBERS)}, {inner})"
        if kind < 0.55:
            more = ", ".join(self._rng.sample(_QUANTILES, self._pick((1, 2, 3))))
            # With an empty label Prometheus panics, if names are dropped at the end.
            return f"histogram_quantiles({inner}, {self._pick(_TARGETS[:-1])}, {more})"
        name = self._pick(("count", "sum", "avg", "stddev", "stdvar"))
        return f"histogram_{name}({inner})"

    def _labels(self, depth: int) -> str:
        inner = self.vector(depth - 1)
        source = self._pick(("'instance'", "'job'", "'__name__'", "'absent'", "'room.no'"))
        roll = self._rng.random()
        if roll < 0.6:
            template, regex = self._pick(_TEMPLATES), self._pick(_REGEXES)
            return f"label_replace({inner}, {self._pick(_TARGETS)}, {template}, {source}, {regex})"
        if roll < 0.85:
            separator = self._pick(("`/`", "''", "', '"))
            return f"label_join({inner}, {self._pick(_TARGETS)}, {separator}, 'job', {source})"
        name = self._pick(("sort_by_label", "sort_by_label_desc"))
        more = self._pick(("", ", 'code'"))
        return f"{name}({inner}, {source}{more})"

    def _odd_ones(self, depth: int) -> str:
        inner = self.vector(depth - 1)
        dates = sorted(n for n, f in FUNCTIONS.items() if f.arg_types == (ValueType.VECTOR,) and f.variadic == 1)
        return self._pick(
            (
                f"info({self._name()})",
                f"info({inner}, {{version=~'v.+'}})",
                f"info({inner}, {{__name__=~'.+_info', version!='v0'}})",
                f"vector({self.scalar(depth - 1)})",
                f"absent({inner})",
                f"{self._pick(dates)}({inner})",
                f"{self._pick(dates)}()",
                f"sort({inner})",
                f"sort_desc({inner})",
                f"timestamp({self._selector()})",
                f"scalar({inner}) * {self._operand(depth - 1)}",
            )
        )
