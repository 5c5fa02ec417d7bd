"""The command line and the YAML file, read into explicit values by path.

Nothing here opens a file or knows a default's use: text in, values out. `source` of a value is `flag` or `file`; a flag
wins over the file. Flags are in the form of Go's flag package, one dash or two:

    -a.b=c    -a.b c    -bool    -bool=false    -list=x -list=y    --  (ends the flags)

Program flags (`-config.file`, `-config.expand-env`, `-help`, `-version`, …) are not keys and have no YAML form.
Sources: Go `flag` and `os.Expand`; Mimir's reference for the program flags.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from mimir_ingest.config.errors import ConfigError
from mimir_ingest.config.keys import Key, KeyRegistry
from mimir_ingest.config.values import from_node, from_text

PROGRAM_FLAGS: Mapping[str, tuple[str, str]] = {
    "config.file": ("string", "YAML file to read the configuration from. Flags win over the file."),
    "config.expand-env": ("boolean", "Replace ${NAME} and ${NAME:default} in the file by environment variables."),
    "help": ("boolean", "Print this help."),
    "h": ("boolean", "Print this help."),
    "help-all": ("boolean", "Print help with the keys that are accepted for Mimir's sake and have no effect."),
    "version": ("boolean", "Print the version."),
    "modules": ("boolean", "Print the values that -target takes."),
    "print.config": ("boolean", "Log the effective configuration at start-up."),
}
IGNORED_FLAGS: Mapping[str, tuple[str, str]] = {
    "debug.block-profile-rate": ("int", "there is no such profile in Python"),
    "debug.mutex-profile-fraction": ("int", "there is no such profile in Python"),
    "mem-ballast-size-bytes": ("int", "Python's memory needs no ballast"),
}

Source = Literal["flag", "file"]


@dataclass(slots=True)
class Explicit:
    """What the user said: values by path, and where each one was said."""

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)

    def merged_over(self, below: Explicit) -> Explicit:
        """Return these values on top of others."""
        return Explicit({**below.values, **self.values}, {**below.sources, **self.sources})


@dataclass(slots=True)
class CommandLine:
    """A read command line."""

    explicit: Explicit = field(default_factory=Explicit)
    program: dict[str, str] = field(default_factory=dict)
    """Program flags by name, raw text (`true` for a boolean without a value)."""
    ignored: dict[str, str] = field(default_factory=dict)
    """Flags of Mimir's that are no keys and have no effect, with the reason."""

    def has(self, name: str) -> bool:
        """Say whether a boolean program flag is set."""
        return self.program.get(name, "false") not in ("false", "0", "f", "F", "FALSE", "False")


def parse_flags(argv: Sequence[str], registry: KeyRegistry) -> CommandLine:
    """Read flags. Raises ConfigError for an unknown flag (with the nearest name), a missing or unreadable value."""
    line = CommandLine()
    lists: set[str] = set()
    for name, text in _split(argv, registry):
        if name in PROGRAM_FLAGS:
            line.program[name] = _program_value(name, text)
        elif name in IGNORED_FLAGS:
            line.ignored[name] = IGNORED_FLAGS[name][1]
        else:
            key = registry.by_flag(name)
            assert key is not None
            try:
                value = from_text(key, text)
            except ValueError as err:
                raise ConfigError(f"flag -{name}: {err}") from None
            if key.type == "list of strings" and key.path in lists and value:
                value = (*line.explicit.values[key.path], *value)
            lists.add(key.path)
            line.explicit.values[key.path] = value
            line.explicit.sources[key.path] = "flag"
    return line


def _split(argv: Sequence[str], registry: KeyRegistry) -> Iterator[tuple[str, str]]:
    """Yield (name, text) as Go's flag package pairs them."""
    rest = list(argv)
    while rest:
        argument = rest.pop(0)
        if argument == "--" and not rest:
            return
        if not argument.startswith("-") or argument in ("-", "--"):
            raise ConfigError(_unexpected(argument))
        name, equals, text = (argument[2:] if argument.startswith("--") else argument[1:]).partition("=")
        type_ = _flag_type(name, argument, registry)
        if not equals:
            if type_ == "boolean":
                text = "true"
                if rest and rest[0] in ("true", "false"):
                    raise ConfigError(f"flag -{name} takes its value after an equals sign: write -{name}={rest[0]}")
            elif rest:
                text = rest.pop(0)
            else:
                raise ConfigError(f"flag -{name} needs a value: write -{name}=…")
        yield name, text


def _flag_type(name: str, argument: str, registry: KeyRegistry) -> str:
    if (known := PROGRAM_FLAGS.get(name) or IGNORED_FLAGS.get(name)) is not None:
        return known[0]
    key = registry.by_flag(name)
    if key is not None:
        return key.type
    if not name or name.startswith(("-", "=")):
        raise ConfigError(f'"{argument}" is not a flag; write -name=value')
    nearest = registry.nearest_flag(name)
    hint = f"; did you mean -{nearest}?" if nearest else ""
    raise ConfigError(f"unknown flag -{name}{hint} (mimir-ingest -help lists all flags)")


