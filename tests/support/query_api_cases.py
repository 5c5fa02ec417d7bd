"""Requests to the query API: what is stored, what is asked, and where Mimir's answer differs from Prometheus's."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

T0_MS = 1_795_000_000_000
"""Time (ms) of the first sample."""
T0 = T0_MS // 1000
STEP_S = 15
ROUNDS = 40
END = T0 + (ROUNDS - 1) * STEP_S

_EVERY = (
    0.0,
    -0.0,
    1.0,
    -1.5,
    1e-6,
    9.999999e-7,
    5e-324,
    1e-5,
    0.000123,
    123456.789,
    1e15,
    1e16,
    1e20,
    1e21,
    -2.5e21,
    1.7976931348623157e308,
    0.1 + 0.2,
    1 / 3,
    math.inf,
    -math.inf,
    math.nan,
    4503599627370497.5,
)

_STRANGE = ['a"b', "a\\b", "a\nb", "täg", "日本", "\u2028", "a\x01b", "<&>", "\U0001f600", " ", "'", "`", "a\tb\r"]


def stored_series() -> list[tuple[dict[str, str], list[tuple[int, float]]]]:
    """Return (labels, [(ms, value)]): ordinary counters, hard numbers, hard names and values."""
    times = [T0_MS + i * STEP_S * 1000 for i in range(ROUNDS)]
    rows: list[tuple[dict[str, str], list[tuple[int, float]]]] = []
    for i in range(6):
        labels = {"__name__": "requests_total", "job": f"job-{i % 2}", "instance": f"host-{i}:80"}
        if i == 5:
            labels["zone"] = "eu"
        rows.append((labels, [(t, float((i + 1) * n)) for n, t in enumerate(times)]))
    rows += [
        ({"__name__": "number", "n": f"{i:02d}"}, [(times[-1], value), (times[-1] + 1, value)])
        for i, value in enumerate(_EVERY)
    ]
    rows += [
        ({"__name__": "strange", "value": value, "n": f"{i:02d}"}, [(times[-1] + 500, 1.0)])
        for i, value in enumerate(_STRANGE)
    ]
    rows += [
        ({"__name__": "utf8.name", "label with space": "x", "ünï": "y"}, [(t, 2.0) for t in times]),
        ({"__name__": "short_lived", "job": "gone"}, [(t, 1.0) for t in times[:4]]),
    ]
    return rows


@dataclass(frozen=True, slots=True)
class Request:
    """One request, sent as GET and, unless told otherwise, as POST with a form body."""

    path: str
    params: Sequence[tuple[str, str]] = ()
    methods: tuple[str, ...] = ("GET", "POST")
    ours: tuple[int, dict] | None = None
    """Status and part of the body by Mimir's specification, where Prometheus answers otherwise."""
    raw_query: bytes = b""
    """Appended to the URL's query as it is."""

    def __str__(self) -> str:
        text = "&".join(f"{k}={v}" for k, v in self.params)
        return f"{self.path}?{text}{self.raw_query.decode('latin-1')}"


def _bad(text: str) -> tuple[int, dict]:
    return 400, {"status": "error", "errorType": "bad_data", "error": text}


def _bad_time(text: str) -> tuple[int, dict]:
    return _bad(f'invalid parameter "time": invalid parameter "time": cannot parse "{text}" to a valid timestamp')


def _one_at(seconds: float) -> dict:
    result = [{"metric": {}, "value": [seconds, "1"]}]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def _query(query: str, **params: str) -> Request:
    return Request("query", [("query", query), ("time", params.pop("time", str(END))), *params.items()])


def _range(query: str, *, ours: tuple[int, dict] | None = None, **params: str) -> Request:
    given = {"start": str(T0), "end": str(END), "step": "60"} | params
    return Request("query_range", [("query", query), *((k, v) for k, v in given.items() if v != "-")], ours=ours)


def _listing(path: str, *selectors: str, ours: tuple[int, dict] | None = None, **params: str) -> Request:
    given = {"start": str(T0), "end": str(END + 60)} | params
    methods = ("GET",) if path.startswith("label/") else ("GET", "POST")
    items = [*(("match[]", s) for s in selectors), *((k, v) for k, v in given.items() if v != "-")]
    return Request(path, items, methods, ours)


