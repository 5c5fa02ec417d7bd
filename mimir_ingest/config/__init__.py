"""Mimir's configuration tree: YAML, flags, limits, runtime overrides."""
