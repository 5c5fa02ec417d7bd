"""Influx line protocol: points to series, and what is refused."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.errors import InvalidRequest
from mimir_ingest.model.labels import decode_label_bytes, encode_label_bytes
from mimir_ingest.wire.influx import decode

NOW_MS = 1_700_000_000_000


def rows(text: str, precision: str = "ns") -> list[tuple[dict[str, str], int, float]]:
    batch = decode(text.encode(), precision=precision, now_ms=NOW_MS)
    found = []
    for i in range(batch.series_count):
        labels = batch.labels[batch.label_offsets[i] : batch.label_offsets[i + 1]].tobytes()
        found.append((dict(decode_label_bytes(labels)), int(batch.timestamps[i]), float(batch.values[i])))
    return found


def test_each_numeric_or_boolean_field_of_a_point_becomes_a_series():
    text = (
        'weather,location=us-midwest temperature=82,humid=71i,wet=T,count=3u,note="dry, so far" 1465839830100400200\n'
    )
    labels = {"__proxy_source__": "influx", "location": "us-midwest"}
    assert rows(text) == [
        ({"__name__": "weather_temperature", **labels}, 1465839830100, 82.0),
        ({"__name__": "weather_humid", **labels}, 1465839830100, 71.0),
        ({"__name__": "weather_wet", **labels}, 1465839830100, 1.0),
        ({"__name__": "weather_count", **labels}, 1465839830100, 3.0),
    ]


@pytest.mark.parametrize(
    ("line", "name", "labels"),
    [
        ("m value=1", "m", {}),
        ("m-x.y f.z=1", "m_x_y_f_z", {}),
        ("1m value=1", "_1m", {}),
        (r"my\ m\,x,a\=b=c\ d value=1", "my_m_x", {"a_b": "c d"}),
        ("m,__name__=x,__proxy_source__=y,ok=1 value=1", "m", {"ok": "1"}),
        ('m,quoted="a" value=1', "m", {"quoted": '"a"'}),
        ("m,ü=ü value=1", "m", {"_": "ü"}),
        (r"m\\x,t=a\\b,e=z\\ value=1", "m_x", {"t": r"a\b", "e": "z\\"}),
        ("m=x,a=b,a=c  value=1  ", "m_x", {"a": "c"}),
        (r"m,path=C:\dir value=1", "m", {"path": r"C:\dir"}),
    ],
)
def test_names_are_cleaned_and_escapes_undone(line, name, labels):
    assert rows(line) == [({"__name__": name, "__proxy_source__": "influx", **labels}, NOW_MS, 1.0)]


@pytest.mark.parametrize(
    ("precision", "stamp", "expected_ms"),
    [
        ("ns", 1_500_000, 1),
        ("", -1, -1),
        ("us", 1_500, 1),
        ("ms", 17, 17),
        ("s", 2, 2000),
        ("m", 1, 60_000),
        ("h", 1, 3_600_000),
    ],
)
def test_a_timestamp_is_in_the_precision_asked_for(precision, stamp, expected_ms):
    assert rows(f"m value=1 {stamp}", precision)[0][1] == expected_ms


def test_comments_blank_lines_and_line_breaks_in_strings_are_no_points():
    text = '# a "comment\n\n  \r\nm s="one\ntwo",value=1\n# value=2\nm value=3'
    assert [value for _, _, value in rows(text)] == [1.0, 3.0]


def test_a_point_of_strings_alone_gives_nothing():
    assert rows('m s="x"') == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("m value=1\nm", "line 2: a tag or a blank before the fields is expected at character 2"),
        (",a=b value=1", "line 1: it begins with no measurement"),
        ("m value=", "a field is expected at character 3"),
        ("m value=1,", "a field is expected at character 11"),
        ("m value=nan", "'nan' is no field value"),
        ("m value=1_0", "'1_0' is no field value"),
        ("m value=9223372036854775808i", "out of range"),
        ("m value=1e400", "'1e400' is out of range"),
        ("m value=-1u", "'-1u' is no field value"),
        ("m value=1 soon", "'soon' is no timestamp"),
        ("m value=1 9999999999999999999", "timestamp 9999999999999999999 is out of range"),
        ('m value="open', "a field is expected"),
        ("m,a= value=1", "a tag or a blank"),
    ],
)
def test_a_line_that_is_no_point_is_refused_with_its_number(text, reason):
    with pytest.raises(InvalidRequest) as refused:
        rows(text)
    assert reason in refused.value.message


def test_an_unknown_precision_and_bytes_that_are_no_text_are_refused():
    with pytest.raises(InvalidRequest):
        rows("m value=1", "days")
    with pytest.raises(InvalidRequest, match="not UTF-8 at byte 2"):
        decode(b"m \xff", precision="ns", now_ms=NOW_MS)


@given(st.text(alphabet='m,= "\\\n1i#', max_size=60))
def test_no_text_does_anything_but_decode_or_be_refused(text):
    with contextlib.suppress(InvalidRequest):
        rows(text)


def test_labels_stand_in_order_on_both_sides_of_the_name_in_every_point():
    tags = {"zz": "1", "A": "2", "__n": "3", "_z": "4", "b": "5"}
    text = ",".join(f"{name}={value}" for name, value in tags.items())
    batch = decode(f"m,{text} x=1,value=2\nm,{text} y=3".encode(), precision="ns", now_ms=1)
    ends = batch.label_offsets.tolist()
    found = [batch.labels[a:b].tobytes() for a, b in itertools.pairwise(ends)]
    labels = tags | {"__proxy_source__": "influx"}
    assert found == [encode_label_bytes(labels | {"__name__": name}) for name in ("m_x", "m", "m_y")]
