"""Label sets of a request's data points: one plan for all points with the same keys, carried out by a kernel."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mimir_ingest.kernels import otlp_labels as kernels
from mimir_ingest.model.labels import METRIC_NAME, put_uvarint
from mimir_ingest.wire.otlp_labels import Item, PointLabels
from mimir_ingest.wire.otlp_names import UnusableName
from mimir_ingest.wire.otlp_tables import RequestTables, bounds_of, numbered

ADDED = ("le", "quantile")
"""Labels that rows may add to the set of their point."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelSets:
    """Label sets without a metric's name, to which a name and one more label are added."""

    text: np.ndarray
    offsets: np.ndarray
    """int64[n + 1]: set i is `text[offsets[i]:offsets[i + 1]]`."""
    cuts: np.ndarray
    """int64[n * kernels.CUTS]: where the name goes, and begin and end of what the other label replaces."""

    def extended(self, sets: Sequence[tuple[bytes, int]]) -> LabelSets:
        """Return these sets and more of them, each with the place of its name."""
        if not sets:
            return self
        begin, used = int(self.offsets[-1]), self.text[: self.offsets[-1]]
        more = bounds_of(np.array([len(text) for text, _ in sets])) + begin
        cuts = more[:-1] + np.array([cut for _, cut in sets])
        return LabelSets(
            np.concatenate([used, np.frombuffer(b"".join(text for text, _ in sets), np.uint8)]),
            np.concatenate([self.offsets, more[1:]]),
            np.concatenate([self.cuts, np.repeat(cuts, kernels.CUTS)]),
        )

    def rows(self, pairs: Sequence[bytes], set_of: np.ndarray, name_of: np.ndarray, added: np.ndarray):
        """Return label bytes and offsets of rows.

        Parameters
        ----------
        pairs
            Pairs of names and of added labels.
        set_of, name_of, added : int64[n]
            Each row's set, the pair of its name, and the pair that it adds or -1.
        """
        pair_offsets = bounds_of(np.array([len(pair) for pair in pairs], np.int64))
        sizes, pair_sizes, cuts = np.diff(self.offsets), np.diff(pair_offsets), self.cuts.reshape(-1, kernels.CUTS)
        replaced = np.where(added >= 0, (cuts[:, 2] - cuts[:, 1])[set_of] - np.append(pair_sizes, 0)[added], 0)
        offsets = bounds_of(sizes[set_of] + pair_sizes[name_of] - replaced)
        labels = np.empty(offsets[-1], np.uint8)
        text = np.frombuffer(b"".join(pairs), np.uint8)
        kernels.write_rows(
            self.text, self.offsets, self.cuts, text, pair_offsets, set_of, name_of, added, offsets, labels
        )
        return labels, offsets


class _Plans:
    """Plans as they are made, one a distinct run of keys."""

    def __init__(self, begin: int) -> None:
        """Texts of their own lie behind the first `begin` bytes."""
        self._begin, self._texts = begin, bytearray()
        self._items, self._names, self._fallbacks = [0], [], []
        self._refs: list[int] = []
        self._ref_offsets, self._cuts = [0], []

    def add(self, items: Sequence[Item]) -> int:
        """Add a plan; return its number."""
        names = [item.name for item in items]
        for item in items:
            first = len(self._texts)
            put_uvarint(self._texts, len(item.name))
            self._texts += item.name
            middle = len(self._texts)
            self._texts += item.fallback
            self._names += (self._begin + first, self._begin + middle)
            self._fallbacks += (self._begin + middle, self._begin + len(self._texts))
            self._refs += item.attributes
            self._ref_offsets.append(len(self._refs))
        self._items.append(self._items[-1] + len(items))
        name_at = bisect.bisect_left(names, METRIC_NAME.encode())
        for label in ADDED:
            more = label.encode()
            self._cuts += (name_at, bisect.bisect_left(names, more), bisect.bisect_right(names, more))
        return len(self._items) - 2

    def made(self) -> tuple[bytes, kernels.Plans]:
        """Return their texts, and the plans as kernels take them."""
        arrays = (self._items, self._names, self._fallbacks, self._refs, self._ref_offsets, self._cuts)
        made = [np.array(one, np.int32 if one is self._refs else np.int64) for one in arrays]
        for one in made:
            one.flags.writeable = False
        return bytes(self._texts), kernels.Plans(*made)


def label_sets(
    tables: RequestTables, scope_labels: Sequence[PointLabels | UnusableName], usable: np.ndarray
) -> tuple[LabelSets, np.ndarray, dict[int, UnusableName]]:
    """Return the label sets of all data points.

    Parameters
    ----------
    scope_labels
        Of each scope; of points of an unusable one there are no sets.
    usable : bool[n]
        Points whose sets are asked for.

    Returns
    -------
    sets, made, refused : LabelSets, bool[n], dict
        Which points have one, and why others, by number of the run of their keys, have none.
    """
    attributes, offsets = tables.attributes, tables.attribute_offsets[2]
    n = len(usable)
    shape_of, shapes = _shapes(tables, usable)
    plans = _Plans(len(attributes.text))
    plan_of_shape, refused = np.full(len(shapes) + 1, -1, np.int64), {}
    for number, (scope, keys) in enumerate(shapes):
        labels = scope_labels[scope]
        try:
            if isinstance(labels, UnusableName):
                raise labels
            plan_of_shape[number] = plans.add(labels.plan([attributes.keys[key] for key in keys]))
        except UnusableName as error:
            refused[number] = error
    texts, made = plans.made()
    text = np.concatenate([attributes.text, np.frombuffer(texts, np.uint8)])
    adds = np.zeros(n, np.uint8)
    adds[tables.points.bounds[3] :] = 1
    set_offsets, cuts = np.empty(n + 1, np.int64), np.empty(n * kernels.CUTS, np.int64)
    arguments = (text, made, plan_of_shape[shape_of], adds, offsets, attributes.value_starts, attributes.value_ends)
    # What they take where no label is promoted and names are short.
    room = int((attributes.value_ends - attributes.value_starts).sum()) + 32 * len(attributes.key_of) + 64 * n + 64
    while True:
        out = np.empty(room, np.uint8)
        size = kernels.write_sets(*arguments, out, set_offsets, cuts)
        if size + 15 <= room:
            break
        room = size + 15
    return LabelSets(out, set_offsets, cuts), shape_of, refused


def _shapes(tables: RequestTables, usable: np.ndarray) -> tuple[np.ndarray, list[tuple[int, list[int]]]]:
    """Return the number of each point's scope and keys (int64[n], -1 where it is not usable), and the distinct ones."""
    offsets = tables.attribute_offsets[2]
    n = len(usable)
    # Each point's scope, and behind it the keys of its attributes.
    starts = offsets + np.arange(n + 1) - offsets[0]
    runs = np.empty(starts[-1], np.int32)
    is_key = np.ones(len(runs), bool)
    is_key[starts[:-1]] = False
    runs[starts[:-1]] = tables.metric_scopes[tables.points.metric]
    runs[is_key] = tables.attributes.key_of[offsets[0] : offsets[-1]]
    chosen = np.flatnonzero(usable)
    text, first, last = runs.view(np.uint8), 4 * starts[:-1][chosen], 4 * starts[1:][chosen]
    shape_of = np.full(n, -1, np.int64)
    shape_of[chosen], found = numbered(text, first, last)
    shapes = [np.frombuffer(shape, np.int32).tolist() for shape in found]
    return shape_of, [(shape[0], shape[1:]) for shape in shapes]
