"""Object storage through fsspec: a local directory, memory, S3, and as extras GCS and Azure.

What callers may rely on, on every store:

- An object is seen whole or not at all, and `write_atomic` has made it durable when it returns. Locally that is a
  temporary file, fsync, rename, and fsync of the directory; on object storage one PUT, or a multipart upload that is
  completed at the end. Nothing is ever published through `open("wb")`, which leaves a part behind when it fails.
- Listings and existence are asked of the store each time; nothing is cached.
- Errors are ours: `BlockNotFound` for an object that is not there, `StoreUnavailable` for everything else.

Methods block; call them in threads, from as many as you like. fsspec's asynchronous stores run on their own event loop,
which does not survive a fork.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import fsspec
from botocore.exceptions import BotoCoreError, ClientError
from fsspec.implementations.local import LocalFileSystem

from mimir_ingest.bucket.s3_options import s3_options
from mimir_ingest.errors import BlockNotFound, InvariantViolated, StorageError, StoreUnavailable

_TEMPORARY = ".tmp-"
"""Names of files that are being written begin so; they are in no listing. A folder may be called so, after a tenant."""


class Bucket:
    """One bucket or directory, or a prefix in one. Paths are relative, with `/` between the parts."""

    def __init__(self, url: str, **options: Any) -> None:
        """Prepare access; nothing is contacted yet.

        Parameters
        ----------
        url : str
            `s3://<bucket>/<prefix>`, `gs://…`, `abfs://…`, `memory://<prefix>`, `file://<directory>` or a directory.
        **options
            For `s3://` see `s3_options`; for the others, the options of their fsspec implementation.

        Raises `StorageError` if the store's library is not installed.
        """
        protocol = url.split("://", 1)[0] if "://" in url else "file"
        if protocol == "s3":
            options = s3_options(**options)
        try:
            self._fs, root = fsspec.core.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False, **options)
        except ImportError as error:
            raise StorageError(f"{url}: storage {protocol!r} needs a library that is not installed: {error}") from error
        self.url = url
        self._root = root.rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)
        self._library_errors = (OSError, aiohttp.ClientError, BotoCoreError, ClientError, *_extra_errors(protocol))

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        return self._local

    def read(self, path: str) -> bytes:
        """Return an object."""
        with self._renaming(path):
            return self._fs.cat_file(self._full(path))

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """Return the bytes `[start, end)` of an object, fewer if it ends before."""
        if end <= start:
            return b""
        with self._renaming(path):
            try:
                return self._fs.cat_file(self._full(path), start=start, end=end)
            except OSError:
                # S3 refuses a range that begins at the end of the object or past it; the others give nothing.
                if self._local or start < self._fs.info(self._full(path), refresh=True)["size"]:
                    raise
                return b""

    def write_atomic(self, path: str, data: bytes) -> None:
        """Put an object, in place of one that may be there. Raises `StoreUnavailable`."""
        try:
            with self._renaming(path):
                if self._local:
                    _write_local(Path(self._full(path)), data)
                else:
                    self._fs.pipe_file(self._full(path), data)
        except BlockNotFound as error:
            raise StoreUnavailable(f"{self.url} does not exist: {error.__cause__}") from error

    def list(self, folder: str = "") -> list[str]:
        """Return the names directly in a folder, ascending, folders with a `/` at the end; [] if there is none."""
        try:
            with self._renaming(folder):
                entries = self._fs.ls(self._full(folder), detail=True)
        except BlockNotFound:
            return []
        here = self._full(folder)
        names = set()
        for entry in entries:
            full = entry["name"].rstrip("/")
            name = full.rsplit("/", 1)[-1]
            folder_entry = entry["type"] == "directory"
            if full != here and (folder_entry or not name.startswith(_TEMPORARY)):
                names.add(name + "/" if folder_entry else name)
        return sorted(names)

    def exists(self, path: str) -> bool:
        """Whether there is an object at `path`."""
        return self._info(path) is not None

    def size(self, path: str) -> int | None:
        """Return an object's length in bytes, None if there is none."""
        info = self._info(path)
        return None if info is None else int(info["size"])

    def _info(self, path: str) -> dict | None:
        try:
            with self._renaming(path):
                info = self._fs.info(self._full(path), refresh=True)
        except BlockNotFound:
            return None
        return info if info["type"] == "file" else None

    def modified_ms(self, path: str) -> int:
        """Return when an object was last written (ms since the Unix epoch, by the store's clock)."""
        with self._renaming(path):
            return int(self._fs.modified(self._full(path)).timestamp() * 1000)

    def delete(self, path: str) -> None:
        """Remove an object; none there is fine. Locally, folders that become empty go with it."""
        with self._renaming(path), suppress(FileNotFoundError):
            self._fs.rm_file(self._full(path))
        if self._local:
            _remove_empty(Path(self._full(path)).parent, Path(self._root))

    def delete_leftovers(self, *, written_before_ms: int) -> int:
        """Remove temporary files of writers that died, last written before a time; return how many. Local only."""
        if not self._local:
            return 0
        removed = 0
        for file in Path(self._root).rglob(f"{_TEMPORARY}*"):
            with self._renaming(file.name), suppress(FileNotFoundError):
                if file.is_file() and file.stat().st_mtime * 1000 < written_before_ms:
                    file.unlink()
                    removed += 1
        return removed

    def check(self) -> None:
        """Create a local directory and write to it; ask any other store for its root.

        Raises `StoreUnavailable` if that fails or there is no answer.
        """
        if self._local:
            try:
                Path(self._root).mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(prefix=_TEMPORARY, dir=self._root) as file:
                    file.write(b"\0")
            except OSError as error:
                raise StoreUnavailable(f"{self.url} cannot be written: {error.strerror or error}") from error
            return
        try:
            with self._renaming(""):
                self._fs.info(self._root.split("/", 1)[0] or "/", refresh=True)
        except BlockNotFound as error:
            raise StoreUnavailable(f"{self.url} does not exist") from error

    def _full(self, path: str) -> str:
        if path.startswith("/") or any(part in (".", "..") for part in path.split("/")):
            raise InvariantViolated(f"path {path!r} is not inside the bucket")
        return f"{self._root}/{path}".rstrip("/") if path else self._root

    @contextmanager
    def _renaming(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise BlockNotFound(f"{self.url}: {path} does not exist") from error
        except self._library_errors as error:
            raise StoreUnavailable(f"{self.url}: {path}: {type(error).__name__}: {error}") from error


def _extra_errors(protocol: str) -> tuple[type[Exception], ...]:
    """Errors of the optional stores that are no OSError; called once their library is known to be there."""
    if protocol in ("gs", "gcs"):
        from gcsfs.retry import HttpError

        return (HttpError,)
    if protocol in ("abfs", "abfss", "az", "adl"):
        from azure.core.exceptions import AzureError

        return (AzureError,)
    return ()


def _write_local(target: Path, data: bytes) -> None:
    for attempt in range(3):
        _make_folder(target.parent)
        try:
            handle, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=target.parent)
            break
        except FileNotFoundError:
            # Another process has just removed the folder because it was empty.
            if attempt == 2:
                raise
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(handle, 0o644)
            os.fsync(handle)
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(target.parent)


def _make_folder(folder: Path) -> None:
    """Create a folder and its parents, durably."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        _sync_folder(each.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_empty(folder: Path, root: Path) -> None:
    while folder != root and root in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
