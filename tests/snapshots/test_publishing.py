"""What publishing refuses; crashes at any step; races between publishers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nacl.signing import VerifyKey

from bandits.errors import SnapshotError
from bandits.snapshots.keys import SigningKey, trusted_keys
from bandits.snapshots.loading import list_versions, load
from bandits.snapshots.reader import SnapshotReader
from tests.snapshots.published import CREATED, NOW, SCOPE, answer, folder, frozen, publish, run


class TestPublishRefuses:
    """What load would refuse is not published, and nothing is left behind."""

    @pytest.mark.parametrize(
        ("arrays", "said"),
        [
            ({"theta": np.array([1.0, np.nan])}, "'theta' must be finite, but is not at [1] (1 in all)"),
            ({"theta": np.array(np.nan)}, "'theta' must be finite"),
            ({"theta": np.array(["a"])}, "must be one of bool"),
            ({"theta": np.array([None])}, "must be one of bool"),
            ({"theta": np.array([1j])}, "must be one of bool"),
            ({"__metadata__": np.zeros(1)}, "name must be"),
            ({"": np.zeros(1)}, "name must be"),
        ],
    )
    def test_arrays(self, root, key, arrays, said):
        """Neither objects, nor text, nor what is not finite."""
        with pytest.raises(SnapshotError) as caught:
            publish(root, key, replace(frozen(), arrays=arrays))
        assert said in str(caught.value)
        assert not root.exists()

    @pytest.mark.parametrize(
        "changes",
        [
            {"evidence": {"ess": float("nan")}},
            {"evidence": {"ess": np.float32(1)}},
            {"evidence": {"when": {1, 2}}},
            {"evidence": {"long": "x" * 2**20}},
            {"evidence": {"a": 1, 2: 1}},
            {"evidence": {"1": 1, 1: 2}},
            {"expires": CREATED},
            {"expires": float("inf")},
            {"created": float("nan")},
            {"position": -1},
            {"parent": "000001"},
            {"parent": "first"},
        ],
    )
    def test_numbers_and_evidence(self, root, key, changes):
        """Each would make a manifest that no reader accepts."""
        with pytest.raises(SnapshotError):
            publish(root, key, **changes)
        assert not any(path.is_file() for path in root.rglob("*"))

    def test_a_policy_without_arms(self, root, key):
        """There would be nothing to draw."""
        with pytest.raises(SnapshotError, match="arms must be"):
            publish(root, key, replace(frozen(), arms=()))

    def test_a_place_that_cannot_be_written(self, tmp_path, key):
        """The operating system's reason is in the message."""
        (tmp_path / "snapshots").write_text("a file where the folder should be")

        with pytest.raises(SnapshotError, match="must reach the disk"):
            publish(tmp_path / "snapshots", key)


