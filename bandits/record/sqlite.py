"""The record in a SQLite file: how a connection is made, how a transaction begins, what a failure means."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection

from bandits.errors import RecordError
from bandits.record.checkpoint import LONGEST


class Sqlite:
    """WAL and synchronous=FULL; a writer says at once that it will write, so that processes queue and never collide."""

    def __init__(self, url: sa.URL, busy_s: float) -> None:
        """url: "sqlite:///path", whose folder is made if it is not there.

        busy_s: seconds that a connection waits for another process's commit. Raises RecordError: no such folder.
        """
        self.shown = str(url)
        self.failures: tuple[type[Exception], ...] = (sqlite3.Error,)  # those of a group commit come bare
        if url.database in (None, "", ":memory:"):
            raise RecordError(f"the URL of a record must be sqlite:///path/to/file, but got {self.shown!r}.")
        try:
            Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordError(f"the folder of the record must exist or be made, but: {error}. Name another.") from None
        made = sa.create_engine(url, connect_args={"timeout": busy_s}, hide_parameters=True)
        sa.event.listen(made, "connect", _prepare)
        sa.event.listen(made, "begin", _begin)
        self.writing: sa.Engine = made.execution_options(begin="IMMEDIATE")
        self.reading: sa.Engine = made.execution_options(begin="DEFERRED")

    def before_opening(self, connection: Connection) -> None:
        """Nothing: who writes has the file to itself."""

    def scrub(self) -> None:
        """Write the file anew without its free pages, and empty the log; waits for readers of the old pages."""
        with self.writing.connect() as connection:
            raw = connection.connection.driver_connection
            if raw is None:
                return
            raw.execute("VACUUM")
            busy = 1
            while busy:  # each try waits for busy_s, then raises or says that somebody still reads
                (busy, _, _) = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def fault(self, error: Exception) -> str:
        """What failed, and what to do."""
        return (
            f"the record must be a SQLite file that can be read and written, but {self.shown} says: {error}. "
            "Check the path, its permissions and free space, that it is a record of Pilotage, and that no other "
            "process holds a transaction open."
        )


def _prepare(connection: DBAPIConnection, _: object) -> None:
    connection.isolation_level = None  # or the driver would begin, deferred, behind our back
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute(f"PRAGMA wal_autocheckpoint={LONGEST}")
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options()['begin']}")
