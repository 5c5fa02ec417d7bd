"""Profiles of this very process, read with the protobuf library."""

import asyncio
import gzip
import threading

import httpx
import pytest
from fastapi import FastAPI

from mimir_ingest.api.instrument import RouteNames
from mimir_ingest.api.middleware import plain_routing
from mimir_ingest.api.profiles import Profiles, profiles_router
from tests.support.profiles import read_profile


def client_of(*, instrumented=True):
    application = FastAPI(openapi_url=None)
    plain_routing(application)
    application.include_router(profiles_router(Profiles(max_seconds=120), instrumented=instrumented))
    return httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://p")


def functions_of(answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/octet-stream"
    _, samples = read_profile(gzip.decompress(answer.content))
    return {function for stack in samples for function, _, _ in stack}, samples


@pytest.fixture
def busy():
    """A thread that computes until the test ends."""
    ended = threading.Event()

    def compute_for_the_test():
        while not ended.is_set():
            sum(range(1000))

    thread = threading.Thread(target=compute_for_the_test)
    thread.start()
    yield
    ended.set()
    thread.join()


async def test_a_thread_that_computes_is_in_the_profile_of_the_processor(busy):
    async with client_of() as client:
        functions, samples = functions_of(await client.get("/debug/pprof/profile?seconds=1"))
    assert any("compute_for_the_test" in function for function in functions)
    assert all(looks > 0 and spent_ns > 0 for looks, spent_ns in samples.values())


async def test_a_thread_that_waits_is_in_the_profile_of_the_wall_and_among_the_stacks():
    ended = threading.Event()

    def wait_for_the_test():
        ended.wait()

    thread = threading.Thread(target=wait_for_the_test, name="waits")
    thread.start()
    try:
        async with client_of() as client:
            functions, _ = functions_of(await client.get("/debug/fgprof?seconds=1"))
            folded = (await client.get("/debug/fgprof?seconds=1&format=folded")).text
            stacks, counts = functions_of(await client.get("/debug/pprof/goroutine"))
            threads, _ = functions_of(await client.get("/debug/pprof/threadcreate"))
            text = (await client.get("/debug/pprof/goroutine?debug=2")).text
    finally:
        ended.set()
        thread.join()
    for found in (functions, stacks, threads):
        assert any("wait_for_the_test" in function for function in found)
    assert "wait_for_the_test" in folded
    assert "waits\n" in text
    assert sum(count for (count,) in counts.values()) > 1


async def test_one_profile_is_taken_at_once_and_ends_with_its_client():
    async with client_of() as client:

        async def taken() -> bool:
            await asyncio.sleep(0.02)
            return "sample_cpu" in (await client.get("/debug/pprof/goroutine?debug=1")).text

        first = asyncio.create_task(client.get("/debug/pprof/profile?seconds=100"))
        async with asyncio.timeout(60):
            while not await taken():
                pass
        second = await client.get("/debug/fgprof?seconds=1")
        assert (second.status_code, "already in use" in second.text) == (500, True)
        first.cancel()
        await asyncio.wait([first])
        async with asyncio.timeout(60):
            while await taken():
                pass
        assert (await client.get("/debug/fgprof?seconds=1")).status_code == 200


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("profile?seconds=121", 400, "profile duration exceeds server's WriteTimeout"),
        ("trace", 501, "/debug/fgprof"),
        ("heap", 501, "PYTHONTRACEMALLOC=1"),
        ("cmdline", 404, "404 page not found"),
        ("../fgprof?seconds=0", 400, "bad seconds"),
        ("../fgprof?seconds=x", 400, "bad seconds"),
        ("../fgprof?format=svg", 400, "bad format"),
    ],
)
async def test_what_cannot_be_had_is_refused_with_a_reason(path, status, text):
    async with client_of() as client:
        answer = await client.get(httpx.URL("http://p/debug/pprof/").join(path))
    assert (answer.status_code, text in answer.text) == (status, True), answer.text


async def test_profiles_of_contention_are_empty_and_the_list_names_all():
    async with client_of() as client:
        for name in ("block", "mutex"):
            assert functions_of(await client.get(f"/debug/pprof/{name}"))[1] == {}
        listed = (await client.get("/debug/pprof/")).text
        assert all(f'href="{name}"' in listed for name in ("profile", "heap", "goroutine", "mutex"))
        moved = await client.get("/debug/pprof")
        assert (moved.status_code, moved.headers["location"]) == (301, "pprof/")


async def test_without_instrumentation_only_fgprof_is_there():
    async with client_of(instrumented=False) as client:
        assert (await client.get("/debug/pprof/goroutine")).status_code == 404
        assert (await client.get("/debug/fgprof?seconds=0")).status_code == 400


def test_all_profiles_are_one_route_in_the_metrics_as_mimirs_alerts_expect():
    names = RouteNames(["/debug/pprof{profile:path}", "/debug/fgprof"])
    assert {names.of(path) for path in (b"/debug/pprof", b"/debug/pprof/", b"/debug/pprof/heap")} == {"debug_pprof"}
    assert names.of(b"/debug/fgprof") == "debug_fgprof"
