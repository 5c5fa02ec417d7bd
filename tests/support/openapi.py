"""The HTTP API as OpenAPI documents, for requests made up from them. LEFT_OUT are routes that end a process.

Parameters are texts with some values that go deep; what a text may contain is the generator's business.
"""

from __future__ import annotations

from typing import Any

PROMETHEUS = "/prometheus/api/v1"
LEFT_OUT = {
    ("/ingester/shutdown", "POST"),
    ("/debug/fgprof", "GET"),
    *(
        (f"/ingester/prepare-{what}", method)
        for what in ("shutdown", "partition-downscale", "instance-ring-downscale")
        for method in ("POST", "DELETE")
    ),
}
"""(Path, method) of what ends or empties the process that is asked, calls that off, or looks on for half a minute."""

EXPRESSIONS = [
    "up", "rate(up[5m])", "sum by (job) (up)", "up offset 1h", 'up{job=~"a.*|b"}', "topk(2, up)", "up @ end()",
    "max_over_time(up[1h:1m])", "label_replace(up, 'a', '$1', 'job', '(.*)')", "histogram_quantile(0.9, h)", "1 / 0",
    "up and on (job) up", "quantile(2, up)", "-up ^ 2", '"text"', "sort_desc(up)", "count_values('v', up)", "absent(x)",
    "histogram_count(h)", "info(up)", "{__name__=~'.+'}", "up[5m]",
]  # fmt: skip
SELECTORS = ["up", '{job="a"}', '{__name__=~".+"}', 'h{le!=""}', "{}", '{"up"}', "up offset 1h"]
TIMES = ["0", "1", "1.5", "-1", "1e3", "2026-02-17T09:30:00Z", "NaN", "Inf", "9223372036854775", "1e309"]
DURATIONS = ["15", "15s", "1h", "0", "-1", "1e-9", "1e300", "292y", "1w2d", "NaN"]
NUMBERS = ["0", "1", "-1", "10", "500", "501", "9223372036854775808", "1e3", "+1"]


def text(*examples: str) -> dict[str, Any]:
    return (
        {"anyOf": [{"type": "string", "enum": list(examples)}, {"type": "string"}]} if examples else {"type": "string"}
    )


def query(name: str, *examples: str, repeated: bool = False, required: bool = False) -> dict[str, Any]:
    schema = {"type": "array", "items": text(*examples), "maxItems": 4} if repeated else text(*examples)
    return {"name": name, "in": "query", "required": required, "schema": schema}


