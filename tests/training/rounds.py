"""Rounds for the facts about passes and folds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bandits.learners.slab import DAY_S, Slab
from bandits.learners.sums import Sums
from bandits.training.fold import Held
from bandits.types import Decision, Outcome, Scope
from tests.logs import domain, simulate

SCOPE = Scope("acme", "main", "model_routing")
DOMAIN = domain(1.5e-3)


def slab_of(n: int, seed: int, days: int = 5) -> Slab:
    """n events over some days, a few of unknown cost."""
    log = simulate(n, seed)
    rng = np.random.default_rng(seed)
    costs = np.where(rng.random(n) < 0.1, np.nan, log.costs)
    return Slab.of(replace(log, costs=costs, times=rng.uniform(0.0, days * DAY_S, n)))


def same(one: Sums, other: Sums) -> bool:
    return one.arrays.keys() == other.arrays.keys() and all(
        array.tobytes() == other[name].tobytes() for name, array in one.arrays.items()
    )


def in_parts(slab: Slab, cuts: list[int]) -> list[Held]:
    return [Held(slab.where(rows)) for rows in np.split(np.arange(len(slab)), cuts)]


def entries(n: int, scope: Scope, schema: str, arms: tuple[str, ...], start: float, days: float = 5.0):
    """n decisions over some days, eight of nine with an outcome, as a record holds them."""
    rounds = simulate(n, 11)
    rng = np.random.default_rng(0)
    contexts = np.hstack([rounds.contexts, rng.normal(size=(n, 74))]).astype(np.float32)
    times = start + np.sort(rng.uniform(0.0, days * DAY_S, n))
    for i, at in enumerate(times.tolist()):
        action = int(rounds.actions[i])
        yield Decision(
            id=f"{i:032x}",
            time=at,
            scope=scope,
            schema=schema,
            context=contexts[i, : 2 if schema == "vector-2" else None],
            arms=arms,
            excluded={},
            probabilities=rounds.probabilities[i],
            action=action,
            propensity=float(rounds.probabilities[i, action]),
            policy="explore",
        )
        if i % 9:
            cost, quality = float(rounds.costs[i]), float(rounds.rewards[i])
            yield Outcome(f"{i:032x}", at + 5.0, scope, quality=quality, cost_usd=cost)
