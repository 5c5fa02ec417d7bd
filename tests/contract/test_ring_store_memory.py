"""The ring store in memory keeps the contract."""

import pytest

from partitions.kv.memory import MemoryRing, MemoryRingStore
from tests.contract.ring_store_contract import RingPlace, RingStoreContract


class MemoryPlace(RingPlace):
    def __init__(self):
        super().__init__()
        self._ring = MemoryRing(superseded_kept=1)

    def make(self):
        return MemoryRingStore(self._ring)


@pytest.fixture
async def place():
    place = MemoryPlace()
    yield place
    await place.close()


class TestMemoryRingStore(RingStoreContract):
    pass
