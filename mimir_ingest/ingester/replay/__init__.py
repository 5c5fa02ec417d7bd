"""Replay: blocks of a partition, built again from the log and compared with the bucket's, or shipped where it has none.

`plan` chooses where to begin, `judge` drives the ingester's own state machine and compares every cut, `report` is what
was found, `run` is the shell that reads the log.
"""
