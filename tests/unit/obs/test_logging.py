"""Log lines are Mimir's logfmt or JSON, from this program and from libraries alike."""

import io
import json
import logging
import re

import pytest
import structlog

from mimir_ingest.obs.logging import configure, render_json, render_logfmt


@pytest.fixture
def lines():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    yield lambda **settings: configure(stream=stream, **settings), lambda: stream.getvalue().splitlines()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("two words", '"two words"'),
        ('say "x"', r'"say \"x\""'),
        ("a=b", '"a=b"'),
        ("line\nbreak", r'"line\nbreak"'),
        ("", '""'),
        ("tschüß", "tschüß"),
        (None, "null"),
        (True, "true"),
        (3, "3"),
        (2.0, "2"),
        (0.25, "0.25"),
        (float("inf"), "inf"),
        (["a", 1], "\"['a', 1]\""),
    ],
)
def test_values_are_quoted_only_where_needed(value, text):
    assert render_logfmt({"key": value}) == f"key={text}"


def test_time_level_caller_and_message_come_first():
    event = {"tenant": "a", "msg": "m", "level": "info", "caller": "c", "ts": "t", "odd key": 1}
    assert render_logfmt(event) == "ts=t level=info caller=c msg=m tenant=a odd_key=1"
    assert list(json.loads(render_json(event))) == ["ts", "level", "caller", "msg", "tenant", "odd key"]


def test_a_logger_writes_one_line_an_event(lines):
    start, read = lines
    start(form="logfmt", level="info")
    structlog.get_logger().warning("it is late", tenant="a", minutes=3)
    structlog.get_logger().debug("not shown")
    (line,) = read()
    pattern = r'ts=\d{4}-\d\d-\d\dT[\d:.]+Z level=warn caller=test_logging:\d+ msg="it is late" tenant=a minutes=3'
    assert re.fullmatch(pattern, line)


def test_libraries_write_the_same_form(lines):
    start, read = lines
    start(form="json", level="warn")
    logging.getLogger("some.library").info("not shown")
    logging.getLogger("some.library").error("broken %s", "pipe")
    (line,) = read()
    event = json.loads(line)
    assert (event["level"], event["msg"]) == ("error", "broken pipe")
    assert event["caller"].startswith("some.library:")


def test_an_exception_stays_on_one_line(lines):
    start, read = lines
    start(form="logfmt", level="info")
    try:
        raise ValueError("no good")
    except ValueError:
        structlog.get_logger().exception("failed")
        logging.getLogger("x").exception("failed too")
    ours, theirs = read()
    for line in (ours, theirs):
        assert "ValueError: no good" in line
        assert "level=error" in line
