"""A publisher's key, who trusts it, and an empty place."""

from __future__ import annotations

from pathlib import Path

import pytest
from nacl.signing import VerifyKey

from bandits.snapshots.keys import SigningKey, signing_key


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
