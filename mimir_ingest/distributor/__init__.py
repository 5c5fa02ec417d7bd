"""Validation, routing to partitions, appending to the log."""
