"""The reference page and the help are current and complete."""

from pathlib import Path

from mimir_ingest.config.keys import registry
from mimir_ingest.config.parse import PROGRAM_FLAGS
from mimir_ingest.config.reference import render_help, render_reference
from mimir_ingest.config.settings import used_paths

PAGE = Path(__file__).parents[3] / "docs" / "config-reference.md"


def test_the_committed_page_is_what_the_program_generates():
    assert PAGE.read_text() == render_reference(), "run: mimir-ingest config --reference > docs/config-reference.md"


def test_help_lists_every_flag_in_use_and_on_request_every_flag():
    short, long = (render_help([("serve", "Run.")], everything=everything) for everything in (False, True))
    for key in registry():
        if key.flag:
            assert (f"  -{key.flag} " in short) == (key.path in used_paths()), key.path
            assert f"  -{key.flag} " in long
    for name in PROGRAM_FLAGS:
        assert f"  -{name} " in short
    assert "  serve            Run." in short
