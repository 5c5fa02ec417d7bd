"""The page about the ring store's format shows what is written."""

import re
from pathlib import Path

from partitions import edits
from partitions.codec import encode
from partitions.kv.kafka import TOPIC_SETTINGS
from partitions.merge import stamp
from partitions.model import RingDesc, Version

PAGE = (Path(__file__).parents[3] / "docs/format/ring.md").read_text()


def test_the_example_is_a_real_record():
    key, writer, value = re.search(r"^(partition/0) TAB (\S+)\n(\{.*\})$", PAGE, re.MULTILINE).groups()
    [created] = edits.create_partition(RingDesc(), 0, 1_700_000_000_000)
    entry = stamp(None, created, Version(1_700_000_000_000, 0, writer))
    assert (entry.key, encode(entry).decode()) == (key, value)


def test_the_topics_settings_are_named():
    for name, value in TOPIC_SETTINGS.items():
        assert f"`{name}={value}`" in PAGE
