"""A key counts as used only if the program reads it: no key may be silently without effect."""

import re
from pathlib import Path

from mimir_ingest.config.limits import LIMIT_NAMES
from mimir_ingest.config.settings import used_paths

PACKAGE = Path(__file__).parents[3] / "mimir_ingest"
CODE = "\n".join(
    path.read_text() for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).parts[0] != "config"
)

OF_THE_CONFIGURATION = {"limits.max_active_series_additional_custom_trackers"}
"""What a configuration is refused for; nothing else reads it."""


def is_read(leaf):
    return re.search(rf"\.{leaf}\b|\[\"{leaf}\"\]", CODE) is not None


def test_every_key_that_counts_as_used_is_read_by_the_program():
    unread = {path for path in used_paths() if not is_read(path.rpartition(".")[2])}
    assert unread == OF_THE_CONFIGURATION, "remove the field from config/sections.py or config/limits.py, or read it"


def test_every_limit_read_by_name_counts_as_used():
    by_name = set(re.findall(r"\bvalues\[\"(\w+)\"\]", CODE))
    shown_only = {
        "max_global_series_per_metric",
        "max_fetched_chunks_per_query",
        "max_fetched_series_per_query",
        "max_fetched_chunk_bytes_per_query",
        "compactor_blocks_retention_period",
        "max_global_exemplars_per_user",
        "ruler_max_rules_per_rule_group",
        "ruler_max_rule_groups_per_tenant",
    }
    assert by_name - shown_only <= set(LIMIT_NAMES)
