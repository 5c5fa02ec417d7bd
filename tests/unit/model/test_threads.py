"""Work spread over threads: every item once, and nothing runs on after an error."""

from __future__ import annotations

import threading

import pytest

from mimir_ingest.model.threads import spread


@pytest.mark.parametrize("count", [0, 1, 2, 100])
@pytest.mark.parametrize("helpers", [0, 1, 3])
def test_every_item_is_worked_on_once(count, helpers):
    done: list[int] = []
    spread(done.append, range(count), helpers)
    assert sorted(done) == list(range(count))


def test_two_items_are_worked_on_at_the_same_time():
    meeting = threading.Barrier(2, timeout=30)
    spread(lambda _: meeting.wait(), range(2), 1)


def test_who_asks_does_not_wait_for_a_busy_pool():
    held, release, done = threading.Barrier(3, timeout=30), threading.Event(), []

    def hold(_: int) -> None:
        held.wait()
        release.wait(30)

    holder = threading.Thread(target=spread, args=(hold, range(2), 1))
    holder.start()
    held.wait()
    spread(done.append, range(10), 1)
    assert done == list(range(10))
    release.set()
    holder.join(30)


@pytest.mark.parametrize("bad", [0, 1])
def test_an_error_ends_the_others_and_is_raised(bad):
    """Both threads have begun when one fails; what nobody has begun is left out."""
    meeting, done = threading.Barrier(2, timeout=30), []

    def work(item: int) -> None:
        if item < 2:
            meeting.wait()
        if item == bad:
            raise ValueError(item)
        done.append(item)

    with pytest.raises(ValueError, match=str(bad)):
        spread(work, range(1_000_000), 1)
    assert len(done) < 999_999
