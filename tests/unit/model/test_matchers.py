"""Regular expressions of matchers: anchored, the same for one value and for a dictionary, refused in Go's words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.model.matchers import Matcher, MatchType, check_regexp

VALUES = [
    "",
    "a",
    "b",
    "ab",
    "a\nb",
    "\n",
    "foo",
    "foo\n",
    "(x)",
    "a|b",
    "é",
    "a.b",
    "xfoo",
    "foox",
    "FOO",
    *map(str, range(20)),
]
PATTERNS = st.lists(
    st.sampled_from(
        [
            "a",
            "b",
            "foo",
            ".",
            ".*",
            "|",
            "^",
            "$",
            "(?i)",
            "(?m)",
            "(?m:^foo$)",
            r"\A",
            r"\z",
            r"\Q(x",
            r"\E",
            "é",
            "[^a]",
            r"\d+",
            "(",
            ")",
            "?",
        ]
    ),
    max_size=5,
).map("".join)


@given(PATTERNS, st.sampled_from([MatchType.REGEXP, MatchType.NOT_REGEXP]))
def test_a_dictionary_matches_as_its_values_do(pattern, match_type):
    if check_regexp(pattern) is None:
        matcher = Matcher(match_type, "name", pattern)
        assert matcher.match_all(VALUES).tolist() == [matcher.matches(value) for value in VALUES]


def test_an_unclosed_literal_section_does_not_swallow_the_anchor():
    matcher = Matcher(MatchType.REGEXP, "name", r"a\Q(x")
    assert matcher.matches("a(x")
    assert not matcher.matches("a(x)")
    assert not matcher.matches("za(x")


@pytest.mark.parametrize("pattern", ["a)(b", ")", "a)|(b"])
def test_parentheses_must_balance_on_their_own(pattern):
    assert check_regexp(pattern) == f"error parsing regexp: unexpected ): `{pattern}`"


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "missing closing ): `(`"),
        ("[a", "missing closing ]: `[a`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("*", "missing argument to repetition operator: `*`"),
        ("a{1001}?", "invalid repeat count: `{1001}`"),
        ("a{2,1}", "invalid repeat count: `{2,1}`"),
        ("a(?=b)", "invalid or unsupported Perl syntax: `(?=`"),
        ("\\", "trailing backslash at end of expression: ``"),
        (r"a\Cb(", r"invalid escape sequence: `\C`"),
        (r"[z-a]\C", "invalid character class range: `z-a`"),
        (".\udcff", "invalid UTF-8: `\udcff`"),
    ],
)
def test_patterns_are_refused_in_gos_words(pattern, reason):
    assert check_regexp(pattern) == f"error parsing regexp: {reason}"


def test_bytes_that_are_no_utf8_match_no_value():
    matcher = Matcher(MatchType.REGEXP, "name", "a|\udcff")
    assert check_regexp(matcher.value) is None
    assert matcher.matches("a")
    assert not matcher.matches("\ufffd")
    assert matcher.match_all(VALUES).sum() == 1


@pytest.mark.parametrize("kind", list(MatchType))
@pytest.mark.parametrize("value", ["a", "b\udcff", "\udc80"])
def test_a_condition_on_bytes_that_are_no_text_has_an_equal_one_on_text(kind, value):
    matcher = Matcher(kind, "n", value)
    sendable = matcher.in_utf8()
    sendable.value.encode()
    assert [sendable.matches(v) for v in ("", "a", "b")] == [matcher.matches(v) for v in ("", "a", "b")]
