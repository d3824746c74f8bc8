"""Where files are: in a folder of this machine, or at a URL that several machines reach (an object store, by fsspec).

Both show a file whole or not at all, and once `write` has returned it is there for good.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import fsspec.core

from mier_service.data.durable import make_folder, sync_folder, write_durably


class Place(Protocol):
    """Files by relative path. Every call raises OSError where the storage fails."""

    def read(self, path: str) -> bytes:
        """FileNotFoundError where there is none."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Durably; what was there is replaced."""
        ...

    def settle(self, path: str) -> None:
        """Makes a file durable that is there, and whose writer may have been killed before that."""
        ...

    def remove(self, path: str) -> None:
        """No error if it is gone."""
        ...

    def names(self, folder: str) -> set[str]:
        """Of the files in a folder; none where the folder is not there."""
        ...

    def folders_with(self, name: str) -> set[str]:
        """Names of the folders that hold a file of that name."""
        ...

    def prepare(self, folder: str) -> None:
        """Makes a folder, if folders are made here; no error if it is there."""
        ...

    def remove_leftovers(self, folder: str) -> None:
        """Drops what writes left that a crash cut off; only where no writer is at work."""
        ...


def place_at(location: str | Path) -> Place:
    """The place of a path or URL.

    Raises:
        ValueError: the URL is of no kind that fsspec knows, or what its kind needs is not installed.
    """
    scheme, separator, rest = str(location).partition("://")
    if not separator or scheme == "file":
        return FolderPlace(Path(rest if separator else location))
    return UrlPlace(str(location))


class FolderPlace:
    """A folder of a local file system."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __str__(self) -> str:
        return str(self._root)

    def read(self, path: str) -> bytes:
        return (self._root / path).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        write_durably(self._root / path, data)

    def settle(self, path: str) -> None:
        sync_folder((self._root / path).parent)

    def remove(self, path: str) -> None:
        (self._root / path).unlink(missing_ok=True)

    def names(self, folder: str) -> set[str]:
        return {path.name for path in (self._root / folder).glob("*")}

    def folders_with(self, name: str) -> set[str]:
        return {path.parent.name for path in self._root.glob(f"*/{name}")}

    def prepare(self, folder: str) -> None:
        make_folder(self._root / folder)

    def remove_leftovers(self, folder: str) -> None:
        for path in (self._root / folder).glob("*.tmp"):
            path.unlink(missing_ok=True)


class UrlPlace:
    """What fsspec reaches by URL. An object is whole or not there, and durable once it is acknowledged: so there is
    nothing to settle, and nothing left over."""

    def __init__(self, url: str) -> None:
        try:
            # Others write there too: a listing that was kept would be out of date.
            self._files, root = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
        except ImportError as error:
            raise ValueError(f"{url} cannot be used here: {error} (for s3:// install mier[s3])") from error
        self._root = root.rstrip("/")
        self._url = url

    def __str__(self) -> str:
        return self._url

    def read(self, path: str) -> bytes:
        with self._os_errors():
            return bytes(self._files.cat_file(f"{self._root}/{path}"))

    def write(self, path: str, data: bytes) -> None:
        with self._os_errors():
            self._files.pipe_file(f"{self._root}/{path}", data)

    def settle(self, path: str) -> None:
        pass

    def remove(self, path: str) -> None:
        with self._os_errors():
            if self._files.exists(f"{self._root}/{path}"):
                self._files.rm_file(f"{self._root}/{path}")

    def names(self, folder: str) -> set[str]:
        with self._os_errors():
            return {found.rpartition("/")[2] for found in self._files.glob(f"{self._root}/{folder}/*")}

    def folders_with(self, name: str) -> set[str]:
        with self._os_errors():
            return {found.split("/")[-2] for found in self._files.glob(f"{self._root}/*/{name}")}

    def prepare(self, folder: str) -> None:
        pass

    def remove_leftovers(self, folder: str) -> None:
        pass

    @contextmanager
    def _os_errors(self) -> Iterator[None]:
        """A connection that fails is an error of the storage, whatever its library calls it."""
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            raise OSError(errno.EIO, f"{self._url}: {type(error).__name__}: {error}") from error
