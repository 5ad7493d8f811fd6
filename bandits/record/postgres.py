"""The record on a PostgreSQL server: how a connection is made, what is asked of it, what a failure means.

A sequence gives numbers in the order of asking, not of committing, and whoever reads up to the highest would pass by
what commits late. So the position is read from `head` FOR UPDATE, first of all (record_commit.place): the row's lock
is held until the commit, writers queue for it, and positions become visible in their own order, without a gap.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bandits.errors import RecordError

STALLED_S = 10.0  # a writer that was stopped in mid-commit, or cut off, must not stop the others for ever

_OPENING = 0x70696C6F74  # of the advisory lock under which tables are made and brought up; any number of our own
_ADVICE = (  # the first whose words stand in what the server or its driver said
    ("password", "Correct user and password in the URL ([record] in pilotage.toml, or $PILOTAGE_RECORD)."),
    ("permission denied", "Grant the user of the URL the right to create and write tables in its schema."),
    ('database "', "Make the database with `createdb`, or correct its name in the URL."),
    ("lock timeout", "Another process holds a transaction open; look for it in pg_stat_activity, and try again."),
    ("read-only", "Name the primary server in the URL: a standby cannot be written."),
    ("No space", "Make room on the server's disk."),
)
_GONE = (
    "Check host and port in the URL and that the server runs. If it went away in the middle of an append, append the "
    "same again: DuplicateDecisionError or DuplicateOutcomeError then says that it had been written."
)


class Postgres:
    """One database of a server, or one schema of it (?options=-csearch_path%3Dname), that belongs to the record."""

    def __init__(self, url: sa.URL, busy_s: float) -> None:
        """url: "postgresql+psycopg://user:password@host/database"; the password is never shown.

        busy_s: seconds to wait for a connection, and for another process's commit.
        Raises RecordError: no driver, or another than psycopg.
        """
        self.shown = url.render_as_string(hide_password=True)
        try:
            import psycopg  # noqa: PLC0415 - an extra: who keeps the record in a file needs none of it
        except ImportError:
            raise RecordError(
                f"a record on PostgreSQL must have its driver, but psycopg cannot be imported for {self.shown}; "
                "run: pip install 'pilotage[postgresql]'"
            ) from None
        self.failures: tuple[type[Exception], ...] = (psycopg.Error,)  # those of COPY come bare
        if url.drivername not in ("postgresql", "postgresql+psycopg"):
            raise RecordError(
                f"the URL of a record on PostgreSQL must begin with postgresql+psycopg://, but got {self.shown}."
            )
        made = sa.create_engine(
            url.set(drivername="postgresql+psycopg").difference_update_query(["options"]),
            connect_args=_asked(url, max(1, round(busy_s * 1000))),
            pool_pre_ping=True,  # a server that was restarted is found again before anybody fails
            pool_timeout=busy_s,
            hide_parameters=True,
        )
        self.writing: sa.Engine = made
        self.reading: sa.Engine = made.execution_options(postgresql_readonly=True)

    def before_opening(self, connection: Connection) -> None:
        """Keep others who open the record waiting until this transaction ends. Raises RecordError: not in UTF-8."""
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_OPENING,))
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
        if encoding != "UTF8":
            raise RecordError(
                f"the database of a record must be in UTF-8, but {self.shown} is in {encoding}; "
                "make one with: createdb -E UTF8 -T template0 NAME"
            )

    def scrub(self) -> None:
        """Write the tables anew. What the server archives of its log is the server's to delete."""
        with self.writing.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for table in ("decisions", "outcomes"):
                connection.exec_driver_sql(f"VACUUM (FULL, ANALYZE) {table}")

    def fault(self, error: Exception) -> str:
        """What failed, and what to do."""
        said = " ".join(str(error).split()).rstrip(".?")
        advice = next((advice for words, advice in _ADVICE if words in said), _GONE)
        return (
            "the record must be a PostgreSQL database that can be reached and written, but "
            f"{self.shown} says: {said}. {advice}"
        )


def _asked(url: sa.URL, busy_ms: int) -> dict[str, str | int]:
    """What each connection asks for: a flush before every acknowledgement, and an end to every wait."""
    settings = {
        "synchronous_commit": "on",
        "lock_timeout": busy_ms,
        "idle_in_transaction_session_timeout": round(STALLED_S * 1000),  # then the server takes its lock away
    }
    given = url.query.get("options", "")
    options = [given if isinstance(given, str) else " ".join(given), *(f"-c {k}={v}" for k, v in settings.items())]
    seconds = max(2, round(busy_ms / 1000))
    return {
        "options": " ".join(options).strip(),
        "connect_timeout": seconds,
        "tcp_user_timeout": round(STALLED_S * 1000),  # a network that swallows packets is a failure too
        "client_encoding": "utf8",
    }