class TestCrashAndRace:
    CRASH = """
import os
step = int(sys.argv[2])
calls = []
def crash_at(call):
    def wrapped(*arguments, **options):
        calls.append(call)
        if len(calls) == step:
            os._exit(9)
        return call(*arguments, **options)
    return wrapped
os.fsync, os.rename = crash_at(os.fsync), crash_at(os.rename)
import numpy as np
from bandits.snapshots.keys import SigningKey
from bandits.policy import FrozenPolicy
from bandits.snapshots.publishing import publish
from bandits.types import Scope
publish(Path(sys.argv[1]), Scope.parse(sys.argv[3]), FrozenPolicy("new", ("a",), "text-1", {"x": np.ones(3)}),
        position=1, parent=None, evidence={}, created=1000.0, expires=2000.0, key=SigningKey(bytes(32)))
print(len(calls))
"""

    def test_a_crash_at_any_step_leaves_the_old_one_serving(self, root, key, trusted):
        """The process dies before each fsync and before the rename; then the next publisher takes the same number."""
        publish(root, key)
        all_trusted = trusted | {SigningKey(bytes(32)).id: VerifyKey(SigningKey(bytes(32)).public)}
        reader = SnapshotReader(root, SCOPE, all_trusted)
        reader.refresh(NOW)
        for step in range(1, 6):  # three files, their folder, the rename
            process = run(self.CRASH, root, step, SCOPE)
            process.communicate(timeout=60)
            assert process.returncode == 9
            assert not reader.refresh(NOW)
            assert reader.last_error is None
            assert load(root, SCOPE, trusted=all_trusted, now=NOW).manifest.version == "000001"
        assert len(list(folder(root).parent.glob(".publishing-*"))) == 5
        assert answer(self.CRASH, root, 99, SCOPE) == "6"  # the sixth is the fsync after the rename
        assert reader.refresh(NOW)
        assert (reader.current.manifest.version, reader.current.frozen.kind) == ("000002", "new")

    def test_the_loser_of_a_race_takes_the_next_number(self, root, key, trusted, monkeypatch):
        """Another publisher is let in just before the rename: both snapshots stand, neither is overwritten."""
        place = Path.rename

        def late(self: Path, target: Path) -> Path:
            monkeypatch.setattr(Path, "rename", place)
            publish(root, key, frozen(0.1), evidence={"who": "winner"})
            return place(self, target)

        monkeypatch.setattr(Path, "rename", late)
        mine = publish(root, key, frozen(0.2), evidence={"who": "loser"})

        assert mine.version == "000002"
        whose = [entry.manifest.evidence["who"] for entry in list_versions(root, SCOPE, trusted=trusted, now=NOW)]
        assert whose == ["winner", "loser"]
        assert not list(folder(root).parent.glob(".publishing-*"))

    def test_two_processes_at_once_never_overwrite(self, root, trusted, key, tmp_path):
        """Forty snapshots by two processes: forty numbers without a gap, each whole, each with its own content."""
        script = """
import numpy as np
from bandits.snapshots.keys import signing_key
from bandits.policy import FrozenPolicy
from bandits.snapshots.publishing import publish
from bandits.types import Scope
root, home, scope, who = Path(sys.argv[1]), Path(sys.argv[2]), Scope.parse(sys.argv[3]), int(sys.argv[4])
print("ready", flush=True)
sys.stdin.readline()
for i in range(20):
    frozen = FrozenPolicy("ridge", ("a", "b"), "text-1", {"x": np.array([who, i])})
    print(publish(root, scope, frozen, position=i, parent=None, evidence={"who": who}, created=1000.0, expires=2000.0,
                  key=signing_key(home)).version)
"""
        home = tmp_path / "shared-home"
        pair = [run(script, root, home, SCOPE, who) for who in (0, 1)]
        for process in pair:
            assert process.stdout.readline() == "ready\n"
        for process in pair:
            process.stdin.write("go\n")
            process.stdin.flush()
        written = [process.communicate(timeout=60) for process in pair]
        assert [process.returncode for process in pair] == [0, 0], written
        versions = [out.split() for out, _ in written]

        assert sorted(versions[0] + versions[1]) == [f"{i:06d}" for i in range(1, 41)]
        for who, mine in enumerate(versions):
            for i, version in enumerate(mine):
                found = load(root, SCOPE, version, trusted=trusted_keys(home), now=NOW).frozen
                assert found.arrays["x"].tolist() == [who, i]

    def test_another_process_loads_the_same_bits_with_three_libraries(self, root, key):
        """Its reader imports numpy, safetensors and pynacl, and neither a database nor a validator."""
        manifest = publish(root, key)
        script = """
before = set(sys.modules)
from bandits.snapshots.manifest import content_hash
from bandits.snapshots.loading import load
from bandits.types import Scope
from nacl.signing import VerifyKey
trusted = {"k": VerifyKey(bytes.fromhex(sys.argv[3]))}
back = load(Path(sys.argv[1]), Scope.parse(sys.argv[2]), trusted=trusted, now=1500.0)
print(content_hash(back.frozen.arrays))
print(back.frozen.arrays["theta"].tobytes().hex())
top = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
print(*sorted(name for name in top if not name.startswith("_")))
"""
        content, theta, imported = answer(script, root, SCOPE, key.public.hex()).splitlines()

        assert content == manifest.content
        assert bytes.fromhex(theta) == frozen().arrays["theta"].tobytes()
        assert imported.split() == ["bandits", "nacl", "numpy", "safetensors"]
