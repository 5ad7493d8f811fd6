"""Prompts, for tenants that keep them: sealed with the key of the person who asked, and gone with it.

    home/prompts.db     handle, tenant, number of the person (people.py), time, sealed text

The handle is a hash of the decision's id under the person's key. So neither the id nor the pseudonym stands in the
file: it can lie in a backup as it is, and once the key is destroyed nothing tells whose what is left was.
Of nobody in particular nothing is stored: nobody could ever ask for it to be erased.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Container, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from bandits.config import Config
from bandits.durable import make_folder
from bandits.errors import RecordError
from bandits.home import Home
from bandits.privacy.people import People, seal, unseal
from bandits.types import Decision

_BUSY_S = 30.0
_TABLE = """
CREATE TABLE IF NOT EXISTS prompts (
    handle BLOB PRIMARY KEY, tenant TEXT NOT NULL, number INTEGER NOT NULL, time REAL NOT NULL, content BLOB NOT NULL)
"""


class Prompts:
    """The prompts of a home. Each call is one durable transaction; any process may call."""

    def __init__(self, path: Path, people: People) -> None:
        """Open the file at `path`, making it (0600) if it is not there. Raises RecordError."""
        self._path, self._people = path, people
        make_folder(path.parent)
        with self._transaction() as connection:
            connection.execute(_TABLE)

    def put(self, decision: Decision, prompt: str) -> None:
        """Keep what was asked; not if nobody in particular asked. Raises RecordError, KeyFileError."""
        if not decision.user:
            return
        tenant = decision.scope.tenant
        number, key = self._people.keys((tenant, decision.user))[tenant, decision.user]
        sealed = seal(key, prompt.encode("utf-8", "surrogatepass"))
        row = (_handle(key, decision.id), tenant, number, decision.time, sealed)
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO prompts VALUES (?, ?, ?, ?, ?)", row)

    def get(self, decision: Decision) -> str | None:
        """What was asked, if it is kept. Raises RecordError, KeyFileError."""
        person = (decision.scope.tenant, decision.user)
        if self._people.number(*person) is None:
            return None
        _, key = self._people.keys(person)[person]
        query = "SELECT content FROM prompts WHERE handle = ?"
        with self._transaction() as connection:
            found = connection.execute(query, (_handle(key, decision.id),)).fetchone()
        return None if found is None else unseal(key, found[0]).decode("utf-8", "surrogatepass")

    def forget(self, tenant: str, user: str) -> None:
        """Delete what a person asked: before the key is destroyed, or its rows cannot be found."""
        number = self._people.number(tenant, user)
        if number is not None:
            self._delete("number = ?", (number,))

    def forget_before(self, tenant: str, before: float) -> None:
        """Delete what a tenant's people asked before a time (UTC, seconds since the epoch)."""
        self._delete("tenant = ? AND time < ?", (tenant, before))

    def forget_all_but(self, numbers: Container[int]) -> None:
        """Delete the prompts of all whose key is not there any more."""
        with self._transaction() as connection:
            found = [number for (number,) in connection.execute("SELECT DISTINCT number FROM prompts")]
        for number in found:
            if number not in numbers:
                self._delete("number = ?", (number,))

    def _delete(self, which: str, values: tuple[object, ...]) -> None:
        with self._transaction() as connection:
            connection.execute(f"DELETE FROM prompts WHERE {which}", values)  # noqa: S608 - two constants of this file

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            if not self._path.exists():
                os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600))
            with closing(sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)) as connection:
                for setting in ("secure_delete = ON", "journal_mode = DELETE", "synchronous = FULL"):
                    connection.execute(f"PRAGMA {setting}")
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")  # without it, closing takes all of it back
        except (sqlite3.Error, OSError) as error:
            raise RecordError(
                f"prompts must be a SQLite file that can be read and written, but {self._path} says: {error}. "
                "Check permissions and free space; or delete it, and what was asked so far is forgotten."
            ) from error


def keep(home: Home, config: Config, decision: Decision, prompt: str) -> None:
    """Keep what was asked, if the decision's tenant wants it kept (store_prompts). Raises as Prompts.put."""
    tenant = config.tenants.get(decision.scope.tenant)
    if tenant is not None and tenant.store_prompts and decision.user:
        Prompts(home.prompts, People(home.people)).put(decision, prompt)


def _handle(key: bytes, decision_id: str) -> bytes:
    return hashlib.blake2b(decision_id.encode(), key=key, person=b"pilotage prompt", digest_size=16).digest()
