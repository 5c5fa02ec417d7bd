"""Prometheus's query API under `-http.prometheus-http-prefix` (spec http-api.md section 6)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import numpy as np
import orjson

from mimir_ingest.api.errors import Answer, Scope
from mimir_ingest.api.exemplars import exemplar_range, exemplars_json, selectors_of
from mimir_ingest.api.negotiate import ARROW
from mimir_ingest.api.params import (
    Params,
    RangeParams,
    bad_parameter,
    parse_duration,
    parse_limit,
    range_params,
    series_range,
)
from mimir_ingest.api.query_admission import Listing, Question, admit_listing, admit_query
from mimir_ingest.api.render import JSON_HEADERS, clean, limited, result_pieces, stats_json, success
from mimir_ingest.config.limits import Limits
from mimir_ingest.errors import (
    LogError,
    OwnerError,
    QueryError,
    StorageError,
)
from mimir_ingest.model.frozen import frozen
from mimir_ingest.model.labels import LabelFrame, go_quote
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.spans import Check
from mimir_ingest.promql.ast_json import to_json
from mimir_ingest.promql.durations import DurationError
from mimir_ingest.promql.nodes import ValueType
from mimir_ingest.promql.parser import parse_metric_selector
from mimir_ingest.promql.prettier import prettify
from mimir_ingest.promql.values import Matrix, Scalar, String, Vector
from mimir_ingest.querier.concurrency import run_until
from mimir_ingest.querier.query_limits import clamp_count
from mimir_ingest.querier.reading import Reading
from mimir_ingest.querier.service import Querier, QueryAnswer
from partitions.errors import PartitionError

MAX_ANNOTATIONS = 10
"""Warnings and infos in one answer; Mimir's and Prometheus's bound."""
INLINE_POINTS = 5_000
"""Points of a result that are rendered on the event loop. why: they take 1 ms, and a thread costs 0.1 ms."""
LISTED_ITEMS = 1_000
"""Label sets, names or values that are written at a time; more are written in a thread. why: they take some 1 ms."""
NOTHING = Matrix(LabelFrame.empty(), np.zeros(1, np.int64), np.empty(0, np.int64), np.empty(0))
"""The answer of a query all of whose time range is too old, instant or range."""
_ARROW_HEADERS = ((b"content-type", ARROW.encode()), (b"vary", b"Accept"))
TRUNCATED = "results truncated due to limit"
_FEW_EXEMPLARS = 200
"""Exemplars that are rendered on the event loop. why: as few take a millisecond."""


@dataclass(slots=True)
class ApiRequest:
    """One request of a tenant."""

    tenant: str
    params: Params
    reading: Reading
    """What its reads have to see, and what they saw."""
    scope: Scope
    """The request's headers and path."""
    arrow: bool = False
    """Whether its client wants Arrow rather than JSON."""
    samples_processed: int = 0
    """By the evaluation, as `totalQueryableSamples` counts them."""
    queue_s: float = 0.0
    """For which the evaluation waited for its turn."""
    evaluated_s: float = 0.0
    """When its result was there (`time.perf_counter`)."""


_REMEMBERED_CHARS = 1000
_parse_again = functools.lru_cache(256)(Question.parse)
"""Trees of the last expressions, which are immutable. why: dashboards and rules ask the same ones again and again; a
tree takes up to 200 bytes a character, so that all together are at most 50 MB."""


_INLINE_CHARS = 1 << 16
"""An expression of this size is parsed on the event loop. why: most take 20 ms; one of 10 MB takes seconds."""


async def read_query(params: Params) -> Question:
    """Return what the parameter `query` asks; others need not wait where it takes long. Raises QueryError."""
    text = params.get("query")
    try:
        if len(text) <= _INLINE_CHARS:
            return parse_question(text)
        return await asyncio.to_thread(parse_question, text)
    except QueryError as error:
        raise bad_parameter("query", error.message) from error


def parse_question(text: str) -> Question:
    """Return what an expression asks. Raises QueryError with the parser's position."""
    return _parse_again(text) if len(text) <= _REMEMBERED_CHARS else Question.parse(text)


def parse_selectors(params: Params) -> list[tuple[Matcher, ...]]:
    """Return the matchers of each `match[]`.

    Raises QueryError of the first that is no selector, else of the first that only asks for what may be empty.
    """
    return [check_matchers(matchers) for matchers in [parse_metric_selector(text) for text in params.all("match[]")]]


