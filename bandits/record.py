"""The record: every decision and outcome in the order of their commits. It is the truth; all else is a fold over it.

Rows are only ever appended. Position is one gapless number shared by decisions and outcomes and given inside the
commit, so "everything up to position p" means the same to every reader, for ever. `SqlRecord` is durable and open to
several processes; `MemoryRecord` keeps the same contract (see testing.py) in a list.
"""

from __future__ import annotations

import math
import operator
import os
import threading
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, Self, TypeAlias, TypeVar

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from bandits.errors import (
    ContextError,
    DuplicateDecisionError,
    DuplicateOutcomeError,
    ForeignDecisionError,
    PilotageError,
    RecordError,
    UnknownDecisionError,
    UnreadableRowError,
)
from bandits.record_tables import (
    DECISIONS,
    HEAD,
    META,
    OUTCOMES,
    TABLES,
    VERSION,
    engine,
    from_decision,
    from_outcome,
    insert,
    known_keys,
    known_scopes,
    migrate,
    place,
    to_decision,
    to_outcome,
)
from bandits.record_writer import Answer, GroupWriter
from bandits.types import Decision, Outcome, Scope

BUSY_S = 30.0  # how long an append waits for the appends of other processes

Entry: TypeAlias = Decision | Outcome
_E = TypeVar("_E", bound=Entry)


class Row(NamedTuple):
    """One entry of the record and its place in it, counted from 1."""

    position: int
    entry: Entry


