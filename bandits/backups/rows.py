"""The record in a backup: the same tables in a file of their own, but what belongs to a person is sealed.

    record.db       meta, head, tombstones, epochs, budget_tenants, rollout_orders and rollout_leases, and the rows of
                    nobody in particular: as they are
        sealed      every other row: its table, position and scope in the clear, itself under the person's key

So who destroys a person's key has taken the person's rows out of every backup, wherever it lies. Opened again, rows
whose key is gone become tombstones at their positions, as if they had been erased from this record too.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bandits.money import tables as ledger_tables
from bandits.privacy.people import People, seal, unseal
from bandits.record.erasure import current_epoch
from bandits.record.tables import DECISIONS, EPOCHS, HEAD, META, OUTCOMES, TOMBSTONES, make
from bandits.rollout.orders import LEASES, ORDERS
from bandits.rollout.orders import TABLES as ROLLOUTS

SEALED = sa.Table(
    "sealed",
    sa.MetaData(),
    sa.Column("table", sa.Text, nullable=False),
    sa.Column("position", sa.Integer),  # none of a row of the ledger
    sa.Column("scope", sa.Text),
    sa.Column("person", sa.Integer, nullable=False),  # the number of privacy/people.py
    sa.Column("content", sa.LargeBinary, nullable=False),  # JSON object: column -> value
)
_AT_ONCE = 2_000  # rows in memory
_PLAIN = (TOMBSTONES, EPOCHS, ledger_tables.TENANTS, ORDERS, LEASES)
_OWNED: Mapping[sa.Table, sa.Select[Any]] = {  # the table's columns, and last whose row it is
    DECISIONS: sa.select(DECISIONS, DECISIONS.c.user.label("owner")),
    OUTCOMES: sa.select(OUTCOMES, sa.func.coalesce(DECISIONS.c.user, "").label("owner")).select_from(
        OUTCOMES.outerjoin(DECISIONS, DECISIONS.c.id == OUTCOMES.c.decision_id)
    ),
    ledger_tables.SUMS: sa.select(ledger_tables.SUMS, ledger_tables.SUMS.c.user.label("owner")),
    ledger_tables.LINES: sa.select(ledger_tables.LINES, ledger_tables.LINES.c.user.label("owner")),
}
_BY_NAME = {table.name: table for table in _OWNED}


@dataclass(frozen=True, slots=True)
class Written:
    """What of a record went into a backup."""

    position: int  # of the last row
    epoch: int
    rows: int  # decisions and outcomes


@dataclass(frozen=True, slots=True)
class Lost:
    """What could not be opened, since its key is gone."""

    positions: list[int] = field(default_factory=list)
    scopes: set[str] = field(default_factory=set)  # that lost rows
    epoch: int = 1  # that lasts, whether anything was lost or not


def seal_record(source: Connection, target: Connection, people: People) -> Written:
    """Write what `source` sees of a record to `target`, an empty file. Keys are made for people who have none yet.

    source: in one transaction that sees one state. Raises DBAPIError of either side, KeyFileError.
    """
    make(target)
    SEALED.create(target)
    there = set(sa.inspect(source).get_table_names())
    if ledger_tables.LINES.name in there:
        ledger_tables.TABLES.create_all(target)
    if ORDERS.name in there:
        ROLLOUTS.create_all(target)
    rows = 0
    others = source.execute(sa.select(META).where(META.c.key != "record")).all()
    _insert(target, META, [tuple(row) for row in others])
    position = int(source.execute(sa.select(HEAD.c.position)).scalar_one())
    target.execute(sa.update(HEAD).values(position=position))
    for table in _PLAIN:
        if table.name in there:
            for some in streamed(source, sa.select(table)):
                _insert(target, table, [tuple(row) for row in some])
    for table, query in _OWNED.items():
        if table.name in there:
            count = _seal_table(source, target, table, query, people)
            rows += count if table in (DECISIONS, OUTCOMES) else 0
    return Written(position, current_epoch(source).number, rows)


def _seal_table(source: Connection, target: Connection, table: sa.Table, query: sa.Select[Any], people: People) -> int:
    names, count = [column.name for column in table.columns], 0
    keys: dict[tuple[str, str], tuple[int, bytes]] = {}
    for some in streamed(source, query):
        persons = {(row.tenant, row.owner) for row in some if row.owner}
        keys |= people.keys(*(persons - keys.keys())) if persons - keys.keys() else {}
        _insert(target, table, [tuple(row)[:-1] for row in some if not row.owner])
        sealed = []
        for row in some:
            if row.owner:
                number, key = keys[row.tenant, row.owner]
                values = dict(zip(names, tuple(row)[:-1], strict=True))
                scope = f"{row.tenant}/{row.workspace}/{row.domain}" if "workspace" in values else None
                sealed.append((table.name, values.get("position"), scope, number, seal(key, _encoded(values))))
        _insert(target, SEALED, sealed)
        count += len(some)
    return count


def open_record(connection: Connection, keys: Mapping[int, bytes]) -> Lost:
    """Put the sealed rows back, in place; those whose key is not among `keys` become tombstones of a new epoch.

    Inside the caller's writing transaction. Raises DBAPIError, and KeyFileError where a key opens nothing.
    """
    lost = Lost(epoch=current_epoch(connection).number)
    for some in streamed(connection, sa.select(SEALED)):
        opened: dict[str, list[dict[str, Any]]] = {}
        for row in some:
            key = keys.get(row.person)
            if key is not None:
                opened.setdefault(row.table, []).append(_decoded(unseal(key, row.content)))
            elif row.position is not None:
                lost.positions.append(row.position)
                lost.scopes.add(row.scope)
        for name, values in opened.items():
            connection.execute(sa.insert(_BY_NAME[name]), values)
    SEALED.drop(connection)
    if not lost.positions:
        return lost
    epoch = lost.epoch + 1
    head = connection.execute(sa.select(HEAD.c.position)).scalar_one()
    _insert(connection, TOMBSTONES, [(position, epoch) for position in lost.positions])
    _insert(connection, EPOCHS, [(epoch, head)])
    return Lost(lost.positions, lost.scopes, epoch)


def see_one_state(connection: Connection) -> None:
    """Let every statement of a transaction that has just begun see the same."""
    if connection.dialect.name == "postgresql":  # each would see what was committed before it
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")


def streamed(connection: Connection, query: sa.Select[Any]) -> Iterator[Sequence[sa.Row[Any]]]:
    """The rows of a query, some thousands at once."""
    return connection.execute(query, execution_options={"yield_per": _AT_ONCE}).partitions()


def _insert(connection: Connection, table: sa.Table, rows: Sequence[tuple[Any, ...]]) -> None:
    if rows:
        connection.exec_driver_sql(str(sa.insert(table).compile(dialect=connection.dialect)), list(rows))


def _encoded(values: Mapping[str, Any]) -> bytes:
    """JSON that gives each value back to the last bit; bytes as {"base64": ...}."""
    plain = {
        name: {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
        for name, value in values.items()
    }
    return json.dumps(plain).encode()


def _decoded(content: bytes) -> dict[str, Any]:
    return {
        name: base64.b64decode(value["base64"]) if isinstance(value, dict) else value
        for name, value in json.loads(content).items()
    }
