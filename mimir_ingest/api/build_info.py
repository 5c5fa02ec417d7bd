"""The build information that Grafana reads to see which flavour it talks to (http-api, section 3.8)."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

APPLICATION = "Grafana Mimir"
"""Clients look for "Mimir" in it; the program's own name is in `revision` and on every page."""

NO_FEATURES: Mapping[str, bool] = {
    "ruler_config_api": False,
    "alertmanager_config_api": False,
    "query_sharding": False,
    "federated_rules": False,
}


def build_info(
    *, version: str, revision: str, branch: str, features: Mapping[str, bool] = NO_FEATURES
) -> dict[str, Any]:
    """Return the envelope. Values of `features` are the strings "true" and "false"; empty strings are left out."""
    data = {
        "application": APPLICATION,
        "version": version,
        "revision": revision,
        "branch": branch,
        "goVersion": f"python{platform.python_version()}",
    }
    shown: dict[str, Any] = {name: text for name, text in data.items() if text}
    shown["features"] = {name: "true" if on else "false" for name, on in features.items()}
    return {"status": "success", "data": shown}
