"""Files that are on the disk when a call returns, whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


def make_folder(path: Path) -> None:
    """Like mkdir -p, returning when each new name is on the disk; raises OSError."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def write_new(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file that must not exist yet, and return when it is on the disk; raises OSError."""
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Return when the names in `path` are on the disk; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def place_folder(target: Path, files: Mapping[str, bytes]) -> bool:
    """Make folder `target` with these files, whole and on the disk; False if it is there already; raises OSError.

    Written beside it under a name with a leading dot, then renamed. A rename never replaces a folder that holds
    files, so of two who want one name exactly one gets it.
    """
    temporary = target.with_name(f".publishing-{uuid.uuid4().hex}")
    temporary.mkdir()
    try:
        for name, data in files.items():
            write_new(temporary / name, data)
        sync_folder(temporary)
        temporary.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(target.parent)
    return True


def create_once(path: Path, data: bytes, mode: int) -> None:
    """Put `data` at `path`, whole or not at all; if somebody was faster, theirs stays."""
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        write_new(temporary, data, mode)
        with suppress(FileExistsError):
            os.link(temporary, path)  # unlike a rename, a link never replaces
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file at `path`, waiting for whoever has it; the end of a process lets go of it. Raises OSError."""
    make_folder(path.parent)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
