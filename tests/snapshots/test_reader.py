"""The reader swaps when something newer verifies, and keeps the last good."""

from __future__ import annotations

import shutil

from bandits.snapshots.loading import list_versions
from bandits.snapshots.manifest import ARRAYS, SIGNATURE
from bandits.snapshots.reader import SnapshotReader
from tests.snapshots.published import EXPIRES, NOW, SCOPE, folder, publish, refusal


class TestReader:
    def test_it_swaps_when_something_newer_verifies(self, root, key, trusted):
        """True once, then False until there is more."""
        reader = SnapshotReader(root, SCOPE, trusted)
        assert not reader.refresh(NOW)
        assert reader.current is None
        assert "there is none" in str(reader.last_error)

        publish(root, key)
        assert [reader.refresh(NOW), reader.refresh(NOW)] == [True, False]
        assert reader.last_error is None
        publish(root, key)
        publish(root, key)
        assert reader.refresh(NOW)
        assert reader.current.manifest.version == "000003"

    def test_a_tampered_newer_version_leaves_the_old_one_serving(self, root, key, trusted):
        """The error is kept for the doctor, and goes when a good one comes."""
        publish(root, key)
        reader = SnapshotReader(root, SCOPE, trusted)
        reader.refresh(NOW)
        held = reader.current
        publish(root, key)
        (folder(root, "000002") / ARRAYS).write_bytes(b"\0" * 300)

        assert not reader.refresh(NOW)
        assert reader.current is held
        assert "000002" in str(reader.last_error)
        publish(root, key)
        assert reader.refresh(NOW)
        assert (reader.current.manifest.version, reader.last_error) == ("000003", None)

    def test_a_fresh_reader_takes_the_highest_that_verifies(self, root, key, trusted):
        """And says which one it could not take."""
        for _ in range(3):
            publish(root, key)
        (folder(root, "000003") / SIGNATURE).write_bytes(bytes(64))
        reader = SnapshotReader(root, SCOPE, trusted)

        assert reader.refresh(NOW)
        assert reader.current.manifest.version == "000002"
        assert "000003" in str(reader.last_error)
        refusal(root, trusted)  # load takes the highest or nothing

    def test_it_never_goes_back_by_itself(self, root, key, trusted):
        """Removing the newest folder, or all of them, moves nothing but the error."""
        publish(root, key)
        publish(root, key)
        reader = SnapshotReader(root, SCOPE, trusted)
        reader.refresh(NOW)
        shutil.rmtree(folder(root, "000002"))
        assert not reader.refresh(NOW)
        assert reader.current.manifest.version == "000002"
        assert "its folder is gone" in str(reader.last_error)
        shutil.rmtree(root)
        assert not reader.refresh(NOW)
        assert reader.current.manifest.version == "000002"

    def test_what_expires_in_memory_keeps_serving_and_says_so(self, root, key, trusted):
        """A stopped publisher must not stop the decisions."""
        publish(root, key)
        reader = SnapshotReader(root, SCOPE, trusted)
        reader.refresh(NOW)

        assert not reader.refresh(EXPIRES)
        assert reader.current.manifest.version == "000001"
        assert "must be used before" in str(reader.last_error)

    def test_the_list_says_of_each_version_whether_it_loads(self, root, key, trusted):
        """A good one, one with changed arrays, one with a changed signature, one that expired."""
        for expires in (EXPIRES, EXPIRES, EXPIRES, NOW):
            publish(root, key, expires=expires)
        (folder(root, "000002") / ARRAYS).write_bytes(b"x")
        (folder(root, "000003") / SIGNATURE).write_bytes(bytes(64))
        found = list_versions(root, SCOPE, trusted=trusted, now=NOW)

        assert [entry.version for entry in found] == ["000001", "000002", "000003", "000004"]
        assert [entry.manifest is not None for entry in found] == [True, True, False, True]
        assert found[0].fault is None
        for entry, said in zip(found[1:], [ARRAYS, "trusted key", "must be used before"], strict=True):
            assert said in entry.fault