def check_matchers(matchers: Sequence[Matcher]) -> tuple[Matcher, ...]:
    """Return the matchers if at least one excludes the empty string. Raises QueryError."""
    if all(m.matches_empty for m in matchers):
        raise QueryError("match[] must contain at least one non-empty matcher", error_type="bad_data")
    return tuple(matchers)


_ESCAPED = re.compile(r"__|_([0-9A-Fa-f]{1,5})_")
_ESCAPED_NAME = re.compile(rf"(?:[^_]|{_ESCAPED.pattern})*", re.DOTALL)


def unescape_label_name(name: str) -> str:
    """Undo the escaping of UTF-8 names in paths (`U__` prefix). Source: Prometheus common `UnescapeName`."""
    body = name.removeprefix("U__")
    if body == name or not _ESCAPED_NAME.fullmatch(body):
        return name
    plain = _ESCAPED.sub(lambda found: chr(int(found[1], 16)) if found[1] else "_", body)
    return name if _is_text(body) and not _is_text(plain) else plain


def _is_text(text: str) -> bool:
    """Whether a string is Unicode, without lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@frozen
class _Options:
    """What a query takes besides expression and times: read before the expression is parsed, as in Prometheus."""

    limit: int
    """Series of the result; 0 for all."""
    timeout_s: float | None
    lookback_ms: int | None
    """How far instant selectors look back; None if the request does not say."""

    @classmethod
    def of(cls, params: Params, limit: int) -> _Options:
        """Read time-out and look-back, which few requests have. Raises QueryError."""
        if params.values.keys().isdisjoint(("timeout", "lookback_delta")):
            return cls(limit, None, None)
        return cls(limit, _timeout_s(params), _lookback_ms(params))


class QueryApi:
    """Handlers of the query API; the router maps paths to them."""

    def __init__(self, querier: Querier, *, limits_for: Callable[[str], Limits], now_ms: Callable[[], int]) -> None:
        self._querier = querier
        self.limits_for = limits_for
        self._now_ms = now_ms

    async def query(self, asked: ApiRequest) -> Answer:
        """`/query`: one instant."""
        params = asked.params
        limit = params.limit()
        try:
            at_ms = params.time_ms("time", self._now_ms())
        except QueryError as error:
            raise bad_parameter("time", error.message) from error
        options = _Options.of(params, limit)
        return await self._evaluate(asked, await read_query(params), RangeParams(at_ms, at_ms, 0), options)

    async def query_range(self, asked: ApiRequest) -> Answer:
        """`/query_range`: steps from start to end."""
        params = asked.params
        limit = params.limit()
        window = range_params(params)
        options = _Options.of(params, limit)
        question = await read_query(params)
        kind = question.expression.type
        if kind not in (ValueType.VECTOR, ValueType.SCALAR):
            raise bad_parameter(
                "query",
                f"query expression produces a {kind.documented}, but expression for range queries must "
                "produce an instant vector or scalar",
            )
        return await self._evaluate(asked, question, window, options)

    async def _evaluate(self, asked: ApiRequest, question: Question, window: RangeParams, options: _Options) -> Answer:
        params = asked.params
        limits = self.limits_for(asked.tenant)
        now_ms = self._now_ms()
        admitted = admit_query(
            limits, question, start_ms=window.start_ms, end_ms_incl=window.end_ms_incl, now_ms=now_ms
        )
        arrow = asked.arrow
        if admitted is None:
            if arrow:
                return await asyncio.to_thread(_arrow_response, NOTHING, [], [], "")
            return success(b"{", *result_pieces(NOTHING), b"}")
        try:
            answer = await self._querier.query(
                asked.tenant,
                question.expression,
                start_ms=admitted.start_ms,
                end_ms_incl=admitted.end_ms_incl,
                step_ms=window.step_ms,
                lookback_ms=options.lookback_ms,
                timeout_s=options.timeout_s,
                reading=asked.reading,
                tenant_limits=admitted.limits,
                earliest_ms=admitted.earliest_ms,
                per_step_stats=params.get("stats") == "all",
            )
        except DurationError as error:
            raise bad_parameter("query", error.message) from error
        asked.evaluated_s = time.perf_counter()
        asked.samples_processed = answer.result.stats.total_queryable_samples
        asked.queue_s = answer.timings.queue_s
        value = answer.result.value
        render = functools.partial(_render, params, question.text, answer, options.limit, arrow)
        if arrow or (isinstance(value, Vector | Matrix) and len(value.values) > INLINE_POINTS):
            return await run_until(answer.deadline, render)
        return render(None)

    async def series(self, asked: ApiRequest) -> Answer:
        """`/series`: label sets that any of the selectors matches."""
        params = asked.params
        if not params.all("match[]"):
            raise QueryError("no match[] parameter provided", error_type="bad_data")
        limits = self.limits_for(asked.tenant)
        listing = self._listing(asked, limits, limits.max_series_query_limit, "max-series-query-limit")
        try:
            selectors = parse_selectors(params)
        except QueryError as error:
            raise bad_parameter("match[]", error.message) from error
        if listing.times is None:
            return success(b"[]")
        deadline = self._deadline()
        frame = await self._querier.label_frame(asked.tenant, selectors, *listing.times, reading=asked.reading)

        def sets(rows: slice) -> list[dict[str, str]]:
            return [{k: clean(v) for k, v in s.items()} for s in frame.take(rows).to_dicts()]

        return await _limited_list(frame.n, sets, listing, asked.reading, deadline)

    def _deadline(self) -> float:
        """Return when the time of a request that has just come is over (monotonic clock, s)."""
        return time.monotonic() + self._querier.limits.timeout_s

    def _listing(self, asked: ApiRequest, limits: Limits, most: int, flag: str) -> Listing:
        """Read `limit`, `start` and `end`, and hold them against the tenant's limits. Raises QueryError."""
        limit, (start_ms, end_ms_incl) = asked.params.limit(), series_range(asked.params)
        clamped = clamp_count(limit, most, f"querier.{flag}")
        return admit_listing(limits, limit, clamped, start_ms=start_ms, end_ms_incl=end_ms_incl, now_ms=self._now_ms())

    async def labels(self, asked: ApiRequest) -> Answer:
        """`/labels`: names in use."""
        params = asked.params
        limits = self.limits_for(asked.tenant)
        listing = self._listing(asked, limits, limits.max_label_names_limit, "max-label-names-limit")
        selectors = parse_selectors(params) or [()]
        if listing.times is None:
            return success(b"[]")
        deadline = self._deadline()
        with _as_execution() if len(selectors) < 2 else contextlib.nullcontext():
            names = await self._querier.label_names(asked.tenant, selectors, *listing.times, reading=asked.reading)
        names = [clean(name) for name in names]
        return await _limited_list(len(names), names.__getitem__, listing, asked.reading, deadline)

    async def label_values(self, asked: ApiRequest) -> Answer:
        """`/label/{name}/values`: values in use."""
        params = asked.params
        name = path_label_name(asked.scope)
        limits = self.limits_for(asked.tenant)
        listing = self._listing(asked, limits, limits.max_label_values_limit, "max-label-values-limit")
        selectors = parse_selectors(params) or [()]
        if listing.times is None:
            return success(b"[]")
        deadline = self._deadline()
        with _as_execution():
            values = await self._querier.label_values(
                asked.tenant, name, selectors, *listing.times, reading=asked.reading
            )
        if not _is_text("".join(values)):
            values = sorted(map(clean, values))
        return await _limited_list(len(values), values.__getitem__, listing, asked.reading, deadline)

    async def query_exemplars(self, asked: ApiRequest) -> Answer:
        """`/query_exemplars`: exemplars of the expression's selectors; 204 when it has none."""
        start, end = exemplar_range(asked.params)
        selectors = selectors_of(parse_question(asked.params.get("query")).expression)
        if not selectors:
            return Answer(204)
        deadline = self._deadline()
        found = await self._querier.exemplars(asked.tenant, selectors, start, end + 1, reading=asked.reading)
        if sum(len(series.exemplars) for series in found) <= _FEW_EXEMPLARS:
            return success(exemplars_json(found).encode())
        return success((await run_until(deadline, lambda check: exemplars_json(found, check))).encode())

    async def metadata(self, asked: ApiRequest) -> Answer:
        """`/metadata`: families with type, help and unit; errors have no errorType."""
        params = asked.params
        numbers = {}
        for name in ("limit", "limit_per_metric"):
            text = params.get(name)
            try:
                numbers[name] = parse_limit(text) if text else -1
            except ValueError:
                body = {"status": "error", "error": f"{name} must be a number"}
                return Answer(400, orjson.dumps(body), JSON_HEADERS)
        per_metric = numbers["limit_per_metric"]
        wanted = params.get("metric")
        families: dict[str, list[dict[str, str]]] = {}
        for family, items in (await self._querier.metadata(asked.tenant, reading=asked.reading)).items():
            if wanted and family != wanted:
                continue
            if 0 <= numbers["limit"] <= len(families):
                break
            kept = items[:per_metric] if per_metric > 0 else items
            families[family] = [{"type": i.type, "help": clean(i.help), "unit": clean(i.unit)} for i in kept]
        return success(orjson.dumps(families))

    async def format_query(self, asked: ApiRequest) -> Answer:
        """`/format_query`: the expression in canonical, multi-line form."""
        return success(orjson.dumps(clean(prettify((await read_query(asked.params)).expression))))

    async def parse_query(self, asked: ApiRequest) -> Answer:
        """`/parse_query`: the expression's tree."""
        return success(orjson.dumps(to_json((await read_query(asked.params)).expression)))

    async def delete_series(self, asked: ApiRequest) -> Answer:
        """`DELETE /series` is routed and never was implemented."""
        raise QueryError("not implemented", error_type="internal")