def header(name: str, *examples: str, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": required, "schema": text(*examples)}


TENANT = header("X-Scope-OrgID", "anonymous", "a|b", "..", "a/b", "a:b", "|")
READ = [
    header("X-Read-Consistency", "strong", "eventual"),
    header("X-Read-Consistency-Offsets", "v1=0:1", "v1=0:-1", "v1=0:99999999999999999999", "v2="),
    header("X-Read-Consistency-Max-Delay", "5s", "-1s", "1x"),
    header("Accept", "application/json", "application/vnd.apache.arrow.stream", "text/html", "*/*"),
    header("Accept-Encoding", "gzip", "gzip;q=x", "identity;q=0"),
    header("Origin", "http://x"),
]
ENVELOPE = {
    "type": "object",
    "required": ["status"],
    "properties": {
        "status": {"enum": ["success", "error"]},
        "errorType": {"type": "string"},
        "error": {"type": "string"},
        "warnings": {"type": "array", "items": {"type": "string"}},
    },
}


def answers(*kinds: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    content = {kind: {"schema": schema} if schema and kind == "application/json" else {} for kind in kinds}
    return {"default": {"description": "an answer", "content": content}}


def operation(
    *parameters: dict[str, Any],
    form: list[dict[str, Any]] | None = None,
    body: dict[str, dict[str, Any]] | None = None,
    kinds: tuple[str, ...] = ("text/plain", "application/json", "text/html"),
    schema: dict[str, Any] | None = None,
) -> dict[str, Any]:
    found: dict[str, Any] = {"parameters": list(parameters), "responses": answers(*kinds, schema=schema)}
    if form is not None:
        properties = {parameter["name"]: parameter["schema"] for parameter in form}
        body = {"application/x-www-form-urlencoded": {"schema": {"type": "object", "properties": properties}}}
    if body is not None:
        found["requestBody"] = {"content": body}
    return found


def _prometheus() -> dict[str, Any]:
    start, end = query("start", *TIMES), query("end", *TIMES)
    match, limit = query("match[]", *SELECTORS, repeated=True), query("limit", *NUMBERS)
    timeout, lookback = query("timeout", *DURATIONS), query("lookback_delta", *DURATIONS)
    stats = query("stats", "all", "true")
    expression = query("query", *EXPRESSIONS)
    either = {
        "/query": [expression, query("time", *TIMES), limit, timeout, lookback, stats],
        "/query_range": [expression, start, end, query("step", *DURATIONS), limit, timeout, lookback, stats],
        "/series": [match, start, end, limit],
        "/labels": [match, start, end, limit],
        "/query_exemplars": [expression, start, end],
        "/format_query": [expression],
        "/parse_query": [expression],
    }
    only_get = {
        "/label/{name}/values": [match, start, end, limit],
        "/metadata": [query("metric", "up", "h"), limit, query("limit_per_metric", *NUMBERS)],
        "/status/buildinfo": [],
        "/status/config": [],
        "/status/flags": [],
        "/cardinality/label_names": [query("selector", *SELECTORS), limit, query("count_method", "active", "inmemory")],
        "/cardinality/label_values": [
            query("label_names[]", "job", repeated=True), query("selector", *SELECTORS), limit,
            query("count_method", "active", "inmemory"),
        ],
        "/cardinality/active_series": [query("selector", *SELECTORS)],
        "/cardinality/active_native_histogram_metrics": [query("selector", *SELECTORS)],
    }  # fmt: skip
    kinds = ("application/json", "text/plain", "application/vnd.apache.arrow.stream")
    paths: dict[str, Any] = {}
    for path, parameters in either.items():
        paths[PROMETHEUS + path] = {
            "get": operation(TENANT, *READ, *parameters, kinds=kinds, schema=ENVELOPE),
            "post": operation(TENANT, *READ, form=parameters, kinds=kinds, schema=ENVELOPE),
        }
    for path, parameters in only_get.items():
        names = [{"name": "name", "in": "path", "required": True, "schema": text("job", "U__a_2e_b", "U___", "%ff")}]
        more = names if "{name}" in path else []
        if path == "/cardinality/active_series":
            more = [header("Sharding-Control", "4", "0", "-1", "x", "9" * 5000)]
        paths[PROMETHEUS + path] = {"get": operation(TENANT, *READ, *more, *parameters, kinds=kinds)}
        if path.startswith("/cardinality/"):
            post = operation(TENANT, *READ, form=parameters, kinds=kinds)
            paths[PROMETHEUS + path]["post"] = post
    paths[PROMETHEUS + "/series"]["delete"] = operation(TENANT, kinds=("application/json", "text/plain"))
    return paths


def _writes() -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    anything = {"schema": {"anyOf": [{"type": "object"}, {"type": "array"}, {"type": "string"}, {"type": "number"}]}}
    fields = {"timeUnixNano": {}, "asDouble": {}, "asInt": {}, "attributes": {"type": "array"}, "flags": {}}
    point = {"type": "object", "properties": fields}
    metrics = {"type": "array", "items": {"type": "object", "properties": {
        "name": text("m"), "unit": text("s"), "description": text(),
        "gauge": {"type": "object", "properties": {"dataPoints": {"type": "array", "items": point}}},
        "sum": {"type": "object", "properties": {"aggregationTemporality": {}, "isMonotonic": {}, "dataPoints": {}}},
        "histogram": {"type": "object"}, "exponentialHistogram": {"type": "object"}, "summary": {"type": "object"},
    }}}  # fmt: skip
    scopes = {"type": "array", "items": {"type": "object", "properties": {"metrics": metrics, "scope": {}}}}
    request = {"type": "object", "properties": {"resourceMetrics": {"type": "array", "items": {
        "type": "object", "properties": {"resource": {}, "scopeMetrics": scopes}}}}}  # fmt: skip
    encoding = header("Content-Encoding", "snappy", "gzip", "zstd", "lz4", "br", "identity")
    retry = header("Retry-Attempt", "1", "-1", "x", "99999999999999999999")
    skip = [header("X-Mimir-SkipLabelNameValidation", "true"), header("X-Mimir-SkipLabelCountValidation", "true")]
    v2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
    return {
        "/api/v1/push": {
            "post": operation(TENANT, encoding, retry, *skip, body={"application/x-protobuf": binary, v2: binary})
        },
        "/otlp/v1/metrics": {
            "post": operation(
                TENANT, encoding, retry,
                body={"application/json": {"schema": {"anyOf": [request, anything["schema"]]}},
                      "application/x-protobuf": binary},
                kinds=("application/json", "application/x-protobuf", "text/plain"),
            )
        },
        "/api/v1/push/influx/write": {
            "post": operation(
                TENANT, encoding, retry, query("precision", "ns", "s", "x"),
                body={"text/plain": {"schema": text("m,a=b v=1 1", "m v=1i", 'm v="x"', "m,=,=")}},
            )
        },
        PROMETHEUS + "/read": {"post": operation(TENANT, *READ, body={"application/x-protobuf": binary})},
    }  # fmt: skip


def _operators() -> dict[str, Any]:
    accept = header("Accept", "application/json", "text/html", "json")
    tenant = {"name": "tenant", "in": "path", "required": True, "schema": text("anonymous", "a", "%2e%2e", "a%2fb")}
    ring = [query("forget", "nobody", "a/b")]
    partition = [
        query("action", "change_state", "change_state_and_lock", "state_change_lock"),
        query("partition_id", "7", "+-7", "9" * 5000, "-1", "99999999999"),
        query("partition_state", "PartitionActive", "2", "PartitionInactive"), query("locked", "true", "false"),
    ]  # fmt: skip
    pages = ["/", "/services", "/memberlist", "/ready", "/api/v1/ingestion_lag", "/ingester/partitions",
             "/ingester/tenants", "/ingester/tsdb_metrics", "/distributor/ha_tracker", "/distributor/all_user_stats",
             "/api/v1/user_stats", "/api/v1/status/buildinfo", "/api/v1/status/config", "/api/v1/status/flags",
             "/api/v1/user_limits", "/runtime_config", "/config",
             "/ingester/prepare-shutdown", "/ingester/prepare-partition-downscale",
             "/ingester/prepare-instance-ring-downscale"]  # fmt: skip
    mode = query("mode", "diff", "defaults")
    paths: dict[str, Any] = {path: {"get": operation(TENANT, accept, mode)} for path in pages}
    for path in ("/distributor/ring", "/ingester/ring"):
        paths[path] = {"get": operation(accept, query("tokens", "true")), "post": operation(form=ring)}
    paths["/ingester/partition-ring"] = {
        "get": operation(accept, query("tokens", "true", "x")), "post": operation(form=partition),
    }  # fmt: skip
    paths["/ingester/tsdb/{tenant}"] = {"get": operation(tenant, accept)}
    paths["/static/{name}"] = {
        "get": operation({"name": "name", "in": "path", "required": True, "schema": text("style.css", "..%2fapp.py")})
    }
    paths["/metrics"] = {
        "get": operation(
            accept, query("name[]", "cortex_build_info", repeated=True),
            kinds=("text/plain", "application/openmetrics-text"),
        )
    }  # fmt: skip
    profile = {
        "type": "string",
        "enum": ["heap", "allocs", "goroutine", "threadcreate", "block", "mutex", "trace", "x"],
    }
    binary = "application/octet-stream", "text/plain"
    paths["/debug/pprof/{profile}"] = {
        "get": operation(
            {"name": "profile", "in": "path", "required": True, "schema": profile},
            query("debug", "1", "2"), query("gc", "1"), kinds=binary,
        )
    }  # fmt: skip
    paths["/ingester/flush"] = {
        "get": operation(query("tenant", "a", repeated=True), query("wait", "true")),
        "post": operation(form=[query("tenant", "a", repeated=True), query("wait", "true")]),
    }
    paths["/ingester/unregister-on-shutdown"] = {
        "get": operation(),
        "put": operation(body={"application/json": {"schema": {
            "anyOf": [{"type": "object", "properties": {"unregister": {"type": "boolean"}}}, {"type": "string"}]}}}),
        "delete": operation(),
    }  # fmt: skip
    return paths


def _described(paths: dict[str, Any]) -> dict[str, Any]:
    return {"openapi": "3.0.3", "info": {"title": "mimir-ingest", "version": "0"}, "paths": paths}


def document() -> dict[str, Any]:
    """Return the document of the tenants' and operators' routes."""
    return _described(_prometheus() | _writes() | _operators())


def internal_document() -> dict[str, Any]:
    """Return the document of what a cluster's processes ask each other."""
    partitions = header("X-Mimir-Partitions", "0", "0,1", "0,", "9" * 30)
    who = [TENANT, partitions, *READ[1:3]]
    start, end, match = query("start", *TIMES), query("end", *TIMES), query("match[]", *SELECTORS, repeated=True)
    names = {"name": "name", "in": "path", "required": True, "schema": text("job", "U__a_2e_b", "U___", "%ff")}
    count = [
        query("kind", "totals", "pairs", "series", "histograms", "x"), query("active", "true", "false"),
        query("label_names[]", "job", repeated=True), query("max_bytes", *NUMBERS),
    ]  # fmt: skip
    paths: dict[str, Any] = {}
    for path, path_parameters, parameters, kind in (
        ("/series", [], [match, start, end], "application/json"),
        ("/labels", [], [match, start, end], "application/json"),
        ("/label/{name}/values", [names], [match, start, end], "application/json"),
        ("/metadata", [], [], "application/json"),
        ("/exemplars", [], [match, start, end], "application/json"),
        ("/census", [], [match, start, end, *count], "application/octet-stream"),
    ):
        kinds = (kind, "application/json")
        paths[f"/api/v1{path}"] = {
            "get": operation(*who, *path_parameters, *parameters, kinds=kinds),
            "post": operation(*who, *path_parameters, form=parameters, kinds=kinds),
        }
    for path in ("/tenants", "/ingestion_lag"):
        paths[f"/api/v1{path}"] = {"get": operation(TENANT, kinds=("application/json",))}
    binary = {"schema": {"type": "string", "format": "binary"}}
    paths["/api/v1/read"] = {"post": operation(*who, body={"application/x-protobuf": binary})}
    return _described(paths)
