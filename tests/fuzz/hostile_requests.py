"""What hostile clients send: requests whose form is in doubt, odd tenants, paths, methods and headers, bad bodies."""

from __future__ import annotations

import gzip
import random

import cramjam

from tests.fuzz.edge import requests_v1, snapped
from tests.support.mutations import mutations

PUSH = snapped(*requests_v1())[1]
BOMB = bytes(120 << 20)
GET_OF = b"GET %s HTTP/1.1\r\nHost: x\r\nX-Scope-OrgID: a\r\n"
GET = GET_OF % b"/prometheus/api/v1/query?query=up"
POST = b"POST /api/v1/push HTTP/1.1\r\nHost: x\r\nX-Scope-OrgID: a\r\nContent-Type: application/x-protobuf\r\n"
CLOSE = b"Connection: close\r\n\r\n"
TENANTS = [
    b"",
    b".",
    b"..",
    b"a/b",
    b"a\\b",
    b"__mimir_cluster",
    b"a" * 151,
    b"a" * 100_000,
    b"a b",
    b"\xc3\xa9",
    b"\xff\xfe",
    b"a|b",
    b"a|",
    b"|",
    b"a|..",
    b"a|a",
    b"|".join(b"t%d" % i for i in range(3000)),
    b"a:b",
    b":b",
    b"a:b:c",
    b"a\tb",
    b"a%2f..",
    b"../../etc/passwd",
    b"*",
    b"'\"",
    b"{}",
    b"$(id)",
    b"a,b",
    b"a;b",
    b"\x7f",
    b"\x80",
]
PATHS = [
    b"/",
    b"//",
    b"/..",
    b"/../../etc/passwd",
    b"/%2e%2e/%2e%2e/etc/passwd",
    b"/%",
    b"/%zz",
    b"/%00",
    b"/a%00b",
    b"/%ff",
    b"/\xff",
    b"*",
    b"http://x/ready",
    b"x",
    b"/prometheus/api/v1/label/%ff/values",
    b"/prometheus/api/v1/label/%/values",
    b"/prometheus/api/v1/label/U__%ZZ/values",
    b"/prometheus/api/v1/label/a%2Fb/values",
    b"/prometheus/api/v1/label//values",
    b"/ingester/tsdb/%2e%2e",
    b"/ingester/tsdb/a%2f..%2fb",
    b"/ingester/tsdb/" + b"a" * 5000,
    b"/ingester/tsdb/%0d%0aX:y",
    b"/prometheus/api/v1/query?query=%",
    b"/prometheus/api/v1/query?query=" + b"(" * 60_000,
    b"/a%0d%0aSet-Cookie:x=y",
    b"/prometheus/api/v1/query?query=" + b"a%2B" * 60_000 + b"a",
    b"/prometheus/api/v1/query?" + b"&".join([b"a=b"] * 50_000),
    b"/prometheus/api/v1/query?query=up&time=" + b"9" * 5000,
    b"/prometheus/api/v1/query?query=up&timeout=" + b"9" * 500 + b"h",
    b"/prometheus/api/v1/query_range?query=up&start=-1e300&end=1e300&step=1e-300",
    b"/prometheus/api/v1/series",
    b"/prometheus/api/v1/series?match[]=" + b"{" * 1000,
    b"/prometheus/api/v1/query?query=up%7Ba%3D~%22(((((((((a*)*)*)*)*)*)*)*)*%22%7D",
    b"/prometheus/api/v1/query?query=up%7Ba%3D~%22%5Cxff%FF%22%7D",
    b"/prometheus/api/v1/labels?start=nan&end=inf&limit=" + b"9" * 500,
    b"/prometheus/api/v1/metadata?limit=1e9&limit_per_metric=-5&metric=%00",
    b"/static/..%2f..%2f..%2fetc%2fpasswd",
    b"/prometheus/api/v1/cardinality/label_values?label_names[]=%ff&limit=-1&selector=%7B",
    b"/api/v1/push/influx/write?precision=%ff",
    b"/prometheus/api/v1/query_exemplars?query=" + b"-" * 40_000 + b"a&start=0&end=1",
    b"/prometheus/api/v1/parse_query?query=" + b"!" * 9999,
    b"/prometheus/api/v1/format_query?query=" + b"a[1m:" * 2000,
    b"/runtime_config?mode=%00",
    b"/ingester/ring?%ff=%00",
    b"/ingester/partition-ring?" + b"x" * 70_000,
    b"/metrics?name[]=" + b"%ff" * 1000,
    b"/memberlist?viewKey=%ff&format=x",
    b"/debug/pprof/profile?seconds=1e9",
    b"/config?mode=..",
    b"/api/v1/user_limits?x=%zz",
    b"/ready?" + b"=" * 65_000,
    b"/api/v1/series?match[]=" + b"{" * 1000,
    b"/api/v1/series?match[]=up&start=-9e99&end=9e99&limit=-1",
    b"/api/v1/labels?match[]=%ff",
    b"/api/v1/label/%ff/values",
    b"/api/v1/metadata?limit=x",
    b"/api/v1/exemplars?query=%7B",
    b"/api/v1/census?kind=",
    b"/api/v1/census?kind=label_names&max_bytes=-" + b"9" * 4000,
    b"/api/v1/census?kind=label_names&max_bytes=" + b"9" * 5000,
    b"/api/v1/census?kind=label_values&match[]=up&label_names[]=%ff",
    b"/api/v1/tenants?x=%zz",
    b"/api/v1/ingestion_lag?" + b"&" * 9000,
    b"/ingester/prepare-partition-downscale?partition=" + b"9" * 5000,
    b"/ingester/partition-ring?action=change&partition_id=" + b"9" * 5000,
]
"""Routes of all listeners."""
ASKS = [
    b"X-Mimir-Partitions: " + b"9" * 4000,
    b"X-Mimir-Partitions: 0,",
    b"X-Read-Consistency-Offsets: v1=0:" + b"9" * 4000,
    b"X-Read-Consistency-Offsets: \xff",
    b"X-Read-Consistency: \xff",
    b"X-Read-Consistency-Max-Delay: " + b"9" * 400 + b"h",
    b"Authorization: Basic " + b"A" * 8000,
    b"Authorization: Bearer \xff",
    b"Accept: " + b"a/b;q=" * 4000,
    b"Accept-Encoding: gzip;q=" + b"9" * 4000,
]
"""Headers that a process of the cluster, or anybody, sends beside the tenant."""
METHODS = [
    b"GET",
    b"POST",
    b"PUT",
    b"DELETE",
    b"HEAD",
    b"OPTIONS",
    b"TRACE",
    b"CONNECT",
    b"PATCH",
    b"FOO",
    b"get",
    b"\x00",
    b"A" * 9999,
]


