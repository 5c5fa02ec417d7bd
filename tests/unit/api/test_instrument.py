"""Every request leaves its marks in the metrics, under bounded label values, whatever becomes of it."""

import asyncio

import pytest

from mimir_ingest.api.exchange import Traffic
from mimir_ingest.api.instrument import Instrument, RouteNames, route_name
from mimir_ingest.obs.metrics import ServerMetrics, new_registry

TEMPLATES = ["/", "/api/v1/push", "/p/api/v1/label/{name}/values", "/static/{name}", "/a.b/{x}"]


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("/", "root"),
        ("/api/v1/push", "api_v1_push"),
        ("/prometheus/api/v1/label/{name}/values", "prometheus_api_v1_label_name_values"),
        ("/Debug//x-y", "debug_x_y"),
    ],
)
def test_routes_are_named_as_mimir_names_them(template, name):
    assert route_name(template) == name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"/", "root"),
        (b"/api/v1/push", "api_v1_push"),
        (b"/api/v1/push/", "other"),
        (b"/p/api/v1/label/up%2Fdown/values", "p_api_v1_label_name_values"),
        (b"/p/api/v1/label/a/b/values", "other"),
        (b"/a.b/c", "a_b_x"),
        (b"/axb/c", "other"),
        (b"", "other"),
        (b"/\xff", "other"),
    ],
)
def test_a_path_has_the_name_of_its_template_or_other(path, name):
    assert RouteNames(TEMPLATES).of(path) == name


async def ask(application, *, method="POST", path=b"/api/v1/push", chunks=(b"",)):
    """Send a request through an Instrument; return (its registry, what the application's answer was).

    Bytes are counted as an exchange counts them.
    """
    registry = new_registry()
    instrument = Instrument(application, ServerMetrics.create(registry), RouteNames(TEMPLATES), log_level=None)
    bodies = [
        {"type": "http.request", "body": chunk, "more_body": i < len(chunks) - 1} for i, chunk in enumerate(chunks)
    ]
    sent = []

    traffic = Traffic()

    async def receive():
        traffic.received += len(bodies[0]["body"])
        return bodies.pop(0)

    async def send(message):
        sent.append(message)
        traffic.status = message.get("status", traffic.status)
        traffic.sent += len(message.get("body", b""))

    scope = {"method": method, "raw_path": path, "path": path.decode("latin-1"), "traffic": traffic}
    try:
        await instrument(scope, receive, send)
    except (RuntimeError, asyncio.CancelledError) as error:
        sent.append(error)
    return registry, sent


async def read_all_and_answer(scope, receive, send):
    while (await receive())["more_body"]:
        pass
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b"abc", "more_body": True})
    await send({"type": "http.response.body", "body": b"de"})


async def test_status_duration_and_sizes_are_recorded():
    registry, sent = await ask(read_all_and_answer, chunks=[b"x" * 10, b"y" * 5])
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body", "http.response.body"]
    labels = {"method": "POST", "route": "api_v1_push"}
    value = registry.get_sample_value
    done = {**labels, "status_code": "204", "ws": "false"}
    assert value("cortex_request_duration_seconds_count", done) == 1
    assert value("cortex_request_duration_seconds_sum", done) > 0
    assert value("cortex_request_message_bytes_sum", labels) == 15
    assert value("cortex_response_message_bytes_sum", labels) == 5
    assert value("cortex_inflight_requests", labels) == 0


async def test_a_request_that_ends_without_an_answer_counts_as_given_up():
    async def breaks(scope, receive, send):
        raise RuntimeError("broken")

    async def cancelled(scope, receive, send):
        raise asyncio.CancelledError

    for application in (breaks, cancelled):
        registry, _ = await ask(application)
        labels = {"method": "POST", "route": "api_v1_push"}
        assert registry.get_sample_value("cortex_inflight_requests", labels) == 0
        done = {**labels, "status_code": "499", "ws": "false"}
        assert registry.get_sample_value("cortex_request_duration_seconds_count", done) == 1


async def test_clients_cannot_make_up_label_values():
    registry, _ = await ask(read_all_and_answer, method="BREW", path=b"/teapot/17")
    labels = {"method": "other", "route": "other", "status_code": "204", "ws": "false"}
    assert registry.get_sample_value("cortex_request_duration_seconds_count", labels) == 1