_EXPRESSIONS = [
    "requests_total",
    "number",
    "strange",
    '{"utf8.name"}',
    '{"utf8.name", "label with space"="x"}',
    'sum by ("label with space") ({"utf8.name"})',
    "sum by (job) (rate(requests_total[2m]))",
    "topk(2, requests_total)",
    "sort_desc(requests_total)",
    "nothing_here",
    "absent(nothing_here)",
    "absent(nothing_here{a='b'})",
    "vector(1)",
    'label_replace(label_replace(requests_total, "a", "\\xff", "job", ".*"), "b", "x$1", "a", "(.*)")',
    'label_replace(requests_total, "a", "$1", "job", "(\\xff)")',
    'sum by (a) (label_replace(requests_total, "a", "\\xff", "job", "job-0"))',
    'requests_total and label_replace(requests_total, "a", "\\xff", "job", "job-0")',
    'sort_by_label(label_replace(requests_total, "a", "\\xff", "job", "job-0"), "a")',
    "short_lived",
    "count_values('v', number)",
    'label_replace(requests_total, "dst", "$1", "instance", "(.*):.*")',
    "histogram_quantile(0.9, requests_total)",
    "quantile(2, requests_total)",
    "rate(number[1m])",
    "requests_total / on (job) requests_total",
    "requests_total{job='job-0'} + ignoring(instance) requests_total{job='job-1'}",
    'label_replace(requests_total, "instance", "", "", "")',
    '{"\\xff"}',
    '{a="\\xff"}',
    '{a!="\\xff",__name__="requests_total"}',
    '{a=~"\\xff"}',
    '{a!~"\\xff",__name__="requests_total"}',
    '{job!~"a\\xff",__name__="requests_total"}',
    '{job=~"job-0|\\xff"}',
    '{__name__="requests_total",job="\\xff"}',
    'label_replace(requests_total, "dst", "\\xff", "job", ".*")',
    'label_replace(requests_total, "\\xff", "x", "job", ".*")',
    'label_join(requests_total, "dst", "\\xff", "job", "instance")',
    'sum by ("\\xff") (requests_total)',
    'count_values("\\xff", requests_total)',
    'strange{value="a\\"b"}',
    'strange{value="a\\nb"}',
    'strange{value=~"a.b"}',
    "strange{value=~'日.*|täg'}",
    "requests_total[1m]",
    "requests_total[1m:15s]",
    "requests_total[1m] offset 1m",
    "nothing_here[1m]",
    "1",
    "-0",
    "1e-7",
    "1e21",
    "0.1+0.2",
    "NaN",
    "-Inf",
    "time()",
    '"text"',
    '"\\xff"',
    '"a\\nb\\u2028<>"',
    "'日本'",
    "",
    " ",
    "# only a comment",
    "sum(",
    "sum()",
    "foo bar",
    "{}",
    '{a=""}',
    '{a=~".*"}',
    '{a=~"("}',
    "requests_total[1m",
    "requests_total[0s]",
    "requests_total offset",
    "unknown_function(up)",
    "rate(requests_total)",
    "requests_total and 1",
    "1 == 2",
    "1 >/ 2",
    "(2) </ (1)",
    "requests_total[(1m - 2m)]",
    "rate(requests_total[step()])",
    "1 == bool 2",
    "requests_total{",
    "requests_total{job='a}",
    "requests_total @ start()",
    "requests_total @ NaN",
    "requests_total == requests_total\n  + on()",
    "0x1f",
    "1_000",
    "5m",
    "ä",
    'requests_total{job="\x01"}',
    "\x00",
]


def requests() -> list[Request]:
    """Return the table."""
    return [*_instant(), *_ranges(), *_several_errors(), *_listings(), *_texts()]