def _post(
    body: bytes, *headers: bytes, path: bytes = b"/api/v1/push", kind: bytes = b"application/x-protobuf"
) -> bytes:
    lines = [b"POST " + path + b" HTTP/1.1", b"Host: x", b"X-Scope-OrgID: a", b"Content-Type: " + kind, *headers]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"Connection: close", b"", body])


def framing() -> dict[str, bytes]:
    """Return requests whose length or form is in doubt."""
    chunked = b"5\r\nhello\r\n0\r\n\r\n"
    inner = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    return {
        "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!" + inner,
        "two equal lengths": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello" + inner,
        "list of lengths": POST + b"Content-Length: 5, 5\r\n\r\nhello" + inner,
        "signed length": POST + b"Content-Length: +5\r\n\r\nhello" + inner,
        "negative length": POST + b"Content-Length: -5\r\n\r\nhello" + inner,
        "hex length": POST + b"Content-Length: 0x5\r\n\r\nhello" + inner,
        "length without end": POST + b"Content-Length: " + b"9" * 400 + b"\r\n\r\nhello" + inner,
        "length over int64": POST + b"Content-Length: 18446744073709551621\r\n\r\nhello" + inner,
        "length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked + inner,
        "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + chunked + inner,
        "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked + inner,
        "unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + chunked + inner,
        "chunked not last": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + chunked + inner,
        "coding with a tab": POST + b"Transfer-Encoding:\tchunked\r\n\r\n" + chunked + inner,
        "space before colon": POST + b"Content-Length : 5\r\n\r\nhello" + inner,
        "folded header": POST + b"X-A: b\r\n c\r\nContent-Length: 5\r\n\r\nhello" + inner,
        "folded length": POST + b"Content-Length:\r\n 5\r\n\r\nhello" + inner,
        "chunk size signed": POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n" + inner,
        "chunk size huge": POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nhello\r\n0\r\n\r\n" + inner,
        "chunk size empty": POST + b"Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n" + inner,
        "chunk extensions": POST
        + b"Transfer-Encoding: chunked\r\n\r\n5;"
        + b"a=b;" * 20_000
        + b"\r\nhello\r\n0\r\n\r\n"
        + inner,
        "chunk without end": POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n" + inner,
        "trailers": POST
        + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Scope-OrgID: b\r\nContent-Length: 5\r\n\r\n"
        + inner,
        "bare LF": (GET + CLOSE).replace(b"\r\n", b"\n"),
        "bare CR": GET.replace(b"\r\n", b"\r") + CLOSE,
        "NUL in a header": GET + b"X-A: a\0b\r\n" + CLOSE,
        "NUL in a name": GET + b"X\0A: b\r\n" + CLOSE,
        "CR in a value": GET + b"X-A: a\rb\r\n" + CLOSE,
        "no host": b"GET /ready HTTP/1.1\r\n" + CLOSE,
        "two hosts": b"GET /ready HTTP/1.1\r\nHost: a\r\nHost: b\r\n" + CLOSE,
        "two tenants": GET + b"X-Scope-OrgID: b\r\n" + CLOSE,
        "two types": POST + b"Content-Type: application/json\r\nContent-Length: 0\r\n" + CLOSE,
        "HTTP/0.9": b"GET /ready\r\n\r\n",
        "HTTP/1.0": b"GET /ready HTTP/1.0\r\n\r\n",
        "HTTP/1.0 kept": b"GET /ready HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + b"GET /ready HTTP/1.0\r\n\r\n",
        "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        "HTTP/9.9": b"GET /ready HTTP/9.9\r\nHost: x\r\n\r\n",
        "h2c upgrade": GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n",
        "websocket": GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
        "upgrade with a body": POST
        + b"Connection: Upgrade\r\nUpgrade: x\r\nContent-Length: %d\r\n\r\n" % len(PUSH)
        + PUSH,
        "expect": POST + b"Expect: 100-continue\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(PUSH) + PUSH,
        "expect else": POST + b"Expect: 200-maybe\r\nContent-Length: 0\r\n" + CLOSE,
        "TLS hello": bytes.fromhex("16030100f1010000ed0303") + random.Random(1).randbytes(220),
        "garbage": random.Random(2).randbytes(5000),
        "only line ends": b"\r\n" * 5000,
        "a long line": b"GET /" + b"a" * 2_000_000,
        "many headers": GET + b"".join(b"X-%d: y\r\n" % i for i in range(5000)) + CLOSE,
        "a large header": GET + b"X-A: " + b"y" * 2_000_000 + b"\r\n" + CLOSE,
        "a large name": GET + b"X" * 300_000 + b": y\r\n" + CLOSE,
        "pipelined": GET * 0 + (GET + b"\r\n") * 300 + GET + CLOSE,
        "pipelined bad": (GET + b"\r\n") * 5 + b"\0\0\0\r\n\r\n",
        "body of a GET": GET + b"Content-Length: 5\r\n" + CLOSE + b"hello",
    }


