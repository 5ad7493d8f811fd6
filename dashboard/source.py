"""What the pages read: the warehouse read-only and for one query at a time, the record's newest rows, the snapshots."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np

from bandits.config import DomainConfig
from bandits.home import Home
from bandits.monitoring.kpis import REPORTED
from bandits.record.port import Record
from bandits.rollout.giving import standing
from bandits.served import first_policy
from bandits.snapshots.keys import trusted_keys
from bandits.snapshots.loading import list_versions
from bandits.types import Scope, Slot
from bandits.warehouse.loading import Run, opened, read_runs
from bandits.what_if import counterfactual
from bandits.what_if.counterfactual import Log
from bandits.what_if.evaluate import EVALUATED
from dashboard import words
from dashboard.figures import DAY_S, Active, Draws, Tail, active, tail

PATIENCE_S = 1.0  # a person waits for the page: say soon that another process has the warehouse
NEWEST = 2_000  # rows of the record beyond the warehouse that are looked at
_DAYS = (
    "SELECT DISTINCT tenant, workspace, domain, CAST(floor(time / 86400) AS BIGINT) AS day FROM decisions ORDER BY day"
)
_DRAWS = (
    "WITH paid AS (SELECT decision_id, sum(cost_usd) AS usd FROM outcomes "
    "WHERE tenant = $1 AND workspace = $2 AND domain = $3 GROUP BY decision_id) "
    "SELECT time, arm, coalesce(usd, CAST('nan' AS DOUBLE)) AS usd, "
    'NOT forced AND slot <> $7 AND "schema" = $6 AS drawn '
    "FROM decisions LEFT JOIN paid ON decision_id = id "
    "WHERE tenant = $1 AND workspace = $2 AND domain = $3 AND time >= $4 AND time < $5 ORDER BY position"
)


def start_of(day: date) -> float:
    """First second of a UTC day, since the epoch."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def days(path: Path) -> dict[Scope, list[date]]:
    """UTC days on which each scope decided something, oldest first. Raises WarehouseError."""
    found: defaultdict[Scope, list[date]] = defaultdict(list)
    with opened(path, patience_s=PATIENCE_S) as connection:
        for *names, day in connection.execute(_DAYS).fetchall():
            found[Scope(*names)].append(datetime.fromtimestamp(day * DAY_S, UTC).date())
    return dict(found)


def draws(path: Path, scope: Scope, domain: DomainConfig, day: date) -> Draws:
    """Every decision of the day with what it cost. Raises WarehouseError."""
    start = start_of(day)
    values = [scope.tenant, scope.workspace, scope.domain, start, start + DAY_S, domain.features, str(Slot.SHADOW)]
    with opened(path, patience_s=PATIENCE_S) as connection:
        columns = connection.execute(_DRAWS, values).fetchnumpy()
    return Draws(
        start=start,
        times=np.asarray(columns["time"], np.float64),
        arms=[str(arm) for arm in columns["arm"]],
        costs=np.asarray(columns["usd"], np.float64),
        drawn=np.asarray(columns["drawn"], np.bool_),
    )


def log(path: Path, scope: Scope, domain: DomainConfig, now: float) -> Log:
    """The scope's log with the policy version of each round. now: UTC seconds. Raises WarehouseError."""
    return counterfactual.read(path, scope, domain, now, patience_s=PATIENCE_S)


def last_run(path: Path, scope: Scope) -> Run | None:
    """The latest nightly run of the scope. Raises WarehouseError."""
    runs = [run for run in read_runs(path, scope, patience_s=PATIENCE_S) if run["verdict"] not in (EVALUATED, REPORTED)]
    return runs[-1] if runs else None


def position(path: Path) -> int:
    """Position of the record up to which the warehouse reaches. Raises WarehouseError."""
    with opened(path, patience_s=PATIENCE_S) as connection:
        (reached,) = connection.execute("SELECT position FROM meta").fetchall()[0]
    return int(reached)


def active_policy(place: Home, scope: Scope, domain: DomainConfig, now: float) -> Active:
    """The policy that a server started now would serve to most. Raises KeyFileError, RolloutError."""
    listed = list_versions(place.snapshots, scope, trusted=trusted_keys(place.root), now=now)
    order, first = standing(place, scope), first_policy(domain).version
    if order is None:
        return active(listed, first)
    found = active([one for one in listed if one.version == order.stable], first)
    told = f"serves {words.percent(order.share)} of users" if order.phase == "canary" else "waits for approval"
    return replace(found, rollout=f"{order.candidate} {told}") if order.active else found


def newest(record: Record, reached: int, scope: Scope) -> Tail:
    """What the record holds beyond the warehouse, in its next NEWEST rows. Raises RecordError."""
    return tail(record.read(reached, NEWEST), scope)
