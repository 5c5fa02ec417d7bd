"""Mimir's S3 settings as options of s3fs."""

from __future__ import annotations

from typing import Any

_ADDRESSING = {"auto": "auto", "path": "path", "virtual-hosted": "virtual"}

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 120
"""Both are Mimir's defaults (`tls_handshake_timeout`, `response_header_timeout`)."""


def s3_options(
    *,
    endpoint: str = "",
    region: str = "",
    access_key_id: str = "",
    secret_access_key: str = "",
    session_token: str = "",
    insecure: bool = False,
    bucket_lookup_type: str = "auto",
    storage_class: str = "",
    insecure_skip_verify: bool = False,
    max_attempts: int = 3,
) -> dict[str, Any]:
    """Return s3fs's options for `blocks_storage.s3.*`.

    An endpoint is `host[:port]` as in Mimir, or a URL. `insecure` means plain HTTP. Without keys, the usual AWS sources
    are asked (environment, profile, instance role).
    """
    client: dict[str, Any] = {}
    if endpoint:
        scheme = "http" if insecure else "https"
        client["endpoint_url"] = endpoint if "://" in endpoint else f"{scheme}://{endpoint}"
    if region:
        client["region_name"] = region
    if insecure_skip_verify:
        client["verify"] = False
    options: dict[str, Any] = {
        "client_kwargs": client,
        "use_ssl": not insecure,
        "config_kwargs": {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
            "retries": {"max_attempts": max_attempts, "mode": "standard"},
            "s3": {"addressing_style": _ADDRESSING[bucket_lookup_type]},
        },
    }
    if access_key_id:
        options |= {"key": access_key_id, "secret": secret_access_key}
        if session_token:
            options["token"] = session_token
    if storage_class:
        options["s3_additional_kwargs"] = {"StorageClass": storage_class}
    return options