def bodies() -> dict[str, bytes]:
    """Return pushes and forms with hostile bodies."""
    otlp, influx = b"/otlp/v1/metrics", b"/api/v1/push/influx/write"
    bomb = {
        "gzip": gzip.compress(BOMB),
        "zstd": bytes(cramjam.zstd.compress(BOMB)),
        "lz4": bytes(cramjam.lz4.compress(BOMB)),
        "deflate": bytes(cramjam.deflate.compress(BOMB)),
        "br": b"\x00" * 100,
        "identity": b"x",
        "gzip, gzip": gzip.compress(gzip.compress(BOMB)),
    }
    form = b"application/x-www-form-urlencoded"
    found = {f"OTLP bomb {c}": _post(b, b"Content-Encoding: " + c.encode(), path=otlp) for c, b in bomb.items()}
    found |= {f"Influx bomb {c}": _post(b, b"Content-Encoding: " + c.encode(), path=influx) for c, b in bomb.items()}
    found |= {f"push in {c}": _post(b[:5000], b"Content-Encoding: " + c.encode()) for c, b in bomb.items()}
    found |= {
        "snappy bomb": _post(bytes(cramjam.snappy.compress_raw(BOMB))),
        "framed snappy": _post(bytes(cramjam.snappy.compress(b"x" * 1000))),
        "read bomb": _post(bytes(cramjam.snappy.compress_raw(BOMB)), path=b"/prometheus/api/v1/read"),
        "read bomb inside": _post(bytes(cramjam.snappy.compress_raw(BOMB)), path=b"/api/v1/read"),
        "form bomb inside": _post(b"match[]=b&" * 2_000_000, path=b"/api/v1/series", kind=form),
        "form bomb": _post(b"a=b&" * 2_000_000, path=b"/prometheus/api/v1/query", kind=form),
        "form of a query": _post(b"query=" + b"(" * 900_000, path=b"/prometheus/api/v1/query", kind=form),
        "form with bad escapes": _post(b"query=%zz&query=%ff&%=&=", path=b"/prometheus/api/v1/query", kind=form),
        "multipart": _post(
            b'--b\r\nContent-Disposition: form-data; name="query"\r\n\r\nup\r\n--b--\r\n',
            path=b"/prometheus/api/v1/query",
            kind=b"multipart/form-data; boundary=b",
        ),
        "multipart without boundary": _post(b"x" * 1000, path=b"/prometheus/api/v1/query", kind=b"multipart/form-data"),
        "deep JSON": _post(b'{"a":' * 100_000, path=otlp, kind=b"application/json"),
        "wide JSON": _post(b"[" + b"0," * 1_000_000 + b"0]", path=otlp, kind=b"application/json"),
    }
    for i, data in enumerate(mutations([PUSH], 40, 1)):
        found[f"damaged push {i}"] = _post(data)
    return found


