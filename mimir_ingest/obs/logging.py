"""Structured logs in Mimir's form: `ts=… level=info caller=distributor.service:123 msg="…" key=value`, or JSON.

`configure` is called once by the command line, before anything logs. Modules call `structlog.get_logger()` and pass
facts as keywords; logs of libraries (`logging`) come out in the same form. Lines go to stderr, one write each.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
_FIRST = ("ts", "level", "caller", "msg")
_LEVEL_NAMES = {"warning": "warn", "critical": "error", "exception": "error"}

Event = MutableMapping[str, Any]


def configure(*, form: str, level: str, stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging.

    Parameters
    ----------
    form : `logfmt` or `json`
    level : `debug`, `info`, `warn` or `error`
    stream : where lines go; stderr if None
    """
    out = stream or sys.stderr
    render = render_json if form == "json" else render_logfmt
    number = LEVELS[level]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.CallsiteParameterAdder(
                [structlog.processors.CallsiteParameter.MODULE, structlog.processors.CallsiteParameter.LINENO]
            ),
            _complete,
            lambda _logger, _method, event: render(event),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(_LibraryFormatter(render))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for noisy in ("numba", "aiobotocore", "botocore", "s3fs", "fsspec", "asyncio", "aiokafka", "urllib3"):
        logging.getLogger(noisy).setLevel(max(number, logging.WARNING))


def _complete(_logger: Any, method: str, event: Event) -> Event:
    exception = event.pop("exc_info", None)
    if exception:
        event["err"] = _exception_text(exception)
    module, line = event.pop("module", "?"), event.pop("lineno", 0)
    event.update(
        ts=timestamp(datetime.now(UTC)),
        level=_LEVEL_NAMES.get(method, method),
        caller=f"{module}:{line}",
        msg=event.pop("event", ""),
    )
    return event


def _exception_text(exception: Any) -> str:
    error = exception if isinstance(exception, BaseException) else sys.exc_info()[1]
    if error is None:
        return ""
    import traceback

    return "".join(traceback.format_exception(error)).rstrip()


def timestamp(now: datetime) -> str:
    """Print a UTC time as Go's RFC 3339 with nanoseconds, trailing zeros trimmed."""
    text = now.strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".")
    return f"{text}Z"


class _LibraryFormatter(logging.Formatter):
    """Turns a record of the standard library into the same form."""

    def __init__(self, render: Callable[[Mapping[str, Any]], str]) -> None:
        super().__init__()
        self._render = render

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "ts": timestamp(datetime.fromtimestamp(record.created, UTC)),
            "level": _LEVEL_NAMES.get(record.levelname.lower(), record.levelname.lower()),
            "caller": f"{record.name}:{record.lineno}",
            "msg": record.getMessage(),
        }
        if record.exc_info:
            event["err"] = self.formatException(record.exc_info)
        return self._render(event)


def render_logfmt(event: Mapping[str, Any]) -> str:
    """Return an event as logfmt: ts, level, caller and msg first, then the rest in the order given."""
    return " ".join(f"{_key(name)}={_logfmt_value(value)}" for name, value in _ordered(event))


def render_json(event: Mapping[str, Any]) -> str:
    """Return an event as one line of JSON, in the same order."""
    return json.dumps(dict(_ordered(event)), default=str, ensure_ascii=False)


def _ordered(event: Mapping[str, Any]) -> list[tuple[str, Any]]:
    first = [(name, event[name]) for name in _FIRST if name in event]
    return first + [(name, value) for name, value in event.items() if name not in _FIRST]


def _key(name: str) -> str:
    return "".join(char if char > " " and char not in '="' else "_" for char in name)


def _logfmt_value(value: Any) -> str:
    """Quote as Go's logfmt encoder: spaces, quotes, equals signs and control characters; null stays bare."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if math.isfinite(value) and value.is_integer() and abs(value) < 1e15 else repr(value)
    text = str(value)
    if not text:
        return '""'
    if any(char <= " " or char in '="\\\x7f' for char in text):
        return json.dumps(text, ensure_ascii=False)
    return text
