"""Spec ingest-storage 8.5, rules 1 to 10, one series at a time over decoded strings."""

from __future__ import annotations

import re

OK, NO_LABELS, MISSING_METRIC_NAME, METRIC_NAME_INVALID, MAX_LABEL_NAMES, MAX_LABEL_NAMES_INFO = range(6)
LABEL_INVALID, LABEL_NAME_TOO_LONG, LABEL_VALUE_INVALID, LABEL_VALUE_TOO_LONG, DUPLICATE_LABEL_NAMES = range(6, 11)
TOO_FAR_IN_FUTURE, TOO_FAR_IN_PAST, VALUES_TO_SHORTEN = range(11, 14)


def is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def check(
    pairs: list[tuple[bytes, bytes]],
    timestamps: list[int],
    *,
    max_label_names: int = 30,
    max_label_names_info: int = 80,
    max_name_bytes: int = 1024,
    max_value_bytes: int = 2048,
    utf8: bool = False,
    skip_label_names: bool = False,
    skip_label_count: bool = False,
    shorten_values: bool = False,
    min_timestamp: int,
    max_timestamp: int,
) -> tuple[int, int]:
    """Return (rule, label number, label count or sample number)."""
    if not pairs:
        return NO_LABELS, 0
    names = [value for name, value in pairs if name == b"__name__"]
    if not names:
        return MISSING_METRIC_NAME, first_bad_label(pairs, **_label_rules(locals()))[1]
    metric_ok = is_utf8(names[0]) if utf8 else re.fullmatch(rb"[a-zA-Z_:][a-zA-Z0-9_:]*", names[0])
    if not metric_ok:
        return METRIC_NAME_INVALID, first_bad_label(pairs, **_label_rules(locals()))[1]
    if not skip_label_count and len(pairs) > max_label_names:
        if not names[0].endswith(b"_info"):
            return MAX_LABEL_NAMES, len(pairs)
        if len(pairs) > max_label_names_info:
            return MAX_LABEL_NAMES_INFO, len(pairs)
    rule, at = first_bad_label(pairs, **_label_rules(locals()))
    if rule not in (OK, VALUES_TO_SHORTEN):
        return rule, at
    for number, timestamp in enumerate(timestamps):
        if timestamp > max_timestamp:
            return TOO_FAR_IN_FUTURE, number
        if timestamp < min_timestamp:
            return TOO_FAR_IN_PAST, number
    return rule, at


def _label_rules(known: dict) -> dict:
    return {k: known[k] for k in ("max_name_bytes", "max_value_bytes", "utf8", "skip_label_names", "shorten_values")}


def first_bad_label(
    pairs: list[tuple[bytes, bytes]],
    *,
    max_name_bytes: int,
    max_value_bytes: int,
    utf8: bool,
    skip_label_names: bool,
    shorten_values: bool,
) -> tuple[int, int]:
    previous = None
    rule = OK
    for at, (name, value) in enumerate(pairs):
        any_name = utf8 or skip_label_names
        name_ok = name != b"" and is_utf8(name) if any_name else re.fullmatch(rb"[a-zA-Z_][a-zA-Z0-9_]*", name)
        if not name_ok:
            return LABEL_INVALID, at
        if len(name) > max_name_bytes:
            return LABEL_NAME_TOO_LONG, at
        if not is_utf8(value):
            return LABEL_VALUE_INVALID, at
        if len(value) > max_value_bytes:
            if not shorten_values:
                return LABEL_VALUE_TOO_LONG, at
            rule = VALUES_TO_SHORTEN
        if name == previous:
            return DUPLICATE_LABEL_NAMES, at
        previous = name
    return rule, 0
