"""What an erasure takes from the record, and the epochs that erasures divide it into."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bandits.record.commit import place
from bandits.record.tables import DECISIONS, EPOCHS, OUTCOMES, TOMBSTONES, guard, unguard
from bandits.types import Scope


class Erased(NamedTuple):
    """What an erasure took."""

    decisions: int
    outcomes: int
    scopes: frozenset[Scope]
    epoch: int  # that it began; the one before if it found nothing


def erase(connection: Connection, tenant: str, user: str | None = None, before: float | None = None) -> Erased:
    """Delete the decisions of one person, or those made before a time, and their outcomes; begin a new epoch.

    Their positions stay, as tombstones. Inside the caller's writing transaction, which must have placed itself first.
    """
    theirs = [DECISIONS.c.tenant == tenant]
    theirs += [] if user is None else [DECISIONS.c.user == user]
    theirs += [] if before is None else [DECISIONS.c.time < before]
    query = sa.select(DECISIONS.c.position, DECISIONS.c.id, DECISIONS.c.workspace, DECISIONS.c.domain).where(*theirs)
    decisions = connection.execute(query).all()
    epoch = current_epoch(connection)
    if not decisions:
        return Erased(0, 0, frozenset(), epoch.number)
    of_theirs = OUTCOMES.c.decision_id.in_(sa.select(DECISIONS.c.id).where(*theirs))
    outcomes = connection.execute(sa.select(OUTCOMES.c.position).where(of_theirs)).scalars().all()
    unguard(connection)
    connection.execute(sa.delete(OUTCOMES).where(of_theirs))
    connection.execute(sa.delete(DECISIONS).where(*theirs))
    guard(connection)
    gone = [*(row.position for row in decisions), *outcomes]
    connection.execute(sa.insert(TOMBSTONES), [{"position": at, "epoch": epoch.number + 1} for at in gone])
    connection.execute(sa.insert(EPOCHS), [{"epoch": epoch.number + 1, "position": place(connection)}])
    scopes = frozenset(Scope(tenant, row.workspace, row.domain) for row in decisions)
    return Erased(len(decisions), len(outcomes), scopes, epoch.number + 1)


class Epoch(NamedTuple):
    """A span of the record in which nothing was erased."""

    number: int  # from 1
    start: int  # position of the last row before it began


def current_epoch(connection: Connection) -> Epoch:
    """The epoch that lasts."""
    found = connection.exec_driver_sql("SELECT epoch, position FROM epochs ORDER BY epoch DESC LIMIT 1").one_or_none()
    return Epoch(1, 0) if found is None else Epoch(found[0], found[1])


def tombstones(connection: Connection, after: int, until: int) -> set[int]:
    """Positions in after+1 .. until whose rows were erased."""
    query = sa.select(TOMBSTONES.c.position).where(TOMBSTONES.c.position > after, TOMBSTONES.c.position <= until)
    return set(connection.execute(query).scalars())
