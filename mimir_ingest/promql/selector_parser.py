"""What stands in braces, and the label lists of `by`, `without`, `on`, `ignoring`, `group_left` and `group_right`."""

from __future__ import annotations

from mimir_ingest.model.labels import METRIC_NAME
from mimir_ingest.model.matchers import Matcher, MatchType, check_regexp
from mimir_ingest.promql.functions_table import AGGREGATIONS
from mimir_ingest.promql.lexer import (
    IDENTIFIER,
    METRIC_IDENTIFIER,
    MODIFIERS,
    PREPROCESSORS,
    STRING,
    WORD_OPERATORS,
)
from mimir_ingest.promql.literals import unquote
from mimir_ingest.promql.nodes import PosRange, VectorSelector
from mimir_ingest.promql.quoting import quote
from mimir_ingest.promql.token_stream import TokenStream

_MATCH_TYPES = {str(match_type): match_type for match_type in MatchType}
_REGEXPS = (MatchType.REGEXP, MatchType.NOT_REGEXP)

LABEL_KINDS = (AGGREGATIONS | MODIFIERS | PREPROCESSORS | WORD_OPERATORS | {IDENTIFIER, METRIC_IDENTIFIER}) - {
    "without"
}
"""Tokens that may be a label name in a label list; `without` may not (`maybe_label` of Prometheus's grammar)."""


def parse_selector(stream: TokenStream, name: str, start: int) -> VectorSelector:
    """Parse `{…}`; the metric name in front of it, if any, and the selector's first byte are given."""
    stream.take()
    matchers: list[Matcher] = []
    if stream.peek() != "}":
        matchers.append(_matcher(stream))
        while (kind := stream.peek()) != "}":
            if kind != ",":
                stream.unexpected("label matching", '"," or "}"')
            stream.take()
            if stream.peek() == "}":
                break
            matchers.append(_matcher(stream))
    stream.take()
    return named_selector(name, tuple(matchers), PosRange(start, stream.closing))


def named_selector(name: str, matchers: tuple[Matcher, ...], pos: PosRange) -> VectorSelector:
    """Build a selector; a name in front of the braces becomes the last matcher."""
    if name:
        matchers = (*matchers, Matcher(MatchType.EQUAL, METRIC_NAME, name))
    return VectorSelector(name, matchers, pos=pos)


def _matcher(stream: TokenStream) -> Matcher:
    kind = stream.peek()
    if kind not in (IDENTIFIER, STRING):
        stream.unexpected("label matching", 'identifier or "}"')
    _, start, name = stream.take()
    if kind == STRING:
        name = unquote(name)
        if stream.peek() not in _MATCH_TYPES:
            return Matcher(MatchType.EQUAL, METRIC_NAME, name)
    elif stream.peek() not in _MATCH_TYPES:
        stream.unexpected("label matching", "label matching operator")
    match_type = _MATCH_TYPES[stream.take()[0]]
    value = unquote(stream.expect(STRING, "label matching", "string")[2])
    if match_type in _REGEXPS and (reason := check_regexp(value)) is not None:
        raise stream.fail(start, reason)
    return Matcher(match_type, name, value)


def parse_label_list(stream: TokenStream) -> tuple[str, ...]:
    """Parse `(a, "b.c", …)`."""
    stream.expect("(", "grouping opts", '"("')
    labels: list[str] = []
    while stream.peek() != ")":
        labels.append(_grouping_label(stream))
        if (kind := stream.peek()) == ")":
            break
        if kind != ",":
            stream.unexpected("grouping opts", '"," or ")"')
        stream.take()
    stream.take()
    return tuple(labels)


def _grouping_label(stream: TokenStream) -> str:
    kind = stream.peek()
    if kind != STRING and kind not in LABEL_KINDS:
        stream.unexpected("grouping opts", "label")
    _, at, label = stream.take()
    if kind == STRING:
        label = unquote(label)
        try:
            valid = len(label.encode()) > 0
        except UnicodeEncodeError:
            valid = False
        if not valid:
            raise stream.fail(at, f"invalid label name for grouping: {quote(label)}")
    return label
