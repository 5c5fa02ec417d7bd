"""The configuration of one process: typed sections composed, checked across fields, built from flags and file.

`load(argv, environ, read_text)` is the way in: it parses the command line and the file, fills in defaults, checks, and
returns `Settings`. Only the composition root and the shells see a settings object; everything below takes numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel

from mimir_ingest.config.durations import Duration
from mimir_ingest.config.effective import EffectiveConfig, Notice, effective_config, nested
from mimir_ingest.config.errors import ConfigError
from mimir_ingest.config.keys import registry
from mimir_ingest.config.limits import LIMIT_NAMES, Limits, limit_texts
from mimir_ingest.config.parse import CommandLine, Explicit, expand_env, parse_file, parse_flags
from mimir_ingest.config.sections import (
    ApiSection,
    AuthSection,
    BlocksStorageSection,
    DistributorSection,
    FrontendSection,
    IngesterClientSection,
    IngesterSection,
    IngestStorageSection,
    QuerierSection,
    RuntimeConfigSection,
    Section,
    SelfMonitoringSection,
    ServerSection,
    Span,
    TenantFederationSection,
    said,
)
from mimir_ingest.config.validate import problems


class Settings(Section):
    """Everything that a process is configured with. Immutable."""

    target: Annotated[
        str,
        said(
            "Components to run, comma-separated: all, write, read, backend, or distributor, ingester, querier, "
            "bucket-upkeep. -modules lists them."
        ),
    ]
    multitenancy_enabled: Annotated[bool, said("Require X-Scope-OrgID; false stores everything under no_auth_tenant.")]
    no_auth_tenant: Annotated[str, said("Tenant when multitenancy is off.")]
    max_separate_metrics_groups_per_user: Annotated[
        int, said("Values of the label group that a tenant's counters may have; further ones are counted as other.")
    ]
    shutdown_delay: Annotated[Span, said("How long to go on serving, not ready, after a request to stop.")]
    api: ApiSection
    auth: AuthSection
    server: ServerSection
    distributor: DistributorSection
    ingester: IngesterSection
    ingester_client: IngesterClientSection
    ingest_storage: IngestStorageSection
    blocks_storage: BlocksStorageSection
    querier: QuerierSection
    frontend: FrontendSection
    tenant_federation: TenantFederationSection
    runtime_config: RuntimeConfigSection
    self_monitoring: SelfMonitoringSection
    limits: Limits
    """Default limits of every tenant; overrides are in `runtime`."""
    effective: EffectiveConfig
    """All keys, those without effect included; for /config."""
    notices: tuple[Notice, ...]
    """Explicitly set keys without effect."""


def _fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    """Yield path and description of every leaf of a section."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from _fields(annotation, f"{prefix}{name}.")
        elif annotation not in (Limits, EffectiveConfig, tuple[Notice, ...]):
            yield f"{prefix}{name}", field.description or ""


@functools.cache
def used_paths() -> frozenset[str]:
    """Return the paths of all keys that this program reads."""
    return frozenset(path for path, _ in _fields(Settings, "")) | {f"limits.{name}" for name in LIMIT_NAMES}


@functools.cache
def used_keys() -> Mapping[str, str]:
    """Return the same paths, each with its description: the field's here, or the key table's."""
    texts = dict(_fields(Settings, "")) | {f"limits.{n}": t for n, t in limit_texts().items()}
    return {key.path: texts[key.path] or key.description for key in registry() if key.path in texts}


def build(explicit: Explicit) -> Settings:
    """Build and check settings from explicit values. Raises ConfigError that lists every problem found."""
    keys = registry()
    effective = effective_config(keys, explicit)
    found = problems(effective)
    if found:
        listed = "\n".join(f"  - {problem}" for problem in found)
        raise ConfigError(f"the configuration cannot be used:\n{listed}")
    used = used_paths()
    tree = nested((path, effective.values[path]) for path in used if not path.startswith("limits."))
    limits = Limits.from_values(
        {path.removeprefix("limits."): value for path, value in effective.values.items() if path.startswith("limits.")}
    )
    return Settings(**tree, limits=limits, effective=effective, notices=tuple(effective.notices(used)))


def load(
    argv: Sequence[str], environ: Mapping[str, str], read_text: Callable[[str], str] | None = None
) -> tuple[Settings, CommandLine]:
    """Read command line and file, and return the settings with the command line.

    Parameters
    ----------
    argv : flags, without the program's name
    environ : environment variables, for `-config.expand-env`
    read_text : returns a file's text; raises OSError

    Raises ConfigError.
    """
    line = parse_flags(argv, registry())
    return build(explicit_values(line, environ, read_text)), line


def explicit_values(
    line: CommandLine, environ: Mapping[str, str], read_text: Callable[[str], str] | None = None
) -> Explicit:
    """Return flags over the file named by `-config.file`. Raises ConfigError."""
    path = line.program.get("config.file", "")
    if not path:
        return line.explicit
    try:
        text = (read_text or _read_text)(path)
    except OSError as err:
        raise ConfigError(f"cannot read -config.file {path}: {err.strerror or err}") from None
    except UnicodeDecodeError as err:
        raise ConfigError(f"-config.file {path} is not UTF-8: {err.reason} at byte {err.start}") from None
    if line.has("config.expand-env"):
        text = expand_env(text, environ)
    return line.explicit.merged_over(parse_file(text, name=path, registry=registry()))


def _read_text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


__all__ = [
    "ConfigError",
    "Duration",
    "Limits",
    "Settings",
    "build",
    "explicit_values",
    "load",
    "used_keys",
    "used_paths",
]
