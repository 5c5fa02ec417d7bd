"""Consumes partitions into heads, cuts blocks, publishes checkpoints."""
