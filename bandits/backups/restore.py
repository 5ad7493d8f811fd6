"""A backup back into an empty home: built beside it, then renamed; so it is there whole, or not at all.

Nothing is believed: each file must have the sha256 that the manifest gives, and the manifest its own. Rows come back to
the last bit. Whoever was erased since the backup stays erased: what their destroyed key shut becomes tombstones of a
new epoch, and the policies that learned from it are learned anew, before anybody can see them. What a tenant
keeps no longer goes the same way.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from glob import escape
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from bandits.backups.backup import FORMAT, MANIFEST, Step, digest, stored
from bandits.backups.contents import copy_database
from bandits.backups.rows import Lost, open_record
from bandits.backups.runs import disown
from bandits.config import load_config
from bandits.durable import make_folder, sync_folder, write_new
from bandits.errors import BackupError
from bandits.home import Home
from bandits.privacy.erasing import leaning, learn_anew, sweep
from bandits.privacy.people import People
from bandits.privacy.prompts import Prompts
from bandits.record.audit import Audit
from bandits.record.database import open_database
from bandits.record.sql import BUSY_S
from bandits.record.tables import VERSION
from bandits.types import Scope
from bandits.warehouse.loading import load, write_run


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore brought back."""

    root: Path
    position: int  # of the record's last row
    rows: int  # decisions and outcomes, without those erased
    erased: int  # rows of people who were erased since the backup, and those that are older than their tenant keeps
    epoch: int
    snapshots: Mapping[str, str] = field(default_factory=dict)  # scope -> version learned anew without them

    def render(self) -> str:
        """For a terminal."""
        lines = [f"{self.root}: {self.rows} rows up to position {self.position}, epoch {self.epoch}."]
        if self.erased:
            lines += [f"{self.erased} rows that were erased since, or are too old to keep, are tombstones."]
        lines += [f"  {scope}: learned anew as {version}" for scope, version in self.snapshots.items()]
        return "\n".join([*lines, f"The configuration of then is {self.root / 'pilotage.toml'}."])


def restore(folder: Path, root: Path, now: float, done: Step = lambda step: None) -> Restored:
    """Bring the backup in `folder` back as the home `root`, which must be empty or not there.

    The keys of people are read beside the backup, `folder`/../people.db.   now: UTC, seconds since the epoch.
    Raises BackupError: not a whole backup, another version, changed, a home that is in use, a disk that refuses; and
    what learning anew raises.
    """
    folder, root = folder.absolute(), root.absolute()
    manifest = check(folder)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise BackupError(
            f"a backup must be restored into an empty home, but {root} is in use; nothing was changed. "
            "Move it away, or set PILOTAGE_HOME to another folder."
        )
    with _told(folder, root):
        make_folder(root.parent)
        for left in root.parent.glob(f".{escape(root.name)}-restore-*"):
            shutil.rmtree(left)
        building = Home(root.with_name(f".{root.name}-restore-{uuid.uuid4().hex}"))
        building.root.mkdir(mode=0o700)
        try:
            restored = _build(building, folder, manifest, now, done)
            building.root.rename(root)  # replaces an empty folder, and none that somebody began to use
        finally:
            shutil.rmtree(building.root, ignore_errors=True)
        sync_folder(root.parent)
        done("renamed")
    return replace(restored, root=root)


@contextmanager
def _told(folder: Path, root: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error, DBAPIError) as error:
        said = error.orig if isinstance(error, DBAPIError) else error
        raise BackupError(
            f"a backup must be readable at {folder} and writable to {root}, but: {said}. The home is as it was; check "
            "free space and permissions (a mounted folder cannot be replaced: name one inside it), and restore again."
        ) from error


