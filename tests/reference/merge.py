"""Twin of mimir_ingest.kernels.merge."""


def merge_series(groups):
    """`groups`: per group a list of parts in precedence order, each a list of (ts, value). Returns merged lists."""
    merged = []
    for parts in groups:
        seen = {}
        for part in parts:
            for ts, value in part:
                seen.setdefault(ts, value)
        merged.append(sorted(seen.items()))
    return merged
