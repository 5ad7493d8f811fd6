"""How the ledger lies in SQL: sums by account, a line for each reservation, and a row to lock for each tenant.

Only what SQLite and PostgreSQL both understand; FOR UPDATE is left out where SQLAlchemy knows that it means nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from bandits.caps import HOLD_S, Account, Book, Line, Reservation, Sums, accounts

VERSION = 1  # of the tables below; those of another version are refused

TABLES = sa.MetaData()
TENANTS = sa.Table("budget_tenants", TABLES, sa.Column("tenant", sa.Text, primary_key=True))  # rows to lock
SUMS = sa.Table(
    "budget_sums",
    TABLES,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("user", sa.Text, primary_key=True),
    sa.Column("period", sa.Text, primary_key=True),
    sa.Column("reserved", sa.BigInteger, nullable=False),
    sa.Column("settled", sa.BigInteger, nullable=False),
)
LINES = sa.Table(
    "budget_lines",
    TABLES,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("user", sa.Text, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("held", sa.Boolean, nullable=False),
    sa.Column("actual", sa.BigInteger, nullable=False),
    sa.Index("budget_lines_by_held", "tenant", "held", "time"),
)
_INSERTS: Mapping[str, Callable[[sa.Table], Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}  # the same words, in two places


def lock(connection: Connection, tenants: Sequence[str]) -> None:
    """Hold the tenants' rows until the transaction ends, always in one order; make those that are not there."""
    rows = sa.select(TENANTS.c.tenant).where(TENANTS.c.tenant.in_(tenants)).order_by(TENANTS.c.tenant)
    missing = set(tenants) - set(connection.scalars(rows.with_for_update()))
    if missing:
        made = [{"tenant": tenant} for tenant in sorted(missing)]
        connection.execute(_INSERTS[connection.dialect.name](TENANTS).on_conflict_do_nothing(), made)
        connection.execute(rows.with_for_update())


def read(connection: Connection, asked: Iterable[Reservation], nows: Mapping[str, Sequence[float]]) -> Book:
    """The lines of the reservations that are asked for, those that lapsed at any of `nows`, and the sums of both.

    nows: tenant -> times, UTC, seconds. What else of the same tenants comes along is harmless.
    """
    asked, book = list(asked), Book()
    by_id = sa.and_(LINES.c.tenant.in_(list(nows)), LINES.c.id.in_([one.id for one in asked]))
    for condition in (by_id, *(_lapsed(tenant, times) for tenant, times in nows.items())):
        for tenant, id_, user, amount, time, held, actual in connection.execute(sa.select(LINES).where(condition)):
            book.lines[tenant, id_] = Line(Reservation(id_, tenant, user, amount, time), held, actual)
    touched = [*asked, *(line.reservation for line in book.lines.values())]
    places = {account for one in touched for account in accounts(one.tenant, one.user, one.time)}
    columns = zip((SUMS.c.tenant, SUMS.c.user, SUMS.c.period), zip(*places, strict=True), strict=True)
    query = sa.select(SUMS).where(*(column.in_(set(values)) for column, values in columns))
    for tenant, user, period, reserved, settled in connection.execute(query):
        book.sums[Account(tenant, user, period)] = Sums(reserved, settled)
    return book


def write(connection: Connection, before: Book, after: Book) -> None:
    """Put down what `after` has and `before` has not."""
    sums = [account._asdict() | asdict(one) for account, one in after.sums.items() if before.sums.get(account) != one]
    lines = [
        asdict(line.reservation) | {"held": line.held, "actual": line.actual}
        for key, line in after.lines.items()
        if before.lines.get(key) != line
    ]
    _upsert(connection, SUMS, sums)
    _upsert(connection, LINES, lines)


def _lapsed(tenant: str, times: Sequence[float]) -> sa.ColumnElement[bool]:
    """Held lines of a tenant that may have lapsed at one of `times`; Book.lapse decides."""
    outside = sa.or_(LINES.c.time <= max(times) - HOLD_S, LINES.c.time > min(times) + HOLD_S)
    return sa.and_(LINES.c.tenant == tenant, LINES.c.held == sa.true(), outside)


def forget(connection: Connection, tenant: str, user: str) -> None:
    """Delete what names a user; the tenant's own sums keep what the user spent."""
    for table in (SUMS, LINES):
        connection.execute(sa.delete(table).where(table.c.tenant == tenant, table.c.user == user))


def _upsert(connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        new = _INSERTS[connection.dialect.name](table)
        changed = {column.name: new.excluded[column.name] for column in table.columns if not column.primary_key}
        connection.execute(new.on_conflict_do_update(index_elements=list(table.primary_key), set_=changed), rows)
