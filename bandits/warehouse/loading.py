"""The warehouse: the record as columns in one DuckDB file, for training, reports and pages.

It is a view: everything but `runs` (copies of nightly reports) comes out of the record, so the file can be deleted at
any time and `pilotage load` makes it again. Here it is filled; tables.py says how it lies in the file,
feedback.py reads logs out of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import duckdb
import pyarrow as pa

from bandits.errors import WarehouseError
from bandits.record.columns import Span, spans
from bandits.record.port import Record
from bandits.types import Decision, Scope
from bandits.warehouse.feedback import feedback_batches, read_feedback
from bandits.warehouse.tables import PATIENCE_S, VERSION, add_width, opened, position, widths, writable

__all__ = [
    "PATIENCE_S",
    "VERSION",
    "Loaded",
    "Run",
    "feedback_batches",
    "load",
    "opened",
    "read_feedback",
    "read_runs",
    "write_run",
]

_READ = 20_000  # rows of the record that are in memory as Python objects
_HOLD_S = 2.0  # a load that takes longer than this lets readers in
_LET_IN_S = 0.1  # for so long: some tries of theirs
_RESOLVED = """
INSERT INTO outcomes BY NAME
SELECT batch.*, decisions.position AS decision FROM batch LEFT JOIN decisions
ON decisions.id = batch.decision_id AND decisions.tenant = batch.tenant
AND decisions.workspace = batch.workspace AND decisions.domain = batch.domain
ORDER BY batch.tenant, batch.workspace, batch.domain, batch.position
"""


class Loaded(NamedTuple):
    """What one load brought in, and how far the warehouse now reaches."""

    rows: int
    quarantined: int
    position: int


class Run(TypedDict):
    """One nightly run: what was judged, and how."""

    id: str
    scope: str  # tenant/workspace/domain
    time: float  # UTC, seconds since the epoch
    verdict: str
    report: dict[str, Any]  # anything that JSON can say


def load(record: Record, path: Path, batch: int = 250_000, *, patience_s: float = PATIENCE_S) -> Loaded:
    """Bring the warehouse at `path` up to the head of `record`, each row exactly once; make the file if need be.

    Rows and the position that they reach are one transaction, so a load that dies is continued by the next. A row
    that does not read back goes to the table `quarantine` with its reason, and the rest goes on. A long load lets go
    of the file now and then, so that readers wait a moment, not for its end.
    batch: most rows of a transaction. patience_s: how long to wait for another process.
    Raises WarehouseError: locked, corrupt, of another version, or of another record.
    """
    rows = quarantined = 0
    while True:
        with writable(path, patience_s=patience_s) as connection:
            reached = position(connection)
            _check_same_record(connection, record, reached, path)
            until = time.monotonic() + _HOLD_S
            while time.monotonic() < until:
                found = _bring(connection, record, batch, until)
                rows, quarantined = rows + found.rows, quarantined + found.quarantined
                if found.position == reached:
                    return Loaded(rows, quarantined, reached)
                reached = found.position
        time.sleep(_LET_IN_S)


def write_run(path: Path, run: Run, *, patience_s: float = PATIENCE_S) -> None:
    """Put a nightly run into the warehouse; a run of the same id is replaced. Raises WarehouseError."""
    try:
        scope = Scope.parse(run["scope"])
        values = [run["id"], scope.tenant, scope.workspace, scope.domain, run["time"], run["verdict"]]
        values.append(json.dumps(run["report"], allow_nan=False))
    except (KeyError, TypeError, ValueError) as error:
        raise WarehouseError(
            f"a run must have id, scope, time, verdict and a report that JSON can say, but got {error!r} in {run!r}."
        ) from error
    with writable(path, patience_s=patience_s) as connection:
        connection.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)", values)


def read_runs(path: Path, scope: Scope | None = None, *, patience_s: float = PATIENCE_S) -> list[Run]:
    """The nightly runs, of one scope or of all, oldest first. Raises WarehouseError."""
    query = "SELECT id, tenant, workspace, domain, time, verdict, report FROM runs ORDER BY time, id"
    with opened(path, patience_s=patience_s) as connection:
        found = connection.execute(query).fetchall()
    runs = [
        Run(id=id_, scope=f"{tenant}/{workspace}/{domain}", time=at, verdict=verdict, report=json.loads(report))
        for id_, tenant, workspace, domain, at, verdict, report in found
    ]
    return [run for run in runs if scope is None or run["scope"] == str(scope)]


def _check_same_record(connection: duckdb.DuckDBPyConnection, record: Record, position: int, path: Path) -> None:
    """Raise unless the last row that was loaded stands in `record` at the same position (an erasure moves it)."""
    query = "SELECT id, time FROM decisions WHERE position = $1 UNION ALL "
    query += "SELECT decision_id, time FROM outcomes WHERE position = $1"
    loaded = connection.execute(query, [position]).fetchall()
    if record.head() >= position and not loaded:
        return  # nothing loaded yet, or the last row is in quarantine
    for _, entry in record.read(position - 1, 1):
        if [(entry.id if isinstance(entry, Decision) else entry.decision_id, entry.time)] == loaded:
            return
    raise WarehouseError(
        f"the warehouse must be of this record, but {path} reaches position {position}, where the record (of "
        f"{record.head()} rows) holds another row; delete it and run `pilotage load`."
    )


def _bring(connection: duckdb.DuckDBPyConnection, record: Record, batch: int, until: float) -> Loaded:
    """Bring in the next rows and their position, in one transaction that reads no more when it is `until`."""
    reached = position(connection)
    starts = range(reached, reached + batch, _READ)
    pieces = (span for start in starts for span in spans(record, start, min(_READ, reached + batch - start)))
    rows, outcomes, bad = 0, [], []
    connection.begin()
    for span in _ahead(pieces):
        _insert(connection, span.decisions)
        outcomes += [] if span.outcomes is None else [span.outcomes]
        bad += span.bad
        rows += span.rows
        reached = span.last
        if time.monotonic() >= until:
            break
    if outcomes:
        _run(connection, _RESOLVED, pa.concat_tables(outcomes))
    if bad:
        connection.executemany("INSERT INTO quarantine VALUES (?, ?)", bad)
    connection.execute("UPDATE meta SET position = ?", [reached])
    connection.commit()
    return Loaded(rows, len(bad), reached)


def _ahead(pieces: Iterator[Span]) -> Iterator[Span]:
    """The same; another thread reads the next one from the record while DuckDB writes the last."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, pieces, None)
        while (span := coming.result()) is not None:
            coming = reader.submit(next, pieces, None)
            yield span


def _insert(connection: duckdb.DuckDBPyConnection, decisions: Mapping[int, pa.Table]) -> None:
    for width, table in decisions.items():
        if width not in widths(connection):
            add_width(connection, width)
        _run(connection, f"INSERT INTO decisions_{width} BY NAME SELECT * FROM batch", table)  # noqa: S608 - an int
        series = f'INSERT OR IGNORE INTO series SELECT DISTINCT tenant, workspace, domain, "schema", {width} FROM batch'  # noqa: S608
        _run(connection, series, table.select(["tenant", "workspace", "domain", "schema"]))


def _run(connection: duckdb.DuckDBPyConnection, query: str, batch: pa.Table) -> None:
    """Run a query that speaks of `batch`."""
    connection.register("batch", batch)
    try:
        connection.execute(query)
    finally:
        connection.unregister("batch")
