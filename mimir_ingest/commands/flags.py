"""What commands share: the server's flags among their arguments, exit codes, and the log that settings describe."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mimir_ingest.config.errors import ConfigError
from mimir_ingest.config.keys import registry
from mimir_ingest.config.parse import parse_flags
from mimir_ingest.config.settings import Settings, build, explicit_values

if TYPE_CHECKING:
    from mimir_ingest.log.contract import PartitionLog

FAILED, UNUSABLE = 1, 2
"""Exit codes: it failed; the command line or the configuration cannot be used."""

SERVER_FLAGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": ["--help"]}
"""Context settings of a command that takes the server's flags besides its own options."""


def read_settings(flags: Sequence[str]) -> Settings:
    """Return the settings that flags, file and environment give. Raises ConfigError."""
    return build(explicit_values(parse_flags(flags, registry()), os.environ))


def open_log(flags: Sequence[str]) -> tuple[Settings, PartitionLog]:
    """Return the settings that flags give, and their log, not started.

    Raises ConfigError, also for an embedded log that is not there.
    """
    from mimir_ingest import wiring

    settings = read_settings(flags)
    storage = settings.ingest_storage
    if storage.log == "embedded" and not os.path.isdir(storage.embedded.path):
        raise ConfigError(f"there is no embedded log in {storage.embedded.path}; see -ingest-storage.embedded.path")
    return settings, wiring.make_log(storage)
