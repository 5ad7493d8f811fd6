"""A backup: everything that does not follow from something else, in one folder that is whole or not there.

    root/
        people.db                           0600, the keys of people: one copy, beside the backups, never in them
        20261122T020000Z-1f3a90c4/          0700
            manifest.json                   written last: what is here, with size and sha256 of each file
            record.db                       the record, rows of people sealed (rows.py)
            pilot.db  library.duckdb        what the content pilot does, and what it has read
            audit.db  prompts.db  runs.json  pilotage.toml  snapshots/  trials/  keys/

contents.py lists what a home holds, and what of it is here. Written under a name with a leading dot, then
renamed; older backups go only after that. What a kill leaves behind, the next run takes away.

The folder holds the keys that sign and that make pseudonyms: guard it as you guard the home.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
from sqlalchemy.exc import DBAPIError

from bandits.backups.contents import copy_database, copy_duckdb, copy_tree, named, unknown
from bandits.backups.rows import Written, seal_record, see_one_state
from bandits.backups.runs import FILE, copy_runs
from bandits.config import load_config
from bandits.durable import locked, make_folder, sync_folder, write_new
from bandits.errors import BackupError, WarehouseError
from bandits.home import Home
from bandits.privacy.erasing import backup_folders, complete
from bandits.privacy.people import People
from bandits.record.audit import Audit
from bandits.record.database import open_database
from bandits.record.sql import BUSY_S
from bandits.record.tables import VERSION
from bandits.snapshots.keys import signing_key, trusted_keys
from bandits.warehouse.loading import read_runs

FORMAT = 1
MANIFEST = "manifest.json"
_NAME = re.compile(r"(\d{8}T\d{6}Z)-[0-9a-f]{8}")
_STAMP = "%Y%m%dT%H%M%SZ"
_DAY_S = 86_400.0

Step = Callable[[str], None]  # told the name of each step when it is done


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that is whole and on the disk."""

    path: Path
    position: int  # of the record's last row in it
    rows: int  # decisions and outcomes
    removed: tuple[str, ...] = ()  # names of older backups that were due
    unknown: tuple[str, ...] = ()  # names in the home that are not Pilotage's, and not in it

    def render(self) -> str:
        """For a terminal."""
        gone = f"; {len(self.removed)} older removed" if self.removed else ""
        odd = f"; not Pilotage's, and not in it: {', '.join(self.unknown)}" if self.unknown else ""
        return f"{self.path}: {self.rows} rows up to position {self.position}{gone}{odd}"


def backup(
    home: Home,
    config_path: Path,
    root: Path,
    now: float,
    keep_days: float = 30.0,
    done: Step = lambda step: None,
) -> Backup:
    """Back `home` up into a new folder under `root`, while others go on deciding.

    Holds all rows up to a position, and none after it. Publishing and erasing wait meanwhile.
    now: UTC, seconds since the epoch.   keep_days: older backups are removed, once this one is whole.
    Raises BackupError: the disk refuses, or `root` has the backups of another home; and what reading the home raises.
    """
    root, config = root.absolute(), load_config(config_path)
    while True:
        complete(home, config)
        with locked(home.publishing):
            if any(home.erasures.glob("*.json")):
                continue  # somebody died in the middle of one just now: rows are gone, policies not yet
            with _told(home, root):
                _prepare(home, root)
                done("begun")
                return _backup(home, config_path, root, now, keep_days, done)


@contextmanager
def _told(home: Home, root: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error, duckdb.Error, DBAPIError) as error:
        raise BackupError(
            f"a backup must be readable from {home.root} and writable to {root}, but: "
            f"{error.orig if isinstance(error, DBAPIError) else error}. Older backups are untouched; check free space "
            "and permissions there, and back up again."
        ) from error


def _prepare(home: Home, root: Path) -> None:
    if not root.is_dir():
        make_folder(root)
        root.chmod(0o700)
    _check_owner(home, root)
    _remember(home, root)
    for left in root.glob(".backup-*"):
        shutil.rmtree(left)


def _backup(home: Home, config_path: Path, root: Path, now: float, keep_days: float, done: Step) -> Backup:
    folder = root / f".backup-{uuid.uuid4().hex}"
    folder.mkdir(mode=0o700)
    try:
        people = People(home.people)
        copy_runs(home, folder / FILE)  # before what it speaks of: decisions of the record, documents of the library
        done("runs")
        written = _copy_record(home, folder / "record.db", people)
        done("record")
        _copy_files(home, config_path, folder)
        done("files")
        _copy_libraries(home, folder)
        done("library")
        people.copy_to(root / home.people.name)  # before the backup is whole: it can always be opened
        sync_folder(root)
        done("people")
        manifest = _manifest(home, folder, written, people, now)
        write_new(folder / MANIFEST, manifest, 0o600)
        for inner in [*(path for path in folder.rglob("*") if path.is_dir()), folder]:
            sync_folder(inner)
        done("manifest")
        stamp = datetime.fromtimestamp(now, UTC).strftime(_STAMP)
        path = folder.rename(root / f"{stamp}-{uuid.uuid4().hex[:8]}")
        sync_folder(root)
        done("renamed")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    removed = _remove_old(root, now - keep_days * _DAY_S)
    done("old")
    with Audit(home.audit_url) as audit:
        evidence = {"backup": path.name, "position": written.position, "sha256": hashlib.sha256(manifest).hexdigest()}
        audit.append("backup", tenant="", who="backup", why="a backup was made", evidence=evidence, time=now)
    return Backup(path, written.position, written.rows, removed, tuple(unknown(home, root)))


