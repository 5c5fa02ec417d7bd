"""The bytes that every system under test gets: remote write 1.0 bodies of a fixed set of series."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import cramjam

METRICS = 4


def _field(number: int, payload: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _uvarint(len(payload)) + payload


def _uvarint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def series_labels(index: int) -> list[tuple[str, str]]:
    """Return ten labels of about 250 bytes; series `index` belongs to metric `index % METRICS`."""
    return [
        ("__name__", f"http_requests_{index % METRICS}_total"),
        ("cluster", "production-eu-west-1"),
        ("container", "frontend-application"),
        ("instance", f"10.0.{index >> 8 & 255}.{index & 255}:8080"),
        ("job", "kubernetes-pods/frontend"),
        ("le", "+Inf"),
        ("method", ("GET", "POST", "PUT", "DELETE")[index // METRICS % 4]),
        ("namespace", f"team-{index % 50:03d}-services"),
        ("pod", f"frontend-application-{index:08d}-{index * 7919 % 99991:05d}"),
        ("status_code", ("200", "201", "404", "500")[index // 16 % 4]),
    ]


BUCKETS = ("0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "+Inf")


@dataclass(frozen=True)
class Workload:
    """`series` series, `per_request` of them in a body, one sample each a round."""

    series: int
    per_request: int
    rounds: int
    step_ms: int
    start_ms: int

    selector = f'{{__name__=~"http_requests_[0-{METRICS - 1}]_total"}}'
    """What selects all series."""

    @property
    def samples(self) -> int:
        """All samples."""
        return self.series * self.rounds

    @property
    def end_ms(self) -> int:
        """The last round's timestamp."""
        return self.start_ms + (self.rounds - 1) * self.step_ms

    def labels(self, index: int) -> list[tuple[str, str]]:
        """Return a series' labels."""
        return series_labels(index)

    def value(self, index, turn):
        """Return a series' sample of a round, or of arrays of both: counters that grow by a varying amount."""
        return turn * (1 + index % 17) + (index * 31 + turn * 7) % 5

    def bodies(self):
        """Yield compressed bodies, round by round."""
        encoded = [
            b"".join(_field(1, _field(1, n.encode()) + _field(2, v.encode())) for n, v in self.labels(i))
            for i in range(self.series)
        ]
        for turn in range(self.rounds):
            timestamp = b"\x10" + _uvarint(self.start_ms + turn * self.step_ms)
            for first in range(0, self.series, self.per_request):
                parts = []
                for i in range(first, min(first + self.per_request, self.series)):
                    sample = b"\x09" + struct.pack("<d", self.value(i, turn)) + timestamp
                    parts.append(_field(1, encoded[i] + _field(2, sample)))
                yield bytes(cramjam.snappy.compress_raw(b"".join(parts)))


@dataclass(frozen=True)
class BucketWorkload(Workload):
    """Classic histograms of ten buckets each."""

    selector = "http_request_duration_seconds_bucket"

    def labels(self, index: int) -> list[tuple[str, str]]:
        """Return a bucket's labels."""
        labels = dict(series_labels(index // len(BUCKETS)))
        return sorted({**labels, "__name__": self.selector, "le": BUCKETS[index % len(BUCKETS)]}.items())

    def value(self, index, turn):
        """Return a bucket's count, which is no less than that of the bucket before."""
        histogram, bucket = divmod(index, len(BUCKETS))
        return (bucket + 1) * super().value(histogram, turn)
