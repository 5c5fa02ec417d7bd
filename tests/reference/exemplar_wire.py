"""Twin of the exemplar kernels: messages of the protobuf library to plain tuples."""

from __future__ import annotations


def decode(message, symbols=None) -> tuple[int, float, list[tuple[bytes, bytes]]]:
    """Return (timestamp, value, labels by name without empty values) of an exemplar of either shape."""
    if symbols is None:
        pairs = [(label.name, label.value) for label in message.labels]
    else:
        texts = [symbols[ref] for ref in message.labels_refs]
        pairs = list(zip(texts[::2], texts[1::2], strict=True))
    return message.timestamp, message.value, sorted((p for p in pairs if p[1]), key=lambda pair: pair[0])