def _timeout_s(params: Params) -> float | None:
    return params.duration_ns("timeout") / 1e9 if params.get("timeout") else None


def _lookback_ms(params: Params) -> int | None:
    text = params.get("lookback_delta")
    if not text:
        return None
    try:
        lookback_ms = parse_duration(text) // 1_000_000
    except ValueError as error:
        raise QueryError(f"error parsing lookback delta duration: {error}", error_type="bad_data") from error
    return lookback_ms if lookback_ms > 0 else None


def _render(params: Params, text: str, answer: QueryAnswer, limit: int, arrow: bool, check: Check | None) -> Answer:
    """Return the answer as JSON or Arrow; `check` is called between pieces of it."""
    result = answer.result
    value, cut = limited(result.value, limit) if limit else (result.value, False)
    warnings, infos = result.annotations.render(text, limit=MAX_ANNOTATIONS) if result.annotations else ([], [])
    warnings = [*answer.warnings, *warnings]
    asked = params.get("stats")
    stats = stats_json(result.stats, answer.timings) if asked else ""
    if asked and asked not in ("true", "all"):
        warnings.append(
            f"value {go_quote(asked)} for parameter "
            '"stats" is deprecated and will be rejected in the next major release, use "true" or "all"'
        )
    if cut:
        warnings.append(TRUNCATED)
    if arrow:
        return _arrow_response(value, warnings, infos, stats, check)
    ends = [b',"stats":', stats.encode()] if stats else []
    return success(b"{", *result_pieces(value, check), *ends, b"}", warnings=warnings, infos=infos)


