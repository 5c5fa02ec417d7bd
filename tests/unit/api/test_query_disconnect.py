"""A query whose client has gone is stopped."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import Response

from mimir_ingest.api import query
from mimir_ingest.errors import QueryError


class Client:
    """A request whose client leaves when it is asked for the `stays`th time."""

    def __init__(self, stays: int) -> None:
        self.left = stays

    async def is_disconnected(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.fixture(autouse=True)
def _poll_often(monkeypatch):
    monkeypatch.setattr(query, "DISCONNECT_POLL_S", 0.001)


async def test_the_work_is_cancelled_and_the_error_is_499():
    stopped = asyncio.Event()

    async def work() -> Response:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        raise AssertionError("unreachable")

    with pytest.raises(QueryError, match="query was canceled in query execution") as error:
        await query.unless_disconnected(Client(2), work())
    await asyncio.wait_for(stopped.wait(), 5)
    assert (error.value.http_status, error.value.error_type) == (499, "canceled")


async def test_a_client_that_waits_gets_the_answer():
    async def work() -> Response:
        await asyncio.sleep(0.01)
        return Response("done")

    assert (await query.unless_disconnected(Client(1_000_000), work())).body == b"done"


async def test_errors_of_the_work_come_through():
    async def work() -> Response:
        raise QueryError("no")

    with pytest.raises(QueryError, match="no"):
        await query.unless_disconnected(Client(0), work())
