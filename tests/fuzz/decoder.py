"""What a decoder of bytes from outside promises: an answer, or one of the errors that it names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Decoder:
    """One decoder, with bytes that it takes."""

    decode: Callable[[bytes], object]
    corpus: Sequence[bytes]
    errors: tuple[type[Exception], ...] = ()
    """What it may raise; anything else is a bug."""
    seal: Callable[[bytes], bytes] = bytes
    """Puts the checksums of damaged bytes right, so that what is behind them is reached."""
