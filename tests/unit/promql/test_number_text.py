"""Numbers in texts: as Go writes and reads them."""

from __future__ import annotations

import math

import pytest

from mimir_ingest.model.numbers import format_general, format_plain
from mimir_ingest.promql.number_text import format_open_metrics, parse_float


@pytest.mark.parametrize(
    ("value", "plain", "general", "open_metrics"),
    [
        # Printed by Go 1.26: FormatFloat 'f' -1, Sprintf %g, Prometheus's FormatOpenMetricsFloat.
        (0.0, "0", "0", "0.0"),
        (-0.0, "-0", "-0", "0.0"),
        (1.0, "1", "1", "1.0"),
        (0.1, "0.1", "0.1", "0.1"),
        (123456.0, "123456", "123456", "123456.0"),
        (1e6, "1000000", "1e+06", "1e+06"),
        (1234567.5, "1234567.5", "1.2345675e+06", "1.2345675e+06"),
        (0.0001, "0.0001", "0.0001", "0.0001"),
        (0.00001, "0.00001", "1e-05", "1e-05"),
        (-2.5e-10, "-0.00000000025", "-2.5e-10", "-2.5e-10"),
        (1e21, "1000000000000000000000", "1e+21", "1e+21"),
        (math.inf, "+Inf", "+Inf", "+Inf"),
        (-math.inf, "-Inf", "-Inf", "-Inf"),
        (math.nan, "NaN", "NaN", "NaN"),
    ],
)
def test_numbers_are_written_as_go_writes_them(value, plain, general, open_metrics):
    """Shortest digits that read back as the same number."""
    assert (format_plain(value), format_general(value), format_open_metrics(value)) == (plain, general, open_metrics)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0),
        ("+Inf", math.inf),
        ("-inf", -math.inf),
        ("Infinity", math.inf),
        (".5e1", 5.0),
        ("0x1p-2", 0.25),
        ("1e400", None),
        ("", None),
        (" 1", None),
        ("1_000", 1000.0),
        ("1_0.5_0e1_0", 10.5e10),
        ("0x_1F.8_0p0_1", 63.0),
        ("1__0", None),
        ("_1", None),
        ("1_", None),
        ("1_.5", None),
        ("1._5", None),
        ("1e_5", None),
        ("0x1", None),
        ("0xp1", None),
        ("1.", 1.0),
        (".", None),
        ("0x1p9999", None),
        ("+nan", None),
        ("infinit", None),
        ("0b1", None),
        ("one", None),
        ("١", None),
    ],
)
def test_bucket_bounds_are_read_as_go_reads_them(text, value):
    """None where `strconv.ParseFloat` gives an error."""
    assert parse_float(text) == value