def _instant() -> list[Request]:
    rows = [_query(e) for e in _EXPRESSIONS]
    times = [
        f"{END}.5", f"{END}.0004", f"{END}.9996", f"{END}.123456789", f"-{END}", "0", "1e9", "1.795e9", ".5", "5.",
        "+5", "1_000",
        "0x1p9", "1_0.2_5e0_8",
        "2026-11-18T12:00:00Z", "2026-11-18T12:00:00.123456789+02:00", "2026-11-18T12:00:00.0009Z",
        "2026-11-18T12:00:00,5Z", "1969-12-31T23:59:59.5Z", "2026-11-18T12:00:00-24:60", "2026-11-18T12:00:00.9999Z",
    ]  # fmt: skip
    rows += [_query("vector(1)", time=t) for t in times]
    bad_times = [
        "0x10", "1__0", "abc", " 1", "1 ", "1\n", "2026-11-18 12:00:00Z", "2026-11-18T12:00:00", "2026-13-18T12:00:00Z",
        "2026-11-18t12:00:00z", "2026-02-30T12:00:00Z", "2026-11-18T24:00:00Z", "2026-11-18T12:00:60Z", "\u0661",
        "2026-11-18T12:00:00+25:00", "2026-11-18T12:00:00+24:61", "2026-11-18T12:00:00.Z",
        # Prometheus takes these and evaluates at times that its conversions overflow to.
        "nan", "NaN", "inf", "-Inf", "9223372036854775807",
    ]  # fmt: skip
    rows += [replace(_query("vector(1)", time=t), ours=_bad_time(t)) for t in bad_times]
    # Prometheus's own evaluation overflows int64 nanoseconds at these times.
    far = {"0001-01-01T00:00:00Z": -62135596800, "9999-12-31T23:59:59Z": 253402300799, "9e15": 9000000000000000}
    rows += [replace(_query("vector(1)", time=t), ours=(200, _one_at(seconds))) for t, seconds in far.items()]
    rows += [_query("time()", time=t) for t in (f"{END}.5", "-1.5", "-0.001", "0.1")]
    rows += [_query("requests_total", time="-292273086-05-16T16:47:06Z")]
    rows += [_query("requests_total", time="292277025-08-18T07:12:54.999999999Z")]
    rows += [_query("requests_total", limit=n) for n in ("0", "1", "3", "6", "7", "1000000")]
    limits = (
        "-1",
        "a",
        "1.5",
        " 1",
        "+2",
        "1_0",
        "0x1",
        "99999999999999999999",
        '"',
        "\n",
        "ä",
        "-99999999999999999999",
    )
    rows += [_query("requests_total", limit=n) for n in limits]
    rows += [_query("requests_total[1m]", limit="2"), _query("1", limit="1"), _query('"x"', limit="1")]
    rows += [_query("requests_total", lookback_delta=d) for d in ("1s", "10m", "60", "0", "-1", "x", "1e30", "1h5m")]
    rows += [_query("short_lived", time=str(END), lookback_delta=d) for d in ("1h", "5m")]
    rows += [_query("requests_total", timeout=d) for d in ("10s", "1.5", "x", "1e30", "1x", "1h1h", "1ms1s")]
    # Prometheus answers these by chance.
    late = (503, {"status": "error", "errorType": "timeout", "error": "query timed out in query execution"})
    rows += [replace(_query("requests_total", timeout=d), ours=late) for d in ("NaN", "0", "-1")]
    rows += [_query("requests_total", stats=s) for s in ("true", "all", "1", 'x"y', "")]
    rows += [
        _query(text, stats="all") for text in ("max_over_time(requests_total[5m:1m])", "sum(requests_total @ end())")
    ]
    rows += [
        Request("query"),
        Request("query", [("query", "1"), ("query", "2"), ("time", "1")]),
        Request("query", [("query", "1"), ("time", "1")], ("POST",), raw_query=b"query=2&time=2"),
        Request("query", [("time", "1")], raw_query=b"query=1%2B1"),
        Request("query", [("time", "1")], raw_query=b"query=1+%2B+1"),
        Request("query", [("time", "1")], ("GET",), raw_query=b"query=%ff"),
        Request("query", [("time", "1")], ("GET",), raw_query=b"query=%22%ff%22"),
        Request("query", [("time", "1")], ("GET",), raw_query=b"query=%22%zz%22"),
        Request("query", [("time", "1")], ("GET",), raw_query=b"query=1;time=7"),
        Request("query", [("time", "1")], ("GET",), raw_query=b"a=b;c&query=1"),
        Request("query", [("time", "1")], ("GET",), raw_query=b"=5&&query=1&x"),
    ]
    return rows


_BAD = {"limit": "x", "time": "x", "timeout": "x", "lookback_delta": "x", "stats": "x", "query": "sum("}
_BAD_RANGE = {"limit": "-1", "start": "x", "end": "y", "step": "z", "timeout": "x", "lookback_delta": "x", "query": "("}


