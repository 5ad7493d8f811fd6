"""The book of orders: what serves each scope, signed, in the database of the record.

    rollout_orders   scope, number → canonical JSON of an Order, and its signature. Rows are only added.
    rollout_leases   scope → token, and the lease under which the canary of the newest order may serve

Who reads believes a signature of a trusted key and a number that is no lower than one seen before; else the last good
order stays. Who writes names the token that it read before it looked at the evidence: each write raises it, so of two
who looked at one state only one acts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
from nacl.signing import VerifyKey
from pydantic import ValidationError
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from bandits.errors import InvalidNameError, RolloutError
from bandits.record.database import open_database
from bandits.record.tables import HEAD, META
from bandits.rollout.machine import Order
from bandits.settings.rollout import RolloutConfig
from bandits.snapshots.keys import SigningKey, signer_of
from bandits.types import Scope

LEASE_S = 4.0  # the longest that a canary serves unwatched
SKEW_S = 2.0  # that the clocks of two hosts may differ by
BUSY_S = 2.0  # that a call waits for another process's commit: a lease that comes late is none
VERSION = 1  # of the tables; those of another version are refused

TABLES = sa.MetaData()
ORDERS = sa.Table(
    "rollout_orders",
    TABLES,
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("signature", sa.LargeBinary, nullable=False),
)
LEASES = sa.Table(
    "rollout_leases",
    TABLES,
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("token", sa.BigInteger, nullable=False),
    sa.Column("content", sa.Text, nullable=False),  # "" where there is none
    sa.Column("signature", sa.LargeBinary, nullable=False),
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Lease:
    """Leave for a canary to serve, for a few seconds. Times are UTC, seconds since the epoch."""

    scope: Scope
    order: int  # number of the order that it is for
    issued: float
    expires: float
    served: float  # seconds that the stage has served under leases so far

    def holds(self, now: float) -> bool:
        """Whether the canary may serve at `now`. One from the future, or for too long, never does."""
        return self.issued - SKEW_S <= now < self.expires <= self.issued + LEASE_S


class Seen(NamedTuple):
    """What the book says of a scope, and what a write has to name."""

    order: Order | None  # the newest that is good
    lease: Lease | None  # for that order; it may have expired
    highest: int  # number taken, good or not
    token: int
    head: int  # position of the record's last row
    fault: str | None  # why the newest order, or the lease, is not believed


class OrderBook:
    """Orders of all scopes at the URL of a record."""

    def __init__(self, url: str, trusted: Mapping[str, VerifyKey], *, busy_s: float = BUSY_S) -> None:
        """Connects to nothing yet; the record must be there, see `make`. Raises RecordError for a bad URL."""
        self._database, self.trusted = open_database(url, busy_s), dict(trusted)
        self._last: dict[Scope, Order] = {}
        self._good: dict[Scope, tuple[int, str, bytes]] = {}  # the row that it was read from
        self._there = False

    def make(self) -> None:
        """Make the tables where there are none. Raises RolloutError."""
        with self._transaction(self._database.writing) as connection:
            connection.execute(sa.select(META.c.value).where(META.c.key == "record").with_for_update())
            if self._version(connection) is None:
                TABLES.create_all(connection)
                connection.execute(sa.insert(META), [{"key": "rollouts", "value": str(VERSION)}])

    def read(self, scope: Scope) -> Seen:
        """The newest good order of a scope, and its lease. Raises RolloutError where the store cannot be read."""
        with self._transaction(self._database.reading) as connection:
            if not self._is_there(connection):
                return Seen(None, None, 0, 0, 0, None)
            query = sa.select(ORDERS).where(ORDERS.c.scope == str(scope)).order_by(ORDERS.c.number.desc())
            found = connection.execute(query.limit(1)).one_or_none()
            order, fault = self._believed(scope, found)
            if fault is not None:  # what came before it may be good
                for row in connection.execute(query.offset(1)):
                    order, worse = self._believed(scope, row)
                    if worse is None:
                        break
            highest = 0 if found is None else int(found.number)
            kept = connection.execute(sa.select(LEASES).where(LEASES.c.scope == str(scope))).one_or_none()
            head = int(connection.execute(sa.select(HEAD.c.position)).scalar_one())
        last = self._last.get(scope)
        if last is not None and (order is None or order.number < last.number):
            fault = fault or f"order {last.number} of {scope} was given, but now the highest is {highest}; it stays"
            order = last
        if order is not None:
            self._last[scope] = order
        lease, odd = self._lease(scope, order, kept)
        return Seen(order, lease, highest, 0 if kept is None else int(kept.token), head, fault or odd)

    def history(self, scope: Scope) -> list[Order]:
        """Every good order of a scope, lowest first. Raises RolloutError."""
        with self._transaction(self._database.reading) as connection:
            if not self._is_there(connection):
                return []
            query = sa.select(ORDERS).where(ORDERS.c.scope == str(scope)).order_by(ORDERS.c.number)
            believed = [self._believed(scope, row)[0] for row in connection.execute(query)]
        return [order for order in believed if order is not None]

    def place(self, order: Order, key: SigningKey, seen: Seen, lease: Lease | None = None) -> Order | None:
        """Write the order that follows `seen`, under the next free number; None if somebody else acted since.

        lease: to begin with, where it gives a canary something to serve. Raises RolloutError.
        """
        placed = replace(order, number=seen.highest + 1)
        first = None if lease is None else replace(lease, order=placed.number)
        content = encode(placed)
        with self._transaction(self._database.writing) as connection:
            if not self._claim(connection, placed.scope, seen, first, key):
                return None
            values = {"scope": str(placed.scope), "number": placed.number, "content": content.decode()}
            connection.execute(sa.insert(ORDERS), [values | {"signature": key.sign(content)}])
        self._last[placed.scope] = placed
        return placed

    def renew(self, lease: Lease, key: SigningKey, seen: Seen) -> bool:
        """Write a lease; False if somebody else acted since. Raises RolloutError."""
        with self._transaction(self._database.writing) as connection:
            return self._claim(connection, lease.scope, seen, lease, key)

    def close(self) -> None:
        """Let go of the database."""
        self._database.writing.dispose()

    def _claim(self, connection: Connection, scope: Scope, seen: Seen, lease: Lease | None, key: SigningKey) -> bool:
        """Raise the token, if it and the highest number are still what was seen, and put down the lease with it."""
        mine = LEASES.c.scope == str(scope)
        held = sa.select(LEASES.c.token).where(mine).with_for_update()
        if (token := connection.execute(held).scalar()) is None:  # no row to hold yet: of the first two, one waits here
            connection.execute(sa.select(META.c.value).where(META.c.key == "rollouts").with_for_update())
            token = connection.execute(held).scalar()
        highest = connection.execute(sa.select(sa.func.max(ORDERS.c.number)).where(ORDERS.c.scope == str(scope)))
        if (token or 0) != seen.token or (highest.scalar() or 0) != seen.highest:
            return False
        content = b"" if lease is None else encode(lease)
        values = {"token": seen.token + 1, "content": content.decode(), "signature": key.sign(content)}
        if token is None:
            connection.execute(sa.insert(LEASES), [values | {"scope": str(scope)}])
        else:
            connection.execute(sa.update(LEASES).where(mine).values(**values))
        return True

    def _believed(self, scope: Scope, row: sa.Row[Any] | None) -> tuple[Order | None, str | None]:
        if row is None:
            return None, None
        content, place = row.content.encode(), f"order {row.number} of {scope}"
        known = int(row.number), row.content, bytes(row.signature)
        if scope in self._last and self._last[scope].number == row.number and self._good.get(scope) == known:
            return self._last[scope], None  # verified before
        if signer_of(content, row.signature, self.trusted) is None:
            return None, f"{place} must be signed by a trusted key, but is not; the last good one stays"
        try:
            order = decode(content, Order)
        except RolloutError as error:
            return None, f"{place}: {error}"
        if (order.scope, order.number) != (scope, row.number):
            return None, f"{place} must be of that scope and number, but was signed as {order.scope} {order.number}"
        self._good[scope] = known
        return order, None

    def _lease(self, scope: Scope, order: Order | None, row: sa.Row[Any] | None) -> tuple[Lease | None, str | None]:
        if row is None or not row.content or order is None or order.phase != "canary":
            return None, None
        content = row.content.encode()
        if signer_of(content, row.signature, self.trusted) is None:
            return None, f"the lease of {scope} must be signed by a trusted key, but is not"
        try:
            lease = decode(content, Lease)
        except RolloutError as error:
            return None, f"the lease of {scope}: {error}"
        return (lease if (lease.scope, lease.order) == (scope, order.number) else None), None

    def _is_there(self, connection: Connection) -> bool:
        if not self._there and META.name in (names := sa.inspect(connection).get_table_names()):
            self._there = ORDERS.name in names and self._version(connection) is not None
        return self._there

    def _version(self, connection: Connection) -> str | None:
        found = connection.execute(sa.select(META.c.value).where(META.c.key == "rollouts")).scalar()
        if found not in (None, str(VERSION)):
            raise RolloutError(
                f"a book of orders must have version {VERSION}, but {self._database.shown} has {found!r}. Open it with "
                "the Pilotage that wrote it or a newer one."
            )
        return found

    @contextmanager
    def _transaction(self, engine: sa.Engine) -> Iterator[Connection]:
        failures: tuple[type[Exception], ...] = (DBAPIError, PoolTimeoutError, *self._database.failures)
        try:
            with engine.begin() as connection:
                yield connection
        except failures as error:
            said = error.orig if isinstance(error, DBAPIError) else error
            raise RolloutError(
                f"orders must be read and written beside the record, but {self._database.shown} says: {said}. What "
                "serves goes on; a canary stops when its lease ends."
            ) from error


def encode(what: Order | Lease) -> bytes:
    """Canonical JSON, in ASCII, that names what it is: a signature of one kind is none of the other."""
    data = {"kind": type(what).__name__.lower(), **{name: getattr(what, name) for name in what.__slots__}}
    data |= {"scope": str(what.scope)}
    if isinstance(what, Order):
        data |= {"terms": what.terms.model_dump(mode="json")}
    try:
        return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (TypeError, ValueError) as error:
        raise RolloutError(f"an order must be plain, finite JSON, but: {error}; in {what.scope}.") from None


def decode(content: bytes, kind: type[_T]) -> _T:
    """What was encoded; raises RolloutError for anything else."""
    try:
        data = json.loads(content)
        if data.pop("kind") != kind.__name__.lower():
            raise ValueError("it is of another kind")
        data["scope"] = Scope.parse(data["scope"])
        if kind is Order:
            data["terms"] = RolloutConfig.model_validate(data["terms"])
        found = kind(**data)
        numbers = [value for value in asdict(found).values() if isinstance(value, float)]  # type: ignore[call-overload]
        if not all(map(math.isfinite, numbers)):
            raise ValueError("its numbers must be finite")
    except (ValueError, TypeError, KeyError, AttributeError, InvalidNameError, ValidationError) as error:
        raise RolloutError(f"it must be an order or lease of version {VERSION}, but: {error!r:.200}") from None
    return found
