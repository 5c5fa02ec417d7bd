"""Write requests of remote write 1.0 as a client would build them with a protobuf library: good ones and bad ones.

Each function but `series` returns one that builds the request, given the time (ms) of the push.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.support.protobuf_schema import WriteRequest


def series(to: WriteRequest, now_ms: int, name: str | None, *labels: tuple[str, str | bytes], at: Sequence[int] = (0,)):
    """Add a series with a sample of value 1 at each time, ms from now."""
    one = to.timeseries.add()
    for key, value in [("__name__", name), *labels] if name is not None else labels:
        one.labels.add(name=key.encode(), value=value if isinstance(value, bytes) else value.encode())
    for ms in at:
        one.samples.add(value=1, timestamp=now_ms + ms)
    return one


def one_bad(name: str | None, *labels, at=(0,), **flags: bool) -> Callable[[int], WriteRequest]:
    """A request with a series that is judged, and a good one."""

    def build(now_ms: int) -> WriteRequest:
        to = WriteRequest(**flags)
        series(to, now_ms, name, *labels, at=at)
        series(to, now_ms, "good")
        return to

    return build


def many(*names: str, **labels: str) -> Callable[[int], WriteRequest]:
    """A request with a series for each name, of which the part behind `/` is the label `i`."""

    def build(now_ms: int) -> WriteRequest:
        to = WriteRequest()
        for name in names:
            metric, _, i = name.partition("/")
            series(to, now_ms, metric, *labels.items(), *([("i", i)] if i else []))
        return to

    return build


def histogram(schema: int, *buckets: int, bounds: Sequence[float] = ()) -> Callable[[int], WriteRequest]:
    """A native histogram with these counts in neighbouring buckets, and a good series."""

    def build(now_ms: int) -> WriteRequest:
        to = one_bad("good")(now_ms)
        row = to.timeseries.add()
        row.labels.add(name=b"__name__", value=b"h")
        one = row.histograms.add(schema=schema, count_int=sum(buckets), timestamp=now_ms, custom_values=bounds)
        one.positive_spans.add(offset=0, length=len(buckets))
        one.positive_deltas.extend(b - a for a, b in zip((0, *buckets), buckets, strict=False))
        return to

    return build


def exemplars(*items: tuple[Sequence[tuple[str, str]], int]) -> Callable[[int], WriteRequest]:
    """A good series with exemplars (labels, ms from now; 0 means no timestamp)."""

    def build(now_ms: int) -> WriteRequest:
        to = WriteRequest()
        one = series(to, now_ms, "good")
        for labels, ms in items:
            exemplar = one.exemplars.add(value=1, timestamp=now_ms + ms if ms else 0)
            for key, value in labels:
                exemplar.labels.add(name=key.encode(), value=value.encode())
        return to

    return build


def metadata(*items: tuple[str, str, str]) -> Callable[[int], WriteRequest]:
    """A good series with metadata (family, help, unit)."""

    def build(now_ms: int) -> WriteRequest:
        to = one_bad("good")(now_ms)
        for family, text, unit in items:
            to.metadata.add(type=1, metric_family_name=family.encode(), help=text.encode(), unit=unit.encode())
        return to

    return build
