"""Texts of write errors, word for word Mimir's (spec: http api, section 15)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from mimir_ingest.model.labels import METRIC_NAME, get_uvarint, go_quote

METRIC_NAME_BYTES = METRIC_NAME.encode()

_CUT = 200
MAX_QUOTED_BYTES = 4 * (_CUT + 2)
"""More bytes than a quoted field shows: a character has at most four, and the last one may be half of one."""
_INVALID_RUN = re.compile("[\udc80-\udcff]+")
_INVALID_BYTE = re.compile("([\udc80-\udcff])")


def with_id(text: str, error_id: str) -> str:
    """Append the identifier."""
    return f"{text} ({error_id})"


def with_tenant_flags(text: str, error_id: str, *flags: str) -> str:
    """Append the identifier and the flags of the tenant limits that the sender ran into."""
    *first, last = [f"-{flag}" for flag in flags]
    named = f"{', '.join(first)} and {last}" if first else last
    limit = "limits" if first else "limit"
    return (
        f"{text} ({error_id}). To adjust the related per-tenant {limit}, configure {named}, "
        "or contact your service administrator."
    )


def with_instance_flag(text: str, error_id: str, flag: str) -> str:
    """Append the identifier and the flag of the limit of this process that was reached."""
    return (
        f"{text} ({error_id}). To adjust the related limit, configure -{flag}, or contact your service administrator."
    )


def read_labels(label_bytes: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the (name, value) pairs of one label set as they are."""
    at = 0
    while at < len(label_bytes):
        size, at = get_uvarint(label_bytes, at)
        name = label_bytes[at : at + size]
        size, at = get_uvarint(label_bytes, at + size)
        yield name, label_bytes[at : at + size]
        at += size


def read_metric_name(label_bytes: bytes) -> bytes:
    """Return the metric name of a label set, empty without one."""
    return next((value for name, value in read_labels(label_bytes) if name == METRIC_NAME_BYTES), b"")


def lenient(text: bytes) -> str:
    """Decode; each byte that is not UTF-8 becomes a lone surrogate, which `clean` or `quote` resolve."""
    return text.decode("utf-8", "surrogateescape")


def clean(text: str) -> str:
    """Replace each run of bytes that are not UTF-8 by U+FFFD, as Go's `strings.ToValidUTF8`."""
    return _INVALID_RUN.sub("�", text)


def cut(text: str) -> str:
    """Keep the first 200 characters of a quoted field."""
    return text[:_CUT]


def series_text(metric: bytes, pairs: Iterable[tuple[bytes, bytes]]) -> str:
    """Print a label set as `name{a="b"}`, names and values as in Mimir: in stored order, values as Go quotes them.

    Whatever the size of the labels, no more is looked at than is needed for more than 200 characters; what comes after
    that may be missing. Bytes of a value that are not UTF-8 print as `\\xff`.
    """
    text = lenient(metric[:MAX_QUOTED_BYTES])
    opened = False
    for name, value in pairs:
        if name == METRIC_NAME_BYTES:
            continue
        text += (
            f"{', ' if opened else '{'}{lenient(name[:MAX_QUOTED_BYTES])}={_quote(lenient(value[:MAX_QUOTED_BYTES]))}"
        )
        opened = True
        if len(text) > _CUT:
            return clean(text)
    return clean(text + "}" if opened else text or "{}")


def whole_series_text(label_bytes: bytes) -> str:
    """Print a label set as `series_text` does, however long it is."""
    pairs = [(name, value) for name, value in read_labels(label_bytes) if name != METRIC_NAME_BYTES]
    labels = ", ".join(f"{lenient(name)}={_quote(lenient(value))}" for name, value in pairs)
    return clean(lenient(read_metric_name(label_bytes)) + (f"{{{labels}}}" if pairs else "")) or "{}"


def rfc3339(timestamp_ms: int) -> str:
    """Return a time as Go prints it: UTC, milliseconds without zeros at the end; the number itself beyond year 9999."""
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=timestamp_ms)
    except OverflowError:
        return str(timestamp_ms)
    fraction = f".{timestamp_ms % 1000:03d}".rstrip("0").rstrip(".")
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + fraction + "Z"


def _quote(text: str) -> str:
    """Quote as Go does, with bytes that are not UTF-8 as escapes."""
    parts = _INVALID_BYTE.split(text)
    quoted = [f"\\x{ord(p) - 0xDC00:02x}" if i % 2 else go_quote(p)[1:-1] for i, p in enumerate(parts)]
    return f'"{"".join(quoted)}"'
