"""Whatever was changed is refused, and so is what a trusted but mistaken publisher signed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nacl.signing import VerifyKey

from bandits.errors import SnapshotError
from bandits.snapshots import loading
from bandits.snapshots.keys import SigningKey, signing_key
from bandits.snapshots.loading import load
from bandits.snapshots.manifest import ARRAYS, MANIFEST, SIGNATURE
from tests.snapshots.published import EXPIRES, NOW, OTHER, SCOPE, answer, folder, frozen, publish, refusal, resign


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
from bandits.snapshots.loading import load
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
            where = folder(root, loading.latest(root, SCOPE))
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
