"""The record in SQL: durable when it acknowledges, and open to several processes at once."""

from __future__ import annotations

import itertools
import operator
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from bandits.errors import (
    PilotageError,
    RecordError,
    UnreadableRowError,
)
from bandits.record.checkpoint import Checkpointer
from bandits.record.commit import committing, place
from bandits.record.database import open_database
from bandits.record.erasure import Epoch, Erased, current_epoch, erase, tombstones
from bandits.record.port import Row
from bandits.record.recent import Recent
from bandits.record.rules import admit, check, key_of, keys, unknown
from bandits.record.tables import (
    DECISIONS,
    HEAD,
    META,
    OUTCOMES,
    VERSION,
    from_decision,
    from_outcome,
    make,
    migrate,
    to_decision,
    to_outcome,
)
from bandits.record.writer import Answer, GroupWriter
from bandits.types import Decision, Entry, Outcome

BUSY_S = 30.0  # how long an append waits for the appends of other processes

_E = TypeVar("_E", bound=Entry)


class _Batch(NamedTuple):
    """What one call appends, and its rows without their positions: whoever calls encodes, the writer only writes."""

    entries: Sequence[Entry]
    columns: Sequence[tuple[Any, ...]]


class SqlRecord:
    """A record in SQL: durable at acknowledgement, open to several processes at once, and on PostgreSQL to hosts.

    Appends of all threads are written in groups by one thread (writer.py). Neither it nor a connection survives a
    fork: the child must open a record of its own, and every call on this one raises RecordError there.
    """

    def __init__(self, url: str, *, busy_s: float = BUSY_S) -> None:
        """Open the record at `url`, and make it if it is not there.

        url: "sqlite:///path", or "postgresql+psycopg://user:password@host/database" (extra `postgresql`).
        busy_s: seconds that a call waits for another process's commit.
        Raises RecordError: not a database, not a record, of another version, not writable.
        """
        self._process = os.getpid()
        self._writer = GroupWriter(self._commit)  # threads queue here; only processes meet in the database
        self._recent = Recent()
        self._database = open_database(url, busy_s)
        self._failures: tuple[type[Exception], ...] = (DBAPIError, PoolTimeoutError, *self._database.failures)
        self.url = self._database.shown
        try:
            with self._transaction(self._database.writing) as connection:
                self._open(connection)
        except RecordError:
            self._database.writing.dispose()
            raise
        found = self._database.writing.url
        self._path = os.path.abspath(str(found.database)) if found.get_backend_name() == "sqlite" else None
        self._file = _file(self._path)
        self._checkpointer = Checkpointer(self._path) if self._path else None

    def append(self, *entries: Entry) -> int:
        """See `Record.append`. Costs one fsync, shared with all who wait for one; RecordError when closed."""
        return self._writer.write(self._batch(entries)) if entries else self.head()

    async def append_soon(self, *entries: Entry) -> int:
        """See `Record.append_soon`."""
        return await self._writer.write_soon(self._batch(entries)) if entries else self.head()

    def read(self, after: int = 0, limit: int = 10_000) -> list[Row]:
        """See `Record.read`."""
        return self._read(after, limit, None)

    def recall(self, after: int = 0, limit: int = 10_000) -> list[Row]:
        """See `Record.recall`."""
        return self._read(after, limit, self._recent)

    def _read(self, after: int, limit: int, recent: Recent | None) -> list[Row]:
        after = max(after, 0)
        found: list[tuple[int, Callable[[sa.Row[Any]], Entry], sa.Row[Any]]] = []
        with self._transaction(self._database.reading) as connection:
            last = min(after + limit, _read_head(connection))
            mine = {} if recent is None else recent.between(after, last, current_epoch(connection).number)
            for table, decode in () if len(mine) == last - after else _TABLES:
                span = sa.select(table).where(table.c.position > after, table.c.position <= last)
                found += [(row[0], decode, row) for row in connection.execute(span).all() if row[0] not in mine]
        found.sort(key=operator.itemgetter(0))  # the first that does not read back is the one to name
        read = [Row(position, _decoded(decode, row)) for position, decode, row in found]
        return sorted([*read, *itertools.starmap(Row, mine.items())], key=operator.itemgetter(0))

    def decision(self, decision_id: str, tenant: str) -> Decision:
        """See `Record.decision`."""
        query = sa.select(DECISIONS).where(DECISIONS.c.id == decision_id, DECISIONS.c.tenant == tenant)
        with self._transaction(self._database.reading) as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise unknown(decision_id, tenant)
        return _decoded(to_decision, row)

    def outcomes(self, decision_id: str) -> list[Outcome]:
        """See `Record.outcomes`."""
        query = sa.select(OUTCOMES).where(OUTCOMES.c.decision_id == decision_id).order_by(OUTCOMES.c.position)
        with self._transaction(self._database.reading) as connection:
            found = connection.execute(query).all()
        return [_decoded(to_outcome, row) for row in found]

    def conversation(self, tenant: str, conversation: str) -> Decision | None:
        """See `Record.conversation`."""
        mine = (DECISIONS.c.tenant == tenant, DECISIONS.c.conversation == conversation, DECISIONS.c.conversation != "")
        query = sa.select(DECISIONS).where(*mine).order_by(DECISIONS.c.position.desc()).limit(1)
        with self._transaction(self._database.reading) as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _decoded(to_decision, row)

    def head(self) -> int:
        """See `Record.head`."""
        with self._transaction(self._database.reading) as connection:
            return _read_head(connection)

    def erased(self, after: int, until: int) -> set[int]:
        """See `Record.erased`."""
        with self._transaction(self._database.reading) as connection:
            return tombstones(connection, after, until)

    def epoch(self) -> Epoch:
        """See `Record.epoch`."""
        with self._transaction(self._database.reading) as connection:
            return current_epoch(connection)

    def erase(self, tenant: str, user: str | None = None, before: float | None = None) -> Erased:
        """Take away what one person, or a tenant before a time, decided and what came back; see erasure.erase.

        Durable when it returns; the bytes are gone from the file after `scrub`.
        """
        if not (user or before):
            raise RecordError("an erasure must name a person or a time, but got neither; nothing was erased.")
        with self._transaction(self._database.writing) as connection:
            place(connection)
            return erase(connection, tenant, user, before)

    def scrub(self) -> None:
        """Overwrite what was deleted: no free page or log of the database keeps its bytes. Raises RecordError."""
        self._check_process()
        try:
            self._database.scrub()
        except self._failures as error:
            said = error.orig if isinstance(error, DBAPIError) and isinstance(error.orig, Exception) else error
            raise RecordError(self._database.fault(said)) from error

    def close(self) -> None:
        """See `Record.close`. Writes first what waits; reading opens the file again, appending does not."""
        if os.getpid() == self._process:
            self._writer.close()
            if self._checkpointer is not None:
                self._checkpointer.close()
            self._database.reading.dispose()  # they share a pool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees one state of the record, for reads that are not by rows. Raises RecordError."""
        with self._transaction(self._database.reading) as connection:
            yield connection

    def _commit(self, group: Sequence[_Batch]) -> list[Answer]:
        """Write the sound batches of `group`, all others left out, in one transaction; the answer to each.

        A batch is judged against the record and the sound batches before it, as if each were a transaction.
        """
        answers: list[Answer] = []
        decisions: list[tuple[Any, ...]] = []
        outcomes: list[tuple[Any, ...]] = []
        written: list[Entry] = []
        with self._failing(), committing(self._database.writing) as commit:
            before = last = commit.place()
            epoch = commit.epoch()
            known = commit.known_scopes({key_of(entry) for batch in group for entry in batch.entries})
            keyed = {id_ for batch in group for id_, _ in keys(batch.entries)}
            heard = commit.known_keys(keyed) if keyed else set()
            for batch in group:
                try:
                    known |= admit(batch.entries, known.get, heard)
                except PilotageError as error:
                    answers.append(error)
                    continue
                heard |= keys(batch.entries)
                for entry, columns in zip(batch.entries, batch.columns, strict=True):
                    last += 1
                    (decisions if isinstance(entry, Decision) else outcomes).append((last, *columns))
                written += batch.entries
                answers.append(last)
            if last > before:
                commit.insert(decisions, outcomes, last)
        if _file(self._path) != self._file:
            raise RecordError(
                f"a record must stay where it was opened, but {self.url} or its log was removed or replaced; rows that "
                "nobody can find again are not acknowledged. Restore the record, and open it anew."
            )
        self._recent.keep(before + 1, written, epoch)
        if self._checkpointer is not None:
            self._checkpointer.committed()
        return answers

    def _batch(self, entries: Sequence[Entry]) -> _Batch:
        self._check_process()
        for entry in entries:
            check(entry)
        return _Batch(entries, [from_decision(e) if isinstance(e, Decision) else from_outcome(e) for e in entries])

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise RecordError(
                f"a record must be used by the process that opened it, but process {self._process} opened {self.url} "
                f"and process {os.getpid()} is its fork; open it anew there."
            )

    @contextmanager
    def _transaction(self, engine: sa.Engine) -> Iterator[Connection]:
        self._check_process()
        with self._failing(), engine.begin() as connection:
            yield connection

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            said = error.orig if isinstance(error, DBAPIError) and isinstance(error.orig, Exception) else error
            raise RecordError(self._database.fault(said)) from error

    def _open(self, connection: Connection) -> None:
        self._database.before_opening(connection)
        names = sa.inspect(connection).get_table_names()
        if not names:
            make(connection)
            return
        if not {META.name, HEAD.name} <= set(names):
            raise RecordError(
                f"a record must hold the tables meta and head, but {self.url} holds {', '.join(names)}: it belongs to "
                "another program. Name another file or database."
            )
        version = connection.execute(sa.select(META.c.value).where(META.c.key == "record")).scalar()
        if migrate(connection, version) != str(VERSION):
            raise RecordError(
                f"a record must have version {VERSION} or an older one, but {self.url} has {version!r}. "
                "Open it with the Pilotage that wrote it or a newer one, or name another."
            )
        place(connection)  # it can be written, or its opening fails


_TABLES: tuple[tuple[sa.Table, Callable[[sa.Row[Any]], Entry]], ...] = (
    (DECISIONS, to_decision),
    (OUTCOMES, to_outcome),
)


def _file(path: str | None) -> tuple[int, int] | None:
    """What tells a SQLite database from any other that may come to its place; None where it or its log is not."""
    if path is None:
        return None
    try:
        found = os.stat(path)
        os.stat(f"{path}-wal")
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _read_head(connection: Connection) -> int:
    return int(connection.exec_driver_sql("SELECT position FROM head").scalar_one())


def _decoded(decode: Callable[[sa.Row[Any]], _E], row: sa.Row[Any]) -> _E:
    """The entry of a stored row, held to the rules of `append`; raises UnreadableRowError."""
    try:
        entry = decode(row)
        check(entry)
    except (PilotageError, ValueError, TypeError, AttributeError) as error:
        raise UnreadableRowError(
            f"a row must read back as it was appended, but position {row.position} does not: {error} "
            "Restore the record from its backup, or read on behind this position.",
            row.position,
        ) from error
    return entry
