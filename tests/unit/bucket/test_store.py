"""The same contract on a local directory, in memory and on S3."""

from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mimir_ingest.bucket import store
from mimir_ingest.bucket.s3_options import s3_options
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import BlockNotFound, InvariantViolated, StorageError, StoreUnavailable
from tests.support.peers import pick_free_port
from tests.unit.bucket.conftest import open_s3


def test_an_object_is_read_as_written_and_can_be_replaced(bucket: Bucket) -> None:
    for data in (b"", b"one", bytes(range(256)) * 1000):
        bucket.write_atomic("a/b/c", data)
        assert bucket.read("a/b/c") == data
        assert bucket.size("a/b/c") == len(data)


def test_ranges_are_cut_at_the_end_of_the_object(bucket: Bucket) -> None:
    bucket.write_atomic("x", b"0123456789")
    assert bucket.read_range("x", 2, 5) == b"234"
    assert bucket.read_range("x", 0, 100) == b"0123456789"
    assert bucket.read_range("x", 8, 12) == b"89"
    assert bucket.read_range("x", 10, 12) == b""
    assert bucket.read_range("x", 50, 60) == b""
    assert bucket.read_range("x", 5, 5) == b""


def test_what_is_not_there_is_told_apart_from_what_does_not_answer(bucket: Bucket) -> None:
    for read in (lambda: bucket.read("nope"), lambda: bucket.read_range("a/nope", 0, 5)):
        with pytest.raises(BlockNotFound) as caught:
            read()
        assert caught.value.__cause__ is not None
    assert not bucket.exists("nope")
    assert bucket.size("nope") is None
    assert bucket.list("nope") == []
    bucket.delete("nope")


def test_listings_show_the_folder_s_own_names_as_they_are_now(bucket: Bucket) -> None:
    assert bucket.list() == []
    for path in ("t/one/meta.json", "t/one/chunks/000001", "t/two/index", "t/file", "u/x", "t-2/x"):
        bucket.write_atomic(path, b"x")
    assert bucket.list() == ["t-2/", "t/", "u/"]
    assert bucket.list("t") == ["file", "one/", "two/"]
    assert bucket.list("t/one") == ["chunks/", "meta.json"]
    assert bucket.exists("t/one/meta.json")
    assert not bucket.exists("t/one")
    bucket.delete("t/two/index")
    assert bucket.list("t") == ["file", "one/"]
    assert not bucket.exists("t/two/index")


def test_the_time_of_writing_is_known(bucket: Bucket) -> None:
    before = time.time() * 1000
    bucket.write_atomic("x", b"1")
    assert abs(bucket.modified_ms("x") - before) < 60_000
    with pytest.raises(BlockNotFound):
        bucket.modified_ms("nope")


def test_a_store_that_is_there_passes_the_check(bucket: Bucket) -> None:
    bucket.check()


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "a/./b"])
def test_paths_outside_the_bucket_are_refused(bucket: Bucket, path: str) -> None:
    with pytest.raises(InvariantViolated, match="not inside the bucket"):
        bucket.read(path)


def test_readers_beside_a_writer_see_whole_objects(bucket: Bucket) -> None:
    bodies = [bytes([i]) * 50_000 for i in range(20)]
    bucket.write_atomic("x", bodies[0])
    done = threading.Event()

    def read() -> set[bytes]:
        seen = set()
        while not done.is_set():
            seen.add(bucket.read("x"))
        return seen

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for body in bodies:
            bucket.write_atomic("x", body)
        done.set()
        assert all(reader.result() <= set(bodies) for reader in readers)


def test_a_failed_local_write_leaves_the_old_object_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Bucket(f"file://{tmp_path}")
    bucket.write_atomic("t/x", b"old")
    for name in ("fsync", "replace"):

        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(store.os, name, fail)
            with pytest.raises(StoreUnavailable, match="No space left"):
                bucket.write_atomic("t/x", b"new")
        assert bucket.read("t/x") == b"old"
        assert os.listdir(tmp_path / "t") == ["x"]