def check(folder: Path) -> dict[str, Any]:
    """The manifest of a whole, unchanged backup of a version that is understood. Raises BackupError otherwise."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise _refused(folder, f"its {MANIFEST} must be there and be JSON, but: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        fault = f"its format must be {FORMAT}, but is {found!r}"
        raise _refused(folder, fault, "Restore it with the Pilotage that wrote it, or a newer one.")
    if manifest.get("sha256") != digest(manifest):
        raise _refused(folder, f"{MANIFEST} must have the sha256 that stands in it, but was changed")
    if manifest["record"] > VERSION:
        fault = f"its record must have version {VERSION} or an older one, but has {manifest['record']}"
        raise _refused(folder, fault, "Restore it with the Pilotage that wrote it, or a newer one.")
    promised, found = manifest["files"], stored(folder)
    odd = sorted(name for name in promised.keys() | found.keys() if promised.get(name) != found.get(name))
    if odd:
        raise _refused(folder, f"its files must be those of {MANIFEST}, but these were changed or are missing: {odd}")
    return manifest


def _build(home: Home, folder: Path, manifest: Mapping[str, Any], now: float, done: Step) -> Restored:
    keys = _copy_keys(home, folder, manifest)
    _copy_files(home, folder, manifest)
    disown(home)
    done("files")
    lost = _open_record(home, keys)
    done("record")
    if home.prompts.exists():
        Prompts(home.prompts, People(home.people)).forget_all_but(keys)
    with home.open_record() as record:
        load(record, home.warehouse)
    for run in json.loads((folder / "runs.json").read_text()) if (folder / "runs.json").exists() else []:
        write_run(home.warehouse, run)
    done("warehouse")
    _seal(home, folder, manifest, lost, now)
    config = load_config(home.root / "pilotage.toml")
    published = {scope: learn_anew(home, config, Scope.parse(scope), now) for scope in leaning(config, lost.scopes)}
    swept = sweep(home, config, now).values()
    published |= {scope: version for one in swept for scope, version in one.snapshots.items()}
    done("snapshots")
    erased = len(lost.positions) + sum(one.decisions + one.outcomes for one in swept)
    epoch = max([lost.epoch, *(one.epoch for one in swept)])
    newest = {scope: version for scope, version in published.items() if version}
    return Restored(home.root, manifest["position"], manifest["rows"] - erased, erased, epoch, newest)


def _copy_keys(home: Home, folder: Path, manifest: Mapping[str, Any]) -> Mapping[int, bytes]:
    """The keys of people from beside the backup, all that are left. Raises BackupError: not there, or too old."""
    beside = folder.parent / home.people.name
    make_folder(home.people.parent)
    home.people.parent.chmod(0o700)
    if manifest["people"]:
        if not beside.exists():
            fault = f"the keys of people must be beside it, but there is no {beside}"
            raise _refused(folder, fault, "Put the backup where it was made, or the file there, and restore again.")
        copy_database(beside, home.people)
    people = People(home.people)
    if people.highest() < manifest["people"]:
        fault = f"the keys of people beside it must be as new as it, but {beside} ends at {people.highest()}, it at "
        fault += f"{manifest['people']}: who is missing there was not erased"
        raise _refused(folder, fault, "Fetch the newest people.db of the backups.")
    return people.numbered()


def _copy_files(home: Home, folder: Path, manifest: Mapping[str, Any]) -> None:
    for name in manifest["files"]:
        if name == "runs.json":
            continue
        target = home.root / name
        make_folder(target.parent)
        if name.startswith("keys/"):
            target.parent.chmod(0o700)
        shutil.copyfile(folder / name, target)
        target.chmod(0o600)
        sync_folder(target)  # it fsyncs whatever has a name
    folders = dict.fromkeys([str(folder.parent), *manifest["folders"]])
    write_new(home.backups, json.dumps(list(folders)).encode(), 0o600)


def _open_record(home: Home, keys: Mapping[int, bytes]) -> Lost:
    """The record in its place, rows unsealed; a record of an older version is brought up when it is opened."""
    with home.open_record() as record:
        database = open_database(home.record_url, BUSY_S)
        try:
            with database.writing.begin() as connection:
                lost = open_record(connection, keys)
        finally:
            database.writing.dispose()
        record.scrub()
    with closing(sqlite3.connect(home.root / "record.db")) as connection:
        (fault,) = connection.execute("PRAGMA integrity_check").fetchone()
    if fault != "ok":
        raise BackupError(f"a restored record must be sound, but SQLite says of {home.root}: {fault}. Restore again.")
    return lost


def _seal(home: Home, folder: Path, manifest: Mapping[str, Any], lost: Lost, now: float) -> None:
    evidence = {"backup": folder.name, "position": manifest["position"], "epoch": lost.epoch}
    why = "a backup was restored"
    if lost.positions:
        why += f"; {len(lost.positions)} rows of people erased since are tombstones"
    with Audit(home.audit_url) as audit:
        audit.append("restore", tenant="", who="restore", why=why, evidence=evidence, time=now)


def _refused(folder: Path, fault: str, advice: str = "Restore another backup.") -> BackupError:
    return BackupError(f"backup {folder}: {fault}. {advice}")
