"""Facts about where snapshots lie: a folder and a remote store keep one contract, and nothing half-put is ever read."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from nacl.signing import VerifyKey

from bandits.errors import SnapshotError
from bandits.policy import FrozenPolicy
from bandits.snapshots import loading, publishing
from bandits.snapshots.keys import SigningKey
from bandits.snapshots.loading import list_versions, load
from bandits.snapshots.manifest import ARRAYS, MANIFEST, SIGNATURE
from bandits.snapshots.reader import SnapshotReader
from bandits.snapshots.store import LocalStore, RemoteStore, WrongSizeError, open_store
from bandits.types import Scope

SCOPE = Scope("demo", "main", "model_routing")
KEY = SigningKey(bytes(32))
TRUSTED = {KEY.id: VerifyKey(KEY.public)}
NOW = 1_500.0
FILES = {"claim": b"mine", "body": b"12345", "last": b"whole"}


@pytest.fixture(params=["path", "file", "memory"])
def root(request, tmp_path: Path):
    """An empty place: a folder, the same by URL, and a store that can rename nothing."""
    return {
        "path": tmp_path / "a b" / "snapshots",
        "file": f"file://{tmp_path}/a%20b/snapshots",
        "memory": f"memory://{uuid.uuid4().hex}/snapshots",
    }[request.param]


@pytest.fixture
def remote() -> str:
    return f"memory://{uuid.uuid4().hex}"


def frozen(value: float) -> FrozenPolicy:
    return FrozenPolicy("ridge", ("a", "b"), "text-1", {"x": np.full(3, value)})


def publish(root, value: float = 0.5, **changes):
    given = {"position": 1, "parent": None, "evidence": {}, "created": 1_000.0, "expires": 2_000.0} | changes
    return publishing.publish(root, SCOPE, frozen(value), key=KEY, **given)


def value(root, version: str = "latest") -> float:
    return float(load(root, SCOPE, version, trusted=TRUSTED, now=NOW).frozen.arrays["x"][0])


class TestContract:
    def test_a_folder_that_was_put_down_is_read_back(self, root):
        """Its files, no more and no less; and its name is taken."""
        store = open_store(root)

        assert store.place("t/w/000001", FILES)
        assert store.taken("t/w") == store.revealed("t/w", "last") == ["000001"]
        assert store.files("t/w/000001") == set(FILES)
        for name, data in FILES.items():
            assert store.read(f"t/w/{'000001'}/{name}", range(len(data), len(data) + 1)) == data

    def test_a_name_is_given_once(self, root):
        """The first keeps it, whole."""
        store = open_store(root)
        store.place("t/w/000001", FILES)

        assert not store.place("t/w/000001", {"claim": b"other", "body": b"x", "last": b"y"})
        assert store.read("t/w/000001/body", range(10)) == b"12345"
        assert store.place("t/w/000002", FILES)
        assert sorted(store.taken("t/w")) == ["000001", "000002"]

    def test_what_is_not_there_is_not_there(self, root):
        """Nothing taken; a folder or a file that is asked for raises."""
        store = open_store(root)

        assert store.taken("t/w") == store.revealed("t/w", "last") == []
        with pytest.raises(FileNotFoundError):
            store.files("t/w/000001")
        with pytest.raises(OSError, match="000001"):
            store.read("t/w/000001/last", range(10))

    def test_a_file_of_another_size_is_not_read(self, root):
        """Neither longer nor shorter than it may be."""
        store = open_store(root)
        store.place("t/w/000001", FILES)

        for sizes in (range(5), range(6, 9)):
            with pytest.raises(WrongSizeError) as caught:
                store.read("t/w/000001/body", sizes)
            assert caught.value.size == 5

    def test_one_name_does_not_begin_another(self, root):
        """Folders whose names begin alike are strangers."""
        store = open_store(root)
        store.place("t/w/000001", FILES)
        store.place("t/w2/000007", FILES)

        assert store.taken("t/w") == ["000001"]


class TestSnapshots:
    """What snapshots/ promises, wherever they lie."""

    def test_what_is_published_comes_back(self, root):
        """The newest, an older one, the list of all; and the reader swaps."""
        reader = SnapshotReader(root, SCOPE, TRUSTED)
        assert not reader.refresh(NOW)
        assert "there is none" in str(reader.last_error)
        versions = [publish(root, number).version for number in (0.1, 0.2)]

        assert versions == ["000001", "000002"]
        assert (value(root), value(root, "000001")) == (0.2, 0.1)
        assert [listed.fault for listed in list_versions(root, SCOPE, trusted=TRUSTED, now=NOW)] == [None, None]
        assert reader.refresh(NOW)
        assert reader.current.manifest.version == "000002"
        assert not reader.refresh(NOW)
        assert reader.last_error is None

    def test_eight_publishers_never_take_one_number(self, root, monkeypatch):
        """Forty snapshots by eight threads: forty numbers, each with its publisher's own content."""
        put, alone, found = MemoryFileSystem.pipe_file, threading.Lock(), dict[str, float]()

        def atomic(*arguments: object, **options: object) -> None:
            with alone:  # as S3 and GCS create; the store in memory looks, then creates
                put(*arguments, **options)

        monkeypatch.setattr(MemoryFileSystem, "pipe_file", atomic)

        def work(who: int) -> None:
            for i in range(5):
                found[publish(root, who + i / 8).version] = who + i / 8

        threads = [threading.Thread(target=work, args=(who,)) for who in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(found) == 40
        assert {version: value(root, version) for version in found} == found


class TestRemote:
    @pytest.mark.parametrize("name", [MANIFEST, ARRAYS, SIGNATURE])
    @pytest.mark.parametrize("how", ["flip", "cut", "grow", "gone", "extra"])
    def test_what_was_changed_is_refused_and_the_last_good_serves(self, remote, name, how):
        """As on a disk: everything is verified."""
        publish(remote, 0.1)
        reader = SnapshotReader(remote, SCOPE, TRUSTED)
        reader.refresh(NOW)
        publish(remote, 0.2)
        fs, base = fsspec.core.url_to_fs(f"{remote}/{SCOPE}/000002")
        good = fs.cat_file(f"{base}/{name}")
        if how in ("gone", "extra"):
            fs.rm_file(f"{base}/{name}") if how == "gone" else fs.pipe_file(f"{base}/{name}.pkl", b"x")
        else:
            changed = {"flip": bytes([good[0] ^ 1]) + good[1:], "cut": good[:-1], "grow": good + b"\0"}[how]
            fs.pipe_file(f"{base}/{name}", changed)

        assert not reader.refresh(NOW)
        assert (reader.last_error is None) is (how == "gone" and name == MANIFEST)  # then it was never revealed
        assert reader.current.manifest.version == "000001"
        with pytest.raises(SnapshotError):
            load(remote, SCOPE, "000002", trusted=TRUSTED, now=NOW)

    @pytest.mark.parametrize("step", [1, 2, 3])
    @pytest.mark.parametrize("error", [OSError("no route"), RuntimeError("the SDK's own"), TimeoutError()])
    def test_a_publisher_who_fails_on_the_way_is_never_seen(self, remote, monkeypatch, step, error):
        """Before each file; whatever the store raises. The next publisher goes on, with the next number if need be."""
        publish(remote, 0.1)
        reader = SnapshotReader(remote, SCOPE, TRUSTED)
        reader.refresh(NOW)
        put, calls = MemoryFileSystem.pipe_file, []

        def fail(self, path, value, mode="overwrite", **options):
            calls.append(path)
            if len(calls) == step:
                raise error
            return put(self, path, value, mode, **options)

        monkeypatch.setattr(MemoryFileSystem, "pipe_file", fail)
        with pytest.raises(SnapshotError, match="must reach the disk"):
            publish(remote, 0.2)
        monkeypatch.undo()

        assert not reader.refresh(NOW)
        assert reader.last_error is None
        assert value(remote) == 0.1
        assert publish(remote, 0.3).version == ("000002" if step == 1 else "000003")
        assert reader.refresh(NOW)
        assert value(remote) == 0.3

    def test_the_last_file_put_down_is_the_manifest(self, remote, monkeypatch):
        """What a reader looks for comes when all else is there."""
        put, order = MemoryFileSystem.pipe_file, []

        def note(self, path, value, mode="overwrite", **options):
            order.append((path.rpartition("/")[2], mode))
            return put(self, path, value, mode, **options)

        monkeypatch.setattr(MemoryFileSystem, "pipe_file", note)
        publish(remote)

        assert order == [(SIGNATURE, "create"), (ARRAYS, "create"), (MANIFEST, "create")]

    def test_a_store_that_overwrites_is_caught_by_reading_back(self, remote, monkeypatch):
        """Another publisher's claim over ours: ours is not revealed, and takes the next number."""
        put, calls = MemoryFileSystem.pipe_file, []

        def overwrite(self, path, value, mode="overwrite", **options):
            calls.append(path)
            put(self, path, value)
            if len(calls) == 1:
                put(self, path, bytes(64))

        monkeypatch.setattr(MemoryFileSystem, "pipe_file", overwrite)

        assert publish(remote, 0.4).version == "000002"
        assert loading.latest(remote, SCOPE) == "000002"

    def test_a_store_that_fails_leaves_the_last_good_serving(self, remote, monkeypatch):
        """Listing or reading: the reader tells why, and goes on when the store does."""
        publish(remote, 0.1)
        reader = SnapshotReader(remote, SCOPE, TRUSTED)
        reader.refresh(NOW)
        publish(remote, 0.2)

        def broken(*_: object, **__: object) -> None:
            raise RuntimeError("credentials have expired")

        for method in ("find", "cat_file"):
            with monkeypatch.context() as patch:
                patch.setattr(MemoryFileSystem, method, broken)
                assert not reader.refresh(NOW)
                assert "credentials have expired" in str(reader.last_error)
                assert reader.current.manifest.version == "000001"
        assert reader.refresh(NOW)
        assert reader.last_error is None

    def test_a_store_that_says_taken_and_free_at_once_ends_with_an_error(self, remote):
        """And not in a loop without end: a file lies where the scope's folder should be."""
        fs, base = fsspec.core.url_to_fs(f"{remote}/demo")
        fs.pipe_file(base, b"a file")

        with pytest.raises(SnapshotError, match="1000 numbers in a row were taken"):
            publish(remote)

    @pytest.mark.parametrize(
        ("root", "message"),
        [
            ("nowhere://bucket", "nowhere"),
            ("snapshots", "must be a Path, or a URL"),
            ("", "must be a Path, or a URL"),
        ],
    )
    def test_a_store_that_cannot_be_opened_says_so(self, root, message):
        """To the publisher and to the reader, who never raises."""
        reader = SnapshotReader(root, SCOPE, TRUSTED)

        assert not reader.refresh(NOW)
        assert message in str(reader.last_error)
        with pytest.raises(SnapshotError, match=message):
            publish(root)


def test_a_url_of_this_machine_is_a_folder(tmp_path):
    """With its rename and its fsync; what one writes the other reads."""
    publish(tmp_path / "a b", 0.7)

    assert isinstance(open_store(f"file://{tmp_path}/a%20b"), LocalStore)
    assert isinstance(open_store("memory://x"), RemoteStore)
    assert value(f"file://{tmp_path}/a%20b") == 0.7
