"""Who was given what, and what came of it: a fold over the warehouse, one row a unit. Nothing of it is stored.

A unit is first exposed by the first decision that counts for the experiment. Its outcome is the mean reward of its
decisions over the `outcome_days` from then on, by what had come back when these were over (decisions after the end of
the experiment do not count). So it is the same however late one looks, and units in order of first exposure are a
sequence that only grows at its end. What was known of a unit before (`before`) is what CUPED adjusts by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bandits.config import DomainConfig
from bandits.experiments.serving import HOLDBACK, Experiments, Running
from bandits.types import Actions, Mask, Scope, Slot, Vector
from bandits.warehouse import joining
from bandits.warehouse.joining import Came
from bandits.warehouse.tables import PATIENCE_S, TELLING, opened

DAY_S = 86_400.0
BEFORE_S = 28 * DAY_S  # how far back what was known of a unit goes
_DECISIONS = (
    'SELECT position, id, time, "user", policy, slot FROM decisions WHERE tenant = $tenant AND '
    "workspace = $workspace AND domain = $domain AND time >= $since AND time < $until AND NOT forced "
    "AND slot <> $shadow ORDER BY position"
)
_OUTCOMES = (  # as served: an experiment asks what people got, whichever arm answered
    f"SELECT o.decision, o.time, o.quality, o.cost_usd, o.latency_s, o.vote FROM {TELLING['as_served']} o "  # noqa: S608
    "WHERE o.tenant = $tenant AND o.workspace = $workspace AND o.domain = $domain AND o.decision IS NOT NULL "
    "AND o.decision >= $first AND o.decision <= $last"
)
_MEASURED = ("time", "quality", "cost_usd", "latency_s")


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Decisions of a scope that were drawn and played, n of them in order of the record, and what came back."""

    ids: Sequence[str]
    times: Vector  # (n,) UTC, seconds since the epoch
    users: Sequence[str]  # pseudonyms
    policies: Sequence[str]  # versions that acted
    slots: Sequence[str]
    came: Came


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """The units of one experiment, m of them in order of first exposure."""

    names: tuple[str, ...]
    variants: Actions  # (m,) index into the experiment's variants
    first: Vector  # (m,) time of the first exposure
    ripe: Mask  # (m,) whose outcome days are over
    rewards: Vector  # (m,) mean over the outcome days; NaN where nothing is known, or not ripe
    costs: Vector  # (m,) USD per request, likewise
    before: Vector  # (m,) mean reward before the first exposure, NaN where there was none
    strayed: Mask  # (m,) some decision was not served as assigned
    decisions: Actions  # (m,) exposed ones

    def __len__(self) -> int:
        return len(self.names)


def read(path: Path, scope: Scope, since: float, until: float, *, patience_s: float = PATIENCE_S) -> Rows:
    """The decisions of `scope` from `since` on and before `until` (UTC seconds). Raises WarehouseError."""
    mine = {"tenant": scope.tenant, "workspace": scope.workspace, "domain": scope.domain}
    asked = mine | {"since": since, "until": until, "shadow": str(Slot.SHADOW)}
    with opened(path, patience_s=patience_s) as connection:
        found = connection.execute(_DECISIONS, asked).fetchnumpy()
        positions = np.asarray(found["position"], np.int64)
        ends = {"first": int(positions[0]), "last": int(positions[-1])} if len(positions) else {"first": 0, "last": -1}
        came = connection.execute(_OUTCOMES, mine | ends).fetchnumpy()
    decided = np.asarray(came["decision"], np.int64)
    rounds = np.searchsorted(positions, decided)
    known = positions[np.minimum(rounds, max(len(positions) - 1, 0))] == decided if len(positions) else decided < 0
    time, quality, cost, latency = (np.ma.filled(came[name], np.nan).astype(np.float64)[known] for name in _MEASURED)
    return Rows(
        ids=[str(one) for one in found["id"]],
        times=np.asarray(found["time"], np.float64),
        users=[str(one) for one in found["user"]],
        policies=[str(one) for one in found["policy"]],
        slots=[str(one) for one in found["slot"]],
        came=Came(rounds[known], time, quality, cost, latency, np.asarray(came["vote"], np.int8)[known]),
    )


