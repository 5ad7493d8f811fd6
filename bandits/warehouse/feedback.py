"""The warehouse -> the log that learners read, by columns: equal to `rewards.fold`, to the last bit, and much faster.

Rows are asked for in spans of positions. What stands at a position never changes, so the file may be closed between
two spans (and a loader may write meanwhile): all spans up to one position are still one consistent log.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bandits.config import DomainConfig
from bandits.errors import ContextError, WarehouseError
from bandits.rewards import over
from bandits.types import Actions, Context, LoggedFeedback, Mask, Matrix, Scope, Slot, Vector
from bandits.warehouse import joining
from bandits.warehouse.joining import Came
from bandits.warehouse.tables import PATIENCE_S, TELLING, opened, position

_WHOLE = 262_144  # decisions of a span when all are read at once
# Without ORDER BY: rows of one scope are stored in order of position (loading.py), and LIMIT then reads no further.
_DECISIONS = (
    'SELECT position, id, time, arms, action, probabilities, context, "user" FROM decisions_{d} '
    'WHERE tenant = $tenant AND workspace = $workspace AND domain = $domain AND "schema" = $schema '
    "AND position > $after AND position <= $head AND time >= $since AND time < $until "
    "AND NOT forced AND slot <> $shadow LIMIT $limit"
)
_OUTCOMES = (
    "SELECT decision, time, quality, cost_usd, latency_s, vote FROM {telling} "
    "WHERE tenant = $tenant AND workspace = $workspace AND domain = $domain "
    "AND decision >= $first AND decision <= $last AND position <= $head"
)
_WIDTHS = (
    "SELECT width FROM series WHERE tenant = $tenant AND workspace = $workspace AND domain = $domain "
    'AND "schema" = $schema ORDER BY width'
)

_Open = Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is read: a scope under a configuration, as of a time, and decisions of a span of time."""

    scope: Scope
    config: DomainConfig
    now: float
    since: float
    until: float

    def mine(self) -> dict[str, Any]:
        """The scope, as parameters of a query."""
        return {"tenant": self.scope.tenant, "workspace": self.scope.workspace, "domain": self.scope.domain}


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """A span of decisions that were drawn and played, n of them, as columns."""

    positions: NDArray[np.int64]
    ids: pa.Array
    times: Vector
    arms: pa.DictionaryArray  # JSON lists of names
    actions: Actions
    probabilities: Vector  # one after another; `starts` says where each begins
    starts: NDArray[np.int64]
    contexts: Context  # (n, d)
    users: pa.DictionaryArray  # pseudonyms, each stored once


def read_feedback(
    path: Path,
    scope: Scope,
    config: DomainConfig,
    now: float,
    since: float | None = None,
    until: float | None = None,
    *,
    patience_s: float = PATIENCE_S,
) -> LoggedFeedback:
    """The log of `scope`, equal to `rewards.feedback` on the rows that were loaded, bit for bit.

    now: UTC, seconds since the epoch; closes reward windows. since, until: decisions of this span of time only, the
    first included, the second not (UTC seconds); their outcomes count whenever they came.
    Raises WarehouseError (missing, locked, corrupt, of another version) and ContextError as `rewards.fold` does.
    """
    asked = _asked(scope, config, now, since, until)
    with opened(path, patience_s=patience_s) as connection:
        return _joined(list(_batches(lambda: nullcontext(connection), asked, _WHOLE)))


def feedback_batches(
    path: Path,
    scope: Scope,
    config: DomainConfig,
    now: float,
    *,
    since: float | None = None,
    until: float | None = None,
    batch: int = 65_536,
    patience_s: float = PATIENCE_S,
) -> Iterator[LoggedFeedback]:
    """What `read_feedback` reads, in pieces: in order of the record, one after another, the same log.

    Each piece holds the rounds of up to `batch` decisions and counts its own `missing`; `position` is that of the
    whole. There is at least one, and any may be without rounds. The file is closed between two pieces, so a loader can
    write meanwhile; what it brings is not read. Memory: some 100 bytes and one context per decision of a piece.
    Raises as `read_feedback` does; ContextError possibly after some pieces.
    """
    if batch < 1:
        raise WarehouseError(f"a batch must hold a decision or more, but got {batch}.")
    return _batches(partial(opened, path, patience_s=patience_s), _asked(scope, config, now, since, until), batch)


