"""API keys: one belongs to one tenant, says what it may be used for, is shown once, and is kept only as its hash.

    home/keys/api-keys.json     0600, [{"prefix", "hash", "tenant", "name", "created", "scopes", "expires"}]

A key is "plt_" and 256 random bits, so that sha256 without salt cannot be turned back. Making, renewing or revoking one
takes effect at the next request of a running service: no restart.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import math
import os
import re
import secrets
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bandits.durable import sync_folder, write_new
from bandits.errors import InvalidNameError, KeyFileError
from bandits.home import Home
from bandits.record.audit import Audit
from bandits.types import valid_name

_BEGIN = "plt_"
_PREFIX = len(_BEGIN) + 8  # characters that a list shows of a key: 48 of its 256 bits
_KEY = re.compile(rf"{_BEGIN}[A-Za-z0-9_-]{{9,}}")
SCOPES = ("route", "feedback", "read", "operate", "admin")  # what a key may be good for; see gate.NEEDED
APP = ("route", "feedback", "read")  # what an app needs


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a key."""

    prefix: str  # its first 12 characters, to name it by
    hash: str  # sha256 of the whole key, 64 hex digits
    tenant: str
    name: str  # what it is for
    created: float  # UTC, seconds since the epoch
    scopes: tuple[str, ...] = SCOPES  # a key of before there were scopes goes on being good for all
    expires: float | None = None  # UTC, seconds since the epoch; None: never

    def __post_init__(self) -> None:
        valid_name(self.tenant, "tenant")
        valid_name(self.name, "name of a key")
        object.__setattr__(self, "scopes", tuple(self.scopes))  # JSON has lists
        unknown = sorted(set(self.scopes) - set(SCOPES))
        if unknown or not self.scopes:
            raise InvalidNameError(
                f"a key must be good for some of {', '.join(SCOPES)}, but got {unknown or 'none'} for {self.name!r}."
            )
        if not isinstance(self.expires, float | int | None):
            raise InvalidNameError(f"a key must end at a time or never, but {self.name!r} ends {self.expires!r}.")
        if not (re.fullmatch(r"[0-9a-f]{64}", self.hash) and isinstance(self.prefix, str)):
            raise InvalidNameError(f"a key's hash must be 64 hex digits, but is not in {self.name!r}.")


def make_key(home: Home, tenant: str, name: str, scopes: Sequence[str] = SCOPES) -> str:
    """Make a key for `tenant`, good for `scopes`, and return it: the only time it is to be seen.

    Raises InvalidNameError, and KeyFileError when the file of keys cannot be trusted.
    """
    key, kept = _made(tenant, name, scopes)
    with _changing(home) as path:
        _write(path, [*_read(path), kept])
    return key


def renew_key(home: Home, prefix: str, overlap_s: float, tenant: str | None = None) -> str:
    """Make a successor of the one key that begins with `prefix`, good for the same; the old one ends `overlap_s` later.

    tenant: looks among the keys of this one alone.   Raises KeyFileError when none does, or several do.
    """
    with _changing(home) as path:
        keys = _read(path)
        old = _one(keys, prefix, tenant)
        key, kept = _made(old.tenant, old.name, old.scopes)
        ends = min(kept.created + overlap_s, math.inf if old.expires is None else old.expires)
        _write(path, [replace(one, expires=ends) if one == old else one for one in keys] + [kept])
    return key


def list_keys(home: Home) -> list[ApiKey]:
    """What is kept of every key, oldest first. Raises KeyFileError."""
    return _read(_path(home))


def revoke_key(home: Home, prefix: str, tenant: str | None = None) -> ApiKey:
    """Forget the one key that begins with `prefix`. Raises as renew_key does."""
    with _changing(home) as path:
        keys = _read(path)
        found = _one(keys, prefix, tenant)
        _write(path, [key for key in keys if key != found])
    return found


def note(home: Home, tenant: str, who: str, why: str, evidence: Mapping[str, Any]) -> None:
    """Seal in the audit chain what was done to a key. Raises AuditError."""
    with Audit(home.audit_url) as chain:
        chain.append("key", tenant=tenant, who=who, why=why, evidence=evidence, time=time.time())


class KeyRing:
    """The keys as a service sees them: read again when the file changes. Safe under threads."""

    def __init__(self, home: Home, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = _path(home), clock
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._keys: list[tuple[bytes, ApiKey]] = []

    def find(self, key: bytes) -> ApiKey | None:
        """What is kept of this key, None if it is nobody's or has ended. Raises KeyFileError.

        Takes the same time for any key: every hash is compared, each in constant time.
        """
        digest, found = _digest(key).encode(), None
        for known, kept in self.current():
            if hmac.compare_digest(digest, known):
                found = kept
        ended = found is not None and found.expires is not None and found.expires <= self._clock()
        return None if ended else found

    def current(self) -> Sequence[tuple[bytes, ApiKey]]:
        """(hash, what is kept) of every key there is now. Raises KeyFileError: then nobody is let in."""
        with self._lock:
            seen = _version(self._path)
            if seen != self._seen:
                self._keys = [(key.hash.encode(), key) for key in _read(self._path)]
                self._seen = seen
            return self._keys


def redact(text: str) -> str:
    """`text` with whatever looks like a key cut to its beginning."""
    return _KEY.sub(f"{_BEGIN}…", text)


def _path(home: Home) -> Path:
    return home.root / "keys" / "api-keys.json"


def _made(tenant: str, name: str, scopes: Sequence[str]) -> tuple[str, ApiKey]:
    key = _BEGIN + secrets.token_urlsafe(32)
    return key, ApiKey(key[:_PREFIX], _digest(key.encode()), tenant, name, time.time(), tuple(scopes))


def _one(keys: Sequence[ApiKey], prefix: str, tenant: str | None) -> ApiKey:
    mine = [key for key in keys if tenant in (None, key.tenant)]
    found = [key for key in mine if prefix and key.prefix.startswith(prefix)]
    if len(found) != 1:
        known = ", ".join(key.prefix for key in mine) or "there is none"
        raise KeyFileError(f"a prefix must be that of one key, but {prefix!r} is of {len(found)}; known: {known}.")
    return found[0]


def _digest(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


def _version(path: Path) -> tuple[int, ...]:
    """Differs after each change: every write makes a new file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise _unreadable(path, error) from error
    return (status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode)


@contextmanager
def _changing(home: Home) -> Iterator[Path]:
    """Keep every other process that would change the keys waiting."""
    path = _path(home)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path
    finally:
        os.close(lock)


def _read(path: Path) -> list[ApiKey]:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            raw = file.read()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(path, error) from error
    if mode & 0o077:
        raise KeyFileError(
            f"nobody but its owner may read {path}, but its mode is {mode:04o}; run: chmod {mode & ~0o077:04o} {path}"
        )
    try:
        return [ApiKey(**entry) for entry in json.loads(raw)]
    except (ValueError, TypeError) as error:
        raise KeyFileError(
            f"{path} must be a JSON list of keys, but: {error} Restore it from a backup, or move it away and make new "
            "keys with `pilotage key`."
        ) from None


def _write(path: Path, keys: Sequence[ApiKey]) -> None:
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        write_new(temporary, json.dumps([asdict(key) for key in keys], indent=1).encode() + b"\n", mode=0o600)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _unreadable(path: Path, error: OSError) -> KeyFileError:
    return KeyFileError(f"{path} must be there for this user to read and write, but: {error.strerror}.")
