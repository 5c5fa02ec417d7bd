"""Flags and keys that the documentation shows exist."""

import re
from pathlib import Path

import pytest

from mimir_ingest.config.keys import registry
from mimir_ingest.config.parse import IGNORED_FLAGS, PROGRAM_FLAGS

ROOT = Path(__file__).parents[3]
PAGES = [page for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "Makefile") if page.exists()]
SECTIONS = {key.path.partition(".")[0].replace("_", "-") for key in registry()} | {
    key.flag.partition(".")[0] for key in registry() if key.flag
}
FLAG = re.compile(r"(?<![\w./-])--?([a-z][a-z-]*(?:\.[a-z0-9_-]+)+)(?=[=\s`'\")),;:]|$)", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_flag_shown_exists(page):
    shown = {name for name in FLAG.findall(page.read_text()) if name.partition(".")[0] in SECTIONS | {"config"}}
    known = {key.flag for key in registry()} | PROGRAM_FLAGS.keys() | IGNORED_FLAGS.keys()
    assert shown - known == set()


def test_flags_are_found_in_text():
    text = "run `-server.http-listen-port=1`, --log.level debug (-config.file) but not a-b.c or x.-y"
    assert FLAG.findall(text) == ["server.http-listen-port", "log.level", "config.file"]
