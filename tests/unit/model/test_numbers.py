"""Numbers in responses read as Prometheus writes them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.model.numbers import format_time, format_value, format_values


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (0.1, "0.1"),
        (1e-6, "0.000001"),
        (9.99e-7, "9.99e-07"),
        (1e-7, "1e-07"),
        (2.5e21, "2.5e+21"),
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (123456789012345680.0, "123456789012345680"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (float("nan"), "NaN"),
        (float("inf"), "+Inf"),
        (float("-inf"), "-Inf"),
        (0.00012345, "0.00012345"),
    ],
)
def test_values_have_go_s_shortest_form(value, text):
    assert format_value(value) == text
    assert format_values(np.array([value])) == [text]


@given(st.lists(st.floats()))
def test_the_vectorised_form_equals_the_single_one_and_reads_back(values):
    texts = format_values(np.array(values, np.float64))
    assert texts == [format_value(v) for v in values]
    for value, text in zip(values, texts, strict=True):
        assert float(text) == value or (value != value and text == "NaN")


@pytest.mark.parametrize(
    ("ms", "text"), [(0, "0"), (1500, "1.500"), (-1500, "-1.500"), (-1, "-0.001"), (1771320600000, "1771320600")]
)
def test_times_are_integers_or_have_three_decimals(ms, text):
    assert format_time(ms) == text
