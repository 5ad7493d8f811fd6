"""Keys: one Ed25519 pair per home signs its snapshots; a reader trusts the public keys that stand in its own home.

    home/keys/          0700
        signing.key     0600, the 32 bytes of the seed; made at first use, never shown
        signing.pub     its public key as 64 hex digits; copied as <name>.pub into keys/ of each home that trusts it

To retire a key: move signing.key away and rename signing.pub to, say, retired.pub; what it signed stays trusted.

Two kinds of secret serve ids.py; hosts that share a record share these files too:

    home/keys/ids/              0700
        000001.key …            0600, 32 bytes; the highest number signs decision ids, each is accepted
    home/keys/pseudonyms/       0700
        <tenant>.key            0600, 32 bytes; never rotated: without it nobody in the record is found again

To retire an id key: `rotate_id_key`, then delete the old file when feedback on what it signed is no longer wanted.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import nacl.signing
import nacl.utils
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from bandits.durable import create_once
from bandits.errors import KeyFileError
from bandits.types import valid_name

_SEED_BYTES = 32
_TICK_NS = 100_000_000  # coarser than the clock of any file system here
_NUMBER = re.compile(r"[0-9]{6}\.key")
_PUBLIC_BYTES = 65  # 64 hex digits and a newline


def key_id(public: bytes) -> str:
    """Short name of a public key (32 bytes): the first 16 hex digits of its sha256."""
    return hashlib.sha256(public).hexdigest()[:16]


class SecretKey:
    """Authenticates messages. It shows only its id, and refuses to be copied or pickled, as SigningKey does."""

    __slots__ = ("_secret", "id")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != _SEED_BYTES:
            raise KeyFileError(f"a secret key must have {_SEED_BYTES} bytes, but has {len(secret)}; make it anew.")
        self._secret = secret
        self.id = key_id(self.mac(b"pilotage key id", b"", 32))

    def mac(self, purpose: bytes, message: bytes, size: int) -> bytes:
        """`size` bytes (1 to 64) that only this key gives for `message`; others for each purpose (up to 16 bytes)."""
        return hashlib.blake2b(message, key=self._secret, person=purpose, digest_size=size).digest()

    def __repr__(self) -> str:
        return f"SecretKey(id={self.id!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret key must stay in its process; pass the home folder and read the key there.")


def id_key_names(home: Path) -> tuple[str, ...]:
    """Names of the keys of decision ids, newest first; changes whenever the keys do."""
    with suppress(FileNotFoundError):
        return tuple(sorted(name for name in os.listdir(home / "keys" / "ids") if _NUMBER.fullmatch(name))[::-1])
    return ()


def id_keys_version(home: Path) -> int | None:
    """Changes whenever a key of decision ids comes or goes; None where that cannot be told yet, so soon after a change.

    Far cheaper than their names: each decision asks.
    """
    with suppress(FileNotFoundError):
        changed = os.stat(f"{home}/keys/ids").st_mtime_ns
        return changed if time.time_ns() - changed > _TICK_NS else None  # two changes within one tick look like one
    return None


def id_keys(home: Path) -> tuple[SecretKey, ...]:
    """The keys of decision ids, newest first: it signs, all are accepted. The first is made at first use.

    Raises KeyFileError when a file has the wrong size or may be read by others.
    """
    folder = _secret_folder(home, "ids")
    names = id_key_names(home) or ("000001.key",)
    return tuple(_secret(folder / name) for name in names)


def rotate_id_key(home: Path) -> SecretKey:
    """Make a newer key of decision ids, which signs from now on; what older ones signed stays good."""
    newest = max((int(name.partition(".")[0]) for name in id_key_names(home)), default=0)
    return _secret(_secret_folder(home, "ids") / f"{newest + 1:06d}.key")


def pseudonym_key(home: Path, tenant: str) -> SecretKey:
    """The key of a tenant's pseudonyms, made at first use. Raises KeyFileError, InvalidNameError."""
    return _secret(_secret_folder(home, "pseudonyms") / f"{valid_name(tenant, 'tenant')}.key")