def _asked(scope: Scope, config: DomainConfig, now: float, since: float | None, until: float | None) -> _Asked:
    return _Asked(scope, config, now, -np.inf if since is None else since, np.inf if until is None else until)


def _batches(connect: _Open, asked: _Asked, limit: int) -> Iterator[LoggedFeedback]:
    with connect() as connection:
        head = position(connection)
        rows = connection.execute(_WIDTHS, asked.mine() | {"schema": asked.config.features}).fetchall()
    kept: dict[int, str] = {}  # width -> a decision that has it
    told = False
    for (width,) in rows:
        after: int | None = 0
        while after is not None:
            with connect() as connection:
                drawn = _drawn(connection, asked, width, after, head, limit)
                came = _came(connection, asked, drawn, head) if len(drawn.positions) else None
            after = int(drawn.positions[-1]) if len(drawn.positions) == limit else None
            if came is None:
                continue
            found = _folded(drawn, came, asked, head)
            if len(found):
                kept.setdefault(width, found.ids[0])
                _check_widths(kept, asked.config.features)
            told = True
            yield found
    if not told:
        yield _empty(asked.config, head)


def _drawn(
    connection: duckdb.DuckDBPyConnection, asked: _Asked, width: int, after: int, head: int, limit: int
) -> _Drawn:
    """The next span of decisions of this width."""
    parameters = asked.mine() | {"schema": asked.config.features, "after": after, "head": head, "limit": limit}
    parameters |= {"since": asked.since, "until": asked.until, "shadow": str(Slot.SHADOW)}
    found = connection.sql(_DECISIONS.format(d=int(width)), params=parameters).to_arrow_table()
    column = {name: _one(found.column(name)) for name in found.column_names}
    positions = column["position"].to_numpy()
    if (np.diff(positions) <= 0).any():
        raise WarehouseError(
            f"rows of a scope must be stored in order of position, but those of {asked.scope} are not; delete the "
            "warehouse and run `pilotage load`."
        )
    offsets = column["probabilities"].offsets.to_numpy()
    return _Drawn(
        positions,
        column["id"],
        column["time"].to_numpy(),
        column["arms"].dictionary_encode(),
        column["action"].to_numpy().astype(np.int64),
        column["probabilities"].values.to_numpy(),
        offsets[:-1].astype(np.int64),
        column["context"].flatten().to_numpy().reshape(len(positions), width),
        column["user"].dictionary_encode(),
    )


