"""Times and durations follow the API's grammar."""

import threading
from unittest import mock

import pytest

from mimir_ingest.api import query_routes
from mimir_ingest.api.params import Params, parse_duration, parse_time, range_params
from mimir_ingest.errors import QueryError


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("0", 0),
        ("1.2345", 1235),
        ("-1.5", -1500),
        ("1e3", 1_000_000),
        ("1970-01-01T00:00:01Z", 1000),
        ("1970-01-01T01:00:00.25+01:00", 250),
        ("2015-06-03T13:21:58.555Z", 1433337718555),
        ("9223372036854775", (1 << 63) - (1 << 54)),
        ("-9.29e15", (1 << 54) - (1 << 63)),
    ],
)
def test_times_are_seconds_or_rfc_3339(text, ms):
    assert parse_time(text) == ms


@pytest.mark.parametrize("text", ["", "foo", "30s", "2015-06-03", "1970-13-01T00:00:01Z", "inf", "nan"])
def test_other_times_are_refused(text):
    with pytest.raises(ValueError, match=f'cannot parse "{text}" to a valid timestamp'):
        parse_time(text)


@pytest.mark.parametrize(
    ("text", "ms"), [("15", 15000), ("0.5", 500), ("1h30m", 5_400_000), ("1d", 86_400_000), ("5ms", 5)]
)
def test_durations_are_seconds_or_units_in_order(text, ms):
    assert parse_duration(text) == ms * 1_000_000


@pytest.mark.parametrize("text", ["", "foo", "1m1h", "1s1s", "1e30", "-1m"])
def test_other_durations_are_refused(text):
    with pytest.raises(ValueError, match="to a valid duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("end=1&step=1", 'missing required parameter "start"'),
        ("start=2&end=1&step=1", 'invalid parameter "end": end timestamp must not be before start time'),
        ("start=0&end=1&step=0", 'invalid parameter "step": zero or negative'),
        ("start=0&end=11001&step=1", "exceeded maximum resolution of 11,000 points per timeseries"),
        ("start=x&end=1&step=1", 'invalid parameter "start": cannot parse "x" to a valid timestamp'),
    ],
)
def test_a_bad_range_is_a_400_with_prometheus_s_text(query, message):
    with pytest.raises(QueryError) as error:
        range_params(Params.parse(query.encode()))
    assert error.value.message.startswith(message)
    assert (error.value.http_status, error.value.error_type) == (400, "bad_data")


def test_values_of_the_body_stand_before_the_url_s():
    params = Params.parse(b"match[]=a&query=x", b"match[]=b&query=y")
    assert params.get("query") == "y"
    assert params.all("match[]") == ["b", "a"]


def test_as_many_parameters_as_go_takes_are_read_and_of_more_none():
    assert Params.parse(b"&".join([b"a=b"] * 10_000)).all("a") == ["b"] * 10_000
    assert Params.parse(b"&".join([b"a=b"] * 10_001)).values == {}


async def form_answer(body: bytes) -> tuple[Params, int]:
    """Return the parameters of a form, and the thread that read them."""
    threads = []

    class Spied(Params):
        @classmethod
        def parse(cls, query_string: bytes, body: bytes = b"") -> Params:
            threads.append(threading.get_ident())
            return Params.parse(query_string, body)

    async def receive() -> dict:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", b"application/x-www-form-urlencoded")]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"a=1", "headers": headers}
    with mock.patch.object(query_routes, "Params", Spied):
        return await query_routes.read_params(scope, receive), threads[0]


async def test_a_long_form_is_read_off_the_event_loop():
    here = threading.get_ident()
    long, short = b"a=" + b"%41" * 50_000, b"a=%41"
    assert await form_answer(short) == (Params({"a": ["A", "1"]}), here)
    params, thread = await form_answer(long)
    assert params.values == {"a": ["A" * 50_000, "1"]}
    assert thread != here


async def test_more_parameters_than_go_takes_are_a_400():
    with pytest.raises(QueryError, match="number of URL query parameters exceeded limit"):
        await form_answer(b"&" * 10_000)
