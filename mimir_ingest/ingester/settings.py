"""What decides a partition's cuts and blocks, besides the records: built-in, changed only by a control record."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from mimir_ingest.errors import RecordCorrupt, RecordVersionUnsupported


@dataclass(frozen=True, slots=True)
class PartitionSettings:
    """Settings of a partition. Every owner has the same ones at the same offset."""

    range_ms: int = 2 * 3_600_000
    """Length of a block's range."""
    grace_ms: int = 3_600_000
    """How long after a range's end (in record time) it is cut."""
    cut_max_samples: int = 50_000_000
    """Samples held that force a cut. why: 50 million are about 120 MB encoded and 800 MB decoded, the most that one
    block's samples can take; a partition of 20,000 series scraped every 15 s holds 14 million before a cut."""
    samples_per_chunk: int = 120
    """Samples of a block's chunks."""
    idle_ms: int = 13 * 3_600_000
    """How much older than the record time a tenant's newest sample is when all that is known of it is forgotten, at a
    cut that finds nothing of it. Mimir closes an idle tenant's database after as long."""
    encoder_version: int = 1
    """Version of the block encoder."""

    def changed(self, values: dict) -> PartitionSettings:
        """Return the settings with some replaced.

        Raises RecordCorrupt for impossible values, and RecordVersionUnsupported for a name or encoder of a later
        version: a reader that passed over it would go on to cut other blocks than its peers.
        """
        unknown = sorted(set(values) - set(asdict(self)))
        if unknown:
            raise RecordVersionUnsupported(f"partition settings {unknown} are not known: update this program")
        wrong = sorted(k for k, v in values.items() if not isinstance(v, int) or isinstance(v, bool) or v < 0)
        if wrong:
            raise RecordCorrupt(f"partition settings that are no whole numbers: {wrong}")
        settings = replace(self, **values)
        if settings.range_ms < 60_000 or not settings.cut_max_samples or not 1 <= settings.samples_per_chunk <= 0xFFFF:
            raise RecordCorrupt(f"partition settings out of range: {settings}")
        if settings.encoder_version != 1:
            raise RecordVersionUnsupported(
                f"block encoder version {settings.encoder_version} is not known, only 1: update this program"
            )
        return settings
