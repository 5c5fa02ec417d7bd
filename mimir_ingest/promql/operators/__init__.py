"""Evaluation of plan nodes over columns."""