def units(rows: Rows, experiments: Experiments, one: Running, domain: DomainConfig, now: float) -> Units:
    """Fold `rows`, from BEFORE_S before the start of the experiment until its end, into its units.

    now: UTC, seconds since the epoch; no row is later.
    """
    names, first, variants = _exposed(rows, experiments, one)
    index = {name: i for i, name in enumerate(names)}
    mine = np.array(
        [index.get(one.unit(user, id_), -1) for user, id_ in zip(rows.users, rows.ids, strict=True)], np.int64
    )
    window, silence = (
        one.config.outcome_days * DAY_S,
        domain.reward.window_s if domain.reward.default is not None else 0,
    )
    began = np.append(first, np.inf)[mine]  # of the unit of each decision; inf for those of nobody here
    after = (rows.times >= began) & (rows.times < began + window)
    before = (rows.times >= began - BEFORE_S) & (rows.times + silence < began)
    until = np.where(after, began + window + silence, np.where(before, began, -np.inf))
    came = _heard(rows.came, rows.came.times < until[rows.came.rounds])
    rewards, costs = joining.rewards(rows.times, came, now, domain.reward), joining.costs(len(rows.times), came)
    ripe = first + window + silence <= now
    m = len(names)
    served = _served_as_assigned(rows, one, np.append(variants, -1)[mine]) | (rows.times < began)
    return Units(
        names=names,
        variants=variants,
        first=first,
        ripe=ripe,
        rewards=np.where(ripe, _means(rewards, mine, after, m), np.nan),
        costs=np.where(ripe, _means(costs, mine, after, m), np.nan),
        before=_means(rewards, mine, before, m),
        strayed=np.bincount(mine[~served], minlength=m).astype(np.bool_),
        decisions=np.bincount(mine[rows.times >= began], minlength=m),
    )


def _exposed(rows: Rows, experiments: Experiments, one: Running) -> tuple[tuple[str, ...], Vector, Actions]:
    """Names, time of first exposure and variant of the units, in that order."""
    places = {name: i for i, name in enumerate(one.config.variants)}
    found: dict[str, tuple[float, int]] = {}
    for id_, user, time in zip(rows.ids, rows.users, rows.times.tolist(), strict=True):
        unit = one.unit(user, id_)
        if unit not in found and (given := experiments.exposure(one, user, id_, time)) is not None:
            found[unit] = (time, places[given])
    order = sorted(found, key=lambda unit: found[unit][0])
    first = np.array([found[unit][0] for unit in order], np.float64)
    return tuple(order), first, np.array([found[unit][1] for unit in order], np.int64)


def _served_as_assigned(rows: Rows, one: Running, given: Actions) -> Mask:
    """Whether each decision, (n,), logs the policy of the variant that its unit was given (-1: of none)."""
    wanted = [
        None if one.policies[name] is None else (config.policy, str(one.slot))
        for name, config in one.config.variants.items()
    ]
    forced = [str(Slot.HOLDBACK)] if one.name == HOLDBACK else [str(Slot.HOLDBACK), str(Slot.EXPERIMENT)]
    return np.array(
        [
            place < 0 or (slot not in forced if wanted[place] is None else (policy, slot) == wanted[place])
            for place, policy, slot in zip(given.tolist(), rows.policies, rows.slots, strict=True)
        ],
        np.bool_,
    )


def _heard(came: Came, kept: Mask) -> Came:
    numbers = (column[kept] for column in (came.times, came.quality, came.cost_usd, came.latency_s))
    time, quality, cost, latency = numbers
    return Came(came.rounds[kept], time, quality, cost, latency, came.vote[kept])


def _means(values: Vector, mine: Actions, rows: Mask, m: int) -> Vector:
    """Mean of the known values of each unit, (m,), NaN where none is known."""
    known = rows & (mine >= 0) & ~np.isnan(values)
    count = np.bincount(mine[known], minlength=m)
    total = np.bincount(mine[known], values[known], minlength=m)
    return np.divide(total, count, out=np.full(m, np.nan), where=count > 0)