def test_a_local_write_is_synced_before_and_after_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        calls.append("sync " + Path(os.readlink(f"/proc/self/fd/{handle}")).name.partition("-")[0])
        real_fsync(handle)

    def replace(source: str, target: Path) -> None:
        calls.append(f"rename to {target.name}")
        real_replace(source, target)

    monkeypatch.setattr(store.os, "fsync", fsync)
    monkeypatch.setattr(store.os, "replace", replace)
    root = tmp_path / "root"
    root.mkdir()
    Bucket(str(root)).write_atomic("new/x", b"1")
    assert calls == ["sync root", "sync .tmp", "rename to x", "sync new"]


def test_leftovers_of_dead_writers_are_hidden_and_removed_once_old(tmp_path: Path) -> None:
    bucket = Bucket(str(tmp_path))
    bucket.write_atomic("t/x", b"1")
    (tmp_path / "t" / ".tmp-abc").write_bytes(b"half")
    assert bucket.list("t") == ["x"]
    now_ms = int(time.time() * 1000)
    assert bucket.delete_leftovers(written_before_ms=now_ms - 60_000) == 0
    assert bucket.delete_leftovers(written_before_ms=now_ms + 60_000) == 1
    assert os.listdir(tmp_path / "t") == ["x"]


def test_empty_local_folders_go_with_their_last_object(tmp_path: Path) -> None:
    bucket = Bucket(str(tmp_path / "root"))
    bucket.write_atomic("t/block/chunks/000001", b"1")
    bucket.write_atomic("t/other", b"1")
    bucket.delete("t/block/chunks/000001")
    assert os.listdir(tmp_path / "root" / "t") == ["other"]
    bucket.delete("t/other")
    assert (tmp_path / "root").is_dir()


def test_a_bucket_that_does_not_exist_is_unavailable(s3_endpoint: str) -> None:
    bucket = open_s3(s3_endpoint, "x", bucket="missing")
    with pytest.raises(StoreUnavailable, match="missing"):
        bucket.check()
    with pytest.raises(StoreUnavailable, match="missing"):
        bucket.write_atomic("a", b"1")


def test_a_store_that_is_down_is_unavailable_and_may_be_tried_again() -> None:
    bucket = Bucket(
        "s3://blocks", endpoint=f"127.0.0.1:{pick_free_port()}", region="x", insecure=True, max_attempts=1,
        access_key_id="a", secret_access_key="b",
    )  # fmt: skip
    for call in (lambda: bucket.read("x"), lambda: bucket.write_atomic("x", b""), bucket.list, bucket.check):
        with pytest.raises(StoreUnavailable) as caught:
            call()
        assert caught.value.retriable


def test_a_local_path_that_is_a_file_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnavailable):
        Bucket(str(tmp_path / "file")).check()
    with pytest.raises(StoreUnavailable):
        Bucket(str(tmp_path / "file")).write_atomic("x", b"")


def test_a_store_whose_library_is_missing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(StorageError, match="library that is not installed"):
        Bucket("gs://blocks")


def test_settings_of_mimir_become_options_of_s3fs() -> None:
    options = s3_options(
        endpoint="minio:9000", region="r", access_key_id="k", secret_access_key="s", session_token="t", insecure=True,
        bucket_lookup_type="path", storage_class="STANDARD_IA",
    )  # fmt: skip
    assert options["client_kwargs"] == {"endpoint_url": "http://minio:9000", "region_name": "r"}
    assert (options["key"], options["secret"], options["token"]) == ("k", "s", "t")
    assert options["config_kwargs"]["s3"] == {"addressing_style": "path"}
    assert options["s3_additional_kwargs"] == {"StorageClass": "STANDARD_IA"}
    assert s3_options(endpoint="s3.example.com")["client_kwargs"]["endpoint_url"] == "https://s3.example.com"
    assert "key" not in s3_options()
