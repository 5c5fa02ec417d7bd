"""What one reader of the ring store knows: the records it holds, and the document they make.

The store keeps, for sure, only the newest record of each (key, writer); those are the *slots*. The document is the join
of everything read, less the tombstones whose last slot was nulled. While each writer's record holds the whole joined
entry as that writer knew it, the slots alone make the same document, so a reader that starts after a compaction sees
what running readers see. Three accidents break that: an append that failed and appears after a newer one of its writer,
a null that meets a new value, and a record that cannot be read. Running readers keep what they knew; `lacking` names
what a late reader would miss, and upkeep writes it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from types import MappingProxyType

from partitions.codec import decode
from partitions.errors import EntryCorrupt
from partitions.kv.contract import RingRecord
from partitions.merge import drop_entries, join, join_entries
from partitions.model import Entry, RingDesc


class Replica:
    """Folds a store's records, from position 0 on and in their order, into a document. Owned by one task.

    A reader that has not read for hours starts a new one at position 0: nulls it missed may be gone from the store.
    """

    def __init__(self) -> None:
        self.desc = RingDesc()
        """The document as of the newest record applied; immutable, replaced when something changed."""
        self._slots: dict[str, dict[str, Entry]] = {}

    @property
    def slots(self) -> Mapping[str, Mapping[str, Entry]]:
        """By key and writer, the records that the store holds for sure: those not nulled."""
        return MappingProxyType(self._slots)

    def apply(self, records: Iterable[RingRecord]) -> list[EntryCorrupt]:
        """Join records into the document.

        Returns
        -------
        list of EntryCorrupt
            One for each record that could not be read and was passed over.
        """
        unread: list[EntryCorrupt] = []
        joining: list[Entry] = []
        for record in records:
            if record.value is None:
                self._take_back(record.key, record.writer)
                if record.key not in self._slots:
                    self.desc = join_entries(self.desc, joining)
                    joining.clear()
                    if (entry := self.desc.entries.get(record.key)) is not None and entry.deleted:
                        self.desc = drop_entries(self.desc, [record.key])
                continue
            try:
                entry = decode(record.key, record.value)
            except EntryCorrupt as error:
                unread.append(error)
                self._take_back(record.key, record.writer)
                continue
            if entry is not None:
                self._slots.setdefault(record.key, {})[record.writer] = entry
                joining.append(entry)
        self.desc = join_entries(self.desc, joining)
        return unread

    def _take_back(self, key: str, writer: str) -> None:
        slots = self._slots.get(key, {})
        slots.pop(writer, None)
        if not slots:
            self._slots.pop(key, None)

    def lacking(self) -> list[Entry]:
        """Return the entries that a reader starting now would not see as this one does."""
        return [
            entry
            for key, entry in self.desc.entries.items()
            if key not in self._slots or reduce(join, self._slots[key].values()) != entry
        ]