def _program_value(name: str, text: str) -> str:
    key = Key(path=name, flag=name, type=PROGRAM_FLAGS[name][0], default="", category="basic", own=True, description="")
    try:
        return str(from_text(key, text)).lower() if key.type == "boolean" else text
    except ValueError as err:
        raise ConfigError(f"flag -{name}: {err}") from None


def _unexpected(argument: str) -> str:
    return (
        f'unexpected argument "{argument}"; flags start with a dash and are written -name=value '
        "(mimir-ingest -help lists them)"
    )


def parse_file(text: str, *, name: str, registry: KeyRegistry) -> Explicit:
    """Read a YAML configuration.

    Raises ConfigError, with file name and line, for YAML that does not parse, an unknown key (with the nearest name),
    a key given twice, a value of another type, a section where a value belongs or the other way round.
    """
    explicit = Explicit()
    root = compose_single(text, name=name)
    if root is None:
        return explicit
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{name}: expected a map of configuration keys at the top")
    for path, key_node, node in _leaves(root, "", name, registry):
        key = registry.by_path(path)
        assert key is not None
        try:
            explicit.values[path] = from_node(key, node)
        except ValueError as err:
            raise ConfigError(f"{_where(name, key_node)}: {path}: {err}") from None
        explicit.sources[path] = "file"
    return explicit


def compose_single(text: str, *, name: str) -> yaml.Node | None:
    """Return the node tree of exactly one YAML document, or None for an empty one. Raises ConfigError."""
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as err:
        line = f" line {err.problem_mark.line + 1}" if err.problem_mark else ""
        raise ConfigError(f"{name}{line}: not valid YAML: {err.problem}") from None
    except (yaml.YAMLError, RecursionError) as err:
        raise ConfigError(f"{name}: not valid YAML: {str(err).splitlines()[0]}") from None


def _leaves(
    node: yaml.MappingNode, prefix: str, name: str, registry: KeyRegistry
) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    for key_node, value in mapping_items(node, name=name):
        path = f"{prefix}{key_node.value}"
        if registry.by_path(path) is not None:
            yield path, key_node, value
        elif not registry.is_section(path):
            nearest = registry.nearest_path(path)
            hint = f'; did you mean "{nearest}"?' if nearest else ""
            raise ConfigError(f'{_where(name, key_node)}: unknown key "{path}"{hint}')
        elif isinstance(value, yaml.MappingNode):
            yield from _leaves(value, f"{path}.", name, registry)
        elif value.tag != "tag:yaml.org,2002:null":
            raise ConfigError(f"{_where(name, key_node)}: {path} is a section; expected a map of its keys")


def mapping_items(node: yaml.MappingNode, *, name: str) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    """Return a map's entries with merge keys (`<<`) resolved. Raises ConfigError for a key that stands twice."""
    written: dict[str, int] = {}
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{_where(name, key_node)}: expected a name as key")
        if key_node.value in written and key_node.tag != "tag:yaml.org,2002:merge":
            first = written[key_node.value]
            raise ConfigError(f'{_where(name, key_node)}: key "{key_node.value}" already stands in line {first}')
        written[key_node.value] = key_node.start_mark.line + 1
    try:
        yaml.SafeLoader("").flatten_mapping(node)
    except yaml.MarkedYAMLError as err:
        raise ConfigError(f"{name}: not valid YAML: {err.problem}") from None
    last = {key_node.value: (key_node, value) for key_node, value in node.value}
    return list(last.values())


def _where(name: str, node: yaml.Node) -> str:
    return f"{name} line {node.start_mark.line + 1}"


_SHELL_NAME = re.compile(r"[A-Za-z0-9_]+")
_SPECIAL = frozenset("*#$@!?-0123456789")


def expand_env(text: str, environ: Mapping[str, str]) -> str:
    """Replace `${NAME}`, `${NAME:default}` and `$NAME`; an unset or empty variable takes the default, else nothing.

    Source: Go `os.Expand` with Mimir's mapping (a default after the first colon; newlines in values are dropped).
    """

    def lookup(name: str) -> str:
        variable, colon, default = name.partition(":")
        return (environ.get(variable, "") or (default if colon else "")).replace("\n", "")

    return _expand(text, lookup)


def _expand(text: str, lookup: Callable[[str], str]) -> str:
    out: list[str] = []
    position = 0
    while (dollar := text.find("$", position)) >= 0 and dollar + 1 < len(text):
        out.append(text[position:dollar])
        after = text[dollar + 1]
        if after == "{":
            end = text.find("}", dollar + 2)
            if end < 0:
                position = dollar + 2  # no closing brace: the two characters are dropped
            else:
                out.append(lookup(text[dollar + 2 : end]) if end > dollar + 2 else "")
                position = end + 1
        elif after in _SPECIAL:
            out.append(lookup(after))
            position = dollar + 2
        elif (match := _SHELL_NAME.match(text, dollar + 1)) is not None:
            out.append(lookup(match[0]))
            position = match.end()
        else:
            out.append("$")
            position = dollar + 1
    out.append(text[position:])
    return "".join(out)
