"""What a client accepts: weights of content negotiation (RFC 9110, section 12.5)."""

from __future__ import annotations

ARROW = "application/vnd.apache.arrow.stream"
"""Media type of an Arrow IPC stream, as IANA has it."""


def parse_weights(header: str) -> dict[str, float]:
    """Return the items of an `Accept` or `Accept-Encoding` header, in lower case, and their weights, 0 if malformed."""
    weights: dict[str, float] = {}
    for item in header.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        if name:
            weights[name] = weight
    return weights


def wants_arrow(accept: str) -> bool:
    """Whether an `Accept` header names Arrow, and JSON no sooner; a wildcard names nothing, for browsers send one."""
    if ARROW not in accept.lower():
        return False
    weights = parse_weights(accept)
    arrow = weights.get(ARROW, 0.0)
    return arrow > 0 and arrow >= weights.get("application/json", 0.0)
