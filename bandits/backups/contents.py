"""What a home holds, and what becomes of each of it in a backup: the one list that a backup follows.

    sealed    the record: rows of people under their keys (rows.py)
    runs      runs of the content pilot: from their file, or from the server that has the record (runs.py)
    sqlite    a copy of one state, whoever writes meanwhile
    duckdb    the same
    tree      every file in it that is whole; keys of people lie beside the backups instead
    told      not the file, but what it says: in the manifest, or in the configuration that is backed up
    again     nothing: it follows from the rest, can be fetched anew, or means nothing elsewhere

A name that stands nowhere here is left out, and the backup says so.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Literal

import duckdb

from bandits.durable import make_folder, sync_folder, write_new
from bandits.home import Home
from bandits.record.sql import BUSY_S

Way = Literal["sealed", "runs", "sqlite", "duckdb", "tree", "told", "again"]

HELD: Mapping[str, Way] = {
    "record.db": "sealed",
    "pilot.db": "runs",
    "audit.db": "sqlite",
    "prompts.db": "sqlite",  # all that people asked is sealed in it
    "library.duckdb": "duckdb",  # what the pilot has read; its documents lay elsewhere, and are not kept
    "keys": "tree",
    "snapshots": "tree",
    "trials": "tree",
    "backups.json": "told",
    "pilotage.toml": "told",  # of a home that was restored: the configuration of then
    "warehouse.duckdb": "again",  # but its copies of nightly reports: runs.json
    "warehouse.duckdb.turn": "again",
    "checkpoints": "again",
    "studies.journal": "again",
    "vectors.db": "again",  # computed from texts of the library, and kept to save time
    "pilot.graph.db": "again",  # how far LangGraph came; pilot.db says what is done
    "limits.bin": "again",  # who called how often this minute
    "erasures": "again",  # none is open while a backup is made
    "nights": "again",  # locks
    "publishing.lock": "again",
    "rollout.lock": "again",
    "prefect": "again",  # Prefect's own
    "demo": "again",  # says that a home may be thrown away
}
_BESIDE = ("", "-wal", "-shm", "-journal", ".wal", ".lock")  # what databases keep beside a file
_DAMAGED = "warehouse.duckdb.damaged"
_PAUSE_S = 0.02


def unknown(home: Home, root: Path | None = None) -> list[str]:
    """Names in the home that nothing is declared of, but a folder of backups `root` that lies in it.

    What begins with a dot is still being written.
    """
    known = {name + beside for name in HELD for beside in _BESIDE}
    if home.record_file is not None:  # it may have another name, but it is the record
        known |= {home.record_file.name + beside for beside in _BESIDE}
    if root is not None and home.root in root.parents:
        known.add(root.relative_to(home.root).parts[0])
    names = [path.name for path in home.root.iterdir()] if home.root.is_dir() else []
    return sorted(name for name in names if not name.startswith((".", _DAMAGED)) and name not in known)


def named(way: Way) -> list[str]:
    """The names of one way, in the order of the list."""
    return [name for name, found in HELD.items() if found == way]


def copy_database(source: Path, target: Path) -> None:
    """A copy (0600) of a SQLite file that others may be writing. Raises sqlite3.Error, OSError."""
    target.touch(0o600)
    with closing(sqlite3.connect(source, timeout=BUSY_S)) as read, closing(sqlite3.connect(target)) as write:
        read.backup(write)


def copy_duckdb(source: Path, target: Path, patience_s: float = BUSY_S) -> None:
    """A copy (0600) of one state of a DuckDB file: nobody writes meanwhile, and what was deleted is not in it.

    Waits until no other holds the file to write. Raises duckdb.Error, OSError.
    """
    deadline = time.monotonic() + patience_s
    with duckdb.connect() as both:
        while True:
            try:
                both.execute("ATTACH ? AS source (READ_ONLY)", [str(source)])
                break
            except (duckdb.IOException, duckdb.OperationalError) as error:
                held = isinstance(error, duckdb.ResourceInUseException) or "lock" in str(error).lower()
                if not held or time.monotonic() >= deadline:
                    raise
            time.sleep(_PAUSE_S)
        both.execute("ATTACH ? AS target", [str(target)])
        target.chmod(0o600)
        both.execute("COPY FROM DATABASE source TO target")
        both.execute("DETACH target")  # folds its log into the file
    sync_folder(target)  # it fsyncs whatever has a name


def copy_tree(home: Home, name: str, folder: Path) -> None:
    """Every file under a folder of the home; what has a leading dot somebody is still writing. Raises OSError."""
    for path in sorted((home.root / name).rglob("*")):
        inside = path.relative_to(home.root)
        hidden = any(part.startswith(".") for part in inside.parts)
        keys_of_people = path.parent == home.people.parent and path.name.startswith(home.people.name)
        if path.is_file() and not hidden and not keys_of_people:
            make_folder((folder / inside).parent)
            write_new(folder / inside, path.read_bytes(), 0o600)