def _arrow_response(
    value: Vector | Matrix | Scalar | String,
    warnings: list[str],
    infos: list[str],
    stats: str,
    check: Check | None = None,
) -> Answer:
    """Return a result as an Arrow stream; `stats` is JSON, or empty. Takes long the first time (see `arrow`)."""
    from mimir_ingest.api.arrow import result_arrow

    facts: dict[str, object] = {"warnings": warnings, "infos": infos}
    if stats:
        facts["stats"] = orjson.Fragment(stats)
    return Answer(200, result_arrow(value, facts, check), _ARROW_HEADERS)


def path_label_name(scope: Scope) -> str:
    """Return the label name in a request's path. Raises QueryError."""
    name = unescape_label_name(_path_text(scope))
    if not name or not _is_text(name):
        raise QueryError(f"invalid label name: {go_quote(name)}", error_type="bad_data")
    return name


def _path_text(scope: Scope) -> str:
    """Return the variable of a path, decoded once; bytes that are no UTF-8 become lone surrogates."""
    encoded = scope["path_params"]["name"].encode("latin-1", "replace")
    return unquote_to_bytes(encoded).decode("utf-8", "surrogateescape")


async def _limited_list(
    count: int, items: Callable[[slice], list], listing: Listing, reading: Reading, deadline: float
) -> Answer:
    """Return at most as many of `count` items as were asked for and as the tenant may have, with warnings.

    `items` gives some of them. Many are written in a thread, some thousand at a time; raises QueryError when time is
    over.
    """
    warnings = [*reading.warnings, *listing.warnings]
    count = min(count, listing.enforced or count)
    if 0 < listing.limit < count:
        count, warnings = listing.limit, [*warnings, TRUNCATED]

    def render(check: Check | None) -> Answer:
        pieces = [b"["]
        for first in range(0, count, LISTED_ITEMS):
            if check is not None:
                check()
            pieces += (
                b"," if first else b"",
                orjson.dumps(items(slice(first, min(count, first + LISTED_ITEMS))))[1:-1],
            )
        return success(*pieces, b"]", warnings=warnings)

    return render(None) if count <= LISTED_ITEMS else await run_until(deadline, render)


@contextlib.contextmanager
def _as_execution() -> Iterator[None]:
    """Give failures of the backend the type `execution`, where Mimir's have it."""
    try:
        yield
    except (LogError, StorageError, OwnerError, PartitionError) as error:
        raise QueryError(error.message) from error
