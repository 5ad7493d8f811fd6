"""What is published comes back bit for bit; the content hash; the format that must load for ever."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from nacl.signing import VerifyKey

from bandits.policy import FrozenPolicy
from bandits.snapshots import loading, manifest
from bandits.snapshots.keys import key_id
from bandits.snapshots.loading import load
from bandits.snapshots.manifest import ARRAYS, DTYPES, MANIFEST, SIGNATURE, content_hash
from bandits.snapshots.reader import SnapshotReader
from tests.snapshots.published import GOLDEN, NOW, SCOPE, answer, folder, frozen, publish


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
        assert loading.latest(root, SCOPE) is None
        assert [publish(root, key).version for _ in range(3)] == ["000001", "000002", "000003"]
        folder(root, "999999").mkdir()
        assert publish(root, key, parent="000003").version == "1000000"
        assert loading.latest(root, SCOPE) == "1000000"
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
from bandits.snapshots.manifest import content_hash
names = sys.argv[1].split(",")
print(content_hash({name: np.sin(np.arange(50.0) + len(name)).round(6) for name in names}))
"""
        first = answer(script, "a,bb,ccc", PYTHONHASHSEED="1")

        assert len(first) == 64
        assert first == answer(script, "ccc,bb,a", PYTHONHASHSEED="2")


class TestGolden:
    """A snapshot of format 1, written once and kept: whatever comes later must still load it."""

    public = bytes.fromhex((GOLDEN / "publisher.pub").read_text())
    trusted = {key_id(public): VerifyKey(public)}  # noqa: RUF012

    def test_it_still_loads(self):
        """Manifest and arrays, to the bit."""
        back = load(GOLDEN, SCOPE, "000001", trusted=self.trusted, now=1_800_000_001.0)

        assert back.manifest == manifest.Manifest(
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
