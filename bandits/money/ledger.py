"""The ledger: hard caps of money, kept by all processes together, beside the record in its database.

What `caps.py` says of a few requests is done here in one transaction: lock their tenants, read what they touch, apply,
write. Callers who wait are served in groups, one fsync for all (record/writer.py). On SQLite a transaction begins
IMMEDIATE; on PostgreSQL it locks its tenants' rows, so that tenants do not wait for each other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from bandits.errors import LedgerError, PilotageError
from bandits.money.caps import Book, Reservation, Standing, accounts, nano
from bandits.money.tables import LINES, SUMS, TABLES, VERSION, lock, read, untold, write
from bandits.record.database import open_database
from bandits.record.sql import BUSY_S, SqlRecord
from bandits.record.tables import META
from bandits.record.writer import Answer, GroupWriter
from bandits.settings.caps import CapsConfig
from bandits.types import new_id, valid_name

_LONGEST = 200  # characters of an id or a user
_RECONCILED_S = 2 * 86_400.0  # how far back `reconcile` looks


@dataclass(frozen=True, slots=True)
class _Request:
    """One caller's verb, and what of the book it needs."""

    reservation: Reservation
    now: float
    apply: Callable[[Book], int | None]  # what it returns is the answer


class Ledger:
    """Reserve, settle, release: durable when a call returns, and open to several processes and threads at once.

    Like the record, it does not survive a fork: the child must open a ledger of its own.
    """

    def __init__(self, url: str, caps: Mapping[str, CapsConfig], *, busy_s: float = BUSY_S) -> None:
        """Open the ledger in the record at `url`, and make both if need be.

        caps: by tenant; a tenant that is not there is counted, and not limited. busy_s: seconds that a call waits for
        another process's commit. Raises LedgerError (of another version, not writable) and what SqlRecord raises.
        """
        SqlRecord(url, busy_s=busy_s).close()  # the record comes first: it would take a file with our tables as foreign
        self._database = open_database(url, busy_s)
        self.url, self._caps, self._process = self._database.shown, dict(caps), os.getpid()
        made = self._database.writing
        self._path = made.url.database if made.dialect.name == "sqlite" else None
        self._file = self._identity()
        self._writer = GroupWriter(self._commit)
        with self._transaction(self._database.writing) as connection:
            self._open(connection)

    def reserve(
        self, tenant: str, user: str, amount: int, now: float, *, least: int | None = None, id: str | None = None
    ) -> Reservation:
        """Hold `amount` nano-dollars for one request, or what is left if that is at least `least`.

        user: pseudonymous key, or "". now: UTC, seconds since the epoch. id: of the request, unique in its tenant; the
        same id again gets the same answer. Hold what the request can cost at most: then no cap is ever passed.
        Raises BudgetExhaustedError (which cap, what is left, when it resets) and LedgerError.
        """
        wanted = Reservation(id or new_id(now), tenant, user, amount, now)
        caps, least = self._caps.get(tenant, CapsConfig()), amount if least is None else least
        granted = self._write(_Request(wanted, now, lambda book: book.reserve(wanted, least, caps, now)))
        return Reservation(wanted.id, tenant, user, granted, now)

    def settle(self, reservation: Reservation, actual: int) -> None:
        """Count what the request has cost in all, in nano-dollars, in the day and month it was reserved in.

        Idempotent: of several amounts for one request the highest counts. A request whose reservation was released,
        or never made, counts too. Raises LedgerError.
        """
        self._write(_Request(reservation, reservation.time, lambda book: book.settle(reservation, actual)))

    def release(self, reservation: Reservation) -> None:
        """Give back what is held for a request that will cost nothing. Idempotent. Raises LedgerError."""
        self._write(_Request(reservation, reservation.time, lambda book: book.release(reservation)))

    def standings(self, tenant: str, user: str, now: float) -> list[Standing]:
        """How the tenant's configured caps stand now; reads only. Raises LedgerError."""
        with self._transaction(self._database.reading) as connection:
            book = read(connection, [Reservation("", tenant, user, 0, now)], {tenant: [now]})
        book.lapse(tenant, now)
        return book.standings(tenant, user, self._caps.get(tenant, CapsConfig()), now)

    def reconcile(self, now: float) -> int:
        """Settle what the record tells of the last two days and a killed process did not; how many requests that was.

        now: UTC, seconds since the epoch. For whoever starts: an outcome is recorded first and settled after, so a
        process that dies in between leaves a cost that no cap has seen. Raises LedgerError.
        """
        with self._transaction(self._database.reading) as connection:
            found = untold(connection, now - _RECONCILED_S)
        for reservation, usd in found:
            self.settle(reservation, nano(usd))
        return len(found)

    def forget(self, now: float) -> int:
        """Delete what is closed and of a month before this one, where no cap looks; return how many lines went.

        now: UTC, seconds since the epoch. For the nightly work: a line names its user. Raises LedgerError.
        """
        day, month, *_ = accounts("-", "", now)
        first = datetime.fromisoformat(f"{day.period[:8]}01T00:00:00+00:00").timestamp()
        with self._transaction(self._database.writing) as connection:
            connection.execute(sa.delete(SUMS).where(SUMS.c.period < month.period, SUMS.c.reserved == 0))
            gone = connection.execute(sa.delete(LINES).where(LINES.c.time < first, LINES.c.held == sa.false()))
            return gone.rowcount

    def close(self) -> None:
        """Write what waits, and let go of the database."""
        if os.getpid() == self._process:
            self._writer.close()
            self._database.reading.dispose()  # they share a pool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _write(self, request: _Request) -> int:
        """Queue one request once it is sure that no word of it can spoil the group that it will be written in."""
        self._check_process()
        reservation = request.reservation
        valid_name(reservation.tenant, "tenant")
        accounts(reservation.tenant, reservation.user, reservation.time)
        for what, text, shortest in (("id", reservation.id, 1), ("user", reservation.user, 0)):
            if not (shortest <= len(text) <= _LONGEST and text.isprintable()):
                raise LedgerError(
                    f"{what} must be {shortest} to {_LONGEST} printable characters, but got {text!r:.80}; "
                    "use the id of the decision and the pseudonymous key of the user."
                )
        if self._writer.closed:
            raise LedgerError(f"a ledger must be open to be written, but that of {self.url} was closed; open it anew.")
        return self._writer.write(request)

    def _commit(self, group: Sequence[_Request]) -> list[Answer]:
        """Apply the requests of `group` in order, each refused on its own, in one transaction; the answer to each."""
        answers: list[Answer] = []
        try:
            with self._transaction(self._database.writing) as connection:
                tenants = sorted({request.reservation.tenant for request in group})
                lock(connection, tenants)
                nows = {tenant: [one.now for one in group if one.reservation.tenant == tenant] for tenant in tenants}
                book = read(connection, [request.reservation for request in group], nows)
                before = book.copy()
                for request in group:
                    try:
                        answers.append(request.apply(book) or 0)
                    except PilotageError as error:
                        answers.append(error)
                write(connection, before, book)
        except LedgerError as error:  # to each its own: threads that raise one exception write into one traceback
            return [LedgerError(str(error)) for _ in group]
        return answers

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise LedgerError(
                f"a ledger must be used by the process that opened it, but process {self._process} opened {self.url} "
                f"and process {os.getpid()} is its fork; open it anew there."
            )

    def _identity(self) -> tuple[int, int] | None:
        """Device and inode of the database's file, where it is one: SQLite would go on writing into a deleted file."""
        if self._path is None:
            return None
        try:
            status = os.stat(self._path)
        except OSError as error:
            raise LedgerError(
                f"the ledger's database must stay where it is, but {self.url} is gone ({error.strerror}); "
                "put it back and start again: without it nobody knows what was spent."
            ) from error
        return status.st_dev, status.st_ino

    @contextmanager
    def _transaction(self, engine: sa.Engine) -> Iterator[Connection]:
        self._check_process()
        if self._identity() != self._file:
            raise LedgerError(
                f"the ledger's database must stay where it is, but {self.url} is another file than was opened; "
                "start again with the one that knows what was spent."
            )
        try:
            with engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise LedgerError(
                f"the ledger must be written and read in its database, but {self.url} says: {error.orig}. "
                "Check the path, its permissions and free space, and that no process holds a transaction open."
            ) from error

    def _open(self, connection: Connection) -> None:
        of_record = sa.select(META.c.value).where(META.c.key == "record").with_for_update()
        connection.execute(of_record)  # of two who open at once, one makes the tables
        version = connection.execute(sa.select(META.c.value).where(META.c.key == "budgets")).scalar()
        if version is None:
            TABLES.create_all(connection)
            connection.execute(sa.insert(META), [{"key": "budgets", "value": str(VERSION)}])
        elif version != str(VERSION):
            raise LedgerError(
                f"a ledger must have version {VERSION}, but {self.url} has {version!r}. "
                "Open it with the Pilotage that wrote it or a newer one."
            )
