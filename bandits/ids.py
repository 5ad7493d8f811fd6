"""Decision ids that cannot be forged: what a caller is given proves that this tenant and this user were answered.

    token = id ‖ MAC        64 hexadecimal digits
    id    = new_id()        32: 48 bits of UTC milliseconds, 80 random bits; this alone stands in the record
    MAC   = BLAKE2b(key; id, tenant, user), 128 bits

Nothing in the record depends on a key: a token can be made for any decision, at any time, under any key, and its first
half is the id. So keys change without touching what is stored. Inside a process nobody needs a token (Router.report
trusts the ids that it gave); at every edge where a stranger may name a decision, `check` stands in front.

A user is never stored, only a pseudonym: BLAKE2b(key of the tenant; user). Who has the record but not that key cannot
tell who it was, not even by trying all there are, and the same person has different pseudonyms with two tenants.
"""

from __future__ import annotations

import hmac
import re
import threading
from collections.abc import Iterable
from pathlib import Path

from bandits.errors import ForgedIdError
from bandits.snapshots.keys import SecretKey, id_keys, id_keys_version, pseudonym_key
from bandits.types import Decision, Scope, new_id

_ID, _MAC = 32, 32  # hexadecimal digits
_RAW = re.compile(f"[0-9a-f]{{{_ID}}}")
_TOKEN = re.compile(f"[0-9a-f]{{{_ID + _MAC}}}")


def mint(key: SecretKey, tenant: str, user: str, time: float, noise: bytes | None = None) -> str:
    """The token of a new decision id, made at `time` (UTC, seconds since the epoch).

    user: the pseudonym of whoever asks, "" for nobody in particular.   noise: 80 random bits; fresh where left out.
    """
    return sign(key, tenant, user, new_id(time, noise))


def sign(key: SecretKey, tenant: str, user: str, decision_id: str) -> str:
    """The token of a decision id; the same one each time. Raises ValueError unless it is one of `new_id`."""
    if not _RAW.fullmatch(decision_id):
        raise ValueError(f"a decision id to be signed must be one of new_id(), but got {decision_id!r}.")
    return decision_id + _mac(key, tenant, user, decision_id)


def check(token: str, keys: Iterable[SecretKey], tenant: str, user: str) -> str:
    """The decision id in a token that one of `keys` made for exactly this tenant and user.

    Raises ForgedIdError otherwise, in words that do not tell what was wrong with it.
    """
    if _TOKEN.fullmatch(token):
        decision_id, given = token[:_ID], token[_ID:]
        for key in keys:
            if hmac.compare_digest(_mac(key, tenant, user, decision_id), given):
                return decision_id
    raise ForgedIdError(
        "a decision id must be one that this tenant and user were answered with, but this one is not; "
        "send it as it was given, with the user that asked."
    )


def bare(token: str) -> str:
    """The decision id of a token, checked or not, or of an id without a MAC: for those who may read any decision."""
    return token[:_ID] if _TOKEN.fullmatch(token) else token


def pseudonym(key: SecretKey, tenant: str, user: str) -> str:
    """What stands in the record for a user of `tenant`: 32 hexadecimal digits; "" for "", nobody in particular."""
    return key.mac(b"pilotage user", _framed(tenant, user), 16).hex() if user else ""


class IdRing:
    """The ids of one home: signs with the newest key, accepts every key there is. Safe under threads.

    Keys that are added or taken away, by whichever process, count from the next call on.
    """

    def __init__(self, home: Path) -> None:
        self._home, self._lock = home, threading.Lock()
        self._seen: int | None = None
        self._keys: tuple[SecretKey, ...] = ()
        self._users: dict[str, SecretKey] = {}

    def token(self, decision: Decision) -> str:
        """What to answer a decision with. Raises KeyFileError."""
        return sign(self._current()[0], decision.scope.tenant, decision.user, decision.id)

    def check(self, token: str, tenant: str, user: str) -> str:
        """The decision id in a token of this tenant and user (as the app names them). Raises ForgedIdError."""
        return check(token, self._current(), tenant, self.pseudonym(tenant, user))

    def pseudonym(self, tenant: str, user: str) -> str:
        """What to record for a user of a configured tenant (as the app names them). Raises KeyFileError."""
        if not user:
            return ""
        return pseudonym(self._of_tenant(tenant), tenant, user)

    def conversation(self, scope: Scope, name: str) -> str:
        """What to record for a conversation of a configured scope, likewise; "" for "". Raises KeyFileError."""
        if not name:
            return ""
        message = _framed(scope.tenant, scope.workspace, scope.domain, name)
        return self._of_tenant(scope.tenant).mac(b"pilotage talk", message, 16).hex()

    def _of_tenant(self, tenant: str) -> SecretKey:
        with self._lock:
            if tenant not in self._users:
                self._users[tenant] = pseudonym_key(self._home, tenant)
            return self._users[tenant]

    def _current(self) -> tuple[SecretKey, ...]:
        with self._lock:
            now = id_keys_version(self._home)
            if now is None or now != self._seen:
                self._keys = id_keys(self._home)
                self._seen = id_keys_version(self._home)
            return self._keys


def _mac(key: SecretKey, tenant: str, user: str, decision_id: str) -> str:
    return key.mac(b"pilotage id", _framed(decision_id, tenant, user), _MAC // 2).hex()


def _framed(*fields: str) -> bytes:
    """The fields with their lengths, so that no two lists of fields give the same bytes."""
    encoded = [field.encode("utf-8", "surrogatepass") for field in fields]
    return b"".join(len(field).to_bytes(8, "big") + field for field in encoded)
