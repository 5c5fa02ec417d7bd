"""Work in pieces, and its end when nobody waits for it."""

import asyncio
import re
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.errors import QueryError
from mimir_ingest.model import matchers
from mimir_ingest.model.matchers import Matcher, MatchType
from mimir_ingest.model.spans import even_spans, while_wanted


@given(st.integers(0, 50), st.integers(1, 9))
def test_even_spans_cover_all_and_ask_before_each(count, size):
    asked = []
    spans = list(even_spans(count, size, lambda: asked.append(1)))
    assert [i for first, last in spans for i in range(first, last)] == list(range(count))
    assert all(last - first <= size for first, last in spans)
    assert len(asked) == len(spans)


def test_a_check_raises_once_its_block_is_left():
    with while_wanted() as check:
        check()
    with pytest.raises(QueryError, match="given up"):
        check()


async def test_work_in_a_thread_ends_when_its_waiter_is_cancelled():
    begun = threading.Event()

    def work(check):
        while True:
            check()
            begun.set()

    async def ask():
        with while_wanted() as check:
            threads.append(asyncio.get_running_loop().run_in_executor(None, work, check))
            await asyncio.shield(threads[0])

    threads = []
    asking = asyncio.create_task(ask())
    await asyncio.to_thread(begun.wait)
    asking.cancel()
    await asyncio.wait([asking])
    with pytest.raises(QueryError, match="given up"):
        await threads[0]


@pytest.mark.parametrize("kind", list(MatchType))
@pytest.mark.parametrize("pattern", ["7", ".*7.*", "a|1.", "", ".*", "(?m)^1$"])
def test_values_are_matched_in_parts_as_one_by_one(monkeypatch, kind, pattern):
    monkeypatch.setattr(matchers, "_PART_VALUES", 20)
    values = [str(i) for i in range(97)] + ["", "7\n7", "a"]
    asked = []
    hit = Matcher(kind, "x", pattern).match_all(values, lambda: asked.append(1))
    alone = [Matcher(kind, "x", pattern).matches(value) for value in values]
    assert hit.tolist() == alone
    assert len(asked) == 5
    if kind is MatchType.REGEXP and "(" not in pattern:
        assert alone == [re.fullmatch(pattern, value, re.DOTALL) is not None for value in values]


def test_no_values_match_nothing():
    assert Matcher(MatchType.REGEXP, "x", ".*").match_all([]).tolist() == []
    assert Matcher(MatchType.REGEXP, "x", ".*").match_all([]).dtype == np.bool_
