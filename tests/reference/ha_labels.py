"""Label sets without a label, in plain Python."""

from __future__ import annotations

from tests.reference.label_pairs import split_pairs


def without(text: bytes, name: bytes) -> bytes:
    """The label set without the first label of this name."""
    for start, name_end, _, end in split_pairs(text):
        if text[:name_end].endswith(name) and name_end - start - len(name) == (1 if len(name) < 128 else 2):
            return text[:start] + text[end:]
    return text