def _copy_record(home: Home, path: Path, people: People) -> Written:
    """One transaction that sees one state of the record, and one that writes it down."""
    path.touch(0o600)
    target = open_database(f"sqlite:///{path}", BUSY_S)
    try:
        with home.open_record() as record, record.reading() as source, _told(home, path):
            see_one_state(source)
            with target.writing.begin() as connection:
                return seal_record(source, connection, people)
    finally:
        target.writing.dispose()  # folds its log into the file


def _copy_files(home: Home, config_path: Path, folder: Path) -> None:
    for name in named("sqlite"):
        if (home.root / name).exists():
            copy_database(home.root / name, folder / name)
    for name in named("tree"):
        copy_tree(home, name, folder)
    write_new(folder / "pilotage.toml", config_path.read_bytes(), 0o600)
    runs = _runs(home)
    if runs is not None:
        write_new(folder / "runs.json", json.dumps(runs).encode(), 0o600)


def _copy_libraries(home: Home, folder: Path) -> None:
    for name in named("duckdb"):
        if (home.root / name).exists():
            copy_duckdb(home.root / name, folder / name)


def _runs(home: Home) -> list[Any] | None:
    """Copies of nightly reports; None where the warehouse is not there or damaged: a view must not stop a backup."""
    try:
        return list(read_runs(home.warehouse)) if home.warehouse.exists() else None
    except WarehouseError:
        return None


def _manifest(home: Home, folder: Path, written: Written, people: People, now: float) -> bytes:
    with Audit(f"sqlite:///{folder / 'audit.db'}") as audit:
        head = audit.head()
    return sealed_manifest(
        {
            "format": FORMAT,
            "record": VERSION,
            "created": now,
            "position": written.position,
            "epoch": written.epoch,
            "rows": written.rows,
            "audit": {"sequence": head.sequence, "link": head.link},
            "people": people.highest(),  # an older copy of their keys would take who is missing there for erased
            "key": signing_key(home.root).id,
            "folders": backup_folders(home),
            "files": stored(folder),
        }
    )


def stored(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file in a backup but the manifest, by its path there."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / MANIFEST:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            found[str(path.relative_to(folder))] = {"size": path.stat().st_size, "sha256": sha256}
    return found


def sealed_manifest(content: Mapping[str, Any]) -> bytes:
    """The bytes of a manifest, with the sha256 of all the rest in it."""
    return json.dumps({**content, "sha256": digest(content)}, indent=1).encode()


def digest(content: Mapping[str, Any]) -> str:
    """sha256 of a manifest without its own."""
    plain = {name: value for name, value in content.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _check_owner(home: Home, root: Path) -> None:
    """Two homes in one folder would overwrite each other's keys of people."""
    for path in sorted(root.glob(f"*/{MANIFEST}"), reverse=True)[:1]:
        try:
            key = json.loads(path.read_text())["key"]
        except (ValueError, KeyError, TypeError):
            key = None
        signing_key(home.root)  # made at first use
        if key not in trusted_keys(home.root):
            raise BackupError(
                f"a folder must hold the backups of one home, but {path.parent} is of one that signs with {key!r}, "
                f"which {home.root} does not trust. Name another folder."
            )


def _remember(home: Home, root: Path) -> None:
    """Whoever erases must reach the keys there: remembered before the first key is."""
    folders = backup_folders(home)
    if str(root) not in folders:
        temporary = home.backups.with_name(f".{home.backups.name}-{uuid.uuid4().hex}")
        write_new(temporary, json.dumps([*folders, str(root)]).encode(), 0o600)
        temporary.rename(home.backups)
        sync_folder(home.root)


def _remove_old(root: Path, before: float) -> tuple[str, ...]:
    removed = []
    for path in sorted(root.iterdir()):
        found = _NAME.fullmatch(path.name)
        if found and datetime.strptime(found[1], _STAMP).replace(tzinfo=UTC).timestamp() < before:
            shutil.rmtree(path.rename(root / f".backup-{uuid.uuid4().hex}"))  # no half of it under its name
            removed.append(path.name)
    return tuple(removed)
