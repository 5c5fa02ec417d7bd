"""XOR chunks, a bit at a time on Python integers. Source: Prometheus tsdb/chunkenc/xor.go and bstream.go, v3."""

from __future__ import annotations

MASK = (1 << 64) - 1


def _signed(value: int) -> int:
    value &= MASK
    return value - (1 << 64) if value >> 63 else value


class _Bits:
    def __init__(self) -> None:
        self.text: list[str] = []

    def put(self, value: int, count: int) -> None:
        self.text.append(format(value & ((1 << count) - 1), f"0{count}b"))

    def put_uvarint(self, value: int) -> None:
        while value >= 0x80:
            self.put(value & 0x7F | 0x80, 8)
            value >>= 7
        self.put(value, 8)

    def to_bytes(self) -> bytes:
        text = "".join(self.text)
        text += "0" * (-len(text) % 8)
        return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


def _fits(value: int, bits: int) -> bool:
    return -((1 << (bits - 1)) - 1) <= value <= 1 << (bits - 1)


def encode(samples: list[tuple[int, int]]) -> bytes:
    """Encode (timestamp, value bits) pairs as one chunk."""
    bits = _Bits()
    delta = 0
    leading = trailing = None
    for i, (t, word) in enumerate(samples):
        if i == 0:
            bits.put_uvarint(t * 2 if t >= 0 else -t * 2 - 1)
            bits.put(word, 64)
            continue
        new_delta = (t - samples[i - 1][0]) & MASK
        if i == 1:
            bits.put_uvarint(new_delta)
        else:
            dod = _signed(new_delta - delta)
            if dod == 0:
                bits.put(0, 1)
            else:
                for prefix, prefix_size, size in ((0b10, 2, 14), (0b110, 3, 17), (0b1110, 4, 20), (0b1111, 4, 64)):
                    if size == 64 or _fits(dod, size):
                        bits.put(prefix, prefix_size)
                        bits.put(dod, size)
                        break
        delta = new_delta
        x = word ^ samples[i - 1][1]
        if x == 0:
            bits.put(0, 1)
            continue
        bits.put(1, 1)
        new_leading = min(64 - x.bit_length(), 31)
        new_trailing = (x & -x).bit_length() - 1
        if leading is not None and new_leading >= leading and new_trailing >= trailing:
            bits.put(0, 1)
        else:
            leading, trailing = new_leading, new_trailing
            bits.put(1, 1)
            bits.put(leading, 5)
            bits.put(64 - leading - trailing, 6)
        bits.put(x >> trailing, 64 - leading - trailing)
    return len(samples).to_bytes(2, "big") + bits.to_bytes()


def decode(chunk: bytes) -> list[tuple[int, int]]:
    """Decode one chunk to (timestamp, value bits) pairs; `ValueError` when it is cut off or a varint is too long."""
    if len(chunk) < 2:
        raise ValueError("no count")
    text = "".join(format(b, "08b") for b in chunk[2:])
    at = 0

    def take(count: int) -> int:
        nonlocal at
        if at + count > len(text):
            raise ValueError("cut off")
        at += count
        return int(text[at - count : at], 2) if count else 0

    def take_uvarint() -> int:
        value = 0
        for i in range(10):
            byte = take(8)
            if i == 9 and byte > 1:
                break
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                return value
        raise ValueError("varint too long")

    samples: list[tuple[int, int]] = []
    t = word = delta = leading = trailing = 0
    for i in range(int.from_bytes(chunk[:2], "big")):
        if i == 0:
            zigzag = take_uvarint()
            t = zigzag >> 1 if zigzag % 2 == 0 else -(zigzag >> 1) - 1
            word = take(64)
            samples.append((t, word))
            continue
        if i == 1:
            delta = take_uvarint()
        elif take(1):
            size = 14 if not take(1) else 17 if not take(1) else 20 if not take(1) else 64
            dod = take(size)
            if size < 64 and dod > 1 << (size - 1):
                dod -= 1 << size
            delta = (delta + dod) & MASK
        t = _signed(t + delta)
        if take(1):
            if take(1):
                leading = take(5)
                trailing = (64 - leading - (take(6) or 64)) & 0xFF
            size = (64 - leading - trailing) & 0xFF
            word ^= (take(size) << trailing) & MASK
        samples.append((t, word))
    return samples
