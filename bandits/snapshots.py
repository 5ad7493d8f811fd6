"""Snapshots: a frozen policy as a signed folder that never changes. `publish` writes one; `load` believes nothing.

    root/<tenant>/<workspace>/<domain>/<version>/{manifest.json, arrays.safetensors, manifest.sig}

The signature covers the exact bytes of the manifest, and the manifest names size and sha256 of the arrays, so one key
vouches for every byte. A reader needs numpy, safetensors and pynacl only, and fsspec where `root` is a URL (store.py).
The format: docs/snapshots.md.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from nacl.signing import VerifyKey
from numpy.typing import NDArray

from bandits.errors import SnapshotError
from bandits.keys import SigningKey, signer_of
from bandits.policy import FrozenPolicy
from bandits.store import Root, Store, WrongSizeError, open_store
from bandits.types import Scope

FORMAT = 1
MANIFEST, ARRAYS, SIGNATURE = "manifest.json", "arrays.safetensors", "manifest.sig"
LARGEST_MANIFEST = 2**20  # bytes
LARGEST_ARRAYS = 2**28  # bytes; far above any policy, far below what would hurt a server
DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")

_TRIES = 1_000  # numbers that others may take first, before a publisher gives up
_VERSION = re.compile(r"[0-9]{6}|[1-9][0-9]{6,11}")
_ARRAY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_TEXT, _DIGEST, _KEY_ID = re.compile(r"(?s:.{1,200})"), re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What the manifest promises of a file beside it."""

    size: int  # bytes
    sha256: str  # 64 hex digits


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is signed: where the snapshot belongs, what it holds, what it came from and how long it holds."""

    scope: Scope
    version: str  # six digits or more, one higher than the highest before it
    parent: str | None  # version that it replaces, or goes back to
    kind: str  # which class of policy reads the arrays
    schema: str  # name and version of the features
    arms: tuple[str, ...]  # K names; actions index them
    position: int  # of the last row of the record that it learned from
    evidence: Mapping[str, Any]  # why it was published: plain JSON
    created: float  # UTC, seconds since the epoch
    expires: float  # UTC, seconds since the epoch; refused from then on
    content: str  # content_hash of the arrays: the same content, the same hash, whatever the version
    files: Mapping[str, StoredFile]
    key: str  # id of the key that signed
    format: int = FORMAT


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
    store, folder = _store(root, scope), _folder(scope)
    data = safetensors.numpy.save(_plain(frozen.arrays, str(scope)))
    files = {ARRAYS: StoredFile(len(data), hashlib.sha256(data).hexdigest())}
    content = content_hash(frozen.arrays)
    try:
        highest = 0
        for _ in range(_TRIES):
            highest = max([highest, *map(int, filter(_VERSION.fullmatch, store.taken(folder)))]) + 1
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
            signed = _encode(manifest)
            manifest = _decode(signed, scope, version)  # nothing is published that load would refuse
            if store.place(f"{folder}/{version}", {SIGNATURE: key.sign(signed), ARRAYS: data, MANIFEST: signed}):
                return manifest
        raise OSError(f"{_TRIES} numbers in a row were taken, the last {version}")
    except OSError as error:
        raise refused(str(scope), f"a snapshot must reach the disk, but: {error}; mend that and publish.") from error


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


def content_hash(arrays: Mapping[str, NDArray[Any]]) -> str:
    """sha256 over names, types, shapes and little-endian values, by name: the same arrays, the same hash, anywhere.

    Raises SnapshotError for arrays that a snapshot cannot hold.
    """
    digest = hashlib.sha256(b"pilotage arrays 1\n")
    for name, array in sorted(_plain(arrays, "content").items()):
        header = _canonical([name, array.dtype.name, list(array.shape)])
        digest.update(len(header).to_bytes(8, "little") + header + array.tobytes(order="C"))
    return digest.hexdigest()


def _plain(arrays: Mapping[str, NDArray[Any]], place: str) -> dict[str, NDArray[Any]]:
    """Copies as a snapshot stores them: little-endian, in C order (safetensors would write memory as it lies)."""
    plain = {}
    for name, array in arrays.items():
        if not _ARRAY_NAME.fullmatch(name):
            raise refused(place, f"an array's name must be letters, digits, '_', '.' and '-', but got {name!r:.80}.")
        if array.dtype.name not in DTYPES:
            raise refused(place, f"array {name!r} must be one of {', '.join(DTYPES)}, but is {array.dtype}.")
        bad = np.argwhere(~np.isfinite(array))
        if len(bad):
            where = f"{bad[0].tolist()} ({len(bad)} in all)"
            raise refused(place, f"array {name!r} must be finite, but is not at {where}.")
        plain[name] = np.array(array, dtype=array.dtype.newbyteorder("<"), order="C", copy=True)
    return plain


def _canonical(value: object) -> bytes:
    """JSON with sorted keys and no spaces, in ASCII; refuses NaN and infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _encode(manifest: Manifest) -> bytes:
    try:
        return _canonical(asdict(manifest) | {"scope": str(manifest.scope)})
    except (TypeError, ValueError, RecursionError) as error:
        fault = f"evidence and numbers must be plain, finite JSON (no NumPy types), but: {error}."
        raise refused(f"{manifest.scope}/{manifest.version}", fault) from None