def _several_errors() -> list[Request]:
    """Return requests with two bad parameters: which one is named."""
    rows = [_query("sum(", time="x", lookback_delta="x", limit="x")]
    for a, b in itertools.combinations(_BAD, 2):
        given = {"query": "1", "time": str(END)} | {a: _BAD[a], b: _BAD[b]}
        # Of a time alone Mimir says twice which parameter it is.
        ours = _bad_time("x") if "time" in (a, b) and "limit" not in (a, b) else None
        rows.append(Request("query", list(given.items()), ours=ours))
    for a, b in itertools.combinations(_BAD_RANGE, 2):
        given = {"query": "1", "start": str(T0), "end": str(END), "step": "60"} | {a: _BAD_RANGE[a], b: _BAD_RANGE[b]}
        rows.append(Request("query_range", list(given.items())))
    rows += [_range('"x"', timeout="x"), _range("1", step="0", limit="-1"), _range("1", end="1", step="x")]
    return rows


def _range_type(documented: str) -> tuple[int, dict]:
    return _bad(
        f'invalid parameter "query": query expression produces a {documented}, but expression for range queries must '
        "produce an instant vector or scalar"
    )


def _missing(name: str) -> tuple[int, dict]:
    return _bad(f'missing required parameter "{name}"')


def _ranges() -> list[Request]:
    rows = [
        _range(e)
        for e in (
            "requests_total",
            "sum by (job) (rate(requests_total[1m]))",
            "short_lived",
            "nothing_here",
            "1",
            "time()",
            "number",
            "strange",
            '{"utf8.name"}',
            "sort(requests_total)",
            "topk(1, requests_total)",
            "sum(",
            "",
            "quantile(2, requests_total)",
            "requests_total @ end()",
            "max_over_time(requests_total[1m:15s])",
            "absent(nothing_here)",
            "rate(requests_total[(1m - 2m)])",
            "requests_total offset (1m / 0)",
            "1 >/ 2",
        )
    ]
    rows += [_range("requests_total[1m]", ours=_range_type("range vector")), _range('"x"', ours=_range_type("string"))]
    rows += [_range("requests_total", **{n: "-"}, ours=_missing(n)) for n in ("start", "end", "step")]
    steps = (
        "0",
        "+nan",
        "0x1p1",
        "-1",
        "x",
        "1e30",
        "0.0001",
        "0.001",
        "1.5",
        "1m",
        "1h",
        "90s",
        "NaN",
        "inf",
        "9223372037",
        "1m1m",
    )
    rows += [_range("vector(1)", step=s, end=str(T0 + 5)) for s in steps]
    rows += [_range("vector(1)", start=str(END), end=str(T0)), _range("vector(1)", start="x"), _range("1", end="y")]
    rows += [_range("1", start=str(T0), end=str(T0 + n), step="1") for n in (10_999, 11_000, 11_001)]
    rows += [_range("requests_total", start=str(END), end=str(END)), _range("requests_total", end=f"{END}.5")]
    rows += [_range("requests_total", start=f"{T0}.25", step="0.5", end=f"{T0 + 3}.2")]
    rows += [_range("requests_total", limit=n) for n in ("0", "2", "-1", "a")]
    rows += [_range("requests_total", timeout=d) for d in ("x", "10s")]
    rows += [_range("requests_total", lookback_delta=d) for d in ("x", "20s")]
    rows += [
        _range("rate(requests_total[1m])", stats="true"),
        _range("rate(requests_total[1m])", stats="all"),
        _range("sum(requests_total)", stats="yes"),
    ]
    rows += [_range("1", start="-292273086-05-16T16:47:06Z", end="292277025-08-18T07:12:54.999999999Z")]
    return rows