class Record(Protocol):
    """An append-only sequence of decisions and outcomes. Any thread may call any method.

    The arrays of a decision belong to the record once it is appended: do not write into them.
    """

    def append(self, *entries: Entry) -> int:
        """Append all of `entries`, or none, in one transaction; return the position of the last, once it is durable.

        A decision may stand in the same batch as its outcomes, before them. Without entries: the head.
        Raises ContextError (context not a finite float32 vector), DuplicateDecisionError, UnknownDecisionError (an
        outcome of no decision), ForeignDecisionError (an outcome from another scope than its decision),
        DuplicateOutcomeError (the decision has an outcome with this key), RecordError.
        """

    def read(self, after: int = 0, limit: int = 10_000) -> list[Row]:
        """The rows at positions after+1 .. after+limit, or as many as there are, in order.

        Raises UnreadableRowError, with the first position that does not read back.
        """

    def decision(self, decision_id: str, tenant: str) -> Decision:
        """The decision of this id and tenant; raises UnknownDecisionError, also when it is another tenant's."""

    def outcomes(self, decision_id: str) -> list[Outcome]:
        """What came back for a decision, in order of position; they share its scope, so ask `decision` first."""

    def head(self) -> int:
        """Position of the last row; 0 when there is none."""

    def close(self) -> None:
        """Let go of the store; what was acknowledged stays."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...


def rows(record: Record, after: int = 0, batch: int = 10_000) -> Iterator[Row]:
    """All rows of `record` behind position `after`, read in batches until the record has no more."""
    while found := record.read(after, batch):
        yield from found
        after = found[-1].position


class MemoryRecord:
    """A record in a list: for benchmarks and tests. An append costs a few microseconds and survives nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self._decisions: dict[str, Decision] = {}
        self._outcomes: dict[str, list[Outcome]] = {}
        self._keys: set[tuple[str, str]] = set()

    def append(self, *entries: Entry) -> int:
        """See `Record.append`."""
        for entry in entries:
            _check(entry)
        with self._lock:
            _admit(entries, self._scope, self._keys)
            for entry in entries:
                self._entries.append(entry)
                if isinstance(entry, Decision):
                    self._decisions[entry.id] = entry
                else:
                    self._outcomes.setdefault(entry.decision_id, []).append(entry)
            self._keys |= _keys(entries)
            return len(self._entries)

    def read(self, after: int = 0, limit: int = 10_000) -> list[Row]:
        """See `Record.read`."""
        after = max(after, 0)
        found = self._entries[after : after + max(limit, 0)]
        return [Row(position, entry) for position, entry in enumerate(found, start=after + 1)]

    def decision(self, decision_id: str, tenant: str) -> Decision:
        """See `Record.decision`."""
        found = self._decisions.get(decision_id)
        if found is None or found.scope.tenant != tenant:
            raise _unknown(decision_id, tenant)
        return found

    def outcomes(self, decision_id: str) -> list[Outcome]:
        """See `Record.outcomes`."""
        return list(self._outcomes.get(decision_id, ()))

    def head(self) -> int:
        """See `Record.head`."""
        return len(self._entries)

    def close(self) -> None:
        """See `Record.close`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _scope(self, decision_id: str) -> Scope | None:
        found = self._decisions.get(decision_id)
        return None if found is None else found.scope


class _Batch(NamedTuple):
    """What one call appends, and its rows without their positions: whoever calls encodes, the writer only writes."""

    entries: Sequence[Entry]
    columns: Sequence[tuple[Any, ...]]


class SqlRecord:
    """A record in SQLite (WAL, synchronous=FULL): durable at acknowledgement, open to several processes at once.

    Appends of all threads are written in groups by one thread (record_writer.py). Neither it nor SQLite survives a
    fork: the child must open a record of its own, and every call on this one raises RecordError there.
    """

    def __init__(self, url: str, *, busy_s: float = BUSY_S) -> None:
        """Open the record at `url`, "sqlite:///path", and make it if it is not there.

        busy_s: seconds that a call waits for another process's commit.
        Raises RecordError: not a database, not a record, of another version, not writable.
        """
        self.url = url
        self._process = os.getpid()
        self._writer = GroupWriter(self._commit)  # threads queue here; only processes meet in SQLite's busy polling
        made = engine(url, busy_s)
        self._engines = {mode: made.execution_options(begin=mode) for mode in ("IMMEDIATE", "DEFERRED")}
        with self._transaction("IMMEDIATE") as connection:
            self._open(connection)

    def append(self, *entries: Entry) -> int:
        """See `Record.append`. Costs one fsync, shared with all who wait for one; RecordError when closed."""
        self._check_process()
        for entry in entries:
            _check(entry)
        if not entries:
            return self.head()
        columns = [from_decision(e) if isinstance(e, Decision) else from_outcome(e) for e in entries]
        return self._writer.write(_Batch(entries, columns))

    def read(self, after: int = 0, limit: int = 10_000) -> list[Row]:
        """See `Record.read`."""
        after = max(after, 0)
        found: list[tuple[int, Callable[[sa.Row[Any]], Entry], sa.Row[Any]]] = []
        with self._transaction("DEFERRED") as connection:
            last = min(after + limit, _read_head(connection))
            for table, decode in ((DECISIONS, to_decision), (OUTCOMES, to_outcome)):
                span = sa.select(table).where(table.c.position > after, table.c.position <= last)
                found += [(row.position, decode, row) for row in connection.execute(span)]
        found.sort(key=operator.itemgetter(0))
        return [Row(position, _decoded(decode, row)) for position, decode, row in found]

    def decision(self, decision_id: str, tenant: str) -> Decision:
        """See `Record.decision`."""
        query = sa.select(DECISIONS).where(DECISIONS.c.id == decision_id, DECISIONS.c.tenant == tenant)
        with self._transaction("DEFERRED") as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise _unknown(decision_id, tenant)
        return _decoded(to_decision, row)

    def outcomes(self, decision_id: str) -> list[Outcome]:
        """See `Record.outcomes`."""
        query = sa.select(OUTCOMES).where(OUTCOMES.c.decision_id == decision_id).order_by(OUTCOMES.c.position)
        with self._transaction("DEFERRED") as connection:
            found = connection.execute(query).all()
        return [_decoded(to_outcome, row) for row in found]

    def head(self) -> int:
        """See `Record.head`."""
        with self._transaction("DEFERRED") as connection:
            return _read_head(connection)

    def close(self) -> None:
        """See `Record.close`. Writes first what waits; reading opens the file again, appending does not."""
        if os.getpid() == self._process:
            self._writer.close()
            self._engines["DEFERRED"].dispose()  # they share a pool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees one state of the record, for reads that are not by rows. Raises RecordError."""
        with self._transaction("DEFERRED") as connection:
            yield connection

    def _commit(self, group: Sequence[_Batch]) -> list[Answer]:
        """Write the sound batches of `group`, all others left out, in one transaction; the answer to each.

        A batch is judged against the record and the sound batches before it, as if each were a transaction.
        """
        answers: list[Answer] = []
        decisions: list[tuple[Any, ...]] = []
        outcomes: list[tuple[Any, ...]] = []
        with self._transaction("IMMEDIATE") as connection:
            before = last = place(connection)
            known = known_scopes(connection, {_key(entry) for batch in group for entry in batch.entries})
            keyed = {id_ for batch in group for id_, _ in _keys(batch.entries)}
            heard = known_keys(connection, keyed) if keyed else set()
            for batch in group:
                try:
                    known |= _admit(batch.entries, known.get, heard)
                except PilotageError as error:
                    answers.append(error)
                    continue
                heard |= _keys(batch.entries)
                for entry, columns in zip(batch.entries, batch.columns, strict=True):
                    last += 1
                    (decisions if isinstance(entry, Decision) else outcomes).append((last, *columns))
                answers.append(last)
            if last > before:
                insert(connection, decisions, outcomes, last)
        return answers

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise RecordError(
                f"a record must be used by the process that opened it, but process {self._process} opened {self.url} "
                f"and process {os.getpid()} is its fork; open it anew there."
            )

    @contextmanager
    def _transaction(self, mode: str) -> Iterator[Connection]:
        self._check_process()
        try:
            with self._engines[mode].begin() as connection:
                yield connection
        except DBAPIError as error:
            raise RecordError(
                f"the record must be a SQLite file that can be read and written, but {self.url} says: {error.orig}. "
                "Check the path, its permissions and free space, that it is a record of Pilotage, and that no other "
                "process holds a transaction open."
            ) from error

    def _open(self, connection: Connection) -> None:
        names = sa.inspect(connection).get_table_names()
        if not names:
            TABLES.create_all(connection)
            connection.execute(sa.insert(META), [{"key": "record", "value": str(VERSION)}])
            connection.execute(sa.insert(HEAD), [{"position": 0}])
            return
        if not {META.name, HEAD.name} <= set(names):
            raise RecordError(
                f"a record must hold the tables meta and head, but {self.url} holds {', '.join(names)}: it belongs to "
                "another program. Name another file."
            )
        version = connection.execute(sa.select(META.c.value).where(META.c.key == "record")).scalar()
        if migrate(connection, version) != str(VERSION):
            raise RecordError(
                f"a record must have version {VERSION} or an older one, but {self.url} has {version!r}. "
                "Open it with the Pilotage that wrote it or a newer one, or name another file."
            )


