"""The files of a Prometheus block, written and read a byte at a time on Python values.

Sources: Prometheus tsdb/docs/format/{index,chunks}.md, v3.14. A series is (labels, chunks): labels a list of (name,
value) pairs of bytes, ascending; chunks a list of (min time, max time, reference).
"""

from __future__ import annotations

from dataclasses import dataclass

Labels = list[tuple[bytes, bytes]]
Chunks = list[tuple[int, int, int]]

_TABLE = []
for _byte in range(256):
    _crc = _byte
    for _ in range(8):
        _crc = _crc >> 1 ^ (0x82F63B78 if _crc & 1 else 0)
    _TABLE.append(_crc)


def crc32c(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return (crc ^ 0xFFFFFFFF).to_bytes(4, "big")


def uvarint(value: int) -> bytes:
    out = []
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def varint(value: int) -> bytes:
    return uvarint(value * 2 if value >= 0 else -value * 2 - 1)


def string(text: bytes) -> bytes:
    return uvarint(len(text)) + text


def section(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body + crc32c(body)


def series_body(labels: Labels, chunks: Chunks, symbols: dict[bytes, int]) -> bytes:
    out = uvarint(len(labels))
    for name, value in labels:
        out += uvarint(symbols[name]) + uvarint(symbols[value])
    out += uvarint(len(chunks))
    for i, (low, high, ref) in enumerate(chunks):
        if i == 0:
            out += varint(low) + uvarint(high - low) + uvarint(ref)
        else:
            out += uvarint(low - chunks[i - 1][1]) + uvarint(high - low) + varint(ref - chunks[i - 1][2])
    return out


def write_index(series: list[tuple[Labels, Chunks]]) -> bytes:
    strings = sorted({b""} | {text for labels, _ in series for pair in labels for text in pair})
    symbols = {text: i for i, text in enumerate(strings)}
    out = bytes.fromhex("baaad70002")
    out += section(len(strings).to_bytes(4, "big") + b"".join(map(string, strings)))
    toc = [5, len(out)]
    postings: dict[tuple[bytes, bytes], list[int]] = {(b"", b""): []}
    for labels, chunks in series:
        out += bytes(-len(out) % 16)
        for key in [(b"", b""), *labels]:
            postings.setdefault(key, []).append(len(out) // 16)
        body = series_body(labels, chunks, symbols)
        out += uvarint(len(body)) + body + crc32c(body)
    lists_at = len(out)
    table = len(postings).to_bytes(4, "big")
    for (name, value), refs in sorted(postings.items()):
        out += bytes(-len(out) % 4)
        table += b"\x02" + string(name) + string(value) + uvarint(len(out))
        out += section(len(refs).to_bytes(4, "big") + b"".join(ref.to_bytes(4, "big") for ref in refs))
    toc += [lists_at, len(out), lists_at, len(out)]
    out += section(table)
    body = b"".join(at.to_bytes(8, "big") for at in toc)
    return out + body + crc32c(body)


class Cursor:
    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def take(self, size: int) -> bytes:
        assert self.at + size <= len(self.data)
        self.at += size
        return self.data[self.at - size : self.at]

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def uvarint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def varint(self) -> int:
        value = self.uvarint()
        return value >> 1 if value % 2 == 0 else -(value >> 1) - 1

    def string(self) -> bytes:
        return self.take(self.uvarint())

    def section(self) -> Cursor:
        body = self.take(self.u32())
        assert self.take(4) == crc32c(body)
        return Cursor(body, 0)


@dataclass
class Index:
    symbols: list[bytes]
    series: dict[int, tuple[Labels, Chunks]]
    """By reference: offset over 16."""
    postings: dict[tuple[bytes, bytes], list[int]]


def read_index(file: bytes) -> Index:
    assert file[:5] == bytes.fromhex("baaad70002")
    assert crc32c(file[-52:-4]) == file[-4:]
    toc = [int.from_bytes(file[i : i + 8], "big") for i in range(len(file) - 52, len(file) - 4, 8)]
    cursor = Cursor(file, toc[0]).section()
    symbols = [cursor.string() for _ in range(cursor.u32())]
    table = Cursor(file, toc[5]).section()
    postings = {}
    for _ in range(table.u32()):
        assert table.uvarint() == 2
        key = (table.string(), table.string())
        entries = Cursor(file, table.uvarint()).section()
        postings[key] = [entries.u32() for _ in range(entries.u32())]
    series = {}
    for ref in postings[b"", b""]:
        cursor = Cursor(file, ref * 16)
        body = cursor.take(cursor.uvarint())
        assert cursor.take(4) == crc32c(body)
        cursor = Cursor(body, 0)
        labels = [(symbols[cursor.uvarint()], symbols[cursor.uvarint()]) for _ in range(cursor.uvarint())]
        chunks: Chunks = []
        for i in range(cursor.uvarint()):
            low = cursor.uvarint() + chunks[-1][1] if i else cursor.varint()
            high = low + cursor.uvarint()
            chunks.append((low, high, cursor.varint() + chunks[-1][2] if i else cursor.uvarint()))
        series[ref] = labels, chunks
    return Index(symbols, series, postings)


def frame(encoding: int, data: bytes) -> bytes:
    body = bytes([encoding]) + data
    return uvarint(len(data)) + body + crc32c(body)


def read_frame(file: bytes, at: int) -> tuple[int, bytes, int]:
    """Return (encoding, data, position after the frame)."""
    cursor = Cursor(file, at)
    size = cursor.uvarint()
    body = cursor.take(1 + size)
    assert cursor.take(4) == crc32c(body)
    return body[0], body[1:], cursor.at
