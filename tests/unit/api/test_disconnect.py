"""Work whose client has gone is stopped."""

from __future__ import annotations

import asyncio

import pytest

from mimir_ingest.api import disconnect
from mimir_ingest.api.disconnect import ClientGone, unless_gone
from mimir_ingest.api.query_routes import unless_disconnected
from mimir_ingest.errors import QueryError


class Client:
    """What an application receives from a client that leaves when told to."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.asked = asyncio.Event()

    async def receive(self) -> dict:
        if not self.asked.is_set():
            self.asked.set()
            return {"type": "http.request", "body": b"nobody reads this"}
        await self.left.wait()
        return {"type": "http.disconnect"}


@pytest.fixture(autouse=True)
def _watch_soon(monkeypatch):
    monkeypatch.setattr(disconnect, "WATCH_AFTER_S", 0.001)


async def test_the_work_is_cancelled_when_the_client_leaves_and_the_request_is_499():
    client, stopped = Client(), asyncio.Event()

    async def work() -> None:
        client.left.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    with pytest.raises(QueryError, match="query was canceled in query execution") as error:
        await unless_disconnected(client.receive, work())
    assert stopped.is_set()
    assert (error.value.http_status, error.value.error_type) == (499, "canceled")


async def test_a_time_out_around_the_work_goes_on_working_after_a_client_has_gone():
    client = Client()
    client.left.set()
    async with asyncio.timeout(30):
        with pytest.raises(ClientGone):
            await unless_gone(client.receive, asyncio.Event().wait())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await unless_gone(Client().receive, asyncio.Event().wait())


async def test_work_that_is_cancelled_from_elsewhere_is_not_taken_for_a_client_that_left():
    task = asyncio.create_task(unless_gone(Client().receive, asyncio.Event().wait()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_client_that_waits_gets_the_answer_and_is_not_listened_to_any_more():
    client = Client()

    async def work() -> str:
        await client.asked.wait()
        return "done"

    assert await unless_gone(client.receive, work()) == "done"
    await asyncio.sleep(0)
    assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []


async def test_errors_of_the_work_come_through():
    async def work() -> None:
        raise QueryError("no")

    with pytest.raises(QueryError, match="no"):
        await unless_gone(Client().receive, work())
