"""The head, and Prometheus blocks: pure over bytes and columns, no I/O beyond buffers."""
