"""What a group commit says to its database, and says to the driver itself: building expressions costs more than a disk.

Before all else a writer reads the position of the last row (`place`); nobody else writes until it is done.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bandits.record.tables import DECISIONS, OUTCOMES, scope_named
from bandits.types import Scope


class _Words(NamedTuple):
    """How a database says what the others say otherwise."""

    begin: str | None  # None: its driver begins by itself
    place: str
    among: str  # takes one parameter, see Commit._among
    moved: str


_WORDS = {
    "sqlite": _Words(
        "BEGIN IMMEDIATE",
        "SELECT position FROM head",
        "IN (SELECT value FROM json_each(?))",
        "UPDATE head SET position = ?",
    ),
    "postgresql": _Words(
        None, "SELECT position FROM head FOR UPDATE", "= ANY(%s::text[])", "UPDATE head SET position = %s"
    ),
}


def place(connection: Connection) -> int:
    """Position of the last row, for a writer that says the rest in expressions."""
    return int(connection.exec_driver_sql(_WORDS[connection.dialect.name].place).scalar_one())


@contextmanager
def committing(engine: sa.Engine) -> Iterator[Commit]:
    """One transaction, committed when its body ends and rolled back when it raises. Raises what the driver raises."""
    connection = engine.raw_connection()
    try:
        commit = Commit(connection.cursor(), engine.dialect)
        yield commit
        connection.commit()
    finally:
        connection.close()  # back to the pool, which rolls back what was not committed


class Commit:
    """The statements of one transaction of a writer."""

    def __init__(self, cursor: Any, dialect: sa.Dialect) -> None:  # noqa: ANN401 - drivers share no type
        self._cursor, self._dialect, self._words = cursor, dialect, _WORDS[dialect.name]
        if self._words.begin:
            cursor.execute(self._words.begin)

    def place(self) -> int:
        """Position of the last row."""
        self._cursor.execute(self._words.place)
        return int(self._cursor.fetchone()[0])

    def epoch(self) -> int:
        """Number of the epoch that lasts."""
        self._cursor.execute("SELECT COALESCE(MAX(epoch), 1) FROM epochs")
        return int(self._cursor.fetchone()[0])

    def known_scopes(self, ids: Iterable[str]) -> dict[str, Scope]:
        """Scopes of those decisions among `ids` that the record holds."""
        found = self._among("SELECT id, tenant, workspace, domain FROM decisions WHERE id", ids)
        return {row[0]: scope_named(row[1], row[2], row[3]) for row in found}

    def known_keys(self, ids: Iterable[str]) -> set[tuple[str, str]]:
        """(decision id, key) of the outcomes of `ids` that have a key."""
        found = self._among("SELECT decision_id, key FROM outcomes WHERE key <> '' AND decision_id", ids)
        return {(row[0], row[1]) for row in found}

    def insert(self, decisions: Sequence[tuple[Any, ...]], outcomes: Sequence[tuple[Any, ...]], last: int) -> None:
        """Insert rows, each (position, *columns) in the order of its table, and let the head say `last`."""
        for table, placed in ((DECISIONS, decisions), (OUTCOMES, outcomes)):
            if placed and self._dialect.name == "postgresql":
                _copy(self._cursor, table, placed)
            elif placed:
                self._cursor.executemany(_insert(table, self._dialect), placed)
        self._cursor.execute(self._words.moved, (last,))

    def _among(self, query: str, ids: Iterable[str]) -> Sequence[tuple[Any, ...]]:
        listed = list(ids)
        parameter = json.dumps(listed) if self._dialect.name == "sqlite" else listed
        self._cursor.execute(f"{query} {self._words.among}", (parameter,))
        found: Sequence[tuple[Any, ...]] = self._cursor.fetchall()
        return found


def _copy(cursor: Any, table: sa.Table, placed: Sequence[tuple[Any, ...]]) -> None:  # noqa: ANN401
    """COPY, in binary: of 64 rows four times faster than INSERT, of one as fast."""
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    with cursor.copy(f"COPY {table.name} ({columns}) FROM STDIN (FORMAT BINARY)") as rows:
        rows.set_types([_POSTGRES[type(column.type)] for column in table.columns])
        for row in placed:
            rows.write_row(row)


_POSTGRES = {
    sa.BigInteger: "int8",
    sa.Integer: "int4",
    sa.Double: "float8",
    sa.Text: "text",
    sa.Boolean: "bool",
    sa.LargeBinary: "bytea",
}


@functools.lru_cache(maxsize=16)
def _insert(table: sa.Table, dialect: sa.Dialect) -> str:
    return str(sa.insert(table).compile(dialect=dialect))
