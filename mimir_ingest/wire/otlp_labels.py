"""Labels of OTLP data points: attributes, what is promoted from resource and scope, job and instance, as label bytes.

Source: spec ingest-storage 8.9 ("Labels of a point").
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue

from mimir_ingest.model.labels import METRIC_NAME, put_uvarint
from mimir_ingest.wire.otlp_names import STRATEGIES, label_name, metric_name
from mimir_ingest.wire.otlp_text import value_text

SERVICE_NAME, SERVICE_NAMESPACE, SERVICE_INSTANCE = "service.name", "service.namespace", "service.instance.id"
IDENTIFYING = (SERVICE_NAMESPACE, SERVICE_NAME, SERVICE_INSTANCE)
"""Resource attributes that become `job` and `instance`."""

MAX_KEPT_SETS = 10_000
"""Label sets of one resource and scope that are remembered while a request is decoded."""


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


class LabelSet:
    """Sorted labels without a metric name, to which a name and one more label are added."""

    __slots__ = ("_before", "_behind", "_names", "_pairs", "_splits")

    def __init__(self, labels: Mapping[str, str]) -> None:
        pairs = sorted((name.encode(), label_pair(name, value)) for name, value in labels.items() if value)
        self._names = [name for name, _ in pairs]
        self._pairs = [pair for _, pair in pairs]
        at = bisect.bisect_left(self._names, METRIC_NAME.encode())
        self._before = b"".join(self._pairs[:at])
        self._behind = b"".join(self._pairs[at:])
        self._splits: dict[str, tuple[bytes, bytes]] = {}

    def named(self, name: bytes) -> bytes:
        """Return label bytes; `name` is the pair of `__name__`."""
        return self._before + name + self._behind

    def named_with(self, name: bytes, label: str, pair: bytes) -> bytes:
        """Return label bytes with one label more, or replaced; it sorts behind `__name__`."""
        split = self._splits.get(label)
        if split is None:
            split = self._splits[label] = self._split(label.encode())
        return self._before + name + split[0] + pair + split[1]

    def _split(self, label: bytes) -> tuple[bytes, bytes]:
        first = bisect.bisect_left(self._names, METRIC_NAME.encode())
        at, behind = bisect.bisect_left(self._names, label), bisect.bisect_right(self._names, label)
        return b"".join(self._pairs[first:at]), b"".join(self._pairs[behind:])


class PointLabels:
    """Labels of the data points of one resource and scope."""

    def __init__(
        self, settings: OtlpSettings, resource: Mapping[str, str], scope: InstrumentationScope, schema_url: str
    ) -> None:
        """`resource` is `attribute_texts` of the resource's. Raises UnusableName."""
        self._settings = settings
        self._behind = promoted_labels(settings, resource)
        self._over: dict[str, str] = {}
        if settings.promote_scope_metadata and scope.name:
            for pair in scope.attributes:
                self._over[settings.label_name(f"otel_scope_{pair.key}")] = value_text(pair.value)
            self._over |= {
                "otel_scope_name": scope.name,
                "otel_scope_version": scope.version,
                "otel_scope_schema_url": schema_url,
            }
        self._over |= identity_labels(resource)
        self._kept: dict[tuple[tuple[str, str], ...], LabelSet] = {}

    def of(self, attributes: Iterable[KeyValue]) -> LabelSet:
        """Return the labels of a point with these attributes. Raises UnusableName."""
        key = tuple([(pair.key, pair.value.string_value or value_text(pair.value)) for pair in attributes])
        found = self._kept.get(key)
        if found is None:
            found = self._made(key)
            if len(self._kept) < MAX_KEPT_SETS:
                self._kept[key] = found
        return found

    def _made(self, pairs: Iterable[tuple[str, str]]) -> LabelSet:
        labels = joined_labels(self._settings, pairs)
        for name, value in self._behind.items():
            if not labels.get(name):
                labels[name] = value
        labels |= self._over
        labels.pop(METRIC_NAME, None)
        return LabelSet(labels)


def attribute_texts(attributes: Iterable[KeyValue]) -> dict[str, str]:
    """Return attributes by key; the first of repeated ones counts."""
    texts: dict[str, str] = {}
    for pair in attributes:
        if pair.key not in texts:
            texts[pair.key] = value_text(pair.value)
    return texts


def joined_labels(settings: OtlpSettings, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return attributes as labels; values of attributes that become the same label are joined by `;`, by key.

    One that is called `__name__` is none of them.
    """
    labels: dict[str, str] = {}
    for key, value in sorted(pairs, key=_key):
        if key == METRIC_NAME:
            continue
        name = settings.label_name(key)
        held = labels.get(name)
        labels[name] = f"{held};{value}" if held else value
    return labels


def _key(pair: tuple[str, str]) -> str:
    return pair[0]


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


def info_labels(settings: OtlpSettings, resource: Mapping[str, str]) -> LabelSet | None:
    """Return the labels of `target_info`, without its name; None when it would say nothing. Raises UnusableName."""
    if all(key in IDENTIFYING for key in resource):
        return None
    left_out = () if settings.keep_identifying_resource_attributes else IDENTIFYING
    labels = joined_labels(settings, ((key, value) for key, value in resource.items() if key not in left_out))
    labels |= identity_labels(resource)
    if not labels.get("job") and not labels.get("instance"):
        return None
    labels.pop(METRIC_NAME, None)
    return LabelSet(labels)


def name_pair(name: str) -> bytes:
    """Return the pair of `__name__`."""
    return label_pair(METRIC_NAME, name)
