"""How the warehouse lies in one DuckDB file: its tables, their versions, and opening it while others want it too.

A DuckDB writer excludes every other process, so nobody keeps the file open: each use opens it, works, closes it. Who
wants to write first takes the turn (a lock on a file beside it), and new readers wait behind the turn: however many of
them there are, a writer gets in as soon as those that read now are done.
"""

from __future__ import annotations

import fcntl
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import duckdb

from bandits.errors import WarehouseError
from bandits.types import FAILED, JUDGE, SIGNALS

VERSION = 3  # of the tables below; an older file is made anew by who writes next, a newer one is refused
PATIENCE_S = 5.0  # how long to wait while another process has the file
_PAUSE_S = 0.02  # between two tries

_TABLES = """
CREATE TABLE meta (version INTEGER NOT NULL, position BIGINT NOT NULL);
CREATE TABLE series (
    tenant VARCHAR, workspace VARCHAR, domain VARCHAR, "schema" VARCHAR, width INTEGER,
    PRIMARY KEY (tenant, workspace, domain, "schema", width));
CREATE TABLE outcomes (
    position BIGINT NOT NULL, decision_id VARCHAR NOT NULL, time DOUBLE NOT NULL,
    tenant VARCHAR NOT NULL, workspace VARCHAR NOT NULL, domain VARCHAR NOT NULL,
    quality DOUBLE, cost_usd DOUBLE, latency_s DOUBLE, vote TINYINT, source VARCHAR NOT NULL, "key" VARCHAR NOT NULL,
    arm VARCHAR NOT NULL, result VARCHAR NOT NULL, input_tokens BIGINT, output_tokens BIGINT, first_token_s DOUBLE,
    decision BIGINT);
CREATE TABLE quarantine (position BIGINT NOT NULL, reason VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    id VARCHAR PRIMARY KEY, tenant VARCHAR NOT NULL, workspace VARCHAR NOT NULL, domain VARCHAR NOT NULL,
    time DOUBLE NOT NULL, verdict VARCHAR NOT NULL, report VARCHAR NOT NULL);
"""
# One table for each width d of contexts, so that a column of them is one block of n * d floats. `arms` and `excluded`
# are the record's own JSON: a handful of texts, each stored once.
_DECISIONS = """
CREATE TABLE decisions_{d} (
    position BIGINT NOT NULL, id VARCHAR NOT NULL, time DOUBLE NOT NULL,
    tenant VARCHAR NOT NULL, workspace VARCHAR NOT NULL, domain VARCHAR NOT NULL,
    "schema" VARCHAR NOT NULL, context {floats} NOT NULL, arms VARCHAR NOT NULL, excluded VARCHAR NOT NULL,
    probabilities DOUBLE[] NOT NULL, action INTEGER NOT NULL, arm VARCHAR NOT NULL, propensity DOUBLE NOT NULL,
    policy VARCHAR NOT NULL, slot VARCHAR NOT NULL, price DOUBLE NOT NULL, pressure DOUBLE NOT NULL,
    forced BOOLEAN NOT NULL, "user" VARCHAR NOT NULL, seen BIGINT NOT NULL,
    conversation VARCHAR NOT NULL)
"""
_VIEW = """
SELECT * REPLACE (CAST(context AS FLOAT[]) AS context, CAST(CAST(arms AS JSON) AS VARCHAR[]) AS arms,
    CAST(CAST(excluded AS JSON) AS MAP(VARCHAR, VARCHAR)) AS excluded) FROM decisions_{d}
"""
_writing = threading.Lock()  # DuckDB would let two threads of one process write at once, and fail one of them


# A row for each outcome that tells of the arm drawn (see rewards.telling), and its columns as joining.Came has them.
_SIGNALS = " ".join(f"WHEN '{source}' THEN {code}" for code, source in enumerate(SIGNALS, start=2))
_VOTE = f"CAST(CASE source {_SIGNALS} ELSE coalesce(vote, 0) END AS TINYINT)"
TELLING = {
    "failed": f"(SELECT decision, tenant, workspace, domain, position, time, quality, {_VOTE} AS vote, "  # noqa: S608
    "cost_usd, latency_s FROM outcomes WHERE arm = '')",
    "as_served": "(SELECT decision, tenant, workspace, domain, position, time, "  # noqa: S608
    f"CASE WHEN starts_with(result, '{FAILED}') THEN NULL ELSE quality END AS quality, "
    f"CASE WHEN starts_with(result, '{FAILED}') THEN 0 ELSE {_VOTE} END AS vote, cost_usd, latency_s "
    f"FROM outcomes WHERE arm <> '{JUDGE}')",
}


@contextmanager
def opened(path: Path, *, patience_s: float = PATIENCE_S) -> Iterator[duckdb.DuckDBPyConnection]:
    """The warehouse, read-only, for the length of a query: hold it no longer, since it keeps the loader out.

    `decisions` is a view over all widths of context, for whoever asks in SQL.
    Raises WarehouseError: missing, locked for longer than patience_s, corrupt, of another version.
    """
    if not path.exists():
        raise WarehouseError(f"the warehouse must exist, but there is no {path}; run `pilotage load`.")
    deadline = time.monotonic() + patience_s
    with _explained(path):
        with _turn(path, fcntl.LOCK_SH, deadline, patience_s):
            pass  # nobody waits to write
        with closing(_connect(path, True, deadline, patience_s)) as connection:
            _check_version(_version(connection), path)
            yield connection


