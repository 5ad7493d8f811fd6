"""What is wrong with a backup is told, and harms nothing: killed, full, changed, foreign, in use."""

from __future__ import annotations

import json
import os
import resource
import signal

import pytest

from bandits.backups.backup import backup, sealed_manifest
from bandits.backups.restore import check, restore
from bandits.errors import BackupError
from bandits.home import Home
from tests.backups.home import (
    DAY,
    NOW,
    STEPS,
    back_up,
    in_a_child,
    killer,
    table_rows,
    tree,
    whole,
)


@pytest.mark.parametrize("step", STEPS)
def test_a_backup_that_is_killed_is_made_by_the_next_run(home, tmp_path, step):
    """SIGKILL behind each step: no half of one is ever under a name, and nothing is left lying about."""
    root = tmp_path / "backups"
    first = back_up(home, root, NOW - 40 * DAY)
    assert in_a_child(lambda: back_up(home, root, NOW, done=killer(step))) == -signal.SIGKILL
    for path in root.glob("2*"):
        check(path)

    second = back_up(home, root, NOW + 1.0)

    assert second.path in whole(root)
    assert first.path not in whole(root)
    assert check(second.path)["rows"] == second.rows


@pytest.mark.parametrize("step", ["files", "record", "warehouse", "snapshots", "renamed"])
def test_a_restore_that_is_killed_leaves_no_half_home(home, tmp_path, step):
    """Behind each step there is either no home, and the next run makes it, or a whole one."""
    folder = back_up(home, tmp_path / "backups").path
    target = tmp_path / "there" / "new"
    assert in_a_child(lambda: restore(folder, target, NOW, killer(step))) == -signal.SIGKILL

    if step != "renamed":
        assert not target.exists()
        restore(folder, target, NOW)
    assert table_rows(Home(target)) == table_rows(home)
    assert [path.name for path in target.parent.iterdir()] == ["new"]


def test_a_full_disk_is_told_and_harms_no_older_backup(home, tmp_path):
    """No file may grow beyond 8 KiB: the record does not fit."""
    root = tmp_path / "backups"
    first = back_up(home, root, NOW - 40 * DAY)
    before, said = tree(first.path), tmp_path / "said"
    said.write_bytes(b"")

    def fill() -> None:
        descriptor = os.open(said, os.O_WRONLY)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, resource.RLIM_INFINITY))
        try:
            back_up(home, root, NOW)
        except BackupError as error:
            os.write(descriptor, str(error).encode())

    assert in_a_child(fill) == 0
    assert "check free space" in said.read_text()
    assert str(root) in said.read_text()
    assert whole(root) == [first.path]
    assert tree(first.path) == before


@pytest.mark.parametrize("name", ["record.db", "audit.db", "pilotage.toml", "keys/signing.key", "manifest.json"])
def test_a_changed_byte_is_refused(folder, tmp_path, name):
    """In any file; nothing is built."""
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(BackupError, match=r"sha256|changed|must be JSON"):
        restore(folder, tmp_path / "new", NOW)
    assert not (tmp_path / "new").exists()


def test_a_changed_manifest_is_refused(folder, tmp_path):
    """It vouches for itself, too: a position that somebody corrected is no position that was written."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"position": 1}))

    with pytest.raises(BackupError, match="must have the sha256 that stands in it"):
        restore(path.parent, tmp_path / "new", NOW)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format": 2}, "format must be 1, but is 2"),
        ({"format": None}, "format must be 1, but is None"),
        ({"record": 99}, "version 3 or an older one, but has 99"),
        ({"people": 10_000}, "as new as it"),
    ],
)
def test_a_backup_of_a_foreign_version_is_refused(folder, tmp_path, change, match):
    """Before anything of it is read."""
    content = json.loads((folder / "manifest.json").read_text()) | change
    (folder / "manifest.json").write_bytes(sealed_manifest(content))

    with pytest.raises(BackupError, match=match):
        restore(folder, tmp_path / "new", NOW)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_no_whole_backup_is_refused(folder, tmp_path):
    """Missing, with a file too many, or without the keys of people beside it."""
    with pytest.raises(BackupError, match=r"manifest.json must be there"):
        restore(tmp_path / "backups", tmp_path / "new", NOW)
    (folder / "keys" / "extra.pub").write_text("")
    with pytest.raises(BackupError, match=r"keys/extra\.pub"):
        restore(folder, tmp_path / "new", NOW)
    (folder / "keys" / "extra.pub").unlink()
    (tmp_path / "backups" / "people.db").unlink()
    with pytest.raises(BackupError, match="keys of people must be beside it"):
        restore(folder, tmp_path / "new", NOW)
    assert not (tmp_path / "new").exists()


def test_a_home_in_use_is_left_alone(home, tmp_path):
    """Restoring never overwrites."""
    folder = back_up(home, tmp_path / "backups").path
    before = tree(home.root)

    with pytest.raises(BackupError, match="empty home"):
        restore(folder, home.root, NOW)
    assert tree(home.root) == before


def test_two_homes_do_not_share_a_folder(home, tmp_path):
    """One would overwrite the other's keys of people; but the home that was restored from there goes on."""
    found = back_up(home, tmp_path / "backups")
    config = home.root.parent / "pilotage.toml"
    with pytest.raises(BackupError, match="backups of one home"):
        backup(Home(tmp_path / "stranger"), config, tmp_path / "backups", NOW)

    restore(found.path, tmp_path / "new", NOW)
    assert backup(Home(tmp_path / "new"), config, tmp_path / "backups", NOW + 1.0).rows == found.rows
