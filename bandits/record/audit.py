"""The audit chain: who changed what that matters, when and why, in rows that each seal all rows before them.

A row seals a *commitment* to its content, sha256(salt, content), not the content itself. So content that an erasure
takes away leaves the chain whole, and what is still there can be proven to be what was written. The link of the last
row is signed into each snapshot: whoever drops or rewrites rows behind that has to forge a signature as well.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, Self, get_args

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from bandits.errors import AuditError
from bandits.record.database import open_database

Action = Literal[
    "promotion", "kept", "rollout", "rollback", "erasure", "key", "configuration", "arms", "backup", "restore"
]
START = "0" * 64  # what the first row seals
_BUSY_S = 30.0

_TABLES = sa.MetaData()
_CHAIN = sa.Table(
    "audit",
    _TABLES,
    sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False),  # "" where it concerns every tenant
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("commitment", sa.Text, nullable=False),
    sa.Column("link", sa.Text, nullable=False),
)
_CONTENT = sa.Table(
    "audit_content",
    _TABLES,
    sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("salt", sa.Text, nullable=False),
    sa.Column("content", sa.Text, nullable=False),  # JSON object: who, why, evidence
)


class Head(NamedTuple):
    """The end of the chain: what a snapshot signs."""

    sequence: int
    link: str


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One change. `content` is None where an erasure took it."""

    sequence: int
    time: float  # UTC, seconds since the epoch
    tenant: str
    action: str
    commitment: str
    link: str
    content: Mapping[str, Any] | None
    sealed: bool  # the content, if there, is what the commitment was made of

    def render(self) -> str:
        """One line, and the reason under it."""
        when = datetime.fromtimestamp(self.time, UTC).strftime("%Y-%m-%d %H:%M:%S")
        c = self.content
        told = "  (its content was erased)" if c is None else f"  {c['who']}: {c['why']}"
        return (
            f"{self.sequence:>6}  {when}  {self.action:<13} {self.tenant or 'every tenant'}  {self.link[:12]}\n{told}"
        )


class Audit:
    """The chain in a database. Any process may append; each append is one durable transaction."""

    def __init__(self, url: str) -> None:
        """Open the chain at `url`, "sqlite:///path", making it if it is not there. Raises AuditError, RecordError."""
        self._database = open_database(url, _BUSY_S)
        with self._transaction(self._database.writing) as connection:
            _TABLES.create_all(connection)

    def append(
        self, action: Action, *, tenant: str, who: str, why: str, evidence: Mapping[str, Any], time: float
    ) -> Head:
        """Seal one change. evidence: plain JSON. Raises AuditError."""
        if action not in get_args(Action):
            raise AuditError(f"an action must be one of {', '.join(get_args(Action))}, but got {action!r}.")
        try:
            content = json.dumps({"who": who, "why": why, "evidence": dict(evidence)}, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise AuditError(
                f"evidence must be plain, finite JSON, but: {error}; in {action} of {tenant!r}."
            ) from error
        salt = secrets.token_hex(32)
        commitment = _commitment(salt, content)
        with self._transaction(self._database.writing) as connection:
            last = _head(connection)
            sequence = last.sequence + 1
            link = _link(last.link, sequence, time, tenant, action, commitment)
            values = {"sequence": sequence, "time": time, "tenant": tenant, "action": action}
            connection.execute(sa.insert(_CHAIN), [{**values, "commitment": commitment, "link": link}])
            connection.execute(sa.insert(_CONTENT), [{"sequence": sequence, "salt": salt, "content": content}])
        return Head(sequence, link)

    def head(self) -> Head:
        """The last row; sequence 0 when there is none."""
        with self._transaction(self._database.reading) as connection:
            return _head(connection)

    def rows(self, tenant: str | None = None) -> list[AuditRow]:
        """All rows in order, or those of one tenant and of everybody."""
        query = sa.select(_CHAIN, _CONTENT.c.salt, _CONTENT.c.content)
        query = query.select_from(_CHAIN.outerjoin(_CONTENT, _CHAIN.c.sequence == _CONTENT.c.sequence))
        if tenant is not None:
            query = query.where(_CHAIN.c.tenant.in_([tenant, ""]))
        with self._transaction(self._database.reading) as connection:
            return [_row(found) for found in connection.execute(query.order_by(_CHAIN.c.sequence))]

    def forget(self, sequences: Sequence[int]) -> None:
        """Take the content of these rows away; the chain stays whole."""
        with self._transaction(self._database.writing) as connection:
            connection.execute(sa.delete(_CONTENT).where(_CONTENT.c.sequence.in_(list(sequences))))

    def close(self) -> None:
        """Let go of the database."""
        self._database.writing.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self, engine: sa.Engine) -> Iterator[Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise AuditError(
                f"the audit chain must be readable and writable, but its database says: {error.orig}. Check its path, "
                "permissions and free space."
            ) from error


def verify(rows: Iterable[AuditRow], signed: Mapping[str, Head]) -> list[str]:
    """Faults of a whole chain, none if it is sound.

    signed: heads that snapshots carry, by the snapshot's name; each must be a row of the chain. Rows that were dropped
    behind the last signed head cannot be missed.
    """
    faults, links = [], {0: START}
    expected = 1
    for row in rows:
        if row.sequence != expected:
            faults.append(f"row {expected}: missing; the chain must have no gap")
        before = links.get(row.sequence - 1)
        again = _link(before or "", row.sequence, row.time, row.tenant, row.action, row.commitment)
        if before is not None and not hmac.compare_digest(again, row.link):
            faults.append(f"row {row.sequence}: its link is not that of its content and the row before; it was changed")
        if not row.sealed:
            faults.append(f"row {row.sequence}: its content is not what was sealed; it was changed")
        links[row.sequence] = row.link
        expected = row.sequence + 1
    for name, head in signed.items():
        if links.get(head.sequence) != head.link:
            faults.append(f"{name}: signed row {head.sequence} as {head.link[:12]}…, which the chain does not have")
    return faults


def _head(connection: Connection) -> Head:
    query = sa.select(_CHAIN.c.sequence, _CHAIN.c.link).order_by(_CHAIN.c.sequence.desc()).limit(1)
    found = connection.execute(query).one_or_none()
    return Head(0, START) if found is None else Head(found.sequence, found.link)


def _row(found: sa.Row[Any]) -> AuditRow:
    content = None if found.content is None else json.loads(found.content)
    sealed = content is None or _commitment(found.salt, found.content) == found.commitment
    return AuditRow(
        found.sequence, found.time, found.tenant, found.action, found.commitment, found.link, content, sealed
    )


def _commitment(salt: str, content: str) -> str:
    return hashlib.sha256(f"{salt}\n{content}".encode()).hexdigest()


def _link(before: str, sequence: int, time: float, tenant: str, action: str, commitment: str) -> str:
    sealed = json.dumps([before, sequence, float(time).hex(), tenant, action, commitment])
    return hashlib.sha256(sealed.encode()).hexdigest()
