"""What can be wrong with a configuration. The message is for the person who wrote it: where, what, what next."""

from __future__ import annotations


class ConfigError(Exception):
    """A configuration that this program will not start with. Shown without a traceback."""
