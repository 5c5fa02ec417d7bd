"""A process that dies at any step of shipping a cut leaves a bucket that the next one completes to the same content."""

from __future__ import annotations

import pytest

from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import StoreUnavailable
from tests.support.partition_log import START_MS, Owner, data_record, files_of, flush_record


def short_log():
    """Two cuts, two tenants, one of which keeps its samples at the first cut."""
    rows = [({"__name__": "m", "i": str(i)}, [(START_MS + i, float(i))]) for i in range(3)]
    more = [({"__name__": "m", "i": str(i)}, [(START_MS + 10 + i, float(i))]) for i in range(4)]
    return [
        data_record(0, "a", rows, at_ms=START_MS),
        data_record(1, "b", rows, at_ms=START_MS),
        flush_record(2, ["a"], at_ms=START_MS),
        data_record(3, "a", more, at_ms=START_MS),
        flush_record(4, at_ms=START_MS),
    ]


class Killed(BaseException):
    """The process is gone."""


class MortalBucket(Bucket):
    """Ends the process at its n-th operation, before or after it took effect."""

    def __init__(self, url: str, *, dies_at: int, after: bool, error: type[BaseException] = Killed) -> None:
        super().__init__(url)
        self.operations = 0
        self._dies_at, self._after, self._error = dies_at, after, error

    def _count(self, operation, *args):
        self.operations += 1
        if self.operations == self._dies_at:
            if self._after:
                operation(*args)
            raise self._error("here")
        return operation(*args)

    def write_atomic(self, path, data):
        return self._count(super().write_atomic, path, data)

    def read(self, path):
        return self._count(super().read, path)

    def list(self, folder=""):
        return self._count(super().list, folder)

    def exists(self, path):
        return self._count(super().exists, path)

    def delete(self, path):
        return self._count(super().delete, path)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_death_at_each_operation_of_shipping_ends_in_the_same_bucket(tmp_path, after):
    records = short_log()
    whole = Owner(MortalBucket(str(tmp_path / "whole"), dies_at=-1, after=False), tmp_path / "local")
    whole.consume(records)
    operations = whole.bucket.operations
    wanted = files_of(tmp_path / "whole")
    assert len(whole.cuts) >= 2
    assert operations > 20
    for n in range(1, operations + 1):
        url = str(tmp_path / str(n))
        owner = Owner(MortalBucket(url, dies_at=n, after=after), tmp_path / "none")
        with pytest.raises(Killed):
            owner.consume(records)
        heir = Owner(Bucket(url), tmp_path / "none")
        heir.consume(records)
        assert files_of(tmp_path / str(n)) == wanted, f"operation {n}"


def test_a_bucket_that_fails_once_at_each_operation_costs_a_repetition_and_nothing_else(tmp_path):
    records = short_log()
    whole = Owner(MortalBucket(str(tmp_path / "whole"), dies_at=-1, after=False), tmp_path / "local")
    whole.consume(records)
    wanted = files_of(tmp_path / "whole")
    for n in range(1, whole.bucket.operations + 1):
        owner = Owner(
            MortalBucket(str(tmp_path / str(n)), dies_at=n, after=True, error=StoreUnavailable), tmp_path / "none"
        )
        try:
            owner.consume(records)
        except StoreUnavailable:
            request = owner.state.in_flight if owner.state else None
            if request is not None:
                shipped = owner.shipper().ship(request)
                owner.state.finish_cut(shipped.cuts, shipped.stays)
            owner.consume(records)
        assert files_of(tmp_path / str(n)) == wanted, f"operation {n}"
