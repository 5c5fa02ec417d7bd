"""Turns a plan's selects into reads of heads and blocks, merges and deduplicates."""
