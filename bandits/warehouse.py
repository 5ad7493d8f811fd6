"""The warehouse: the record as columns in one DuckDB file, for training, reports and pages.

It is a view: everything but `runs` (copies of nightly reports) comes out of the record, so the file can be deleted at
any time and `pilotage load` makes it again. A DuckDB writer excludes every other process, so nobody keeps the file
open: each function opens it, works, closes it, and waits a little while another has it.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import duckdb
import pyarrow as pa
from numpy.typing import NDArray

from bandits.config import DomainConfig
from bandits.errors import UnreadableRowError, WarehouseError
from bandits.record import Record, Row
from bandits.rewards import fold
from bandits.types import Decision, LoggedFeedback, Outcome, Scope, Slot

VERSION = 1  # of the tables below; a file of another version is refused
PATIENCE_S = 5.0  # how long to wait while another process has the file
_PAUSE_S = 0.05  # between two tries
_READ = 2_048  # rows that are read at once

_TABLES = """
CREATE TABLE meta (version INTEGER NOT NULL, position BIGINT NOT NULL);
CREATE TABLE decisions (
    position BIGINT NOT NULL, id VARCHAR NOT NULL, time DOUBLE NOT NULL,
    tenant VARCHAR NOT NULL, workspace VARCHAR NOT NULL, domain VARCHAR NOT NULL,
    "schema" VARCHAR NOT NULL, context FLOAT[] NOT NULL, arms VARCHAR[] NOT NULL,
    excluded MAP(VARCHAR, VARCHAR) NOT NULL, probabilities DOUBLE[] NOT NULL, action INTEGER NOT NULL,
    arm VARCHAR NOT NULL, propensity DOUBLE NOT NULL, policy VARCHAR NOT NULL, slot VARCHAR NOT NULL,
    price DOUBLE NOT NULL, pressure DOUBLE NOT NULL, forced BOOLEAN NOT NULL);
CREATE TABLE outcomes (
    position BIGINT NOT NULL, decision_id VARCHAR NOT NULL, time DOUBLE NOT NULL,
    tenant VARCHAR NOT NULL, workspace VARCHAR NOT NULL, domain VARCHAR NOT NULL,
    quality DOUBLE, cost_usd DOUBLE, latency_s DOUBLE, vote TINYINT, source VARCHAR NOT NULL);
CREATE TABLE quarantine (position BIGINT NOT NULL, reason VARCHAR NOT NULL);
CREATE TABLE runs (
    id VARCHAR PRIMARY KEY, tenant VARCHAR NOT NULL, workspace VARCHAR NOT NULL, domain VARCHAR NOT NULL,
    time DOUBLE NOT NULL, verdict VARCHAR NOT NULL, report VARCHAR NOT NULL);
"""
_DECISION = pa.schema(
    {
        **{"position": pa.int64(), "id": pa.string(), "time": pa.float64()},
        **{"tenant": pa.string(), "workspace": pa.string(), "domain": pa.string()},
        **{"schema": pa.string(), "context": pa.list_(pa.float32()), "arms": pa.list_(pa.string())},
        **{"excluded": pa.map_(pa.string(), pa.string()), "probabilities": pa.list_(pa.float64())},
        **{"action": pa.int32(), "arm": pa.string(), "propensity": pa.float64(), "policy": pa.string()},
        **{"slot": pa.string(), "price": pa.float64(), "pressure": pa.float64(), "forced": pa.bool_()},
    }
)
_OUTCOME = pa.schema(
    {
        **{"position": pa.int64(), "decision_id": pa.string(), "time": pa.float64()},
        **{"tenant": pa.string(), "workspace": pa.string(), "domain": pa.string()},
        **{"quality": pa.float64(), "cost_usd": pa.float64(), "latency_s": pa.float64()},
        **{"vote": pa.int8(), "source": pa.string()},
    }
)
_writing = threading.Lock()  # DuckDB would let two threads of one process write at once, and fail one of them


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


def load(record: Record, path: Path, batch: int = 10_000, *, patience_s: float = PATIENCE_S) -> Loaded:
    """Bring the warehouse at `path` up to the head of `record`, each row exactly once; make the file if need be.

    Rows and the position that they reach are one transaction, so a load that dies is continued by the next. A row
    that does not read back goes to the table `quarantine` with its reason, and the rest goes on.
    batch: rows per transaction. patience_s: how long to wait for another process.
    Raises WarehouseError: locked, corrupt, of another version, or of another record.
    """
    rows = quarantined = 0
    with _writable(path, patience_s) as connection:
        position = _position(connection)
        _check_same_record(connection, record, position, path)
        while True:
            found, bad = _next(record, position, batch)
            if not found and bad is None:
                break
            position = found[-1].position if bad is None else bad.position
            connection.begin()
            _insert(connection, found)
            if bad is not None:
                connection.execute("INSERT INTO quarantine VALUES (?, ?)", [bad.position, str(bad)])
            connection.execute("UPDATE meta SET position = ?", [position])
            connection.commit()
            rows += len(found)
            quarantined += bad is not None
    return Loaded(rows, quarantined, position)


def read_feedback(
    path: Path, scope: Scope, config: DomainConfig, now: float, *, patience_s: float = PATIENCE_S
) -> LoggedFeedback:
    """The log of `scope`, equal to `rewards.feedback` on the rows that were loaded, bit for bit.

    now: UTC, seconds since the epoch; closes reward windows.
    Raises WarehouseError (missing, locked, corrupt, of another version) and what `rewards.fold` raises.
    """
    with opened(path, patience_s=patience_s) as connection:
        position = _position(connection)
        outcomes: defaultdict[str, list[Outcome]] = defaultdict(list)
        for outcome in _outcomes(connection, scope):
            outcomes[outcome.decision_id].append(outcome)
        return fold(_decisions(connection, scope, config.features), outcomes, config, now, position)


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
    with _writable(path, patience_s) as connection:
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


@contextmanager
def opened(path: Path, *, patience_s: float = PATIENCE_S) -> Iterator[duckdb.DuckDBPyConnection]:
    """The warehouse, read-only, for the length of a query: hold it no longer, since it keeps the loader out.

    Raises WarehouseError: missing, locked for longer than patience_s, corrupt, of another version.
    """
    if not path.exists():
        raise WarehouseError(f"the warehouse must exist, but there is no {path}; run `pilotage load`.")
    with _explained(path), closing(_connect(path, True, patience_s)) as connection:
        _check_version(connection, path)
        yield connection


@contextmanager
def _writable(path: Path, patience_s: float) -> Iterator[duckdb.DuckDBPyConnection]:
    with _writing, _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(_connect(path, False, patience_s)) as connection:
            if not connection.execute("SELECT 1 FROM duckdb_tables()").fetchall():
                connection.begin()
                connection.execute(_TABLES)
                connection.execute("INSERT INTO meta VALUES (?, 0)", [VERSION])
                connection.commit()
            _check_version(connection, path)
            yield connection


def _connect(path: Path, read_only: bool, patience_s: float) -> duckdb.DuckDBPyConnection:
    deadline = time.monotonic() + patience_s
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


def _check_version(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    tables = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    found = connection.execute("SELECT version FROM meta").fetchall() if "meta" in tables else []
    if found != [(VERSION,)]:
        version = f"version {found[0][0]}" if found else "no version"
        raise WarehouseError(
            f"the warehouse must have version {VERSION}, but {path} has {version}; "
            "if it is a warehouse of Pilotage, delete it and run `pilotage load`; otherwise name another file."
        )


def _position(connection: duckdb.DuckDBPyConnection) -> int:
    (position,) = connection.execute("SELECT position FROM meta").fetchall()[0]
    return int(position)


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


def _next(record: Record, after: int, limit: int) -> tuple[list[Row], UnreadableRowError | None]:
    """The rows behind `after` up to the first that does not read back, and that one's fault."""
    try:
        return record.read(after, limit), None
    except UnreadableRowError as error:
        return record.read(after, error.position - after - 1), error


