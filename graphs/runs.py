"""The store of runs: who runs what, what happened, what each step left. So a run that was killed goes on where it was.

A step's update and the events of its end are one transaction: the step has ended, or it has not. A run belongs to one
process at a time; every write says so again, and a process that was taken for dead but is not can write no more. When a
run ends, its documents and updates are deleted; its trail and its result stay for `keep_days`.

SQLite beside the record (pilot.db), or the record's own PostgreSQL, so that other hosts see a run, and take it over.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from bandits.errors import RecordError
from bandits.home import Home
from bandits.record.database import open_database
from bandits.types import new_id
from graphs.audit import Degradation, Event
from graphs.codec import decode, encode
from graphs.errors import RunsError, RunTakenError, UnknownRunError
from graphs.state import PilotRequest, PilotResult, State

Phase = Literal["waiting", "running", "ended"]
Mode = Literal["wait", "background", "enqueue"]
KEEP_DAYS = 30.0
_BUSY_S = 30.0
_DAY_S = 86_400.0

TABLES = sa.MetaData()
RUNS = sa.Table(
    "pilot_runs",
    TABLES,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("workspace", sa.Text, nullable=False),
    sa.Column("time", sa.Double, nullable=False),  # UTC, seconds since the epoch
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),  # the process that runs it, "" while it waits for any
    sa.Column("cancelled", sa.Boolean, nullable=False),
    sa.Column("request", sa.LargeBinary),  # NULL once it has ended
    sa.Column("result", sa.Text),  # JSON, once it has ended
    sa.Index("pilot_runs_by_time", "time"),
)
EVENTS = sa.Table(
    "pilot_events",
    TABLES,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("body", sa.Text, nullable=False),  # JSON
)
UPDATES = sa.Table(
    "pilot_updates",
    TABLES,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("step", sa.Text, primary_key=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
SEEN = sa.Table(
    "pilot_seen",
    TABLES,
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("content", sa.Text, primary_key=True),  # SHA-256
    sa.Column("run", sa.Text, nullable=False),
)
_INSERTS: Mapping[str, Callable[[sa.Table], Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


_SELF = secrets.token_hex(4)  # a number of a process is given again, in a container always the same one


def this_process() -> str:
    """An owner that nobody else is, not even the same process another time; on its host it can be told if it lives."""
    return f"{socket.gethostname()}/{os.getpid()}/{_SELF}/{secrets.token_hex(4)}"


def alive(owner: str) -> bool | None:
    """Whether the process of an owner still runs; None where only its own host could tell."""
    host, pid, token, _ = owner.split("/")
    if not host:  # restored from a backup, and of no process since
        return False
    if host != socket.gethostname():
        return None
    if int(pid) == os.getpid():
        return token == _SELF
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@dataclass(frozen=True, slots=True)
class RunView:
    """What can be told of a run while it waits, runs, or has ended."""

    run_id: str
    tenant: str
    workspace: str
    time: float
    mode: Mode
    phase: Phase
    cancelled: bool
    events: tuple[Mapping[str, Any], ...]
    degradations: tuple[Mapping[str, Any], ...]
    result: Mapping[str, Any] | None


class RunStore:
    """Runs, kept. Any thread and any process may call; each call is one durable transaction. Raises RunsError."""

    def __init__(self, url: str, *, keep_days: float = KEEP_DAYS) -> None:
        """url: sqlite:///path or postgresql+psycopg://…; tables are made where there are none."""
        self._keep_s = keep_days * _DAY_S
        try:
            self._database = open_database(url, _BUSY_S)
        except RecordError as error:
            raise RunsError(str(error)) from None
        self.url, self._shown = url, self._database.shown
        with self._transaction() as connection:
            if connection.dialect.name == "postgresql":  # of two who open at once, one makes the tables
                self._database.before_opening(connection)
            TABLES.create_all(connection)

    @classmethod
    def at(cls, home: Home, *, keep_days: float = KEEP_DAYS) -> Self:
        """The store of a home: a file of its own, or the PostgreSQL server of the record."""
        if home.record_file is not None:
            return cls(f"sqlite:///{home.root / 'pilot.db'}", keep_days=keep_days)
        home.open_record().close()  # the record comes first: it would take a database with our tables as foreign
        return cls(home.record_url, keep_days=keep_days)

    def begin(self, request: PilotRequest, *, mode: Mode = "wait", run_id: str | None = None, owner: str = "") -> str:
        """Store a request that waits to be run; its id. The same id again changes nothing, if the tenant is the same.

        owner: the process that will run it; "" for whoever claims it first. Raises UnknownRunError.
        """
        now = time.time()
        run_id = run_id or new_id(now)
        with self._transaction() as connection:
            self._prune(connection, now)
            row = {
                "id": run_id,
                "tenant": request.tenant,
                "workspace": request.workspace,
                "time": now,
                "mode": mode,
                "phase": "waiting",
                "owner": owner,
                "cancelled": False,
                "request": encode(request),
            }
            made = _INSERTS[connection.dialect.name](RUNS).values(row).on_conflict_do_nothing()
            if not connection.execute(made).rowcount:
                _row(connection, run_id, request.tenant)
        return run_id

    def claim(self, run_id: str, tenant: str, *, force: bool = False) -> Journal | PilotResult:
        """The journal of a run that waits or whose process died; the result of one that has ended.

        force: take it from a process of which this host cannot tell whether it lives (the other can then write no
        more). Raises UnknownRunError, RunTakenError: it is under way elsewhere.
        """
        me = this_process()
        with self._transaction() as connection:
            row = _row(connection, run_id, tenant, lock=True)
            if row.phase == "ended":
                return PilotResult.from_dict(json.loads(row.result))
            if row.phase == "running" and not force and alive(row.owner) is not False:
                raise RunTakenError(
                    f"a run must be taken by one process, but {run_id} is under way in {row.owner}; wait for it, or "
                    "take it over if that process is gone."
                )
            connection.execute(sa.update(RUNS).where(RUNS.c.id == run_id).values(owner=me, phase="running"))
            told = _told(connection, run_id)
            updates = connection.execute(sa.select(UPDATES.c.step, UPDATES.c.body).where(UPDATES.c.run == run_id))
            kept: dict[str, State] = {step: decode(body) for step, body in updates}
            return Journal(self, run_id, me, decode(row.request), told, kept)

    def view(self, run_id: str, tenant: str) -> RunView:
        """What can be told of a run. Raises UnknownRunError, also for another tenant's."""
        with self._transaction(write=False) as connection:
            row = _row(connection, run_id, tenant)
            told = _told(connection, run_id)
        return RunView(
            run_id=row.id,
            tenant=row.tenant,
            workspace=row.workspace,
            time=row.time,
            mode=row.mode,
            phase=row.phase,
            cancelled=row.cancelled,
            events=tuple(one["event"] for one in told if "event" in one),
            degradations=tuple(one["degradation"] for one in told if "degradation" in one),
            result=None if row.result is None else json.loads(row.result),
        )

    def unless_failed(self, run_id: str, tenant: str) -> str | None:
        """The id of a run to begin, to go on with, or to have the result of; None (for a new one) if it has failed."""
        try:
            result = self.view(run_id, tenant).result
        except UnknownRunError:
            return run_id
        return None if result is not None and result["status"] == "failed" else run_id

    def cancel(self, run_id: str, tenant: str) -> RunView:
        """Ask a run to stop before its next step; one that waits never begins. Raises UnknownRunError."""
        with self._transaction() as connection:
            _row(connection, run_id, tenant, lock=True)
            running = sa.and_(RUNS.c.id == run_id, RUNS.c.phase != "ended")
            connection.execute(sa.update(RUNS).where(running).values(cancelled=True))
        return self.view(run_id, tenant)

    def forget(self, run_id: str, tenant: str) -> None:
        """Take back a request that nobody will run; one that was begun stays."""
        with self._transaction() as connection:
            waits = sa.and_(RUNS.c.id == run_id, RUNS.c.tenant == tenant, RUNS.c.phase == "waiting")
            connection.execute(sa.delete(RUNS).where(waits))

    def forsaken(self, mode: Mode) -> list[tuple[str, str]]:
        """(run, tenant) of this mode that belong to a process of this host that is no more, oldest first."""
        with self._transaction(write=False) as connection:
            wanted = sa.and_(RUNS.c.mode == mode, RUNS.c.phase != "ended", RUNS.c.owner != "")
            rows = connection.execute(sa.select(RUNS.c.id, RUNS.c.tenant, RUNS.c.owner).where(wanted).order_by("id"))
            return [(row.id, row.tenant) for row in rows if alive(row.owner) is False]

    def new(self, namespace: str, contents: Sequence[str]) -> set[str]:
        """Those of `contents` (hashes) that no run of the namespace has read."""
        with self._transaction(write=False) as connection:
            seen = sa.select(SEEN.c.content).where(SEEN.c.namespace == namespace)
            return set(contents) - set(connection.scalars(seen))

    def mark(self, namespace: str, contents: Sequence[str], run_id: str) -> None:
        """These (hashes) were read by a run."""
        rows = [{"namespace": namespace, "content": content, "run": run_id} for content in sorted(set(contents))]
        if rows:
            with self._transaction() as connection:
                connection.execute(_INSERTS[connection.dialect.name](SEEN).on_conflict_do_nothing(), rows)

    def close(self) -> None:
        """Let go of the database."""
        self._database.reading.dispose()  # they share a pool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self, *, write: bool = True) -> Iterator[Connection]:
        failures: tuple[type[Exception], ...] = (DBAPIError, OSError, *self._database.failures)
        try:
            with (self._database.writing if write else self._database.reading).begin() as connection:
                yield connection
        except failures as error:
            raise RunsError(
                f"the store of runs must be a database that can be read and written, but {self._shown} says: "
                f"{getattr(error, 'orig', None) or error}. Check the path, its permissions and free space."
            ) from error

    def _prune(self, connection: Connection, now: float) -> None:
        old = sa.and_(RUNS.c.time < now - self._keep_s, RUNS.c.phase == "ended")
        connection.execute(sa.delete(EVENTS).where(EVENTS.c.run.in_(sa.select(RUNS.c.id).where(old))))
        connection.execute(sa.delete(RUNS).where(old))


