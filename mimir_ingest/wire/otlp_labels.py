"""Labels of OTLP data points: attributes, what is promoted from resource and scope, job and instance, as label bytes.

Source: spec ingest-storage 8.9 ("Labels of a point").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mimir_ingest.model.labels import METRIC_NAME, put_uvarint
from mimir_ingest.wire.otlp_names import STRATEGIES, label_name, metric_name

SERVICE_NAME, SERVICE_NAMESPACE, SERVICE_INSTANCE = "service.name", "service.namespace", "service.instance.id"
IDENTIFYING = (SERVICE_NAMESPACE, SERVICE_NAME, SERVICE_INSTANCE)
"""Resource attributes that become `job` and `instance`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OtlpSettings:
    """A tenant's limits on the translation of OTLP (spec: ingest storage 8.9 and 10.6). Defaults are Mimir's."""

    strategy: str = "UnderscoreEscapingWithoutSuffixes"
    """One of STRATEGIES."""
    promote_resource_attributes: frozenset[str] = frozenset()
    """Resource attributes that become labels of every series."""
    promote_scope_metadata: bool = False
    keep_identifying_resource_attributes: bool = False
    """Whether `target_info` has the attributes that `job` and `instance` are made of."""
    convert_histograms_to_nhcb: bool = False
    """Explicit-bounds histograms become native histograms with custom buckets."""
    native_delta_ingestion: bool = False
    """Store deltas as they are."""
    accumulate_deltas: bool = False
    """Mark deltas for whoever stores them to add up; else they are refused."""
    created_timestamp_zero_ingestion: bool = False
    """A sample of zero at the start of a counter."""
    label_name_underscore_sanitization: bool = True
    label_name_preserve_multiple_underscores: bool = True

    def label_name(self, name: str) -> str:
        """Return the label of an attribute. Raises UnusableName."""
        return label_name(
            name,
            escape=STRATEGIES[self.strategy][0] == "legacy",
            prefix_underscore=self.label_name_underscore_sanitization,
            keep_underscores=self.label_name_preserve_multiple_underscores,
        )

    def metric_name(self, name: str, unit: str, kind: str) -> str:
        """Return the name of a metric's series. Raises UnusableName."""
        return metric_name(name, unit, kind, self.strategy)  # type: ignore[arg-type]


def label_pair(name: str, value: str) -> bytes:
    """Return one label as it stands in label bytes: not at all, if it is empty."""
    if not value:
        return b""
    first, second = name.encode(), value.encode()
    if len(first) < 0x80 and len(second) < 0x80:
        return b"%c%b%c%b" % (len(first), first, len(second), second)
    out = bytearray()
    for text in (first, second):
        put_uvarint(out, len(text))
        out += text
    return bytes(out)


@dataclass(frozen=True, slots=True)
class Item:
    """A label of data points that have the same keys."""

    name: bytes
    attributes: tuple[int, ...]
    """Which of a point's attributes it joins."""
    fallback: bytes
    """Its value when those are empty."""


class PointLabels:
    """Labels of the data points of one resource and scope."""

    def __init__(
        self,
        settings: OtlpSettings,
        resource: Mapping[str, str],
        scope: tuple[str, str, str],
        scope_attributes: Iterable[tuple[str, str]],
    ) -> None:
        """`resource` is `attribute_texts` of the resource's; `scope` name, version and schema. Raises UnusableName."""
        self._settings = settings
        self._behind = promoted_labels(settings, resource)
        self._over: dict[str, str] = {}
        if settings.promote_scope_metadata and scope[0]:
            for key, value in scope_attributes:
                self._over[settings.label_name(f"otel_scope_{key}")] = value
            self._over |= dict(
                zip(("otel_scope_name", "otel_scope_version", "otel_scope_schema_url"), scope, strict=True)
            )
        self._over |= identity_labels(resource)

    def plan(self, keys: Sequence[str]) -> list[Item]:
        """Return the labels of points with these keys, by name. Raises UnusableName."""
        items = {
            name: (tuple(places), self._behind.get(name, "")) for name, places in _joined(self._settings, keys).items()
        }
        for name, value in self._behind.items():
            items.setdefault(name, ((), value))
        for name, value in self._over.items():
            items[name] = ((), value)
        items.pop(METRIC_NAME, None)
        return sorted(
            (Item(name.encode(), places, value.encode()) for name, (places, value) in items.items() if places or value),
            key=lambda item: item.name,
        )


def attribute_texts(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return attributes by key; the first of repeated ones counts."""
    texts: dict[str, str] = {}
    for key, value in pairs:
        texts.setdefault(key, value)
    return texts


def _joined(settings: OtlpSettings, keys: Sequence[str]) -> dict[str, list[int]]:
    """Return which attributes become each label, in the order of their keys; `__name__` becomes none."""
    labels: dict[str, list[int]] = {}
    for place in sorted(range(len(keys)), key=keys.__getitem__):
        if keys[place] != METRIC_NAME:
            labels.setdefault(settings.label_name(keys[place]), []).append(place)
    return labels


def _joined_values(values: Iterable[str]) -> str:
    """Return what attributes that become one label are together."""
    joined = ""
    for value in values:
        joined = f"{joined};{value}" if joined else value
    return joined


def promoted_labels(settings: OtlpSettings, resource: Mapping[str, str]) -> dict[str, str]:
    """Return the labels that the tenant promotes from resource attributes; of equal ones the last counts.

    Raises UnusableName.
    """
    promoted = settings.promote_resource_attributes - {METRIC_NAME}
    return {settings.label_name(key): value for key, value in resource.items() if key in promoted}


def identity_labels(resource: Mapping[str, str]) -> dict[str, str]:
    """Return `job` and `instance`, as far as the resource says; what is empty says nothing."""
    job = resource.get(SERVICE_NAME, "")
    if SERVICE_NAME in resource and SERVICE_NAMESPACE in resource:
        job = f"{resource[SERVICE_NAMESPACE]}/{job}"
    labels = {"job": job, "instance": resource.get(SERVICE_INSTANCE, "")}
    return {name: value for name, value in labels.items() if value}


def info_labels(settings: OtlpSettings, resource: Mapping[str, str]) -> dict[str, str] | None:
    """Return the labels of `target_info`, without its name; None when it would say nothing. Raises UnusableName."""
    if all(key in IDENTIFYING for key in resource):
        return None
    left_out = () if settings.keep_identifying_resource_attributes else IDENTIFYING
    keys = [key for key in resource if key not in left_out]
    labels = {
        name: _joined_values(resource[keys[place]] for place in places)
        for name, places in _joined(settings, keys).items()
    }
    labels |= identity_labels(resource)
    if not labels.get("job") and not labels.get("instance"):
        return None
    labels.pop(METRIC_NAME, None)
    return labels


def name_pair(name: str) -> bytes:
    """Return the pair of `__name__`."""
    return label_pair(METRIC_NAME, name)
