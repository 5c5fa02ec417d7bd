"""The bytes that every system under test gets: remote write 1.0 bodies of a fixed set of series."""

from __future__ import annotations

import math
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


@dataclass(frozen=True)
class Workload:
    """`series` series, `per_request` of them in a body, one sample each a round."""

    series: int
    per_request: int
    rounds: int
    step_ms: int
    start_ms: int

    @property
    def samples(self) -> int:
        """All samples."""
        return self.series * self.rounds

    def bodies(self):
        """Yield compressed bodies, round by round: counters that grow by a varying amount."""
        encoded = [
            b"".join(_field(1, _field(1, n.encode()) + _field(2, v.encode())) for n, v in series_labels(i))
            for i in range(self.series)
        ]
        for turn in range(self.rounds):
            timestamp = b"\x10" + _uvarint(self.start_ms + turn * self.step_ms)
            for first in range(0, self.series, self.per_request):
                parts = []
                for i in range(first, min(first + self.per_request, self.series)):
                    value = math.floor(turn * (1 + i % 17) + (i * 31 + turn * 7) % 5)
                    sample = b"\x09" + struct.pack("<d", float(value)) + timestamp
                    parts.append(_field(1, encoded[i] + _field(2, sample)))
                yield bytes(cramjam.snappy.compress_raw(b"".join(parts)))