class Journal:
    """One run in the hands of this process: what is known of it from before, and what it leaves now."""

    def __init__(
        self,
        store: RunStore,
        run_id: str,
        owner: str,
        request: PilotRequest,
        told: Sequence[Mapping[str, Any]],
        updates: Mapping[str, State],
    ) -> None:
        self._store, self._owner, self._number = store, owner, len(told)
        self.run_id, self.request, self.updates, self.url = run_id, request, updates, store.url
        self.events = [Event(**one["event"]) for one in told if "event" in one]
        self.degradations = [Degradation(**one["degradation"]) for one in told if "degradation" in one]

    def write(self, told: Sequence[Event | Degradation], step: str | None = None, update: State | None = None) -> None:
        """Make durable what happened, and with it a step that ended. Raises RunTakenError, RunsError."""
        with self._mine() as connection:
            self._tell(connection, told)
            if step is not None:
                body = {"run": self.run_id, "step": step, "body": encode(update)}
                connection.execute(sa.insert(UPDATES), [body])

    def finish(self, told: Sequence[Event | Degradation], result: PilotResult) -> None:
        """The run has ended: keep its result, let go of its documents. Raises RunTakenError, RunsError."""
        said = json.dumps(result.to_dict(), allow_nan=False)
        with self._mine() as connection:
            self._tell(connection, told)
            ended = {"phase": "ended", "result": said, "request": None}
            connection.execute(sa.update(RUNS).where(RUNS.c.id == self.run_id).values(ended))
            connection.execute(sa.delete(UPDATES).where(UPDATES.c.run == self.run_id))

    def cancelled(self) -> bool:
        """Whether somebody asked the run to stop."""
        with self._store._transaction(write=False) as connection:
            return bool(connection.scalar(sa.select(RUNS.c.cancelled).where(RUNS.c.id == self.run_id)))

    @contextmanager
    def _mine(self) -> Iterator[Connection]:
        with self._store._transaction() as connection:
            mine = sa.update(RUNS).where(RUNS.c.id == self.run_id, RUNS.c.owner == self._owner)
            if not connection.execute(mine.values(owner=self._owner)).rowcount:
                raise RunTakenError(f"run {self.run_id} was taken over by another process; this one stops.")
            yield connection

    def _tell(self, connection: Connection, told: Sequence[Event | Degradation]) -> None:
        rows = [
            {
                "run": self.run_id,
                "number": number,
                "body": json.dumps({"event" if isinstance(one, Event) else "degradation": asdict(one)}),
            }
            for number, one in enumerate(told, start=self._number)
        ]
        if rows:
            connection.execute(sa.insert(EVENTS), rows)
            self._number += len(rows)


def _row(connection: Connection, run_id: str, tenant: str, *, lock: bool = False) -> Any:  # noqa: ANN401
    query = sa.select(RUNS).where(RUNS.c.id == run_id, RUNS.c.tenant == tenant)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise UnknownRunError(
            f"a run must be one of its tenant's that is not older than is kept, but there is no {run_id!r:.80}; "
            "send the run_id as it was answered."
        )
    return row


def _told(connection: Connection, run_id: str) -> list[dict[str, Any]]:
    query = sa.select(EVENTS.c.body).where(EVENTS.c.run == run_id).order_by(EVENTS.c.number)
    return [json.loads(body) for body in connection.scalars(query)]
