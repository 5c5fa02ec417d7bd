"""OpenTelemetry's names as Prometheus's: metrics with unit and type suffixes, labels.

Source: spec ingest-storage 8.9 ("Naming"); OpenTelemetry's compatibility document for Prometheus. Pure, results kept.
"""

from __future__ import annotations

import functools
import re
from typing import Literal

MetricKind = Literal["counter", "gauge", "other"]
"""What decides a metric's suffix: a monotonic sum, a gauge, anything else."""

STRATEGIES = {
    "UnderscoreEscapingWithSuffixes": ("legacy", True),
    "UnderscoreEscapingWithoutSuffixes": ("legacy", False),
    "NoUTF8EscapingWithSuffixes": ("utf8", True),
    "NoTranslation": ("utf8", False),
}
"""Values of `otel_translation_strategy`: the name validation scheme that each needs, and whether it adds suffixes."""

_UNITS = {
    "d": "days",
    "h": "hours",
    "min": "minutes",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "By": "bytes",
    "KiBy": "kibibytes",
    "MiBy": "mebibytes",
    "GiBy": "gibibytes",
    "TiBy": "tibibytes",
    "KBy": "kilobytes",
    "MBy": "megabytes",
    "GBy": "gigabytes",
    "TBy": "terabytes",
    "m": "meters",
    "V": "volts",
    "A": "amperes",
    "J": "joules",
    "W": "watts",
    "g": "grams",
    "Cel": "celsius",
    "Hz": "hertz",
    "1": "",
    "%": "percent",
}
_PER_UNITS = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year"}

_NOT_METRIC = re.compile(r"[^a-zA-Z0-9:_]+")
_NOT_TOKEN = re.compile(r"[^a-zA-Z0-9:]+")
_NOT_LABEL = re.compile(r"[^a-zA-Z0-9_]")
_UNDERSCORES = re.compile(r"_{2,}")

MAX_KEPT = 10_000
"""Translated names that are remembered."""
_MAX_KEPT_CHARS = 256
"""Longer names are translated each time. why: what is remembered must not grow with what somebody sends."""


class UnusableName(ValueError):
    """A name of which nothing is left."""


def strategy_of(scheme: str, suffixes: bool) -> str:
    """Return the strategy that follows from `name_validation_scheme` and `otel_metric_suffixes_enabled`."""
    return next(name for name, settings in STRATEGIES.items() if settings == (scheme, suffixes))


def metric_name(name: str, unit: str, kind: MetricKind, strategy: str) -> str:
    """Return the Prometheus name of a metric. Raises UnusableName."""
    if len(name) + len(unit) > _MAX_KEPT_CHARS:
        return _metric_name(name, unit, kind, strategy)
    return _kept_metric_name(name, unit, kind, strategy)


def unit_name(unit: str) -> str:
    """Return the unit that a metric's metadata tells: in the words of Prometheus, without what is in braces."""
    suffixes = map(_clean_unit, _unit_suffixes(unit))
    return "_".join(filter(None, suffixes)).removeprefix("_").removesuffix("_")


def label_name(name: str, *, escape: bool, prefix_underscore: bool, keep_underscores: bool) -> str:
    """Return the Prometheus name of an attribute.

    Parameters
    ----------
    escape
        Replace what the legacy scheme does not allow; else the name stays.
    prefix_underscore
        A name with a single underscore in front gets `key` there (`otel_label_name_underscore_sanitization`).
    keep_underscores
        Leave several underscores in a row (`otel_label_name_preserve_multiple_underscores`).

    Raises UnusableName.
    """
    if len(name) > _MAX_KEPT_CHARS:
        return _label_name(name, escape, prefix_underscore, keep_underscores)
    return _kept_label_name(name, escape, prefix_underscore, keep_underscores)


def _metric_name(name: str, unit: str, kind: MetricKind, strategy: str) -> str:
    scheme, suffixes = STRATEGIES[strategy]
    if scheme == "utf8":
        return _with_suffixes(name, unit, kind) if suffixes else name
    made = _tokens_joined(name, unit, kind) if suffixes else "_".join(filter(None, _NOT_METRIC.split(name)))
    if made[:1].isdigit():
        made = f"_{made}"
    if not made:
        raise UnusableName(f'normalization for metric "{name}" resulted in empty name')
    if made != name and not made.strip("_"):
        raise UnusableName(f'normalization for metric "{name}" resulted in invalid name "{made}"')
    return made


def _tokens_joined(name: str, unit: str, kind: MetricKind) -> str:
    tokens = [token for token in _NOT_TOKEN.split(name) if token]
    main, per = (_clean_unit(suffix) for suffix in _unit_suffixes(unit))
    if main in tokens:
        main = ""
    per = "" if per == "per_" else per.removesuffix("_")
    if per in tokens:
        per = ""
    if per:
        main = main.removesuffix("_")
    tokens += [suffix for suffix in (main, per) if suffix]
    if kind == "counter":
        tokens = [token for token in tokens if token != "total"] + ["total"]
    if kind == "gauge" and unit == "1":
        tokens = [token for token in tokens if token != "ratio"] + ["ratio"]
    return "_".join(tokens)


def _with_suffixes(name: str, unit: str, kind: MetricKind) -> str:
    main, per = _unit_suffixes(unit)
    behind = ""
    if kind == "gauge" and unit == "1":
        name, behind = _without_suffix(name, "ratio"), "_ratio"
    if kind == "counter":
        name, behind = _without_suffix(name, "total"), "_total"
    if per:
        name, behind = _without_suffix(name, per), f"_{per}{behind}"
    if main and not name.endswith(main):
        name = f"{name}_{main}"
    return name + behind


def _without_suffix(name: str, suffix: str) -> str:
    """Return the name without the suffix and the character in front of it."""
    if name.endswith(suffix) and len(name.encode()) > len(suffix) + 1:
        return name[: -len(suffix) - 1]
    return name


def _unit_suffixes(unit: str) -> tuple[str, str]:
    """Return what a unit adds to a name: `seconds`, and `per_second` for what is behind a slash."""
    main, _, per = (part.strip() for part in unit.partition("/"))
    if "{" in main or "}" in main:
        main = ""
    if "{" in per or "}" in per:
        per = ""
    main = _UNITS.get(main, main)
    return main, f"per_{_PER_UNITS.get(per, per)}" if per else ""


def _clean_unit(text: str) -> str:
    return _UNDERSCORES.sub("_", re.sub(r"[^a-zA-Z0-9:]", "_", text)).removeprefix("_")


def _label_name(name: str, escape: bool, prefix_underscore: bool, keep_underscores: bool) -> str:
    if not name:
        raise UnusableName("label name is empty")
    if not escape:
        return name
    made = _NOT_LABEL.sub("_", name)
    if not keep_underscores:
        made = _UNDERSCORES.sub("_", made)
    if made[0].isdigit():
        made = f"key_{made}"
    elif prefix_underscore and made.startswith("_") and not made.startswith("__"):
        made = f"key{made}"
    if not made.strip("_"):
        raise UnusableName(f'normalization for label name "{name}" resulted in invalid name "{made}"')
    return made


_kept_metric_name = functools.lru_cache(MAX_KEPT)(_metric_name)
_kept_label_name = functools.lru_cache(MAX_KEPT)(_label_name)