def _check(entry: Entry) -> None:
    """Raise ContextError or RecordError unless any store can keep `entry` as it is."""
    numbers: tuple[float, ...]
    texts: tuple[str, ...]
    if isinstance(entry, Decision):
        context = entry.context
        if context.ndim != 1 or context.dtype != np.float32 or not np.isfinite(context).all():
            raise ContextError(
                f"context must be a finite float32 vector, but got {context.dtype} of shape {context.shape}, not "
                f"finite at {np.argwhere(~np.isfinite(context))[:5].tolist()}, in decision {entry.id}; mend the "
                f"features {entry.schema!r}."
            )
        if len(set(entry.arms)) != len(entry.arms):
            raise RecordError(f"arms must have distinct names, but got {entry.arms} in decision {entry.id}.")
        where, numbers = f"decision {entry.id!r}", (entry.time, entry.price, entry.pressure)
        texts = (
            entry.id,
            entry.schema,
            entry.policy,
            entry.user,
            *entry.arms,
            *entry.excluded,
            *entry.excluded.values(),
        )
    else:
        where, numbers, texts = (
            f"an outcome of {entry.decision_id!r}",
            (entry.time,),
            (entry.decision_id, entry.source, entry.key),
        )
    if not all(map(math.isfinite, numbers)):
        raise RecordError(f"time, price and pressure must be finite, but got {numbers} in {where}.")
    text = "".join(texts)
    if not text.isascii() or "\0" in text:
        _check_text(text, where)


