"""How a decision and an outcome lie in SQL: tables and their codec.

Types are those that every database has. How to connect, and what a failure means, each database says for itself:
sqlite.py, postgres.py.
"""

from __future__ import annotations

import functools
import json
from typing import Any, Protocol

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bandits.types import Decision, Outcome, Scope, Slot

VERSION = 3  # of the tables below; an older file is brought up to it, a newer one is refused

_F4, _F8 = np.dtype("<f4"), np.dtype("<f8")

TABLES = sa.MetaData()
_position = sa.BigInteger().with_variant(sa.Integer, "sqlite")

META = sa.Table(
    "meta",
    TABLES,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
HEAD = sa.Table("head", TABLES, sa.Column("position", _position, nullable=False))  # one row: gives the next position
DECISIONS = sa.Table(
    "decisions",
    TABLES,
    sa.Column("position", _position, primary_key=True, autoincrement=False),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("workspace", sa.Text, nullable=False),
    sa.Column("domain", sa.Text, nullable=False),
    sa.Column("schema", sa.Text, nullable=False),
    sa.Column("context", sa.LargeBinary, nullable=False),  # little-endian float32
    sa.Column("arms", sa.Text, nullable=False),  # JSON list of names
    sa.Column("excluded", sa.Text, nullable=False),  # JSON object, arm -> reason
    sa.Column("probabilities", sa.LargeBinary, nullable=False),  # little-endian float64, so that every bit is kept
    sa.Column("action", sa.Integer, nullable=False),
    sa.Column("propensity", sa.Double, nullable=False),
    sa.Column("policy", sa.Text, nullable=False),
    sa.Column("slot", sa.Text, nullable=False),
    sa.Column("price", sa.Double, nullable=False),
    sa.Column("pressure", sa.Double, nullable=False),
    sa.Column("forced", sa.Boolean, nullable=False),
    sa.Column("user", sa.Text, nullable=False, server_default=""),
    sa.Column("seen", _position, nullable=False, server_default="0"),
    sa.Column("conversation", sa.Text, nullable=False, server_default=""),
)
sa.Index(
    "decisions_by_conversation",
    DECISIONS.c.tenant,
    DECISIONS.c.conversation,
    DECISIONS.c.position,
    sqlite_where=DECISIONS.c.conversation != "",
    postgresql_where=DECISIONS.c.conversation != "",
)
OUTCOMES = sa.Table(
    "outcomes",
    TABLES,
    sa.Column("position", _position, primary_key=True, autoincrement=False),
    sa.Column("decision_id", sa.Text, nullable=False),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("workspace", sa.Text, nullable=False),
    sa.Column("domain", sa.Text, nullable=False),
    sa.Column("quality", sa.Double),
    sa.Column("cost_usd", sa.Double),
    sa.Column("latency_s", sa.Double),
    sa.Column("vote", sa.Integer),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False, server_default=""),
    sa.Column("arm", sa.Text, nullable=False, server_default=""),
    sa.Column("result", sa.Text, nullable=False, server_default=""),
    sa.Column("input_tokens", sa.BigInteger),
    sa.Column("output_tokens", sa.BigInteger),
    sa.Column("first_token_s", sa.Double),
    sa.Index("outcomes_by_decision", "decision_id", "position"),
)
TOMBSTONES = sa.Table(  # positions whose rows an erasure took away
    "tombstones",
    TABLES,
    sa.Column("position", _position, primary_key=True, autoincrement=False),
    sa.Column("epoch", _position, nullable=False),  # the one that the erasure began
)
EPOCHS = sa.Table(
    "epochs",
    TABLES,
    sa.Column("epoch", _position, primary_key=True, autoincrement=False),
    sa.Column("position", _position, nullable=False),  # the head when it began; the first, 1, is not listed
)
_APPEND_ONLY = {
    "sqlite": (
        "CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table} "
        "BEGIN SELECT RAISE(ABORT, 'the record is append-only'); END"
    ),
    "postgresql": (
        "CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table} FOR EACH STATEMENT EXECUTE FUNCTION record_refuses()"
    ),
}
_REFUSES = (
    "CREATE OR REPLACE FUNCTION record_refuses() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'the record is append-only'; END $$"
)


def make(connection: Connection) -> None:
    """Make the tables, empty, of the newest version, and what keeps them append-only."""
    dialect = connection.dialect.name
    TABLES.create_all(connection)
    connection.execute(sa.insert(META), [{"key": "record", "value": str(VERSION)}])
    connection.execute(sa.insert(HEAD), [{"position": 0}])
    if dialect == "postgresql":
        connection.exec_driver_sql(_REFUSES)
    guard(connection)


def guard(connection: Connection) -> None:
    """Let the database itself refuse to change or delete a decision or an outcome."""
    dialect = connection.dialect.name
    for table, verb in _guarded(connection):
        connection.exec_driver_sql(_APPEND_ONLY[dialect].format(table=table, verb=verb))


def unguard(connection: Connection) -> None:
    """Take that back; for an erasure, which must guard again in the same transaction."""
    on = " ON {}" if connection.dialect.name == "postgresql" else ""
    for table, verb in _guarded(connection):
        connection.exec_driver_sql(f"DROP TRIGGER {table}_no_{verb}{on.format(table)}")


def _guarded(connection: Connection) -> list[tuple[str, str]]:
    verbs = ("update", "delete", *(["truncate"] if connection.dialect.name == "postgresql" else []))
    return [(table.name, verb) for table in (DECISIONS, OUTCOMES) for verb in verbs]


