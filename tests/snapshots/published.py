"""What the tests of snapshots share: a policy, its publishing, readers in other processes, refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from nacl.signing import VerifyKey

from bandits.errors import SnapshotError
from bandits.policy import FrozenPolicy
from bandits.snapshots import publishing
from bandits.snapshots.keys import SigningKey
from bandits.snapshots.loading import load
from bandits.snapshots.manifest import MANIFEST, SIGNATURE
from bandits.types import Scope

SCOPE = Scope("demo", "main", "model_routing")
OTHER = Scope("demo", "main", "content_analysis")
GOLDEN = Path(__file__).parents[1] / "golden" / "snapshot-1"
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
    return publishing.publish(root, scope, policy or frozen(), **(given | changes), key=key)


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
        cwd=Path(__file__).parents[2],
    )


def answer(script: str, *arguments: object, **environment: str) -> str:
    """What the script printed."""
    process = run(script, *arguments, **environment)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.strip()


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
