"""Expressions of requests: where they are parsed."""

import threading
from unittest import mock

import pytest

from mimir_ingest.api import query
from mimir_ingest.api.params import Params
from mimir_ingest.errors import QueryError


@pytest.fixture
def threads():
    """The threads that parse."""
    found: list[int] = []

    def spied(text: str, parse=query.parse_question) -> query.Question:
        found.append(threading.get_ident())
        return parse(text)

    with mock.patch.object(query, "parse_question", spied):
        yield found


async def test_a_long_expression_is_parsed_off_the_event_loop(threads):
    for text in ("up", f'"{"x" * 70_000}"'):
        assert (await query.read_query(Params({"query": [text]}))).text == text
    assert threads[0] == threading.get_ident()
    assert threads[1] != threads[0]


async def test_what_is_wrong_with_a_long_expression_is_told_as_of_a_short_one(threads):
    with pytest.raises(QueryError, match=r'^invalid parameter "query": 1:401: parse error: '):
        await query.read_query(Params({"query": ["(" * 70_000]}))
