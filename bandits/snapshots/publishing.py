"""Publish a snapshot: a frozen policy as a signed folder that never changes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import safetensors
import safetensors.numpy

from bandits.policy import FrozenPolicy
from bandits.snapshots.keys import SigningKey
from bandits.snapshots.manifest import (
    ARRAYS,
    MANIFEST,
    SIGNATURE,
    VERSION,
    Manifest,
    StoredFile,
    content_hash,
    decode,
    encode,
    folder_of,
    plain,
    refused,
    store_of,
)
from bandits.snapshots.store import Root
from bandits.types import Scope

_TRIES = 1_000  # numbers that others may take first, before a publisher gives up


def publish(
    root: Root,
    scope: Scope,
    frozen: FrozenPolicy,
    *,
    position: int,
    parent: str | None,
    evidence: Mapping[str, Any],
    created: float,
    expires: float,
    key: SigningKey,
) -> Manifest:
    """Sign `frozen` and make it the newest version of `scope`: visible whole and on the disk, or not at all.

    root: a folder, or the URL of a store. Takes the number after the highest there; when another publisher is faster,
    the number after that. A rollback is published the same way: an older content under a new number, with the reason
    in `evidence`.
    Raises SnapshotError for what `load` would refuse (an array not finite, evidence not JSON, expires before created)
    and when the disk refuses.
    """
    store, folder = store_of(root, scope), folder_of(scope)
    data = safetensors.numpy.save(plain(frozen.arrays, str(scope)))
    files = {ARRAYS: StoredFile(len(data), hashlib.sha256(data).hexdigest())}
    content = content_hash(frozen.arrays)
    try:
        highest = 0
        for _ in range(_TRIES):
            highest = max([highest, *map(int, filter(VERSION.fullmatch, store.taken(folder)))]) + 1
            version = f"{highest:06d}"
            manifest = Manifest(
                scope=scope,
                version=version,
                parent=parent,
                kind=frozen.kind,
                schema=frozen.schema,
                arms=tuple(frozen.arms),
                position=position,
                evidence=evidence,
                created=float(created),
                expires=float(expires),
                content=content,
                files=files,
                key=key.id,
            )
            signed = encode(manifest)
            manifest = decode(signed, scope, version)  # nothing is published that load would refuse
            if store.place(f"{folder}/{version}", {SIGNATURE: key.sign(signed), ARRAYS: data, MANIFEST: signed}):
                return manifest
        raise OSError(f"{_TRIES} numbers in a row were taken, the last {version}")
    except OSError as error:
        raise refused(str(scope), f"a snapshot must reach the disk, but: {error}; mend that and publish.") from error
