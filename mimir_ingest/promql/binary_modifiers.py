"""What stands between a binary operator and its right side: `bool`, `on`, `ignoring`, `group_left`, `fill`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mimir_ingest.promql.functions_table import AGGREGATIONS
from mimir_ingest.promql.lexer import DURATION, IDENTIFIER, METRIC_IDENTIFIER, NUMBER, PREPROCESSORS, STRING
from mimir_ingest.promql.nodes import SET_OPERATORS, Cardinality, ValueType, VectorMatching
from mimir_ingest.promql.selector_parser import parse_label_list
from mimir_ingest.promql.token_stream import TokenStream

METRIC_NAME_KINDS = (
    AGGREGATIONS
    | PREPROCESSORS
    | {"by", "without", "offset", "anchored", "smoothed", "fill", "fill_left", "fill_right", "and", "or", "unless"}
    | {IDENTIFIER, METRIC_IDENTIFIER}
)
"""Tokens that may be a metric name."""
OPERAND_KINDS = METRIC_NAME_KINDS | {NUMBER, DURATION, STRING, "(", "{", "+", "-"}
"""Tokens that an expression may begin with."""

_GROUP = {"group_left": Cardinality.MANY_TO_ONE, "group_right": Cardinality.ONE_TO_MANY}
_ONE_TO_ONE = VectorMatching()
_MANY_TO_MANY = VectorMatching(Cardinality.MANY_TO_MANY)


@dataclass(frozen=True, slots=True)
class BinaryModifiers:
    """The modifiers as written."""

    return_bool: bool = False
    matching: VectorMatching = _ONE_TO_ONE

    def matching_for(self, op: str, lhs: ValueType, rhs: ValueType) -> VectorMatching | None:
        """Return the matching that the operation has: none unless both sides are vectors, many-to-many for sets."""
        if lhs is not ValueType.VECTOR or rhs is not ValueType.VECTOR:
            return None
        matching = self.matching
        if op not in SET_OPERATORS or matching.card is not Cardinality.ONE_TO_ONE:
            return matching
        return _MANY_TO_MANY if matching is _ONE_TO_ONE else replace(matching, card=Cardinality.MANY_TO_MANY)


_NO_MODIFIERS = BinaryModifiers()
_BOOL = BinaryModifiers(True)


def parse_binary_modifiers(stream: TokenStream) -> BinaryModifiers:
    """Parse the modifiers up to the right side's first token."""
    kind = stream.peek()
    return_bool = kind == "bool"
    if return_bool:
        stream.take()
        kind = stream.peek()
    card, labels, include = Cardinality.ONE_TO_ONE, (), ()
    on = kind == "on"
    if on or kind == "ignoring":
        stream.take()
        labels = parse_label_list(stream)
        kind = stream.peek()
        if kind in _GROUP:
            card = _GROUP[kind]
            stream.take()
            kind = stream.peek()
            # Prometheus's grammar wants a label list here unless a right side (or fill) begins.
            if kind == "(" or kind not in OPERAND_KINDS:
                include = parse_label_list(stream)
                kind = stream.peek()
    elif kind not in _FILLS:
        return _BOOL if return_bool else _NO_MODIFIERS
    left, right = _parse_fill(stream) if kind in _FILLS else (None, None)
    return BinaryModifiers(return_bool, VectorMatching(card, labels, on, include, left, right))


_FILLS = frozenset(("fill", "fill_left", "fill_right"))


def _parse_fill(stream: TokenStream) -> tuple[float | None, float | None]:
    kind = stream.take()[0]
    value = _fill_value(stream)
    if kind == "fill":
        return value, value
    other = "fill_right" if kind == "fill_left" else "fill_left"
    second = None
    if stream.peek() == other:
        stream.take()
        second = _fill_value(stream)
    return (value, second) if kind == "fill_left" else (second, value)


def _fill_value(stream: TokenStream) -> float:
    stream.expect("(")
    sign = 1.0
    if stream.peek() in ("+", "-"):
        sign = -1.0 if stream.take()[0] == "-" else 1.0
    if stream.peek() not in (NUMBER, DURATION):
        stream.unexpected()
    value = sign * stream.number().value
    stream.expect(")")
    return value