def _one(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _came(connection: duckdb.DuckDBPyConnection, asked: _Asked, drawn: _Drawn, head: int) -> Came:
    """What came back for these decisions."""
    span = {"first": int(drawn.positions[0]), "last": int(drawn.positions[-1]), "head": head}
    query = _OUTCOMES.format(telling=TELLING[asked.config.reward.fallback])
    found = connection.sql(query, params=asked.mine() | span).to_arrow_table()
    column = {name: _numbers(found.column(name)) for name in found.column_names}
    rounds = np.searchsorted(drawn.positions, column["decision"])
    known = drawn.positions[rounds] == column["decision"]  # the others are about forced decisions, or other schemas
    return Came(
        rounds[known],
        column["time"][known],
        column["quality"][known],
        column["cost_usd"][known],
        column["latency_s"][known],
        column["vote"][known],
    )


def _numbers(column: pa.ChunkedArray) -> NDArray[Any]:
    if pa.types.is_floating(column.type):
        column = pc.fill_null(column, np.nan)
    return column.to_numpy()


def _folded(drawn: _Drawn, came: Came, asked: _Asked, head: int) -> LoggedFeedback:
    n = len(drawn.positions)
    rewards = joining.rewards(drawn.times, came, asked.now, asked.config.reward)
    actions, probabilities = _over_configured(drawn, asked.config.arm_names)
    kept: Mask = ~np.isnan(rewards) & (actions >= 0)
    costs = joining.costs(n, came)
    missing = n - int(kept.sum())
    if missing:
        actions, probabilities, rewards, costs = actions[kept], probabilities[kept], rewards[kept], costs[kept]
    return LoggedFeedback(
        arms=asked.config.arm_names,
        schema=asked.config.features,
        ids=tuple((drawn.ids.filter(pa.array(kept)) if missing else drawn.ids).to_pylist()),
        # Copies, not views: memory that DuckDB lent keeps all of it alive, and it complains at the end of the process.
        times=drawn.times[kept] if missing else drawn.times.copy(),
        contexts=drawn.contexts[kept] if missing else drawn.contexts.copy(),
        actions=actions,
        propensities=probabilities[np.arange(len(actions)), actions],
        probabilities=probabilities,
        rewards=rewards,
        costs=costs,
        missing=missing,
        position=head,
        users=_named(drawn.users, kept),
    )


def _named(users: pa.DictionaryArray, kept: Mask) -> tuple[str, ...]:
    """Pseudonyms of the rounds that were kept: one text each, however many rounds have it."""
    texts = users.dictionary.to_pylist()
    return tuple([texts[code] for code in users.indices.to_numpy()[kept].tolist()])


def _over_configured(drawn: _Drawn, arms: tuple[str, ...]) -> tuple[Actions, Matrix]:
    """Actions and probabilities over the arms configured now; -1 and zeros where the action's arm is gone."""
    codes = drawn.arms.indices.to_numpy()
    actions = np.full(len(codes), -1, np.int64)
    probabilities = np.zeros((len(codes), len(arms)))
    for code, text in enumerate(drawn.arms.dictionary.to_pylist()):
        logged = tuple(json.loads(text))
        now = np.array([arms.index(arm) if arm in arms else -1 for arm in logged])
        rows = np.flatnonzero(codes == code)
        mapped = now[drawn.actions[rows]]
        rows, mapped = rows[mapped >= 0], mapped[mapped >= 0]
        actions[rows] = mapped
        table = drawn.probabilities[drawn.starts[rows][:, None] + np.arange(len(logged))]
        probabilities[rows] = over(arms, logged, table)
    return actions, probabilities


def _check_widths(kept: dict[int, str], schema: str) -> None:
    if len(kept) > 1:
        (one, one_id), (other, other_id) = list(kept.items())[:2]
        raise ContextError(
            f"contexts of one schema must have one length, but {schema!r} has {one} in decision "
            f"{one_id} and {other} in {other_id}; give changed features a new name or version."
        )


def _joined(parts: list[LoggedFeedback]) -> LoggedFeedback:
    """One log of several that follow each other."""
    some = [part for part in parts if len(part)]
    missing = sum(part.missing for part in parts)
    if len(some) <= 1:
        only = some[0] if some else replace(parts[0], contexts=np.zeros((0, 0), np.float32))
        return replace(only, missing=missing)
    return replace(
        some[0],
        ids=tuple(id_ for part in some for id_ in part.ids),
        times=np.concatenate([part.times for part in some]),
        contexts=np.concatenate([part.contexts for part in some]),
        actions=np.concatenate([part.actions for part in some]),
        propensities=np.concatenate([part.propensities for part in some]),
        probabilities=np.concatenate([part.probabilities for part in some]),
        rewards=np.concatenate([part.rewards for part in some]),
        costs=np.concatenate([part.costs for part in some]),
        missing=missing,
        users=tuple(user for part in some for user in part.users),
    )


def _empty(config: DomainConfig, head: int) -> LoggedFeedback:
    none, k = np.zeros(0), len(config.arms)
    contexts, probabilities = np.zeros((0, 0), np.float32), np.zeros((0, k))
    actions = np.zeros(0, np.int64)
    return LoggedFeedback(
        config.arm_names, config.features, (), none, contexts, actions, none, probabilities, none, none, 0, head
    )
