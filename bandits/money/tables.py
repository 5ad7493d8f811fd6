"""How the ledger lies in SQL: sums by account, a line for each reservation, and a row to lock for each tenant.

Only what SQLite and PostgreSQL both understand; FOR UPDATE is left out where SQLAlchemy knows that it means nothing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from bandits.money.caps import HOLD_S, NANO, Account, Book, Line, Reservation, Sums, accounts
from bandits.record.tables import OUTCOMES

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

# What every group says is built once: building and compiling it anew costs more than the disk.
_TENANTS = (
    sa.select(TENANTS.c.tenant)
    .where(TENANTS.c.tenant.in_(sa.bindparam("tenants", expanding=True)))
    .order_by(TENANTS.c.tenant)
    .with_for_update()
)
_BY_ID = sa.select(LINES).where(
    LINES.c.tenant.in_(sa.bindparam("tenants", expanding=True)), LINES.c.id.in_(sa.bindparam("ids", expanding=True))
)
_LAPSED = sa.select(LINES).where(  # may have lapsed; Book.lapse decides
    LINES.c.tenant == sa.bindparam("of"),
    LINES.c.held == sa.true(),
    sa.or_(LINES.c.time <= sa.bindparam("old"), LINES.c.time > sa.bindparam("ahead")),
)
_SUMS = sa.select(SUMS).where(
    *(SUMS.c[name].in_(sa.bindparam(f"{name}s", expanding=True)) for name in ("tenant", "user", "period"))
)
_INSERTS: Mapping[str, Callable[[sa.Table], Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}  # the same words, in two places


def lock(connection: Connection, tenants: Sequence[str]) -> None:
    """Hold the tenants' rows until the transaction ends, always in one order; make those that are not there."""
    missing = set(tenants) - set(connection.scalars(_TENANTS, {"tenants": tenants}))
    if missing:
        made = [{"tenant": tenant} for tenant in sorted(missing)]
        connection.execute(_INSERTS[connection.dialect.name](TENANTS).on_conflict_do_nothing(), made)
        connection.execute(_TENANTS, {"tenants": tenants})


def read(connection: Connection, asked: Iterable[Reservation], nows: Mapping[str, Sequence[float]]) -> Book:
    """The lines of the reservations that are asked for, those that lapsed at any of `nows`, and the sums of both.

    nows: tenant -> times, UTC, seconds. What else of the same tenants comes along is harmless.
    """
    asked, book = list(asked), Book()
    queries: list[tuple[sa.Select[Any], dict[str, Any]]] = [
        (_BY_ID, {"tenants": list(nows), "ids": [one.id for one in asked]})
    ]
    queries += [
        (_LAPSED, {"of": tenant, "old": max(times) - HOLD_S, "ahead": min(times) + HOLD_S})
        for tenant, times in nows.items()
    ]
    for query, values in queries:
        for tenant, id_, user, amount, time, held, actual in connection.execute(query, values):
            book.lines[tenant, id_] = Line(Reservation(id_, tenant, user, amount, time), held, actual)
    touched = [*asked, *(line.reservation for line in book.lines.values())]
    places = {account for one in touched for account in accounts(one.tenant, one.user, one.time)}
    tenants, users, periods = (sorted(set(column)) for column in zip(*places, strict=True))
    found = connection.execute(_SUMS, {"tenants": tenants, "users": users, "periods": periods})
    for tenant, user, period, reserved, settled in found:
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


def forget(connection: Connection, tenant: str, user: str) -> None:
    """Take out what names a user; the tenant's own sums keep what the user spent.

    Lines stay, as nobody's: what is held can still be given back, and a cost that is told again counts once.
    """
    lock(connection, [tenant])
    connection.execute(sa.delete(SUMS).where(SUMS.c.tenant == tenant, SUMS.c.user == user))
    of_user = sa.and_(LINES.c.tenant == tenant, LINES.c.user == user)
    connection.execute(sa.update(LINES).where(of_user).values(user=""))


def untold(connection: Connection, since: float) -> list[tuple[Reservation, float]]:
    """Requests from `since` on (UTC, s) that cost more, USD, than was settled: the record heard of it, we did not."""
    mine = sa.and_(OUTCOMES.c.decision_id == LINES.c.id, OUTCOMES.c.tenant == LINES.c.tenant)
    names = (LINES.c.id, LINES.c.tenant, LINES.c.user, LINES.c.amount, LINES.c.time)
    spent = sa.func.sum(OUTCOMES.c.cost_usd)
    query = sa.select(*names, spent).join_from(LINES, OUTCOMES, mine).where(LINES.c.time >= since)
    query = query.group_by(*names, LINES.c.actual).having(spent * NANO > LINES.c.actual + 0.5)  # which rounds up
    found = connection.execute(query).all()
    costs = sa.select(OUTCOMES.c.cost_usd).where(OUTCOMES.c.tenant == sa.bindparam("of"))
    costs = costs.where(OUTCOMES.c.decision_id == sa.bindparam("id"), OUTCOMES.c.cost_usd.is_not(None))
    return [
        (Reservation(*one[:5]), math.fsum(connection.scalars(costs, {"of": one[1], "id": one[0]})))  # rounded once
        for one in found
    ]


def _upsert(connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        statement, names = _upsert_of(table, connection.dialect)
        values = [tuple(row[name] for name in names) if names else dict(row) for row in rows]
        connection.exec_driver_sql(statement, values)


@functools.lru_cache(maxsize=16)  # SQLAlchemy compiles an upsert each time that it is executed
def _upsert_of(table: sa.Table, dialect: sa.Dialect) -> tuple[str, tuple[str, ...]]:
    """The statement in the driver's own words, and its parameters in order; none where the driver wants names."""
    new = _INSERTS[dialect.name](table)
    changed = {column.name: new.excluded[column.name] for column in table.columns if not column.primary_key}
    compiled = new.on_conflict_do_update(index_elements=list(table.primary_key), set_=changed).compile(dialect=dialect)
    return str(compiled), tuple(compiled.positiontup or ())