@contextmanager
def writable(path: Path, *, patience_s: float = PATIENCE_S) -> Iterator[duckdb.DuckDBPyConnection]:
    """The warehouse, to be written by nobody else meanwhile; made if need be, and made anew if of an older version.

    Only its nightly runs outlive a change of version: all else comes out of the record at the next load.
    Raises WarehouseError as `opened` does.
    """
    deadline = time.monotonic() + patience_s
    with _writing, _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _turn(path, fcntl.LOCK_EX, deadline, patience_s):
            connection = _connect(path, False, deadline, patience_s)
        with closing(connection):
            _prepare(connection, path)
            yield connection


def position(connection: duckdb.DuckDBPyConnection) -> int:
    """Position of the record up to which the warehouse reaches."""
    (reached,) = connection.execute("SELECT position FROM meta").fetchall()[0]
    return int(reached)


def widths(connection: duckdb.DuckDBPyConnection) -> list[int]:
    """Lengths of context that have a table."""
    return sorted(int(name[10:]) for name in _tables(connection) if re.fullmatch(r"decisions_\d+", name))


def add_width(connection: duckdb.DuckDBPyConnection, width: int) -> None:
    """Make the table of decisions whose contexts have `width` numbers, and put it under the view."""
    floats = f"FLOAT[{width}]" if width else "FLOAT[]"  # DuckDB knows no array of length 0
    connection.execute(_DECISIONS.format(d=width, floats=floats))
    parts = " UNION ALL ".join(_VIEW.format(d=known) for known in widths(connection))
    connection.execute(f"CREATE OR REPLACE VIEW decisions AS {parts}")


def _prepare(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    found, tables = _version(connection), _tables(connection)
    if found == VERSION:
        return
    older = found is not None and 1 <= found < VERSION
    if not older and tables:
        _check_version(found, path)
    connection.begin()
    if found == 2:  # in version 1 it was a table
        connection.execute("DROP VIEW decisions")
    for name in sorted(tables - {"runs"}) if older else ():
        connection.execute(f'DROP TABLE IF EXISTS "{name}"')
    connection.execute(_TABLES)
    connection.execute("INSERT INTO meta VALUES (?, 0)", [VERSION])
    add_width(connection, 0)
    connection.commit()


def _tables(connection: duckdb.DuckDBPyConnection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}


def _version(connection: duckdb.DuckDBPyConnection) -> int | None:
    if "meta" not in _tables(connection):
        return None
    found = connection.execute("SELECT version FROM meta").fetchall()
    return int(found[0][0]) if len(found) == 1 else None


def _check_version(found: int | None, path: Path) -> None:
    if found == VERSION:
        return
    if found is not None and 1 <= found < VERSION:
        raise WarehouseError(
            f"the warehouse must have version {VERSION}, but {path} has version {found}, of an older Pilotage; "
            "run `pilotage load`, which makes it anew from the record and keeps its runs."
        )
    raise WarehouseError(
        f"the warehouse must have version {VERSION}, but {path} has "
        f"{'no version' if found is None else f'version {found}'}; "
        "if it is a warehouse of Pilotage, delete it and run `pilotage load`; otherwise name another file."
    )


@contextmanager
def _turn(path: Path, kind: int, deadline: float, patience_s: float) -> Iterator[None]:
    """Hold the turn: alone to write (LOCK_EX), or with others (LOCK_SH). The system lets go of it for who dies."""
    beside = path.with_name(path.name + ".turn")
    try:
        file = beside.open("ab" if kind == fcntl.LOCK_EX else "rb")
    except OSError:
        if kind == fcntl.LOCK_EX:
            raise
        yield  # nobody has written here yet, or the reader may not look: DuckDB's own lock stands
        return
    with file:
        while True:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise WarehouseError(
                        f"the warehouse must be free for a moment, but others waited for {path} longer than "
                        f"{patience_s:g} s, or hold {beside.name}; wait until they are done, then retry."
                    ) from error
            time.sleep(_PAUSE_S)
        yield


def _connect(path: Path, read_only: bool, deadline: float, patience_s: float) -> duckdb.DuckDBPyConnection:
    while True:
        try:
            return duckdb.connect(str(path), read_only=read_only, config={"enable_external_access": "false"})
        except (duckdb.IOException, duckdb.ConnectionException) as error:
            other_process = "Conflicting lock" in str(error)
            this_process = isinstance(error, duckdb.ConnectionException)  # another thread opened it the other way
            if not (other_process or this_process):
                raise
            if time.monotonic() >= deadline:
                found = re.search(r"PID (\d+)", str(error))
                who = f"process {found.group(1)}" if found else "a process that does not say who it is"
                raise WarehouseError(
                    f"the warehouse must be free for a moment, but {path} was held for {patience_s:g} s by "
                    f"{'another thread of this process' if this_process else who}; wait until it is done, then retry."
                ) from error
        time.sleep(_PAUSE_S)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say of any fault of DuckDB what it means for the warehouse."""
    try:
        yield
    except duckdb.ProgrammingError:  # a fault of the query, not of the file
        raise
    except (duckdb.Error, OSError) as error:
        raise WarehouseError(
            f"the warehouse must be a DuckDB file that can be read and written, but {path} says: {error} "
            f"Where disk space and permissions are right, it is corrupt: delete it, run "
            "`pilotage load`, and it is rebuilt from the record."
        ) from error