def _check_text(text: str, where: str) -> None:
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise RecordError(f"text must be UTF-8 without NUL, but got {text[:80]!r} in {where}; clean it before logging.")


def _key(entry: Entry) -> str:
    return entry.id if isinstance(entry, Decision) else entry.decision_id


def _keys(entries: Sequence[Entry]) -> set[tuple[str, str]]:
    """(decision id, key) of the outcomes that have a key."""
    return {(entry.decision_id, entry.key) for entry in entries if isinstance(entry, Outcome) and entry.key}


def _admit(
    entries: Sequence[Entry], scope_of: Callable[[str], Scope | None], heard: Set[tuple[str, str]]
) -> dict[str, Scope]:
    """The scopes of new decisions; raises unless each is new, and each outcome follows a decision of its own scope.

    heard: (decision id, key) of the outcomes that the record has; an outcome with a key must not be among them.
    """
    fresh: dict[str, Scope] = {}
    here: set[tuple[str, str]] = set()
    for entry in entries:
        key = _key(entry)
        scope = fresh.get(key) or scope_of(key)
        if isinstance(entry, Decision):
            if scope is not None:
                raise DuplicateDecisionError(
                    f"a decision's id must be new, but {key!r} is in the record; nothing was written. "
                    "Give each decision an id of new_id()."
                )
            fresh[key] = entry.scope
        elif scope is None:
            raise UnknownDecisionError(
                f"an outcome must follow its decision, but the record holds no {key!r}; nothing was written. "
                "Send the id that the decision was answered with."
            )
        elif scope != entry.scope:
            raise ForeignDecisionError(  # does not name the other scope: its owner may be a stranger
                f"an outcome must come from its decision's scope, but {entry.scope} reported on {key!r} of another; "
                "nothing was written. Report with the credential and workspace that decided."
            )
        elif entry.key:
            if (key, entry.key) in heard or (key, entry.key) in here:
                raise DuplicateOutcomeError(
                    f"an outcome's key must be new to its decision, but {key!r} has one with {entry.key!r}; nothing "
                    "was written. It was heard already: send it once, or give another event another key."
                )
            here.add((key, entry.key))
    return fresh


def _unknown(decision_id: str, tenant: str) -> UnknownDecisionError:
    return UnknownDecisionError(
        f"a decision must be in the record of its tenant, but {tenant!r} has no {decision_id!r}; "
        "ask with the id that the decision was answered with."
    )


def _read_head(connection: Connection) -> int:
    return int(connection.execute(sa.select(HEAD.c.position)).scalar_one())


def _decoded(decode: Callable[[sa.Row[Any]], _E], row: sa.Row[Any]) -> _E:
    """The entry of a stored row, held to the rules of `append`; raises UnreadableRowError."""
    try:
        entry = decode(row)
        _check(entry)
    except (PilotageError, ValueError, TypeError, AttributeError) as error:
        raise UnreadableRowError(
            f"a row must read back as it was appended, but position {row.position} does not: {error} "
            "Restore the record from its backup, or read on behind this position.",
            row.position,
        ) from error
    return entry