class SigningKey:
    """Signs messages. It shows only its id, and refuses to be copied or pickled, so that the seed stays where it is."""

    __slots__ = ("_key", "id", "public")

    def __init__(self, seed: bytes) -> None:
        self._key = nacl.signing.SigningKey(seed)
        self.public = bytes(self._key.verify_key)  # 32 bytes
        self.id = key_id(self.public)

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature of `message`: 64 bytes, the same ones each time."""
        return self._key.sign(message).signature

    def __repr__(self) -> str:  # str() of a pynacl key is its seed
        return f"SigningKey(id={self.id!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a signing key must stay in its process; pass the home folder and call signing_key there.")


def signing_key(home: Path) -> SigningKey:
    """The key that signs for `home`, made at first use together with its public key; one key, however many race for it.

    Raises KeyFileError when a file has the wrong size, belongs to another pair, or may be read by others.
    """
    folder = home / "keys"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _guard(folder, folder.stat(), forbidden=0o077)
    path = folder / "signing.key"
    if not path.exists():
        create_once(path, nacl.utils.random(_SEED_BYTES), mode=0o600)
    key = SigningKey(_read(path, _SEED_BYTES, forbidden=0o077))
    _put_public_beside(folder / "signing.pub", key)
    return key


def trusted_keys(home: Path) -> dict[str, VerifyKey]:
    """Key id → public key, for every *.pub in home/keys; empty where there is none, and nothing is made.

    Raises KeyFileError when a file is not a public key, or when others may write there.
    """
    folder = home / "keys"
    if not folder.is_dir():
        return {}
    _guard(folder, folder.stat(), forbidden=0o022)
    keys = [_read_public(path) for path in sorted(folder.glob("*.pub"))]
    return {key_id(public): VerifyKey(public) for public in keys}


def signer_of(message: bytes, signature: bytes, trusted: Mapping[str, VerifyKey]) -> str | None:
    """Id of the trusted key that signed exactly these bytes; None if none did. signature: 64 bytes."""
    for verify_key in trusted.values():
        try:
            verify_key.verify(message, signature)
        except BadSignatureError:
            continue
        return key_id(bytes(verify_key))
    return None


def _secret_folder(home: Path, name: str) -> Path:
    folder = home / "keys" / name
    for one, forbidden in ((folder.parent, 0o022), (folder, 0o077)):
        one.mkdir(mode=0o700, parents=True, exist_ok=True)
        _guard(one, one.stat(), forbidden)
    return folder


def _secret(path: Path) -> SecretKey:
    """The secret in a file, made where there is none; one secret, however many race for it."""
    if not path.exists():
        create_once(path, nacl.utils.random(_SEED_BYTES), mode=0o600)
    return SecretKey(_read(path, _SEED_BYTES, forbidden=0o077))


def _put_public_beside(path: Path, key: SigningKey) -> None:
    if not path.exists():
        create_once(path, key.public.hex().encode() + b"\n", mode=0o644)
    found = key_id(_read_public(path))
    if found != key.id:
        raise KeyFileError(
            f"{path} must belong to signing.key beside it ({key.id}), but holds {found}; rename it to retired.pub to "
            "go on trusting what it signed, or delete it."
        )


def _read_public(path: Path) -> bytes:
    text = _read(path, _PUBLIC_BYTES, forbidden=0o022)
    try:
        public = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        public = b""
    if len(public) != 32:
        raise KeyFileError(f"{path} must be 64 hex digits and a newline, but is not; copy it again from its publisher.")
    return public


def _read(path: Path, size: int, forbidden: int) -> bytes:
    """The `size` bytes of a key file. Mode and size are those of the file opened, so nobody can swap it in between."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        _guard(path, status, forbidden)
        if status.st_size != size:
            raise KeyFileError(
                f"{path} must have {size} bytes, but has {status.st_size}; restore it from a backup, or move it away "
                "(a new signing.key is made at the next publish; a public key is copied again from its publisher)."
            )
        return file.read(size)


def _guard(path: Path, status: os.stat_result, forbidden: int) -> None:
    """Refuse a file or folder whose mode gives others what `forbidden` names."""
    mode = stat.S_IMODE(status.st_mode)
    if mode & forbidden:
        deed = "read or replace" if forbidden & 0o044 else "replace"
        raise KeyFileError(
            f"nobody but its owner may {deed} {path}, but its mode is {mode:04o}; "
            f"run: chmod {mode & ~forbidden:04o} {path}"
        )
