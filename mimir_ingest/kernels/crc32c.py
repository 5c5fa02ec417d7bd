"""CRC-32C (Castagnoli), eight bytes at a step.

Reflected polynomial 0x82F63B78, initial value and final xor 0xFFFFFFFF: the checksum of Prometheus's chunk files, index
files and streamed remote-read frames. Source: RFC 3720, appendix B.4 (test vectors); slicing-by-8.
Twin: tests/reference/crc32c.py.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import inline, kernel, u8_in, u32


def _tables() -> np.ndarray:
    """Return uint32[8 * 256]: entry `256 * k + b` is the checksum of byte b followed by k zero bytes."""
    tables = np.zeros((8, 256), np.uint32)
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        tables[0, byte] = crc
    for k in range(1, 8):
        tables[k] = tables[0][tables[k - 1] & 0xFF] ^ (tables[k - 1] >> 8)
    return tables.reshape(-1)


_TABLES = _tables()
_BYTE = np.uint64(0xFF)


@inline
def _update(crc: np.uint64, data: np.ndarray) -> np.uint64:
    """Advance an inverted checksum, held in the low 32 bits of a uint64, over `data`."""
    n = len(data)
    words = data[: n - n % 8].view(np.uint64)
    for i in range(len(words)):
        w = words[i] ^ crc
        crc = np.uint64(
            _TABLES[1792 + np.int64(w & _BYTE)]
            ^ _TABLES[1536 + np.int64((w >> np.uint64(8)) & _BYTE)]
            ^ _TABLES[1280 + np.int64((w >> np.uint64(16)) & _BYTE)]
            ^ _TABLES[1024 + np.int64((w >> np.uint64(24)) & _BYTE)]
            ^ _TABLES[768 + np.int64((w >> np.uint64(32)) & _BYTE)]
            ^ _TABLES[512 + np.int64((w >> np.uint64(40)) & _BYTE)]
            ^ _TABLES[256 + np.int64((w >> np.uint64(48)) & _BYTE)]
            ^ _TABLES[np.int64(w >> np.uint64(56))]
        )
    for i in range(n - n % 8, n):
        crc = (crc >> np.uint64(8)) ^ np.uint64(_TABLES[np.int64((crc ^ np.uint64(data[i])) & _BYTE)])
    return crc


@inline
def crc32c_inline(data: np.ndarray) -> np.uint32:
    """Return the CRC-32C of uint8[n] as a uint32; for kernels that checksum many pieces in one call."""
    return np.uint32(~_update(np.uint64(0xFFFFFFFF), data) & np.uint64(0xFFFFFFFF))


@kernel(u32(u32, u8_in))
def _crc32c_extend(crc, data):
    return np.uint32(~_update(np.uint64(~crc), data) & np.uint64(0xFFFFFFFF))


def crc32c(data: np.ndarray | bytes | memoryview, crc: int = 0) -> int:
    """Return the CRC-32C of `data`.

    Parameters
    ----------
    data : uint8[n] or any contiguous bytes-like
        What to checksum.
    crc : int
        Checksum of what came before, so that `crc32c(b, crc32c(a)) == crc32c(a + b)`.
    """
    array = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
    return int(_crc32c_extend(np.uint32(crc), array))
