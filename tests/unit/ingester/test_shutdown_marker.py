"""The shutdown marker is a small file with a time, there wholly or not at all."""

from __future__ import annotations

import pytest

from mimir_ingest.ingester.shutdown_marker import ShutdownMarker


def test_a_marker_is_set_and_unset_in_a_folder_that_need_not_exist(tmp_path):
    marker = ShutdownMarker(tmp_path / "tsdb")
    assert not marker.exists()
    marker.remove()
    marker.create(1_700_000_000_123)
    assert (tmp_path / "tsdb" / "shutdown-requested.txt").read_text() == "2023-11-14T22:13:20Z"
    assert [p.name for p in (tmp_path / "tsdb").iterdir()] == ["shutdown-requested.txt"]
    assert ShutdownMarker(tmp_path / "tsdb").exists()
    marker.create(1_700_000_001_000)
    assert (tmp_path / "tsdb" / "shutdown-requested.txt").read_text() == "2023-11-14T22:13:21Z"
    marker.remove()
    assert not marker.exists()


def test_a_folder_that_cannot_be_looked_into_is_an_error_and_not_unset(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        ShutdownMarker(tmp_path / "file").exists()
