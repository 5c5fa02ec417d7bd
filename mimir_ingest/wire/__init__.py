"""Bytes to columns and back, pure: remote write, remote read, record values."""