def _insert(connection: duckdb.DuckDBPyConnection, rows: Sequence[Row]) -> None:
    decisions = [_decision_columns(position, e) for position, e in rows if isinstance(e, Decision)]
    outcomes = [_outcome_columns(position, e) for position, e in rows if isinstance(e, Outcome)]
    for table, schema, columns in (("decisions", _DECISION, decisions), ("outcomes", _OUTCOME, outcomes)):
        if columns:
            by_column = zip(zip(*columns, strict=True), schema.types, strict=True)
            arrays = [pa.array(column, kind) for column, kind in by_column]
            connection.register("batch", pa.Table.from_arrays(arrays, schema=schema))
            connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM batch")  # noqa: S608 - one of two constants
            connection.unregister("batch")


def _decision_columns(position: int, d: Decision) -> tuple[Any, ...]:
    head = (position, d.id, d.time, d.scope.tenant, d.scope.workspace, d.scope.domain, d.schema, d.context, d.arms)
    draw = (list(d.excluded.items()), d.probabilities, int(d.action), d.arm, d.propensity)
    return (*head, *draw, d.policy, str(d.slot), d.price, d.pressure, bool(d.forced))


def _outcome_columns(position: int, o: Outcome) -> tuple[Any, ...]:
    head = (position, o.decision_id, o.time, o.scope.tenant, o.scope.workspace, o.scope.domain)
    return (*head, o.quality, o.cost_usd, o.latency_s, o.vote, o.source)


def _decisions(connection: duckdb.DuckDBPyConnection, scope: Scope, schema: str) -> Iterator[Decision]:
    query = (
        "SELECT context, probabilities, id, time, arms, action, propensity, policy, slot, price, pressure, forced "
        'FROM decisions WHERE tenant = ? AND workspace = ? AND domain = ? AND "schema" = ? ORDER BY position'
    )
    found = connection.sql(query, params=[scope.tenant, scope.workspace, scope.domain, schema])
    for batch in found.to_arrow_reader(_READ):
        vectors = (_vectors(batch.column(0)), _vectors(batch.column(1)))
        others = [column.to_pylist() for column in batch.columns[2:]]
        for context, probabilities, id_, at, arms, action, propensity, policy, slot, price, pressure, forced in zip(
            *vectors, *others, strict=True
        ):
            yield Decision(
                id=id_,
                time=at,
                scope=scope,
                schema=schema,
                context=context,
                arms=tuple(arms),
                excluded={},
                probabilities=probabilities,
                action=action,
                propensity=propensity,
                policy=policy,
                slot=Slot(slot),
                price=price,
                pressure=pressure,
                forced=forced,
            )


def _outcomes(connection: duckdb.DuckDBPyConnection, scope: Scope) -> Iterator[Outcome]:
    query = (
        "SELECT decision_id, time, quality, cost_usd, latency_s, vote, source FROM outcomes "
        "WHERE tenant = ? AND workspace = ? AND domain = ? ORDER BY position"
    )
    found = connection.sql(query, params=[scope.tenant, scope.workspace, scope.domain])
    for batch in found.to_arrow_reader(_READ):
        for decision_id, at, *values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield Outcome(decision_id, at, scope, *values)


def _vectors(column: pa.ListArray) -> list[NDArray[Any]]:
    """The rows of an Arrow list column, as views."""
    values = column.values.to_numpy(zero_copy_only=False)
    return [values[start:stop] for start, stop in itertools.pairwise(column.offsets.to_numpy())]
