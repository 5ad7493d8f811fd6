"""A key per person: what is sealed with it is gone when the key is, wherever copies of it lie.

    home/keys/people.db     0600, (tenant, user) -> number, 32 random bytes

Users appear here only by pseudonym. A backup stores what belongs to a person under the person's number, sealed; so
erasing somebody reaches every backup, also one on a shelf, by destroying one key here (and in the copy of this file
that stands beside the backups). Deleted bytes are overwritten: no log, no free page keeps them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import nacl.exceptions
import nacl.secret
import nacl.utils

from bandits.durable import make_folder
from bandits.errors import KeyFileError

_BUSY_S = 30.0
_TABLE = """
CREATE TABLE IF NOT EXISTS people (
    number INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, user TEXT NOT NULL, key BLOB NOT NULL,
    UNIQUE (tenant, user))
"""


class People:
    """The keys of a home's people. Each call is one transaction; any process may call."""

    def __init__(self, path: Path) -> None:
        """Open the file at `path`, making it (0600) if it is not there. Raises KeyFileError."""
        self.path = path
        if not path.parent.is_dir():
            make_folder(path.parent)
            path.parent.chmod(0o700)
        with self._transaction() as connection:
            connection.execute(_TABLE)

    def seal(self, tenant: str, user: str, content: bytes) -> tuple[int, bytes]:
        """The person's number, and `content` so that only the person's key opens it; the key is made at first use."""
        with self._transaction() as connection:
            number, key = self._key(connection, tenant, user)
        return number, seal(key, content)

    def keys(self, *people: tuple[str, str]) -> dict[tuple[str, str], tuple[int, bytes]]:
        """Number and key of each (tenant, user); made at first use."""
        with self._transaction() as connection:
            return {person: self._key(connection, *person) for person in people}

    def numbered(self) -> dict[int, bytes]:
        """All keys by number: what a restore opens a backup with."""
        with self._transaction() as connection:
            return dict(connection.execute("SELECT number, key FROM people").fetchall())

    def number(self, tenant: str, user: str) -> int | None:
        """The number of a person who has a key."""
        query = "SELECT number FROM people WHERE tenant = ? AND user = ?"
        with self._transaction() as connection:
            found = connection.execute(query, (tenant, user)).fetchone()
        return None if found is None else int(found[0])

    def highest(self) -> int:
        """The highest number that anybody ever had, also who is erased; 0 where nobody had one."""
        query = "SELECT seq FROM sqlite_sequence WHERE name = 'people'"
        with self._transaction() as connection:
            found = connection.execute(query).fetchone()
        return 0 if found is None else int(found[0])

    def destroy(self, tenant: str, user: str) -> bool:
        """Overwrite a person's key; whether there was one. What was sealed with it can never be opened again."""
        with self._transaction() as connection:
            gone = connection.execute("DELETE FROM people WHERE tenant = ? AND user = ?", (tenant, user)).rowcount > 0
        with closing(self._connect()) as connection:
            connection.execute("VACUUM")  # also the name, in pages that other rows have moved out of
        return gone

    def copy_to(self, path: Path) -> None:
        """Write a copy of the file, in place of an older one, whole or not at all."""
        temporary = path.with_name(f".{path.name}")
        temporary.unlink(missing_ok=True)
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with closing(self._connect()) as connection, closing(sqlite3.connect(temporary)) as copy:
            connection.backup(copy)
        os.replace(temporary, path)

    def _key(self, connection: sqlite3.Connection, tenant: str, user: str) -> tuple[int, bytes]:
        query = "SELECT number, key FROM people WHERE tenant = ? AND user = ?"
        found = connection.execute(query, (tenant, user)).fetchone()
        if found is None:
            made = nacl.utils.random(nacl.secret.SecretBox.KEY_SIZE)
            connection.execute("INSERT INTO people (tenant, user, key) VALUES (?, ?, ?)", (tenant, user, made))
            found = connection.execute(query, (tenant, user)).fetchone()
        return int(found[0]), bytes(found[1])

    def _connect(self) -> sqlite3.Connection:
        if not self.path.exists():
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600))
        connection = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None)
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(self._connect()) as connection:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise KeyFileError(
                f"the keys of people must be a SQLite file that can be read and written, but {self.path} says: "
                f"{error}. Check permissions and free space, or restore it from the copy beside the backups."
            ) from error


def seal(key: bytes, content: bytes) -> bytes:
    """`content`, encrypted and authenticated (XSalsa20-Poly1305, a random nonce in front)."""
    return bytes(nacl.secret.SecretBox(key).encrypt(content))


def unseal(key: bytes, sealed: bytes) -> bytes:
    """What `seal` sealed. Raises KeyFileError for another key or changed bytes."""
    try:
        return nacl.secret.SecretBox(key).decrypt(sealed)
    except nacl.exceptions.CryptoError as error:
        raise KeyFileError("what a person's key opens must be what it sealed, but is not: it was changed.") from error
