"""The manifest: what of a snapshot is signed, how it is written and strictly read, and where it lies.

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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandits.errors import SnapshotError
from bandits.snapshots.store import Root, Store, open_store
from bandits.types import Scope

FORMAT = 1
MANIFEST, ARRAYS, SIGNATURE = "manifest.json", "arrays.safetensors", "manifest.sig"
LARGEST_MANIFEST = 2**20  # bytes
LARGEST_ARRAYS = 2**28  # bytes; far above any policy, far below what would hurt a server
DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")
VERSION = re.compile(r"[0-9]{6}|[1-9][0-9]{6,11}")
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


def content_hash(arrays: Mapping[str, NDArray[Any]]) -> str:
    """sha256 over names, types, shapes and little-endian values, by name: the same arrays, the same hash, anywhere.

    Raises SnapshotError for arrays that a snapshot cannot hold.
    """
    digest = hashlib.sha256(b"pilotage arrays 1\n")
    for name, array in sorted(plain(arrays, "content").items()):
        header = _canonical([name, array.dtype.name, list(array.shape)])
        digest.update(len(header).to_bytes(8, "little") + header + array.tobytes(order="C"))
    return digest.hexdigest()


def plain(arrays: Mapping[str, NDArray[Any]], place: str) -> dict[str, NDArray[Any]]:
    """Copies as a snapshot stores them: little-endian, in C order (safetensors would write memory as it lies)."""
    copies = {}
    for name, array in arrays.items():
        if not _ARRAY_NAME.fullmatch(name):
            raise refused(place, f"an array's name must be letters, digits, '_', '.' and '-', but got {name!r:.80}.")
        if array.dtype.name not in DTYPES:
            raise refused(place, f"array {name!r} must be one of {', '.join(DTYPES)}, but is {array.dtype}.")
        bad = np.argwhere(~np.isfinite(array))
        if len(bad):
            where = f"{bad[0].tolist()} ({len(bad)} in all)"
            raise refused(place, f"array {name!r} must be finite, but is not at {where}.")
        copies[name] = np.array(array, dtype=array.dtype.newbyteorder("<"), order="C", copy=True)
    return copies


def _canonical(value: object) -> bytes:
    """JSON with sorted keys and no spaces, in ASCII; refuses NaN and infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def encode(manifest: Manifest) -> bytes:
    """The bytes that are signed. Raises SnapshotError for what is no plain JSON."""
    try:
        return _canonical(asdict(manifest) | {"scope": str(manifest.scope)})
    except (TypeError, ValueError, RecursionError) as error:
        fault = f"evidence and numbers must be plain, finite JSON (no NumPy types), but: {error}."
        raise refused(f"{manifest.scope}/{manifest.version}", fault) from None


def decode(raw: bytes, scope: Scope, version: str) -> Manifest:
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
    if encode(manifest) != raw or len(raw) > LARGEST_MANIFEST:
        raise refused(place, f"{MANIFEST} must be canonical JSON of at most {LARGEST_MANIFEST} bytes, but is not.")
    return manifest


def _rules(data: Mapping[str, Any], scope: Scope, version: str) -> dict[str, tuple[bool, str]]:
    """For each field, whether it holds and what must hold. Types are exact: True is no number, 1 is no time."""
    given = defaultdict[str, Any](lambda: None, data)
    parent, arms, position = given["parent"], given["arms"], given["position"]
    created, expires = given["created"], given["expires"]
    earlier = matches(VERSION, parent) and int(parent) < int(version)
    names = type(arms) is list and all(matches(_TEXT, arm) for arm in arms) and len(set(arms)) == len(arms) > 0
    times = all(type(time) is float and math.isfinite(time) for time in (created, expires))
    return {
        "format": (given["format"] == FORMAT, str(FORMAT)),
        "scope": (given["scope"] == str(scope), f"{scope}, as the folder says"),
        "version": (version == given["version"] and matches(VERSION, version), f"{version}, as the folder says"),
        "parent": (parent is None or earlier, f"a version lower than {version}, or null"),
        "kind": (matches(_TEXT, given["kind"]), "1 to 200 characters"),
        "schema": (matches(_TEXT, given["schema"]), "1 to 200 characters"),
        "arms": (names, "a list of distinct names"),
        "position": (type(position) is int and position >= 0, "a whole number >= 0"),
        "evidence": (type(given["evidence"]) is dict, "a JSON object"),
        "created": (times, "seconds since the epoch, finite like expires"),
        "expires": (times and created < expires, "seconds since the epoch, later than created"),
        "content": (matches(_DIGEST, given["content"]), "64 hex digits"),
        "files": (_are_files(given["files"]), f"sha256 and size, at most {LARGEST_ARRAYS} bytes, of {ARRAYS} alone"),
        "key": (matches(_KEY_ID, given["key"]), "16 hex digits"),
    }


def matches(pattern: re.Pattern[str], value: object) -> bool:
    """Whether `value` is text, and all of it matches."""
    return type(value) is str and pattern.fullmatch(value) is not None


def _are_files(value: object) -> bool:
    file = value[ARRAYS] if type(value) is dict and value.keys() == {ARRAYS} else None
    if type(file) is not dict or file.keys() != {"size", "sha256"}:
        return False
    return matches(_DIGEST, file["sha256"]) and type(file["size"]) is int and 0 <= file["size"] <= LARGEST_ARRAYS


def store_of(root: Root, scope: Scope) -> Store:
    """The store at `root`. Raises SnapshotError where it cannot be opened."""
    try:
        return open_store(root)
    except (OSError, ValueError) as error:
        raise refused(str(scope), f"its store must be one that can be opened, but: {error}.") from error


def folder_of(scope: Scope) -> str:
    """Where the versions of a scope lie in a store."""
    return f"{scope.tenant}/{scope.workspace}/{scope.domain}"


def expired(manifest: Manifest, now: float) -> SnapshotError:
    """The error of a snapshot that holds no longer."""
    fault = f"it must be used before {manifest.expires!r} (UTC seconds), but now is {now!r}; publish a newer one."
    return refused(f"{manifest.scope}/{manifest.version}", fault)


def refused(place: str, fault: str) -> SnapshotError:
    """The error of a snapshot that is not believed: where, and why."""
    return SnapshotError(f"snapshot {place}: {fault} The last good one keeps serving.")