def _decode(raw: bytes, scope: Scope, version: str) -> Manifest:
    """Read a manifest strictly: this format, this place, these fields, these types, canonical bytes."""
    place = f"{scope}/{version}"
    try:
        data = json.loads(raw.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise refused(place, f"{MANIFEST} must be JSON in ASCII, but: {error}.") from None
    found = data.get("format") if isinstance(data, dict) else None
    if type(found) is not int or found != FORMAT:
        raise refused(place, f"format must be {FORMAT}, but got {found!r:.80}; upgrade Pilotage to read it.")
    rules = _rules(data, scope, version)
    if data.keys() != rules.keys():
        odd = sorted(data.keys() ^ rules.keys())
        raise refused(place, f"{MANIFEST} must have the fields of format {FORMAT}; missing or unknown: {odd!r:.200}.")
    for name, (holds, rule) in rules.items():
        if not holds:
            raise refused(place, f"{name} must be {rule}, but is {data[name]!r:.200}.")
    files = {ARRAYS: StoredFile(**data["files"][ARRAYS])}
    manifest = Manifest(**data | {"scope": scope, "arms": tuple(data["arms"]), "files": files})
    if _encode(manifest) != raw or len(raw) > LARGEST_MANIFEST:
        raise refused(place, f"{MANIFEST} must be canonical JSON of at most {LARGEST_MANIFEST} bytes, but is not.")
    return manifest


def _rules(data: Mapping[str, Any], scope: Scope, version: str) -> dict[str, tuple[bool, str]]:
    """For each field, whether it holds and what must hold. Types are exact: True is no number, 1 is no time."""
    given = defaultdict[str, Any](lambda: None, data)
    parent, arms, position = given["parent"], given["arms"], given["position"]
    created, expires = given["created"], given["expires"]
    earlier = _matches(_VERSION, parent) and int(parent) < int(version)
    names = type(arms) is list and all(_matches(_TEXT, arm) for arm in arms) and len(set(arms)) == len(arms) > 0
    times = all(type(time) is float and math.isfinite(time) for time in (created, expires))
    return {
        "format": (given["format"] == FORMAT, str(FORMAT)),
        "scope": (given["scope"] == str(scope), f"{scope}, as the folder says"),
        "version": (version == given["version"] and _matches(_VERSION, version), f"{version}, as the folder says"),
        "parent": (parent is None or earlier, f"a version lower than {version}, or null"),
        "kind": (_matches(_TEXT, given["kind"]), "1 to 200 characters"),
        "schema": (_matches(_TEXT, given["schema"]), "1 to 200 characters"),
        "arms": (names, "a list of distinct names"),
        "position": (type(position) is int and position >= 0, "a whole number >= 0"),
        "evidence": (type(given["evidence"]) is dict, "a JSON object"),
        "created": (times, "seconds since the epoch, finite like expires"),
        "expires": (times and created < expires, "seconds since the epoch, later than created"),
        "content": (_matches(_DIGEST, given["content"]), "64 hex digits"),
        "files": (_are_files(given["files"]), f"sha256 and size, at most {LARGEST_ARRAYS} bytes, of {ARRAYS} alone"),
        "key": (_matches(_KEY_ID, given["key"]), "16 hex digits"),
    }


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return type(value) is str and pattern.fullmatch(value) is not None


def _are_files(value: object) -> bool:
    file = value[ARRAYS] if type(value) is dict and value.keys() == {ARRAYS} else None
    if type(file) is not dict or file.keys() != {"size", "sha256"}:
        return False
    return _matches(_DIGEST, file["sha256"]) and type(file["size"]) is int and 0 <= file["size"] <= LARGEST_ARRAYS


def _store(root: Root, scope: Scope) -> Store:
    try:
        return open_store(root)
    except (OSError, ValueError) as error:
        raise refused(str(scope), f"its store must be one that can be opened, but: {error}.") from error


def _folder(scope: Scope) -> str:
    return f"{scope.tenant}/{scope.workspace}/{scope.domain}"


def versions(root: Root, scope: Scope) -> list[str]:
    """Names in the store that are versions, lowest first; what is still being published is none."""
    store = _store(root, scope)
    try:
        return sorted(filter(_VERSION.fullmatch, store.revealed(_folder(scope), MANIFEST)), key=int)
    except OSError as error:
        raise refused(str(scope), f"its folder must be readable, but: {error}.") from error


def _signed_manifest(root: Root, scope: Scope, version: str, trusted: Mapping[str, VerifyKey]) -> Manifest:
    """The manifest once its signature holds (not a byte is parsed before), then format, scope, version and the rest."""
    if not _matches(_VERSION, version):
        raise refused(str(scope), f"version must be six to twelve digits or 'latest', but got {version!r:.80}.")
    store, folder, place = _store(root, scope), f"{_folder(scope)}/{version}", f"{scope}/{version}"
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
    manifest = _decode(raw, scope, version)
    if manifest.key != signer:
        raise refused(place, f"key must be the one that signed, {signer}, but is {manifest.key}.")
    return manifest


def _complete(root: Root, manifest: Manifest, now: float) -> Snapshot:
    """Check what the signed manifest promises: size, sha256, expiry, then the arrays themselves."""
    folder, place = f"{_folder(manifest.scope)}/{manifest.version}", f"{manifest.scope}/{manifest.version}"
    promised = manifest.files[ARRAYS]
    data = _read(_store(root, manifest.scope), folder, ARRAYS, place, range(promised.size, promised.size + 1))
    if hashlib.sha256(data).hexdigest() != promised.sha256:
        raise refused(place, f"{ARRAYS} must have the sha256 that was signed, but was changed; publish it again.")
    if not now < manifest.expires:
        raise expired(manifest, now)
    try:
        arrays = _plain(safetensors.numpy.load(data), place)
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


def expired(manifest: Manifest, now: float) -> SnapshotError:
    """The error of a snapshot that holds no longer."""
    fault = f"it must be used before {manifest.expires!r} (UTC seconds), but now is {now!r}; publish a newer one."
    return refused(f"{manifest.scope}/{manifest.version}", fault)


def refused(place: str, fault: str) -> SnapshotError:
    """The error of a snapshot that is not believed: where, and why."""
    return SnapshotError(f"snapshot {place}: {fault} The last good one keeps serving.")
