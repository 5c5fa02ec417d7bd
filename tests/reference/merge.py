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


def place_series(series, chosen, at, size):
    """`series`: lists of (ts, value); the chosen ones are put at the places `at` of a list of `size`, else None."""
    out = [None] * size
    for number, place in zip(chosen, at, strict=True):
        out[place : place + len(series[number])] = series[number]
    return out