def lines() -> dict[str, bytes]:
    """Return requests with odd tenants, paths and methods."""
    found = {}
    for i, tenant in enumerate(TENANTS):
        for path in (b"/prometheus/api/v1/query?query=up", b"/prometheus/api/v1/labels", b"/api/v1/user_limits"):
            found[f"tenant {i} {path.decode()}"] = (
                b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nX-Scope-OrgID: " + tenant + b"\r\n" + CLOSE
            )
        found[f"tenant {i} push"] = _post(PUSH, path=b"/api/v1/push").replace(
            b"OrgID: a\r", b"OrgID: " + tenant + b"\r", 1
        )
    for i, header in enumerate(ASKS):
        for path in (b"/api/v1/series?match[]=up", b"/prometheus/api/v1/query?query=up"):
            found[f"ask {i} {path.decode()}"] = GET_OF % path + header + b"\r\n" + CLOSE
    for i, path in enumerate(PATHS):
        found[f"path {i}"] = GET_OF % path + CLOSE
    for i, method in enumerate(METHODS):
        for path in (b"/ready", b"/api/v1/push", b"/prometheus/api/v1/query", b"/ingester/flush?x", b"*"):
            found[f"method {i} {path.decode()}"] = method + b" " + path + b" HTTP/1.1\r\nHost: x\r\n" + CLOSE
    return found