def _listings() -> list[Request]:
    rows = [
        _listing("series", "requests_total"),
        _listing("series", "requests_total", '{job="job-1"}'),
        _listing("series", '{__name__=~".+"}'),
        _listing("series", "strange", '{"utf8.name"}'),
        _listing("series", "nothing_here"),
        _listing("series"),
        _listing("series", ""),
        _listing("series", "{}"),
        _listing("series", '{a=~".*"}'),
        _listing("series", '{a!="b"}'),
        _listing("series", "requests_total", "sum("),
        _listing("series", "rate(requests_total[1m])"),
        _listing("series", "requests_total[5m]"),
        _listing("series", '{"\\xff"}'),
        _listing("series", '{job=~"\\xff"}'),
        _listing("series", "{}", "requests_total[5m]"),
        _listing("series", "requests_total", limit="2"),
        _listing("series", "requests_total", limit="6"),
        _listing("series", "requests_total", limit="0"),
        _listing("series", "requests_total", limit="-1"),
        _listing("series", "requests_total", limit="x"),
        _listing("series", "requests_total", start="x", ours=_unread_time("start")),
        _listing("series", "requests_total", end="x", ours=_unread_time("end")),
        _listing("series", "requests_total", start=str(END), end=str(T0), ours=_BACKWARDS),
        _listing("series", "requests_total", start="-", end="-"),
        _listing("series", limit="x"),
        _listing("series", "requests_total", start="-292273086-05-16T16:47:06Z"),
    ]
    for path in ("labels", "label/job/values"):
        rows += [
            _listing(path),
            _listing(path, start="-", end="-"),
            _listing(path, "requests_total"),
            _listing(path, "short_lived", '{job="job-1"}'),
            _listing(path, "nothing_here"),
            _listing(path, ""),
            _listing(path, "{}"),
            _listing(path, "{}", "sum("),
            _listing(path, "requests_total", '{a=""}'),
            _listing(path, "sum("),
            _listing(path, '{"\\xff"}'),
            _listing(path, limit="1000"),
            _listing(path, limit="-5"),
            _listing(path, limit="x"),
            _listing(path, start="x", ours=_unread_time("start")),
            _listing(path, end="x", ours=_unread_time("end")),
            _listing(path, start=str(END), end=str(T0), ours=_BACKWARDS),
        ]
    rows.append(_listing("labels", limit="1"))
    cut = {"status": "success", "data": ["gone"], "warnings": ["results truncated due to limit"]}
    # Prometheus cuts before it sorts.
    rows.append(_listing("label/job/values", limit="1", ours=(200, cut)))
    # Mimir routes on the encoded path, Prometheus does not.
    rows.append(_listing("label/a%2Fb/values", ours=(200, {"status": "success", "data": []})))
    names = [
        "__name__", "instance", "nothing", "value", "U__label_20_with_20_space", "label%20with%20space", "U__a__b",
        "U__", "U___", "U__n", "U__job", "U___20_", "U__a_zz_", "U__a_d800_", "U__a_110000_", "U__%C3%BCn%C3%AF",
        "%C3%BCn%C3%AF", "U___fc_n_ef_", "%FF", "a-b", "%00", "9", "U__a_20", "U__a_1234567_",
    ]  # fmt: skip
    rows += [_listing(f"label/{name}/values") for name in names]
    return rows


def _unread_time(name: str) -> tuple[int, dict]:
    return _bad(f'invalid parameter "{name}": cannot parse "x" to a valid timestamp')


_BACKWARDS = _bad('invalid parameter "end": end timestamp must not be before start time')


def _texts() -> list[Request]:
    expressions = [
        "foo", "sum by(job)(rate(x[5m]))", "foo # comment", "sum(", "", '{"utf8.name"}', '{"\\xff"}', '"\\xff"', "1",
        "a + on(b) group_left(c) d", "-1", "1e300", "NaN", "foo[5m:1m] @ end() offset -1m", "5m", "foo[5m+1m]",
        "sum(rate(aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa[5m])) / sum(rate(bbbbbbbbbbbbbbbb[5m]))",
        'x{a=~"b|c",d!="",e!~"f"}', "topk(3, x)", "quantile without(a)(0.5, x)", "a and b", "a == bool b",
    ]  # fmt: skip
    rows = [Request(path, [("query", e)]) for path in ("format_query", "parse_query") for e in expressions]

    def no_number(name: str) -> tuple[int, dict]:
        return 400, {"status": "error", "error": f"{name} must be a number"}

    rows += [Request("metadata", [(name, "x")], ("GET",), no_number(name)) for name in ("limit", "limit_per_metric")]
    exemplars = [("query", "sum("), ("query", ""), ("query", "{}"), ("query", "1"), ("query", "nothing_here")]
    rows += [Request("query_exemplars", [pair]) for pair in exemplars]
    rows += [Request("query_exemplars", [("query", "requests_total"), ("start", "2"), ("end", "1")])]
    return [*rows, Request("format_query"), Request("parse_query")]
