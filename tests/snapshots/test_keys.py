"""Keys: made, kept private, rotated, trusted."""

from __future__ import annotations

import copy
import os
import pickle
import stat
import subprocess
from pathlib import Path

import pytest

from bandits.errors import KeyFileError
from bandits.snapshots import keys
from bandits.snapshots.keys import signing_key, trusted_keys


class TestKeys:
    def test_the_key_is_made_once_and_only_for_its_owner(self, tmp_path):
        """Folder 0700, key 0600, and the public key beside it, whatever the umask."""
        before = os.umask(0)
        try:
            first = signing_key(tmp_path)
        finally:
            os.umask(before)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").iterdir()}

        assert modes == {"signing.key": 0o600, "signing.pub": 0o644}
        assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
        assert signing_key(tmp_path).public == first.public
        assert {name: bytes(found) for name, found in trusted_keys(tmp_path).items()} == {first.id: first.public}

    def test_the_seed_is_never_shown(self, tmp_path):
        """Neither by print, nor by repr, nor in a pickle or a copy."""
        key = signing_key(tmp_path)
        seed = (tmp_path / "keys" / "signing.key").read_bytes()

        for shown in (str(key), repr(key), f"{key}", repr({"key": key})):
            assert key.id in shown
            assert seed.hex() not in shown
            assert repr(seed)[2:-1] not in shown
        for copier in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="must stay in its process"):
                copier(key)

    def test_no_error_about_a_key_file_shows_the_seed(self, tmp_path):
        """Not even when the key cannot be used."""
        signing_key(tmp_path)
        path = tmp_path / "keys" / "signing.key"
        seed = path.read_bytes()
        path.chmod(0o644)

        with pytest.raises(KeyFileError) as caught:
            signing_key(tmp_path)
        assert seed.hex() not in str(caught.value)
        assert repr(seed)[2:-1] not in str(caught.value)

    @pytest.mark.parametrize(("name", "mode"), [("signing.key", 0o640), ("signing.key", 0o604), (".", 0o750)])
    def test_loose_permissions_are_refused_with_the_mend(self, tmp_path, name, mode):
        """And the mend works."""
        signing_key(tmp_path)
        path = tmp_path / "keys" / name
        path.chmod(mode)

        with pytest.raises(KeyFileError, match="run: chmod ") as caught:
            signing_key(tmp_path)
        subprocess.run(str(caught.value).partition("run: ")[2].split(), check=True)
        assert signing_key(tmp_path).id

    def test_a_trusted_key_that_others_may_replace_is_refused(self, tmp_path):
        """Reading it is everybody's right."""
        signing_key(tmp_path)
        path = tmp_path / "keys" / "signing.pub"
        path.chmod(0o666)

        with pytest.raises(KeyFileError, match="chmod 0644"):
            trusted_keys(tmp_path)

    @pytest.mark.parametrize("data", [b"", b"\1" * 31, b"\1" * 33, b"\1" * 64])
    def test_a_key_of_the_wrong_size_is_refused(self, tmp_path, data):
        """It is neither used nor replaced."""
        signing_key(tmp_path)
        path = tmp_path / "keys" / "signing.key"
        path.write_bytes(data)

        with pytest.raises(KeyFileError, match=f"must have 32 bytes, but has {len(data)}"):
            signing_key(tmp_path)
        assert path.read_bytes() == data

    @pytest.mark.parametrize("text", ["", "00" * 31 + "\n", "zz" * 32 + "\n", "00 " * 21 + "0\n", "é" * 32 + "\n"])
    def test_a_public_key_that_is_none_is_refused(self, tmp_path, text):
        """Trust is not guessed."""
        signing_key(tmp_path)
        (tmp_path / "keys" / "signing.pub").write_text(text)

        with pytest.raises(KeyFileError, match=r"signing\.pub must"):
            trusted_keys(tmp_path)

    def test_a_lost_public_key_is_written_again(self, tmp_path):
        """It follows from the key."""
        before = signing_key(tmp_path).public
        (tmp_path / "keys" / "signing.pub").unlink()
        assert trusted_keys(tmp_path) == {}
        signing_key(tmp_path)

        assert [bytes(found) for found in trusted_keys(tmp_path).values()] == [before]

    def test_a_retired_key_stays_trusted(self, tmp_path):
        """Rotation: the old key away, its public key renamed as the error says; both are trusted then."""
        old = signing_key(tmp_path)
        folder = tmp_path / "keys"
        (folder / "signing.key").unlink()
        with pytest.raises(KeyFileError, match=r"rename it to retired\.pub"):
            signing_key(tmp_path)
        (folder / "signing.pub").rename(folder / "retired.pub")
        new = signing_key(tmp_path)

        assert new.id != old.id
        assert trusted_keys(tmp_path).keys() == {old.id, new.id}

    def test_a_home_without_keys_trusts_nobody_and_stays_empty(self, tmp_path):
        """A reader makes nothing."""
        assert trusted_keys(tmp_path) == {}
        assert list(tmp_path.iterdir()) == []

    def test_of_two_who_make_the_first_key_one_wins(self, tmp_path, monkeypatch):
        """Another process makes its key just before ours is put in place: both then sign with the same one."""
        link, seen = os.link, []

        def late(source: Path, target: Path) -> None:
            if target.name == "signing.key" and not seen:
                seen.append(None)
                seen.append(signing_key(tmp_path).public)
            link(source, target)

        monkeypatch.setattr(keys.os, "link", late)

        assert signing_key(tmp_path).public == seen[1]
        assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["signing.key", "signing.pub"]
