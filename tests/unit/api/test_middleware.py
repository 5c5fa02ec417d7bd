import gzip

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.api.errors import Answer
from mimir_ingest.api.middleware import CleanPath, Gzip, Route, Router, StripPrefix, accepts, clean_path, plain_routing


def echo(name):
    async def application(scope, receive, send):
        variables = ",".join(f"{k}={v}" for k, v in scope["path_params"].items())
        await Answer(200, f"{name} {variables}".strip().encode()).send(send)

    return application


def fallback():
    application = FastAPI()
    plain_routing(application)

    @application.get("/plain")
    async def plain():
        return Response("plain")

    @application.get("/rules/{namespace}")
    async def rules(namespace: str, request: Request):
        return Response(f"{namespace} {request.query_params.get('q')}")

    return application


ROUTES = [
    Route("/push", frozenset({"POST"}), echo("push")),
    Route("/thing", frozenset({"GET"}), echo("read")),
    Route("/thing", frozenset({"DELETE"}), echo("delete")),
    Route("/any", None, echo("any")),
    Route("/label/{name}/values", frozenset({"GET"}), echo("values")),
]


async def ask(application, method, path, **more):
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        return await client.request(method, path, **more)


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("POST", "/push", 200, "push"),
        ("GET", "/push", 405, ""),
        ("HEAD", "/thing", 405, ""),
        ("GET", "/thing", 200, "read"),
        ("DELETE", "/thing", 200, "delete"),
        ("HEAD", "/any", 200, "any"),
        ("GET", "/label/a%2Fb/values", 200, "values name=a%2Fb"),
        ("GET", "/label/a/b/values", 404, "404 page not found\n"),
        ("GET", "/thing/", 404, "404 page not found\n"),
        ("GET", "/%74hing", 404, "404 page not found\n"),
        ("GET", "/nowhere", 404, "404 page not found\n"),
        ("GET", "/plain", 200, "plain"),
        ("GET", "/plain/", 404, "404 page not found\n"),
        ("HEAD", "/plain", 405, ""),
        ("POST", "/plain", 405, ""),
        ("GET", "/rules/my%2Fns?q=%2F", 200, "my%2Fns /"),
    ],
)
async def test_paths_are_matched_encoded_and_methods_exactly(method, path, status, body):
    response = await ask(CleanPath(Router(ROUTES, fallback=fallback())), method, path)
    assert response.status_code == status
    assert response.text == (body if method != "HEAD" or status != 200 else response.text)
    if status == 404:
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.headers["x-content-type-options"] == "nosniff"


async def test_a_router_without_a_fallback_knows_only_its_routes():
    assert (await ask(Router(ROUTES), "GET", "/plain")).status_code == 404


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [
        (b"/", b"/"),
        (b"", b"/"),
        (b"/a/b", b"/a/b"),
        (b"/a/b/", b"/a/b/"),
        (b"//a///b", b"/a/b"),
        (b"/a/./b", b"/a/b"),
        (b"/a/../b", b"/b"),
        (b"/../..", b"/"),
        (b"/../../", b"/"),
        (b"/a/..", b"/"),
        (b"/a/b/..", b"/a"),
        (b"/a//", b"/a/"),
        (b"/.hidden", b"/.hidden"),
        (b"/a/%2e%2e/b", b"/a/%2e%2e/b"),
        (b"a", b"/a"),
    ],
)
def test_paths_are_cleaned_as_go_does(path, cleaned):
    assert clean_path(path) == cleaned


@given(st.lists(st.sampled_from([b"/", b"a", b".", b"%2F"]), max_size=12).map(b"".join))
def test_a_clean_path_stays_as_it_is(path):
    assert clean_path(clean_path(path)) == clean_path(path)


async def test_an_unclean_path_is_redirected_with_its_query():
    response = await ask(CleanPath(Router(ROUTES)), "GET", "http://x//thing/../any?a=1&b=%2F")
    assert response.status_code == 301
    assert response.headers["location"] == "/any?a=1&b=%2F"
    assert response.text == ""


async def test_a_redirect_never_leads_to_another_host():
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "raw_path": b"/.//\\other.host/x", "path": "", "headers": []}
    await CleanPath(Router(ROUTES))(scope, None, send)
    assert dict(sent[0]["headers"])[b"location"] == b"/%5Cother.host/x"


async def test_a_prefix_is_taken_off_and_required():
    application = StripPrefix(CleanPath(Router(ROUTES, fallback=fallback())), "/mimir/")
    assert (await ask(application, "GET", "/mimir/plain")).text == "plain"
    assert (await ask(application, "POST", "/mimir/push")).text == "push"
    for path in ("/plain", "/mimirplain", "/mimir"):
        assert (await ask(application, "GET", path)).status_code == 404


@pytest.mark.parametrize(
    ("header", "answer"),
    [
        ("", (False, True)),
        ("gzip", (True, True)),
        ("deflate, gzip;q=0.5", (True, True)),
        ("gzip;q=0", (False, True)),
        ("*", (True, True)),
        ("*;q=0, gzip", (True, False)),
        ("gzip, identity;q=0", (True, False)),
        ("br, identity;q=0", (False, False)),
        ("gzip;q=x", (False, True)),
        ("GZIP ; Q=1", (True, True)),
    ],
)
def test_accept_encoding_is_read_with_its_weights(header, answer):
    assert accepts(header) == answer


def body_of(size, **headers):
    async def application(scope, receive, send):
        await Answer(200, b"x" * size, tuple((k.encode(), v.encode()) for k, v in headers.items())).send(send)

    return application


@pytest.mark.parametrize(
    ("size", "accept", "encoding"),
    [
        (1399, "gzip", None),
        (1400, "gzip", "gzip"),
        (200_000, "gzip", "gzip"),
        (200_000, "br", None),
        (10, "gzip, identity;q=0", "gzip"),
        (0, "gzip", None),
    ],
)
async def test_bodies_from_1400_bytes_on_are_compressed(size, accept, encoding):
    response = await ask(Gzip(body_of(size)), "GET", "/", headers={"Accept-Encoding": accept})
    assert response.headers.get("content-encoding") == encoding
    assert response.headers["vary"] == "Accept-Encoding"
    assert response.content == b"x" * size
    if encoding:
        assert int(response.headers["content-length"]) < size or size < 100


async def test_a_response_that_has_an_encoding_is_left_alone():
    body = gzip.compress(bytes(range(256)) * 40)

    async def application(scope, receive, send):
        await Answer(200, body, ((b"content-encoding", b"gzip"), (b"vary", b"Accept-Encoding, Origin"))).send(send)

    response = await ask(Gzip(application), "GET", "/", headers={"Accept-Encoding": "gzip"})
    assert response.content == bytes(range(256)) * 40
    assert response.headers.get_list("vary") == ["Accept-Encoding, Origin"]
    assert int(response.headers["content-length"]) == len(body)


@pytest.mark.parametrize(
    "parts", [[b"a" * 100, b"b" * 100], [b"a" * 1000, b"b" * 1000, b"", b"c"], [b""], [b"x" * 2000]]
)
async def test_streams_are_compressed_as_they_come_once_long_enough(parts):
    application = FastAPI()

    @application.get("/")
    async def stream():
        async def chunks():
            for part in parts:
                yield part

        return StreamingResponse(chunks(), media_type="text/plain")

    response = await ask(Gzip(application), "GET", "/", headers={"Accept-Encoding": "gzip"})
    assert response.content == b"".join(parts)
    assert response.headers.get("content-encoding") == ("gzip" if sum(map(len, parts)) >= 1400 else None)
