"""A key's value between its three forms: the text of a flag, a node of a YAML file, and the program's own.

The program's own form: bool, int, float, str, `Duration`, tuples for lists, dicts for maps. Text is read by Go's rules
(flags), YAML by the rules of Go's YAML library: the raw text of a scalar counts, so that `1d`, `0x10` and `1_000` mean
the same in both. Every reader raises ValueError with a message that says what was expected.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import yaml

from mimir_ingest.config.durations import (
    Duration,
    parse_go_duration,
    parse_int,
    parse_limit_duration,
)
from mimir_ingest.config.keys import Key

MASK = "********"
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
_YAML_TRUE = frozenset(["true", "True", "TRUE", "y", "Y", "yes", "Yes", "YES", "on", "On", "ON"])
_YAML_FALSE = frozenset(["false", "False", "FALSE", "n", "N", "no", "No", "NO", "off", "Off", "OFF"])
_URL_PASSWORD = re.compile(r"(://[^/:@\s]*:)[^/@\s]+(@)")


def from_text(key: Key, text: str) -> Any:
    """Read a flag's text. A list flag's text is one element (flags of lists repeat); empty text is the empty list."""
    if key.type == "list of strings":
        return (text,) if text else ()
    if key.type == "list of durations":
        return tuple(_duration(key, part.strip()) for part in text.split(",") if part.strip())
    if key.type.startswith("map of tracker name"):
        return _trackers(text)
    if key.type.startswith("map of"):
        return _map(key, _json(text, dict))
    if _is_free_list(key):
        return tuple(_json(text, list))
    return _scalar(key, text, _TRUE, _FALSE)


def from_node(key: Key, node: yaml.Node) -> Any:
    """Read a YAML node; null leaves the default."""
    if node.tag == "tag:yaml.org,2002:null":
        return key.default
    if key.type.startswith("map of"):
        return _map(key, _plain(node, dict))
    if _is_free_list(key):
        return tuple(_plain(node, list))
    if key.type.startswith("list of"):
        return _list(key, node)
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError(f"expected {_article(key.type)}, not {_shape(node)}")
    true, false = (_YAML_TRUE, _YAML_FALSE) if node.style is None else (frozenset(), frozenset())
    return _scalar(key, node.value, true, false)


def to_plain(key: Key, value: Any, *, mask: bool = True) -> Any:
    """Return a value as the YAML of `/config` shows it: Go's durations, secrets masked, lists and maps plain."""
    if mask and key.secret:
        return MASK if value else ""
    if isinstance(value, Duration):
        return str(value)
    if isinstance(value, tuple):
        return [str(item) if isinstance(item, Duration) else item for item in value]
    if isinstance(value, float) and value.is_integer() and math.isfinite(value):
        return int(value)
    if isinstance(value, str) and mask:
        return _URL_PASSWORD.sub(rf"\1{MASK}\2", value)
    return dict(value) if isinstance(value, dict) else value


def to_flag_text(key: Key, value: Any) -> str:
    """Return a value as a flag's text; for lists the text of their only element or of an empty list."""
    plain = to_plain(key, value, mask=False)
    if isinstance(plain, bool):
        return "true" if plain else "false"
    if isinstance(plain, list) and not _is_free_list(key):
        return ",".join(plain)
    if isinstance(plain, dict | list):
        return json.dumps(plain)
    return str(plain)


def _scalar(key: Key, text: str, true: frozenset[str], false: frozenset[str]) -> Any:
    if key.type == "boolean":
        if text in true or text in false:
            return text in true
        raise ValueError(f'"{text}" is not a boolean; write true or false')
    if key.type == "int":
        return parse_int(text)
    if key.type == "float":
        return _float(text)
    if key.type == "duration":
        return _duration(key, text)
    return text


def _float(text: str) -> float:
    try:
        return float(text.replace("_", "x"))
    except ValueError:
        raise ValueError(f'"{text}" is not a number') from None


def _duration(key: Key, text: str) -> Duration:
    try:
        return parse_limit_duration(text) if key.is_limit else parse_go_duration(text)
    except ValueError as err:
        example = "30s, 1h30m or 7d" if key.is_limit else "30s or 1h30m"
        raise ValueError(f"{err}; write it like {example}") from None


def _is_free_list(key: Key) -> bool:
    return key.type == "slice" or key.type.startswith("relabel_config")


def _list(key: Key, node: yaml.Node) -> tuple[Any, ...]:
    if isinstance(node, yaml.ScalarNode):
        items = [part.strip() for part in node.value.split(",") if part.strip()]
    elif isinstance(node, yaml.SequenceNode) and all(isinstance(item, yaml.ScalarNode) for item in node.value):
        items = [item.value for item in node.value]
    else:
        raise ValueError(f"expected {_article(key.type)}, not {_shape(node)}")
    return tuple(_duration(key, item) for item in items) if key.type == "list of durations" else tuple(items)


def _json(text: str, shape: type) -> Any:
    if not text:
        return shape()
    try:
        value = json.loads(text)
    except ValueError as err:
        raise ValueError(f"expected JSON ({err})") from None
    if not isinstance(value, shape):
        raise ValueError(f"expected a JSON {'object' if shape is dict else 'array'}")
    return value


def _plain(node: yaml.Node, shape: type) -> Any:
    try:
        value = yaml.SafeLoader("").construct_document(node)
    except yaml.YAMLError as err:
        raise ValueError(str(err).splitlines()[0]) from None
    if not isinstance(value, shape):
        raise ValueError(f"expected {'a map' if shape is dict else 'a list'}, not {_shape(node)}")
    return value


def _map(key: Key, value: dict[Any, Any]) -> dict[str, Any]:
    convert: Any = str
    if key.type.endswith("to int"):
        convert = _whole
    elif key.type.endswith("to float64"):
        convert = float
    try:
        return {str(name): convert(item) for name, item in value.items()}
    except (TypeError, ValueError):
        raise ValueError(f"expected a {key.type}") from None


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError
    return int(value)


def _trackers(text: str) -> dict[str, str]:
    """Read `name:matcher;name:matcher`, the flag form of active-series trackers; JSON is taken too."""
    if text.startswith("{"):
        return {str(name): str(matcher) for name, matcher in _json(text, dict).items()}
    trackers: dict[str, str] = {}
    for part in filter(None, text.split(";")):
        name, colon, matcher = part.partition(":")
        if not colon or not name or not matcher:
            raise ValueError(f'"{part}" is not a tracker; write name:{{matcher}};name:{{matcher}}')
        if name in trackers:
            raise ValueError(f'tracker "{name}" is given twice')
        trackers[name] = matcher
    return trackers


def _article(type_: str) -> str:
    return f"an {type_}" if type_[0] in "aeiou" else f"a {type_}"


def _shape(node: yaml.Node) -> str:
    return {"ScalarNode": "a single value", "SequenceNode": "a list"}.get(type(node).__name__, "a map")
