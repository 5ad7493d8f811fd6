"""Snapshots: what is published comes back bit for bit, and whatever was changed is refused while the old one serves."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from nacl.signing import VerifyKey

from bandits import keys, snapshots
from bandits.errors import KeyFileError, SnapshotError
from bandits.keys import SigningKey, key_id, signing_key, trusted_keys
from bandits.policy import FrozenPolicy
from bandits.snapshots import ARRAYS, DTYPES, MANIFEST, SIGNATURE, SnapshotReader, content_hash, list_versions, load
from bandits.types import Scope

SCOPE = Scope("demo", "main", "model_routing")
OTHER = Scope("demo", "main", "content_analysis")
GOLDEN = Path(__file__).parent / "golden" / "snapshot-1"
CREATED, EXPIRES, NOW = 1_000.0, 2_000.0, 1_500.0


def frozen(value: float = 0.25) -> FrozenPolicy:
    """A policy whose arrays differ in type, shape and layout."""
    arrays = {
        "theta": np.full((3, 4), value) + np.arange(4) / 7,
        "scale": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "count": np.array([3, 0, -9], dtype=np.int64),
        "live": np.array([True, False, True]),
        "price": np.array(-0.0),
        "none": np.zeros((0, 5)),
    }
    return FrozenPolicy("ridge", ("small", "medium", "large"), "text-1", arrays)


def publish(root: Path, key: SigningKey, policy: FrozenPolicy | None = None, scope: Scope = SCOPE, **changes: object):
    """Publish with the arguments that the test does not care about filled in."""
    given = {"position": 41, "parent": None, "evidence": {"gate": "pass"}, "created": CREATED, "expires": EXPIRES}
    return snapshots.publish(root, scope, policy or frozen(), **(given | changes), key=key)


def resign(folder: Path, signer: SigningKey, /, **changes: object) -> None:
    """What a trusted but mistaken publisher would leave: a manifest with `changes`, properly signed."""
    data = json.loads((folder / MANIFEST).read_bytes()) | changes
    raw = json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
    (folder / MANIFEST).write_bytes(raw)
    (folder / SIGNATURE).write_bytes(signer.sign(raw))


def run(script: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Start `script` in a fresh interpreter that has sys and Path."""
    begin = "import sys; from pathlib import Path\n"
    return subprocess.Popen(
        [sys.executable, "-c", begin + script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        cwd=Path(__file__).parent.parent,
    )


def answer(script: str, *arguments: object, **environment: str) -> str:
    """What the script printed."""
    process = run(script, *arguments, **environment)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.strip()


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    """The publisher's."""
    return signing_key(tmp_path_factory.mktemp("home"))


@pytest.fixture
def trusted(key: SigningKey) -> dict[str, VerifyKey]:
    """What a reader holds who trusts the publisher alone."""
    return {key.id: VerifyKey(key.public)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty place for snapshots."""
    return tmp_path / "snapshots"


def folder(root: Path, version: str = "000001", scope: Scope = SCOPE) -> Path:
    """Where a version stands."""
    return root / scope.tenant / scope.workspace / scope.domain / version


def refusal(root: Path, trusted: dict[str, VerifyKey], version: str = "latest", scope: Scope = SCOPE, now=NOW) -> str:
    """The message of the refusal; fails if the snapshot loads."""
    with pytest.raises(SnapshotError) as caught:
        load(root, scope, version, trusted=trusted, now=now)
    message = str(caught.value)
    assert message.endswith("The last good one keeps serving.")
    return message


class TestRoundTrip:
    def test_what_is_published_comes_back_bit_for_bit(self, root, key, trusted):
        """Every array has its type, shape and bits, and the manifest is the one that publish returned."""
        policy = frozen()
        manifest = publish(root, key, policy, evidence={"gate": "pass", "words": ["é", 0.1], "ci": (0.2, None)})
        back = load(root, SCOPE, trusted=trusted, now=NOW)

        assert back.manifest == manifest
        assert manifest.evidence == {"gate": "pass", "words": ["é", 0.1], "ci": [0.2, None]}
        assert (back.frozen.kind, back.frozen.arms, back.frozen.schema) == (policy.kind, policy.arms, policy.schema)
        assert back.frozen.arrays.keys() == policy.arrays.keys()
        for name, array in policy.arrays.items():
            found = back.frozen.arrays[name]
            assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())

    @settings(max_examples=50)
    @given(st.data())
    def test_any_array_comes_back_whatever_its_layout(self, tmp_path_factory, key, data):
        """For every dtype, byte order, shape and stride that NumPy offers."""
        dtype = np.dtype(data.draw(st.sampled_from(DTYPES))).newbyteorder(data.draw(st.sampled_from("<>")))
        finite = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
        shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
        array = data.draw(hnp.arrays(dtype, shapes, elements=finite))
        array = data.draw(st.sampled_from([array, array.T, array[..., ::-1] if array.ndim else array]))
        where = tmp_path_factory.mktemp("any")
        publish(where, key, replace(frozen(), arrays={"x": array}))
        back = load(where, SCOPE, trusted={key.id: VerifyKey(key.public)}, now=NOW).frozen.arrays["x"]

        assert back.shape == array.shape
        assert back.tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes()

    def test_a_policy_without_arrays_is_a_policy(self, root, key, trusted):
        """The uniform policy has nothing to store."""
        publish(root, key, FrozenPolicy("uniform", ("a", "b"), "text-1", {}))

        assert load(root, SCOPE, trusted=trusted, now=NOW).frozen.arrays == {}

    def test_loaded_arrays_cannot_be_written(self, root, key, trusted):
        """Threads share them."""
        publish(root, key)
        arrays = load(root, SCOPE, trusted=trusted, now=NOW).frozen.arrays

        with pytest.raises(ValueError, match="read-only"):
            arrays["theta"][0, 0] = 1.0

    def test_versions_count_up_and_latest_is_the_highest(self, root, key, trusted):
        """Also past 999999, where text order and number order part."""
        assert snapshots.latest(root, SCOPE) is None
        assert [publish(root, key).version for _ in range(3)] == ["000001", "000002", "000003"]
        folder(root, "999999").mkdir()
        assert publish(root, key, parent="000003").version == "1000000"
        assert snapshots.latest(root, SCOPE) == "1000000"
        assert load(root, SCOPE, trusted=trusted, now=NOW).manifest.parent == "000003"

    def test_a_rollback_is_the_old_content_under_a_higher_number(self, root, key, trusted):
        """Readers only ever go up, and still get the old policy back."""
        first, second = publish(root, key, frozen(0.1)), publish(root, key, frozen(0.2), parent="000001")
        reader = SnapshotReader(root, SCOPE, trusted)
        reader.refresh(NOW)
        old = load(root, SCOPE, "000001", trusted=trusted, now=NOW).frozen
        third = publish(root, key, old, parent="000002", evidence={"rollback_to": "000001"})

        assert reader.refresh(NOW)
        assert third.content == first.content != second.content
        assert reader.current.manifest == third
        assert reader.current.frozen.arrays["theta"].tobytes() == frozen(0.1).arrays["theta"].tobytes()


class TestContentHash:
    def test_layout_and_order_do_not_matter(self):
        """Fortran order, big-endian bytes and the order of names are the machine's, not the policy's."""
        x, y = np.arange(12.0).reshape(3, 4), np.arange(3, dtype=np.int32)
        other = {"y": y.astype(">i4"), "x": np.asfortranarray(x)}

        assert content_hash({"x": x, "y": y}) == content_hash(other)

    @pytest.mark.parametrize(
        "other",
        [
            {"x": np.arange(4.0).reshape(2, 2)},
            {"x": np.arange(4.0, dtype=np.float32)},
            {"y": np.arange(4.0)},
            {"x": np.array([-0.0, 1.0, 2.0, 3.0])},
            {"x": np.arange(4.0), "y": np.zeros(0)},
        ],
    )
    def test_names_shapes_types_and_bits_matter(self, other):
        """Each of them changes the hash."""
        assert content_hash({"x": np.arange(4.0)}) != content_hash(other)

    def test_it_is_what_the_format_says(self):
        """The hash, computed by hand from docs/snapshots.md, so that it can never drift."""
        import hashlib

        header = b'["x","float64",[2]]'
        body = b"pilotage arrays 1\n" + len(header).to_bytes(8, "little") + header
        body += bytes.fromhex("000000000000f03f") + bytes.fromhex("0000000000000040")

        assert content_hash({"x": np.array([1.0, 2.0])}) == hashlib.sha256(body).hexdigest()

    def test_two_processes_agree(self, tmp_path):
        """With different hash seeds, and names in opposite order."""
        script = """
import numpy as np
from bandits.snapshots import content_hash
names = sys.argv[1].split(",")
print(content_hash({name: np.sin(np.arange(50.0) + len(name)).round(6) for name in names}))
"""
        first = answer(script, "a,bb,ccc", PYTHONHASHSEED="1")

        assert len(first) == 64
        assert first == answer(script, "ccc,bb,a", PYTHONHASHSEED="2")


class TestTamper:
    def test_each_changed_byte_is_refused(self, root, key, trusted):
        """All of the manifest and of the signature, and the first 4 KiB of the arrays."""
        publish(root, key, replace(frozen(), arrays={"theta": np.arange(600.0)}))
        assert load(root, SCOPE, trusted=trusted, now=NOW).manifest.version == "000001"
        tried = 0
        for name in (MANIFEST, SIGNATURE, ARRAYS):
            path = folder(root) / name
            good = path.read_bytes()
            with path.open("r+b", buffering=0) as file:
                for place in range(min(len(good), 4096)):
                    for flip in (0x01, 0x20, 0xFF) if name == SIGNATURE else (0x01,):
                        os.pwrite(file.fileno(), bytes([good[place] ^ flip]), place)
                        with pytest.raises(SnapshotError, match=r"signed by a trusted key|sha256"):
                            load(root, SCOPE, trusted=trusted, now=NOW)
                        tried += 1
                    os.pwrite(file.fileno(), good[place : place + 1], place)

        assert tried == (folder(root) / MANIFEST).stat().st_size + 3 * 64 + 4096
        assert load(root, SCOPE, trusted=trusted, now=NOW).manifest.version == "000001"

    @pytest.mark.parametrize("name", [MANIFEST, SIGNATURE, ARRAYS])
    def test_each_truncation_is_refused(self, root, key, trusted, name):
        """At every length from nothing to one byte short, and one byte longer."""
        publish(root, key, replace(frozen(), arrays={"theta": np.arange(40.0)}))
        path = folder(root) / name
        good = path.read_bytes()
        for length in range(len(good)):
            path.write_bytes(good[:length])
            refusal(root, trusted)
        path.write_bytes(good + b"\0")
        refusal(root, trusted)

    @pytest.mark.parametrize("name", [MANIFEST, SIGNATURE, ARRAYS])
    def test_a_file_of_another_version_is_refused(self, root, key, trusted, name):
        """Each is well signed where it comes from."""
        publish(root, key, frozen(0.1))
        publish(root, key, frozen(0.2))
        shutil.copy(folder(root, "000001") / name, folder(root, "000002") / name)

        refusal(root, trusted)

    def test_a_whole_older_version_under_a_newer_number_is_refused(self, root, key, trusted):
        """An old snapshot cannot come back by renaming its folder."""
        publish(root, key)
        shutil.copytree(folder(root, "000001"), folder(root, "000002"))

        assert "version must be 000002, as the folder says" in refusal(root, trusted)

    def test_a_version_of_another_scope_is_refused(self, root, key, trusted):
        """The signature is good; the place is not."""
        publish(root, key)
        shutil.copytree(folder(root), folder(root, scope=OTHER))

        assert f"scope must be {OTHER}, as the folder says" in refusal(root, trusted, scope=OTHER)

    @pytest.mark.parametrize("name", [MANIFEST, SIGNATURE, ARRAYS])
    def test_a_missing_file_is_refused(self, root, key, trusted, name):
        """A folder that was copied in part is no snapshot."""
        publish(root, key)
        (folder(root) / name).unlink()

        assert name in refusal(root, trusted)

    def test_a_file_that_nobody_signed_is_refused(self, root, key, trusted):
        """What is in the folder is either signed or foreign."""
        publish(root, key)
        (folder(root) / "theta.pkl").write_bytes(b"")

        assert "theta.pkl" in refusal(root, trusted)

    def test_a_pipe_in_place_of_a_file_is_refused_at_once(self, root, key, trusted):
        """Opening one would wait for a writer for ever."""
        publish(root, key)
        (folder(root) / ARRAYS).unlink()
        os.mkfifo(folder(root) / ARRAYS)

        assert "must be a file of" in refusal(root, trusted)

    def test_expiry_is_refused_to_the_second(self, root, key, trusted):
        """Good before `expires`, refused from then on, and with a clock that says nothing."""
        publish(root, key)

        assert load(root, SCOPE, trusted=trusted, now=np.nextafter(EXPIRES, 0)).manifest.version == "000001"
        for now in (EXPIRES, EXPIRES + 1e9, float("nan")):
            assert "must be used before 2000.0" in refusal(root, trusted, now=now)

    def test_a_foreign_key_is_refused(self, root, key, trusted, tmp_path):
        """A good signature by a key that the reader does not trust is worth nothing."""
        publish(root, signing_key(tmp_path / "foreign"))

        assert key.id in refusal(root, trusted)
        assert "there is none" in refusal(root, {})

    def test_a_signer_cannot_pass_for_another(self, root, key, trusted, tmp_path):
        """The key that the manifest names must be the one that signed it, though both are trusted."""
        second = signing_key(tmp_path / "second")
        publish(root, key)
        resign(folder(root), second, key=key.id)

        assert "key must be the one that signed" in refusal(root, trusted | {second.id: VerifyKey(second.public)})

    @pytest.mark.parametrize(
        "version", ["1", "0000001", "../000001", "000001/", "000001\n", "", "٠٠٠٠٠١", "0", "Latest"]
    )
    def test_a_name_that_is_no_version_is_refused(self, root, key, trusted, version):
        """Before it comes near a path."""
        publish(root, key)

        assert "version must be six to twelve digits or 'latest'" in refusal(root, trusted, version)

    def test_a_version_that_is_not_there_is_refused(self, root, key, trusted):
        """The message names the newest that is."""
        publish(root, key)

        assert "not there (the newest: 000001)" in refusal(root, trusted, "000009")

    def test_nothing_published_says_so(self, root, trusted):
        """No folder at all."""
        assert "must have been published" in refusal(root, trusted)


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


class TestSignedButWrong:
    """A trusted key signed it; it is refused all the same."""

    @staticmethod
    def put_arrays(where: Path, key: SigningKey, data: bytes) -> None:
        """Replace the arrays, with a manifest that says so."""
        import hashlib

        (where / ARRAYS).write_bytes(data)
        resign(where, key, files={ARRAYS: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}})

    @pytest.mark.parametrize("signed", [False, True])
    def test_pickle_in_place_of_arrays_never_runs(self, root, key, trusted, tmp_path, signed):
        """Neither with a foreign hash nor with a signed one."""
        publish(root, key)
        bomb = pickle.dumps(Bomb(tmp_path / "trace"))
        if signed:
            self.put_arrays(folder(root), key, bomb)
        else:
            (folder(root) / ARRAYS).write_bytes(bomb)

        assert ARRAYS in refusal(root, trusted)
        assert not (tmp_path / "trace").exists()
        pickle.loads(bomb)
        assert (tmp_path / "trace").exists(), "the bomb is a dud, so the test proves nothing"

    @pytest.mark.parametrize("claim", ["header", "tensor"])
    def test_a_header_that_claims_2_gb_is_refused(self, root, key, trusted, claim):
        """Whether it is the header itself or a tensor in it; unsigned by its size, signed by its own arithmetic."""
        size = 2_000_000_000
        header = json.dumps({"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
        data = (size if claim == "header" else len(header)).to_bytes(8, "little") + header + bytes(16)
        publish(root, key)
        promised = (folder(root) / ARRAYS).stat().st_size
        (folder(root) / ARRAYS).write_bytes(data)
        assert f"must be a file of {promised} bytes, but has {len(data)}" in refusal(root, trusted)
        self.put_arrays(folder(root), key, data)
        assert "must be safetensors" in refusal(root, trusted)

    def test_a_file_of_2_gb_is_refused_unread(self, root, key, trusted):
        """By its size on disk; and a signed promise of 2 GB is refused as such. A reader limited to 1 GB survives."""
        publish(root, key)
        os.truncate(folder(root) / ARRAYS, 2**31)
        script = """
import resource; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
from nacl.signing import VerifyKey
from bandits.errors import SnapshotError
from bandits.snapshots import load
from bandits.types import Scope
try:
    load(Path(sys.argv[1]), Scope.parse(sys.argv[2]), trusted={"k": VerifyKey(bytes.fromhex(sys.argv[3]))}, now=1500.0)
except SnapshotError as error:
    print(error)
"""
        arguments = (root, SCOPE, key.public.hex())
        assert "but has 2147483648" in answer(script, *arguments, OPENBLAS_NUM_THREADS="1")
        resign(folder(root), key, files={ARRAYS: {"sha256": "0" * 64, "size": 2**31}})
        assert "at most 268435456 bytes" in answer(script, *arguments, OPENBLAS_NUM_THREADS="1")

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_arrays_that_are_not_finite_are_refused(self, root, key, trusted, value):
        """Also where the array is a single number."""
        import safetensors.numpy

        for array in (np.array([0.0, value]), np.array(value)):
            publish(root, key)
            where = folder(root, snapshots.latest(root, SCOPE))
            self.put_arrays(where, key, safetensors.numpy.save({"theta": array}))
            assert "'theta' must be finite" in refusal(root, trusted)

    @pytest.mark.parametrize("dtype", ["F16", "BF16", "C64"])
    def test_types_outside_the_format_are_refused(self, root, key, trusted, dtype):
        """A type that a learner never stores is a fault."""
        size = 8 if dtype == "C64" else 2
        header = json.dumps({"x": {"dtype": dtype, "shape": [1], "data_offsets": [0, size]}}).encode()
        publish(root, key)
        self.put_arrays(folder(root), key, len(header).to_bytes(8, "little") + header + bytes(size))

        refusal(root, trusted)

    def test_arrays_other_than_the_content_hash_says_are_refused(self, root, key, trusted):
        """The content hash is checked too, since rollbacks and replays compare it."""
        publish(root, key)
        resign(folder(root), key, content="0" * 64)

        assert "content must be the hash of the arrays" in refusal(root, trusted)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"format": 2}, "format must be 1, but got 2; upgrade"),
            ({"format": True}, "format must be 1"),
            ({"format": "1"}, "format must be 1"),
            ({"stage": "canary"}, "unknown: ['stage']"),
            ({"scope": "a/b"}, "scope must be"),
            ({"version": "000002"}, "version must be 000001"),
            ({"version": 1}, "version must be 000001"),
            ({"parent": "000001"}, "parent must be"),
            ({"parent": "x"}, "parent must be"),
            ({"parent": 0}, "parent must be"),
            ({"kind": ""}, "kind must be"),
            ({"schema": None}, "schema must be"),
            ({"arms": []}, "arms must be"),
            ({"arms": ["a", "a"]}, "arms must be"),
            ({"arms": ["a", 1]}, "arms must be"),
            ({"arms": "ab"}, "arms must be"),
            ({"position": -1}, "position must be"),
            ({"position": 1.0}, "position must be"),
            ({"position": True}, "position must be"),
            ({"evidence": []}, "evidence must be"),
            ({"created": 1000}, "created must be"),
            ({"created": 2000.0}, "expires must be"),
            ({"expires": "never"}, "must be seconds since the epoch"),
            ({"expires": float("inf")}, "must be seconds since the epoch"),
            ({"evidence": {"ess": float("nan")}}, "finite JSON"),
            ({"content": "A" * 64}, "content must be"),
            ({"files": {}}, "files must be"),
            ({"files": {"../x": {"sha256": "0" * 64, "size": 1}}}, "files must be"),
            ({"files": {ARRAYS: {"sha256": "0" * 64, "size": -1}}}, "files must be"),
            ({"files": {ARRAYS: {"sha256": "0" * 64}}}, "files must be"),
            ({"files": {name: {"sha256": "0" * 64, "size": 1} for name in (ARRAYS, "x")}}, "files must be"),
            ({"key": "me"}, "key must be"),
            ({"key": "0" * 16}, "key must be the one that signed"),
        ],
    )
    def test_each_field_is_checked(self, root, key, trusted, changes, said):
        """With the name of the field and what must hold."""
        publish(root, key)
        resign(folder(root), key, **changes)

        assert said in refusal(root, trusted)

    @pytest.mark.parametrize("raw", [b"[]", b"1", b"{}", b"{", b"\xff", b"[" * 100_000, b'{"format":1}', b"0" * 9_999])
    def test_a_manifest_that_is_none_is_refused(self, root, key, trusted, raw):
        """Signed nonsense is nonsense."""
        publish(root, key)
        (folder(root) / MANIFEST).write_bytes(raw)
        (folder(root) / SIGNATURE).write_bytes(key.sign(raw))

        refusal(root, trusted)

    def test_there_is_one_way_to_write_a_manifest(self, root, key, trusted):
        """Spaces, or a key that stands twice, are refused, so that no two readers can read two things."""
        publish(root, key)
        good = (folder(root) / MANIFEST).read_bytes()
        for raw in (good + b" ", b'{"position":7,' + good[1:]):
            (folder(root) / MANIFEST).write_bytes(raw)
            (folder(root) / SIGNATURE).write_bytes(key.sign(raw))
            assert "canonical JSON" in refusal(root, trusted)


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
from bandits.keys import SigningKey
from bandits.policy import FrozenPolicy
from bandits.snapshots import publish
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
from bandits.keys import signing_key
from bandits.policy import FrozenPolicy
from bandits.snapshots import publish
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
from bandits.snapshots import content_hash, load
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


class TestGolden:
    """A snapshot of format 1, written once and kept: whatever comes later must still load it."""

    public = bytes.fromhex((GOLDEN / "publisher.pub").read_text())
    trusted = {key_id(public): VerifyKey(public)}  # noqa: RUF012

    def test_it_still_loads(self):
        """Manifest and arrays, to the bit."""
        back = load(GOLDEN, SCOPE, "000001", trusted=self.trusted, now=1_800_000_001.0)

        assert back.manifest == snapshots.Manifest(
            scope=SCOPE,
            version="000001",
            parent=None,
            kind="ridge",
            schema="text-1",
            arms=("llama-3-1-8b", "mistral-large", "gemini-2-5-pro"),
            position=12_345,
            evidence={"estimator": "dr", "interval": [0.61, 0.68], "value": 0.645, "verdict": "pass"},
            created=1_800_000_000.0,
            expires=1_802_592_000.0,
            content=content_hash(back.frozen.arrays),
            files=back.manifest.files,
            key=key_id(self.public),
        )
        assert back.frozen.arrays.keys() == {"theta", "scale", "rounds", "live"}
        assert back.frozen.arrays["theta"].tolist() == [[0.5, -0.25], [0.125, 3.0], [0.0, 1.0]]
        assert back.frozen.arrays["scale"].dtype == np.float32
        assert back.frozen.arrays["scale"].tolist() == [1.5, 0.75]
        assert back.frozen.arrays["rounds"].tolist() == [7, 11, 2**53 + 1]
        assert back.frozen.arrays["live"].tolist() == [True, True, False]

    def test_its_hash_is_the_one_written_then(self):
        """The content hash is part of the format."""
        back = load(GOLDEN, SCOPE, "000001", trusted=self.trusted, now=1_800_000_001.0)

        assert back.manifest.content == "2947825abc2362c525cf28ec0c997c0b7475d76b034d4a51379824eed3730a7c"

    def test_its_private_key_is_not_kept(self):
        """The folder holds the three files and the public key, nothing else."""
        files = sorted(path.relative_to(GOLDEN).as_posix() for path in GOLDEN.rglob("*") if path.is_file())

        assert files == [f"{SCOPE}/000001/{name}" for name in sorted((ARRAYS, MANIFEST, SIGNATURE))] + ["publisher.pub"]
