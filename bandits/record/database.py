"""A database by its URL: SQLite in a file, or PostgreSQL on a server. Record, audit and ledger of money lie in one."""

from __future__ import annotations

import re

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from bandits.errors import RecordError
from bandits.record.postgres import Postgres
from bandits.record.sqlite import Sqlite
from bandits.record.tables import Database


def open_database(url: str, busy_s: float) -> Database:
    """The engines to write and to read `url` with; connects to nothing yet.

    busy_s: seconds to wait for another process's commit. Raises RecordError: no such kind of database, no driver.
    """
    try:
        parsed = sa.make_url(url)
    except SQLAlchemyError:
        parsed = None
    backend = None if parsed is None else parsed.get_backend_name()
    if parsed is not None and backend == "sqlite":
        return Sqlite(parsed, busy_s)
    if parsed is not None and backend == "postgresql":
        return Postgres(parsed, busy_s)
    raise RecordError(
        "the URL of a record must be sqlite:///path/to/file or postgresql+psycopg://user:password@host/database, but "
        f"got {re.sub('://.*@', '://…@', str(url))!r}."
    )