_MIGRATIONS = {  # version -> what makes the next of it; old rows keep their meaning
    "1": (
        "ALTER TABLE decisions ADD COLUMN \"user\" TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE decisions ADD COLUMN seen BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE outcomes ADD COLUMN \"key\" TEXT NOT NULL DEFAULT ''",
        "CREATE TABLE tombstones (position BIGINT NOT NULL PRIMARY KEY, epoch BIGINT NOT NULL)",
        "CREATE TABLE epochs (epoch BIGINT NOT NULL PRIMARY KEY, position BIGINT NOT NULL)",
    ),
    "2": (
        "ALTER TABLE decisions ADD COLUMN conversation TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX decisions_by_conversation ON decisions (tenant, conversation, position) WHERE conversation != ''",
        "ALTER TABLE outcomes ADD COLUMN arm TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE outcomes ADD COLUMN result TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE outcomes ADD COLUMN input_tokens BIGINT",
        "ALTER TABLE outcomes ADD COLUMN output_tokens BIGINT",
        "ALTER TABLE outcomes ADD COLUMN first_token_s DOUBLE PRECISION",
    ),
}


def migrate(connection: Connection, found: str | None) -> str | None:
    """Bring tables of version `found` up to VERSION, inside the caller's transaction; the version that they have now.

    That is `found` itself where no way leads on from it.
    """
    while found in _MIGRATIONS:
        for statement in _MIGRATIONS[found]:
            connection.exec_driver_sql(statement)
        found = str(int(found) + 1)
        connection.execute(sa.update(META).where(META.c.key == "record").values(value=found))
    return found


def from_decision(decision: Decision) -> tuple[Any, ...]:
    """The columns of a decision, in order, behind its position."""
    return (
        decision.id,
        float(decision.time),
        decision.scope.tenant,
        decision.scope.workspace,
        decision.scope.domain,
        decision.schema,
        decision.context.astype(_F4, copy=False).tobytes(),
        _json(tuple(decision.arms)),
        json.dumps(dict(decision.excluded)) if decision.excluded else "{}",
        decision.probabilities.astype(_F8, copy=False).tobytes(),
        int(decision.action),
        float(decision.propensity),
        decision.policy,
        str(decision.slot),
        float(decision.price),
        float(decision.pressure),
        bool(decision.forced),
        decision.user,
        int(decision.seen),
        decision.conversation,
    )


def to_decision(row: sa.Row[Any]) -> Decision:
    """The decision of a row, its columns in the order of the table; raises as Decision does if it was tampered with."""
    _, id_, time, tenant, workspace, domain, schema, context, arms, excluded, probabilities, action, *more = row
    propensity, policy, slot, price, pressure, forced, user, seen, conversation = more
    return Decision(
        id=id_,
        time=time,
        scope=scope_named(tenant, workspace, domain),
        schema=schema,
        context=np.frombuffer(context, "<f4").astype(np.float32),
        arms=_names(arms),
        excluded={} if excluded == "{}" else json.loads(excluded),
        probabilities=np.frombuffer(probabilities, "<f8").astype(np.float64),
        action=action,
        propensity=propensity,
        policy=policy,
        slot=_slot(slot),
        price=price,
        pressure=pressure,
        forced=forced,
        user=user,
        seen=seen,
        conversation=conversation,
    )


def from_outcome(outcome: Outcome) -> tuple[Any, ...]:
    """The columns of an outcome, in order, behind its position."""
    return (
        outcome.decision_id,
        float(outcome.time),
        outcome.scope.tenant,
        outcome.scope.workspace,
        outcome.scope.domain,
        None if outcome.quality is None else float(outcome.quality),
        None if outcome.cost_usd is None else float(outcome.cost_usd),
        None if outcome.latency_s is None else float(outcome.latency_s),
        None if outcome.vote is None else int(outcome.vote),
        outcome.source,
        outcome.key,
        outcome.arm,
        outcome.result,
        outcome.input_tokens,
        outcome.output_tokens,
        None if outcome.first_token_s is None else float(outcome.first_token_s),
    )


def to_outcome(row: sa.Row[Any]) -> Outcome:
    """The outcome of a row, likewise."""
    _, decision_id, time, tenant, workspace, domain, *told = row
    return Outcome(decision_id, time, scope_named(tenant, workspace, domain), *told)


class Database(Protocol):
    """Where the tables lie: how to get at them, and how to speak of what fails."""

    shown: str  # its URL, without a password
    writing: sa.Engine
    reading: sa.Engine
    failures: tuple[type[Exception], ...]  # of its driver, beside those that SQLAlchemy wraps

    def before_opening(self, connection: Connection) -> None:
        """Called in the transaction that looks for the tables, first of all. Raises RecordError: not fit for them."""

    def scrub(self) -> None:
        """Overwrite what was deleted. Raises what the driver raises."""

    def fault(self, error: Exception) -> str:
        """The text of a RecordError for what its driver said."""


@functools.lru_cache(maxsize=4096)  # a record names few scopes and few lists of arms, but in every row
def scope_named(tenant: str, workspace: str, domain: str) -> Scope:
    """The same scope for the same names."""
    return Scope(tenant, workspace, domain)


@functools.lru_cache(maxsize=64)
def _slot(name: str) -> Slot:
    return Slot(name)


@functools.lru_cache(maxsize=4096)
def _json(arms: tuple[str, ...]) -> str:
    return json.dumps(arms)


@functools.lru_cache(maxsize=4096)
def _names(arms: str) -> tuple[str, ...]:
    return tuple(json.loads(arms))
