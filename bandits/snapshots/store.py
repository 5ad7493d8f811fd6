"""Where snapshots lie: a folder here, or any store that fsspec knows, by URL (s3://bucket/prefix, memory://…).

A store keeps folders of a few small files that never change. `place` puts down a whole folder at once, for one of all
who want its name. On a local disk that is a rename. Where nothing can be renamed, the first file, made only if it is
not there, claims the folder, and the last one reveals it: what has no last file yet is no snapshot.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeAlias
from urllib.parse import unquote, urlsplit

from bandits.durable import make_folder, place_folder

Root: TypeAlias = Path | str  # a folder, or a URL


class WrongSizeError(Exception):
    """A file has another size than it may have; it was not read."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size  # bytes; of a remote file, at least so many


class Store(Protocol):
    """Folders of files, by paths with slashes below one root. Every method raises OSError where the store fails."""

    def taken(self, folder: str) -> list[str]:
        """Names in `folder` that nobody can have any more; none where it is not there."""

    def revealed(self, folder: str, last: str) -> list[str]:
        """Names in `folder` of folders that were put down whole, `last` their last file."""

    def files(self, folder: str) -> set[str]:
        """Names of the files in `folder`; raises FileNotFoundError where it is not there."""

    def read(self, path: str, sizes: range) -> bytes:
        """A file whose size is one of `sizes`; raises WrongSizeError before it would read more than that."""

    def place(self, folder: str, files: Mapping[str, bytes]) -> bool:
        """Put down `folder` with these files, durable, all or none; False if somebody else has the name."""


def open_store(root: Root) -> Store:
    """The store at `root`: a path, file:// and a path, or a URL of any other kind.

    Raises OSError where fsspec lacks the kind or what it needs (s3:// needs s3fs), ValueError where it is no URL.
    """
    if isinstance(root, Path):
        return LocalStore(root)
    parts = urlsplit(root)
    if parts.scheme == "file":
        return LocalStore(Path(unquote(parts.path)))
    if "://" not in root:
        raise ValueError(f"a store must be a Path, or a URL such as s3://bucket/prefix, but got {root!r}.")
    return RemoteStore(root)


class LocalStore:
    """A folder of this machine; see Store. Placed by rename, and on the disk when that returns."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def taken(self, folder: str) -> list[str]:
        """See Store."""
        try:
            return os.listdir(self._root / folder)
        except FileNotFoundError:
            return []

    def revealed(self, folder: str, last: str) -> list[str]:
        """See Store: what has its name is whole, since it was renamed."""
        return self.taken(folder)

    def files(self, folder: str) -> set[str]:
        """See Store."""
        return set(os.listdir(self._root / folder))

    def read(self, path: str, sizes: range) -> bytes:
        """See Store. Only a regular file is read."""
        # Without O_NONBLOCK, a pipe put in place of the file would hang the reader.
        with open(self._root / path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size not in sizes:
                raise WrongSizeError(status.st_size)
            return file.read(status.st_size)

    def place(self, folder: str, files: Mapping[str, bytes]) -> bool:
        """See Store."""
        target = self._root / folder
        make_folder(target.parent)
        return place_folder(target, files)


class RemoteStore:
    """Any store of fsspec; see Store.

    Two publishers are kept apart by the store's own exclusive creation (S3 and GCS: conditional put). Where it has
    none, reading the claim back catches all but the closest race; the reader then still refuses what is mixed.
    """

    def __init__(self, url: str) -> None:
        import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415 - a local reader does without

        with _as_os_error(url):
            self._fs, base = fsspec.core.url_to_fs(url)
        self._base = base.rstrip("/")

    def taken(self, folder: str) -> list[str]:
        """See Store: any file below a name takes it, also what a publisher who died left."""
        return sorted({path.partition("/")[0] for path in self._find(folder)})

    def revealed(self, folder: str, last: str) -> list[str]:
        """See Store."""
        return sorted(path.removesuffix(f"/{last}") for path in self._find(folder) if path.endswith(f"/{last}"))

    def files(self, folder: str) -> set[str]:
        """See Store."""
        found = set(self._find(folder))
        if not found:
            raise FileNotFoundError(folder)
        return found

    def read(self, path: str, sizes: range) -> bytes:
        """See Store: asks for one byte more than it may have."""
        with _as_os_error(path):
            data = bytes(self._fs.cat_file(f"{self._base}/{path}", start=0, end=sizes[-1] + 1))
        if len(data) not in sizes:
            raise WrongSizeError(len(data))
        return data

    def place(self, folder: str, files: Mapping[str, bytes]) -> bool:
        """See Store. A publisher who dies on the way leaves a name that is taken and never revealed."""
        (claim, token), *others = files.items()
        *inner, last = others
        try:
            self._create(f"{folder}/{claim}", token)
            for name, data in inner:
                self._create(f"{folder}/{name}", data)
            if self.read(f"{folder}/{claim}", range(len(token), len(token) + 1)) != token:
                return False
            self._create(f"{folder}/{last[0]}", last[1])
        except (FileExistsError, WrongSizeError):
            return False
        return True

    def _create(self, path: str, data: bytes) -> None:
        with _as_os_error(path):
            self._fs.pipe_file(f"{self._base}/{path}", data, mode="create")

    def _find(self, folder: str) -> list[str]:
        """Paths of all files below `folder`, as of now, from there."""
        place = f"{self._base}/{folder}/"
        with _as_os_error(folder):
            self._fs.invalidate_cache()
            try:
                found: list[Any] = self._fs.find(place)
            except FileNotFoundError:
                return []
        return [str(path).removeprefix(place) for path in found]


@contextmanager
def _as_os_error(where: str) -> Iterator[None]:
    """Each store has exceptions of its own; whatever it raises is a fault of the store."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{where}: {type(error).__name__}: {error}") from error
