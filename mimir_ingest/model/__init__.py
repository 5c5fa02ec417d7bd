"""Frozen values that every room shares: labels, matchers, columnar batches. No I/O."""
