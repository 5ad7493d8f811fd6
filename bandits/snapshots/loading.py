"""Load a snapshot, and believe nothing: signature, sizes, hashes, expiry, then the arrays themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import safetensors
import safetensors.numpy
from nacl.signing import VerifyKey

from bandits.errors import SnapshotError
from bandits.policy import FrozenPolicy
from bandits.snapshots.keys import signer_of
from bandits.snapshots.manifest import (
    ARRAYS,
    LARGEST_MANIFEST,
    MANIFEST,
    SIGNATURE,
    VERSION,
    Manifest,
    content_hash,
    decode,
    expired,
    folder_of,
    matches,
    plain,
    refused,
    store_of,
)
from bandits.snapshots.store import Root, Store, WrongSizeError
from bandits.types import Scope


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A verified snapshot in memory. Its arrays are read-only, so threads may share them."""

    manifest: Manifest
    frozen: FrozenPolicy


class Listed(NamedTuple):
    """One version on disk. `manifest` is None unless its signature verified; `fault` says why `load` refuses it."""

    version: str
    manifest: Manifest | None
    fault: str | None


def load(
    root: Root, scope: Scope, version: str = "latest", *, trusted: Mapping[str, VerifyKey], now: float
) -> Snapshot:
    """Read one version and check all of it; "latest" is the highest number there, and nothing less.

    trusted: key id → public key, see keys.trusted_keys.   now: UTC, seconds since the epoch.
    Raises SnapshotError that says what was wrong; nothing is ever unpickled.
    """
    if version == "latest":
        version = latest(root, scope) or f"{1:06d}"
    return _complete(root, _signed_manifest(root, scope, version, trusted), now)


def latest(root: Root, scope: Scope) -> str | None:
    """The highest version on disk, unverified; None where there is none."""
    return max(versions(root, scope), key=int, default=None)


def list_versions(root: Root, scope: Scope, *, trusted: Mapping[str, VerifyKey], now: float) -> list[Listed]:
    """Every version on disk, lowest first, each verified as `load` would, or with the fault that it has."""
    found = []
    for version in versions(root, scope):
        manifest = fault = None
        try:
            manifest = _signed_manifest(root, scope, version, trusted)
            _complete(root, manifest, now)
        except SnapshotError as error:
            fault = str(error)
        found.append(Listed(version, manifest, fault))
    return found


def versions(root: Root, scope: Scope) -> list[str]:
    """Names in the store that are versions, lowest first; what is still being published is none."""
    store = store_of(root, scope)
    try:
        return sorted(filter(VERSION.fullmatch, store.revealed(folder_of(scope), MANIFEST)), key=int)
    except OSError as error:
        raise refused(str(scope), f"its folder must be readable, but: {error}.") from error


def _signed_manifest(root: Root, scope: Scope, version: str, trusted: Mapping[str, VerifyKey]) -> Manifest:
    """The manifest once its signature holds (not a byte is parsed before), then format, scope, version and the rest."""
    if not matches(VERSION, version):
        raise refused(str(scope), f"version must be six to twelve digits or 'latest', but got {version!r:.80}.")
    store, folder, place = store_of(root, scope), f"{folder_of(scope)}/{version}", f"{scope}/{version}"
    try:
        holds = store.files(folder)
    except OSError:
        there = latest(root, scope) or "none"
        raise refused(place, f"it must have been published, but is not there (the newest: {there}).") from None
    if holds != {MANIFEST, ARRAYS, SIGNATURE}:
        odd = sorted(holds ^ {MANIFEST, ARRAYS, SIGNATURE})
        raise refused(place, f"the folder must hold its three files alone; missing or extra: {odd!r:.200}.")
    raw = _read(store, folder, MANIFEST, place, range(1, LARGEST_MANIFEST + 1))
    signer = signer_of(raw, _read(store, folder, SIGNATURE, place, range(64, 65)), trusted)
    if signer is None:
        known = ", ".join(sorted(trusted)) or "there is none"
        fault = f"{MANIFEST} must be signed by a trusted key ({known}), but is not: it or {SIGNATURE} was changed,"
        raise refused(place, f"{fault} or its publisher's .pub file is missing from keys/.")
    manifest = decode(raw, scope, version)
    if manifest.key != signer:
        raise refused(place, f"key must be the one that signed, {signer}, but is {manifest.key}.")
    return manifest


def _complete(root: Root, manifest: Manifest, now: float) -> Snapshot:
    """Check what the signed manifest promises: size, sha256, expiry, then the arrays themselves."""
    folder, place = f"{folder_of(manifest.scope)}/{manifest.version}", f"{manifest.scope}/{manifest.version}"
    promised = manifest.files[ARRAYS]
    data = _read(store_of(root, manifest.scope), folder, ARRAYS, place, range(promised.size, promised.size + 1))
    if hashlib.sha256(data).hexdigest() != promised.sha256:
        raise refused(place, f"{ARRAYS} must have the sha256 that was signed, but was changed; publish it again.")
    if not now < manifest.expires:
        raise expired(manifest, now)
    try:
        arrays = plain(safetensors.numpy.load(data), place)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:  # KeyError: a type that NumPy lacks
        raise refused(place, f"{ARRAYS} must be safetensors, but: {error}.") from None
    if content_hash(arrays) != manifest.content:
        raise refused(place, "content must be the hash of the arrays, but they have another; publish it again.")
    for array in arrays.values():
        array.flags.writeable = False
    return Snapshot(manifest, FrozenPolicy(manifest.kind, manifest.arms, manifest.schema, arrays))


def _read(store: Store, folder: str, name: str, place: str, sizes: range) -> bytes:
    """The bytes of a file, once its size is known to be one of `sizes`."""
    try:
        return store.read(f"{folder}/{name}", sizes)
    except WrongSizeError as error:
        wanted = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else str(sizes[0])
        fault = f"{name} must be a file of {wanted} bytes, but has {error.size}; publish it again."
        raise refused(place, fault) from None
    except OSError as error:
        raise refused(place, f"{name} must be readable, but: {error.strerror or error}.") from error
