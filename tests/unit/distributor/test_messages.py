import pytest

from mimir_ingest.distributor.messages import clean, lenient, series_text, with_tenant_flags
from mimir_ingest.model.numbers import format_general


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (0.5, "0.5"),
        (10_000, "10000"),
        (100_000, "100000"),
        (123_456.75, "123456.75"),
        (1e6, "1e+06"),
        (1_234_567, "1.234567e+06"),
        (0.0001, "0.0001"),
        (0.000025, "2.5e-05"),
        (1e100, "1e+100"),
        (-2e7, "-2e+07"),
    ],
)
def test_numbers_print_as_go_prints_them_with_g(number, text):
    assert format_general(number) == text


def test_flags_are_joined_with_commas_and_and():
    end = ", or contact your service administrator."
    assert with_tenant_flags("t", "i", "a") == f"t (i). To adjust the related per-tenant limit, configure -a{end}"
    assert with_tenant_flags("t", "i", "a", "b") == (
        f"t (i). To adjust the related per-tenant limits, configure -a and -b{end}"
    )
    assert with_tenant_flags("t", "i", "a", "b", "c") == (
        f"t (i). To adjust the related per-tenant limits, configure -a, -b and -c{end}"
    )


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        ([], "{}"),
        ([(b"__name__", b"up")], "up"),
        ([(b"__name__", b"up"), (b"a", b"b"), (b"c", b'd"\n')], r'up{a="b", c="d\"\n"}'),
        ([(b"a", b"b")], '{a="b"}'),
        ([(b"__name__", b"up"), (b"a", b"x\xff\xfey")], r'up{a="x\xff\xfey"}'),
        ([(b"__name__", b"up"), (b"a\xff\xff", "é".encode())], 'up{a�="é"}'),
    ],
)
def test_series_print_in_selector_form_and_are_always_utf8(pairs, text):
    metric = dict(pairs).get(b"__name__", b"")
    assert series_text(metric, pairs) == text
    text.encode()


def test_a_series_of_any_size_is_read_no_further_than_is_shown():
    def endless():
        while True:
            yield b"label", b"value"

    text = series_text(b"up", endless())
    assert 200 < len(text) < 300
    assert len(series_text(b"x" * 10_000_000, [])) < 1000
    assert series_text(b"up", [(b"a", b"\xff" * 10_000_000)]).startswith('up{a="\\xff\\xff')


def test_a_run_of_invalid_bytes_becomes_one_replacement():
    assert clean(lenient(b"a\xff\xfeb\x80c")) == "a�b�c"
