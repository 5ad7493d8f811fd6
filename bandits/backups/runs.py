"""The runs of the content pilot in a backup: one SQLite file, wherever they lie.

Only the names of their tables are known here, and the column that says whose a run is; graphs/runs.py knows the rest.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from bandits.backups.contents import copy_database
from bandits.backups.rows import see_one_state, streamed
from bandits.home import Home
from bandits.record.database import open_database
from bandits.record.sql import BUSY_S

FILE = "pilot.db"
TABLES = ("pilot_runs", "pilot_events", "pilot_updates", "pilot_seen")
NOBODY = "///"  # an owner that is no process of any host


def copy_runs(home: Home, target: Path) -> None:
    """Write one state of a home's runs to `target` (0600); nothing where there are none. Raises as the stores do."""
    if home.record_file is not None:
        if (home.root / FILE).exists():
            copy_database(home.root / FILE, target)
        return
    with home.open_record() as record, record.reading() as source:
        see_one_state(source)
        found = sa.MetaData()
        found.reflect(source, only=[name for name in TABLES if sa.inspect(source).has_table(name)])
        if not found.tables:
            return
        for column in (column for table in found.tables.values() for column in table.columns):
            column.type = column.type.as_generic()
        target.touch(0o600)
        database = open_database(f"sqlite:///{target}", BUSY_S)
        try:
            with database.writing.begin() as connection:
                found.create_all(connection)
                for table in found.sorted_tables:
                    for some in streamed(source, sa.select(table)):
                        connection.execute(sa.insert(table), [dict(row._mapping) for row in some])
        finally:
            database.writing.dispose()  # folds its log into the file


def disown(home: Home) -> None:
    """Take restored runs from the processes that ran them in the home that was backed up: nobody runs them here.

    Raises sqlite3.Error.
    """
    if (home.root / FILE).exists():
        with closing(sqlite3.connect(home.root / FILE)) as connection, connection:
            connection.execute("UPDATE pilot_runs SET owner = ? WHERE phase <> 'ended' AND owner <> ''", (NOBODY,))
