"""The text that `/metrics` answers, in pieces of about a millisecond's work.

With ten thousand tenants there are half a million lines. The library makes an object of every one; here the children of
a family with labels are written by one template of the family, and all other families by the library.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
from prometheus_client.utils import floatToGoString

from mimir_ingest.obs.histograms import Histogram

Encode = Callable[..., bytes]
"""What `prometheus_client.exposition.choose_encoder` gives: text of all that a collector has."""

PIECE_LINES = 2000
"""why: about a millisecond in which no other thread runs; and a piece costs a tenth of that on its way out."""

_COUNTER_SUFFIX = "_total"
_END = b"# EOF\n"


class _Whole:
    """A collector of one family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


def write_exposition(
    registry: CollectorRegistry, encode: Encode, *, names: Collection[str] = (), piece_lines: int = PIECE_LINES
) -> Iterator[bytes]:
    """Yield the text that `encode` gives of a registry without `_created` series.

    Parameters
    ----------
    names : names of the families to write, of counters with or without `_total`; none: all
    piece_lines : lines after which a piece ends
    """
    held: list[bytes] = []
    lines, end = 0, b""
    for collector in list(registry._collector_to_names):
        for head, children in _families(collector):
            if names and not _is_named(head, names):
                continue
            text = encode(_Whole(head))
            end = _END if text.endswith(_END) else b""
            held.append(text.removesuffix(_END))
            lines += len(head.samples)
            for line in children:
                held.append(line)
                lines += 1
                if lines >= piece_lines:
                    yield b"".join(held)
                    held, lines = [], 0
    held.append(end)
    yield b"".join(held)


def _is_named(family: Metric, names: Collection[str]) -> bool:
    exposed = family.name + _COUNTER_SUFFIX if family.type == "counter" else family.name
    return family.name in names or exposed in names


def _families(collector: object) -> Iterator[tuple[Metric, Iterator[bytes]]]:
    """Give a collector's families: what the library writes of each, and the lines that follow."""
    if type(collector) in (Counter, Gauge, Histogram) and collector._labelnames:
        yield collector._get_metric(), _children(collector)
        return
    for family in collector.collect():
        yield family, iter(())


def _children(metric: Counter | Gauge | Histogram) -> Iterator[bytes]:
    """Yield the lines of a family's children."""
    places = sorted(range(len(metric._labelnames)), key=metric._labelnames.__getitem__)
    templates = _templates(metric)
    with metric._lock:
        children = list(metric._metrics.items())
    for labels, child in children:
        shown = tuple(_escaped(labels[place]) for place in places)
        for template, value in zip(templates, _values(child), strict=True):
            yield (template % (*shown, _number(value))).encode()


def _templates(metric: Counter | Gauge | Histogram) -> list[str]:
    """Return a child's lines with places for its labels' values, by name, and its number."""
    if not isinstance(metric, Histogram):
        suffix = _COUNTER_SUFFIX if isinstance(metric, Counter) else ""
        return [_template(metric, suffix)]
    bounds = [_template(metric, "_bucket", floatToGoString(bound)) for bound in metric._upper_bounds]
    return [
        *bounds,
        _template(metric, "_count"),
        *([_template(metric, "_sum")] if metric._upper_bounds[0] >= 0 else []),
    ]


def _template(metric: Counter | Gauge | Histogram, suffix: str, le: str | None = None) -> str:
    pairs = [(name, "%s") for name in metric._labelnames] + ([] if le is None else [("le", le)])
    inside = ",".join(f'{name}="{value}"' for name, value in sorted(pairs))
    return f"{metric._name}{suffix}{{{inside}}} %s\n"


def _values(child: Counter | Gauge | Histogram) -> list[float]:
    """Return a child's numbers, one a template."""
    if "_child_samples" in child.__dict__:  # a gauge with a function
        return [sample.value for sample in child._child_samples()]
    return child.totals() if isinstance(child, Histogram) else [child._value.get()]


def _number(value: float) -> str:
    """Return a number as the library writes it."""
    return repr(float(value)) if -1e6 < value < 1e6 else floatToGoString(value)


def _escaped(value: str) -> str:
    if value.isalnum():
        return value
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
