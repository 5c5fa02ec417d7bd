"""Scaling out and in by command: the procedure (`plan`, pure) and the shell that carries it out (`run`)."""
