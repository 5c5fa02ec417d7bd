"""What one reader of the ring store knows: the records it holds, and the document they make.

The store keeps, for sure, only the newest record of each (key, writer); those are the *slots*. The document is the join
of everything read, less the tombstones whose last slot was nulled. While each writer's record holds the whole joined
entry as that writer knew it, the slots alone make the same document, so a reader that starts after a compaction sees
what running readers see. Three accidents break that: an append that failed and appears after a newer one of its writer,
a null that meets a new value, and a record that cannot be read. Running readers keep what they knew; `lacking` names
what a late reader would miss once the store is compacted, and upkeep writes it again. So a store keeps superseded
records for some minutes, which is longer than running readers need to mend an accident.
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

    Parameters
    ----------
    knowing : RingDesc
        What a store is known to have held that has lost it since: joined with what is read, and lacking until it is.
    """

    def __init__(self, knowing: RingDesc | None = None) -> None:
        self.desc = knowing or RingDesc()
        """The document as of the newest record applied; immutable, replaced when something changed."""
        self._slots: dict[str, dict[str, Entry]] = {}
        self._suspect: set[str] = set(self.desc.entries)
        """Keys of which a slot went away or back."""

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
                slots = self._slots.setdefault(record.key, {})
                before = slots.get(record.writer, entry)
                slots[record.writer] = entry
                if join(before, entry) != entry:
                    self._suspect.add(record.key)
                joining.append(entry)
        self.desc = join_entries(self.desc, joining)
        return unread

    def _take_back(self, key: str, writer: str) -> None:
        self._suspect.add(key)
        slots = self._slots.get(key, {})
        slots.pop(writer, None)
        if not slots:
            self._slots.pop(key, None)

    def lacking(self) -> list[Entry]:
        """Return the entries that a reader of the slots alone would not see as this one does; most often none."""
        missing = [self.desc.entries[key] for key in sorted(self._suspect) if not self._complete(key)]
        self._suspect = {entry.key for entry in missing}
        return missing

    def _complete(self, key: str) -> bool:
        entry, slots = self.desc.entries.get(key), self._slots.get(key, {})
        return entry is None or (bool(slots) and reduce(join, slots.values()) == entry)
